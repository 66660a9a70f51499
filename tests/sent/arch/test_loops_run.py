"""The timing loops of every architecture, executed by Unicorn: what they call, compare, copy and
record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import unicorn
from unicorn import arm64_const, riscv_const, x86_const
from unicorn.unicorn import Uc

from kvmscen.sent.timing import loop
from kvmscen.sent.timing.loop import RECORD, KnownExit

CODE, CONTEXT, RUN, ROWS, RECORDS, RING, HELD, STACK = (0x10000 * n for n in range(1, 9))
END = 0xF0000
KVM_RUN = 0xAE80
ILLEGAL = 2


class Cpu(NamedTuple):
    """How an architecture is called and calls: Unicorn's names of it, and the number of ioctl."""

    make: Callable[[], Any]
    argument: int
    result: int
    call: tuple[int, ...]  # number, descriptor, request, argument
    answer: int
    number: int


CPUS = {
    "x86_64": Cpu(
        lambda: Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64),
        x86_const.UC_X86_REG_RDI,
        x86_const.UC_X86_REG_RAX,
        (
            x86_const.UC_X86_REG_RAX,
            x86_const.UC_X86_REG_RDI,
            x86_const.UC_X86_REG_RSI,
            x86_const.UC_X86_REG_RDX,
        ),
        x86_const.UC_X86_REG_RAX,
        16,
    ),
    "arm64": Cpu(
        lambda: Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM),
        arm64_const.UC_ARM64_REG_X0,
        arm64_const.UC_ARM64_REG_X0,
        tuple(arm64_const.UC_ARM64_REG_X0 + n for n in (8, 0, 1, 2)),
        arm64_const.UC_ARM64_REG_X0,
        29,
    ),
    "riscv64": Cpu(
        lambda: Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64),
        riscv_const.UC_RISCV_REG_A0,
        riscv_const.UC_RISCV_REG_A0,
        tuple(riscv_const.UC_RISCV_REG_A0 + n for n in (7, 0, 1, 2)),
        riscv_const.UC_RISCV_REG_A0,
        29,
    ),
}
pytestmark = pytest.mark.parametrize("arch", CPUS)


class Machine:
    """The loop of one architecture with its struct, rows and records in Unicorn's memory; `exits`
    plays KVM.
    """

    def __init__(
        self, arch: str, rows: list[KnownExit], most: int, exits: Callable[[int, Machine], int]
    ) -> None:
        self.cpu, self.exits, self.calls = CPUS[arch], exits, list[tuple[int, ...]]()
        self.ticks = 0
        self.uc = self.cpu.make()
        for at in (CODE, CONTEXT, RUN, ROWS, RECORDS, RING, HELD, STACK, END):
            self.uc.mem_map(at, 0x10000)
        self.uc.mem_write(CODE, loop.CODES[arch])
        packed = b"".join(row.pack() for row in rows)
        self.uc.mem_write(ROWS, packed)
        words = (
            5,
            KVM_RUN,
            RUN,
            ROWS,
            ROWS + len(packed),
            RECORDS,
            0,
            0,
            RING,
            RECORDS + RECORD.size * most,
        )
        self.uc.mem_write(CONTEXT, struct.pack("<10Q", *words))
        self._hook(arch)

    def _hook(self, arch: str) -> None:
        def called(_: object, cause: int = 0, *rest: object) -> None:
            if arch == "riscv64" and cause == ILLEGAL:
                # Unicorn has no `time`: the one instruction that reads it gets a counter of ours.
                pc = self.uc.reg_read(riscv_const.UC_RISCV_REG_PC) - 4
                (word,) = struct.unpack("<I", self.uc.mem_read(pc, 4))
                assert word & 0xFFFFF07F == 0xC0102073, f"{word:#x} at {pc:#x} is no rdtime"
                self.ticks += 1
                self.uc.reg_write(riscv_const.UC_RISCV_REG_X0 + (word >> 7 & 31), self.ticks)
                return
            self.calls.append(tuple(self.uc.reg_read(register) for register in self.cpu.call))
            self.uc.reg_write(
                self.cpu.answer, self.exits(len(self.calls) - 1, self) & (1 << 64) - 1
            )

        if arch == "x86_64":
            self.uc.hook_add(unicorn.UC_HOOK_INSN, called, None, 1, 0, x86_const.UC_X86_INS_SYSCALL)
        else:
            self.uc.hook_add(unicorn.UC_HOOK_INTR, called)

    def run(self, arch: str) -> int:
        """Call the loop; what it returns."""
        self.uc.reg_write(self.cpu.argument, CONTEXT)
        if arch == "x86_64":
            self.uc.mem_write(STACK + 0x8000, struct.pack("<Q", END))
            self.uc.reg_write(x86_const.UC_X86_REG_RSP, STACK + 0x8000)
        elif arch == "arm64":
            self.uc.reg_write(arm64_const.UC_ARM64_REG_SP, STACK + 0x8000)
            self.uc.reg_write(arm64_const.UC_ARM64_REG_X30, END)
        else:
            self.uc.reg_write(riscv_const.UC_RISCV_REG_RA, END)
        self.uc.emu_start(CODE, END, 0, 100_000)
        value = int(self.uc.reg_read(self.cpu.result))
        return value - (1 << 64) if value >> 63 else value

    def put(self, at: int, fmt: str, *values: object) -> None:
        self.uc.mem_write(at, struct.pack("<" + fmt, *values))

    def exit(self, reason: int, union: bytes = b"") -> None:
        self.put(RUN + 8, "I", reason)
        self.uc.mem_write(RUN + 32, union)

    @property
    def records(self) -> list[tuple[int, int, int]]:
        (end,) = struct.unpack("<Q", self.uc.mem_read(CONTEXT + 40, 8))
        return list(RECORD.iter_unpack(bytes(self.uc.mem_read(RECORDS, end - RECORDS))))


def mmio(address: int, data: bytes, length: int, is_write: int) -> bytes:
    return struct.pack("<Q8sIB", address, data, length, is_write)


def quiet(number: int, machine: Machine) -> int:
    return 0


def test_it_calls_kvm_run_until_the_records_are_full(arch: str) -> None:
    machine = Machine(arch, [KnownExit(0, 1, ())], 3, quiet)
    assert machine.run(arch) == 0
    assert machine.calls == [(CPUS[arch].number, 5, KVM_RUN, 0)] * 3
    assert [mask for _, _, mask in machine.records] == [1, 1, 1]
    assert all(start <= end for start, end, _ in machine.records)


def test_a_failing_call_is_its_errno(arch: str) -> None:
    machine = Machine(
        arch, [KnownExit(0, 1, ())], 3, lambda number, machine: -4 if number == 1 else 0
    )
    assert machine.run(arch) == -4
    assert len(machine.records) == 1
    # The stamps of the call that failed are there.
    start, end = struct.unpack("<QQ", machine.uc.mem_read(CONTEXT + 48, 16))
    assert machine.records[0][1] <= start <= end


def test_rows_and_conditions(arch: str) -> None:
    whole = (1 << 64) - 1
    high = 0xFFFF_FFFF_8000_0008
    rows = [
        KnownExit(6, 1, [(32, whole, high, high)]),
        KnownExit(6, 2, [(32, whole, 0x5000, whole)]),
        KnownExit(6, 4, [(32, 0xFFF, 8, 8), (52, 0xFF, 1, 1)]),
        KnownExit(6, 8, [(32, whole, 0, 0x7FFF_FFFF_FFFF_FFFF)]),
        KnownExit(2, 16, ()),
        KnownExit(
            6,
            32,
            [
                (32, whole, high, high),
                (48, 0xFFFFFFFF, 8, 8),
                (52, 0xFF, 1, 1),
                (40, 0xFF, 0x5A, 0x5A),
            ],
        ),
        KnownExit(6, 1 << 62, [(32, whole, high, high), (48, 0xFFFFFFFF, 4, 4)]),
    ]

    def exits(number: int, machine: Machine) -> int:
        machine.exit(
            *((6, mmio(high, b"Z", 8, 1)), (2,), (6, mmio(high, b"Z", 4, 0)), (17,))[number]
        )
        return 0

    machine = Machine(arch, rows, 10, exits)
    assert machine.run(arch) == 1
    assert [mask for _, _, mask in machine.records] == [1 | 2 | 4 | 32, 16, 1 | 2 | 1 << 62]


def ring_out_of_range(number: int, machine: Machine) -> int:
    machine.put(RING, "II", 7, 7)
    return 0


def test_a_ring_that_is_not_empty_is_for_python(arch: str) -> None:
    def exits(number: int, machine: Machine) -> int:
        machine.put(RING, "II", number, 2)
        return 0

    machine = Machine(arch, [KnownExit(0, 1, ())], 10, exits)
    assert machine.run(arch) == 1
    assert len(machine.calls) == 1
    machine = Machine(
        arch,
        [KnownExit(0, 1, ())],
        1,
        ring_out_of_range,
    )
    assert machine.run(arch) == 0


@pytest.mark.parametrize(
    ("action", "value", "place", "seen"),
    [
        (loop.REPLY, 0x8877665544332211, 40, (40, bytes.fromhex("1122334455667788"))),
        (loop.REPLY_AT, 0x8877665544332211, 56, (0x1000, bytes.fromhex("1122334455667788"))),
        (loop.NOTHING, 1, 40, (40, b"data....")),
    ],
)
def test_replies(arch: str, action: int, value: int, place: int, seen: tuple[int, bytes]) -> None:
    machine = Machine(arch, [KnownExit(6, 1, (), action, value, place)], 1, quiet)
    machine.exit(6, mmio(0x5000, b"data....", 8, 0))
    machine.put(RUN + 56, "Q", 0x1000)
    assert machine.run(arch) == 0
    assert machine.uc.mem_read(RUN + seen[0], 8) == seen[1]


@pytest.mark.parametrize("length", [1, 2, 4, 8])
@pytest.mark.parametrize("writes", [False, True])
def test_sections_of_bytes(arch: str, writes: bool, length: int) -> None:
    action = loop.FROM_GUEST if writes else loop.TO_GUEST
    machine = Machine(arch, [KnownExit(6, 1, (), action, HELD - 0x5000, 0x5010)], 1, quiet)
    machine.uc.mem_write(HELD, bytes(range(16)))
    machine.exit(6, mmio(0x5008, b"abcdefgh", length, writes))
    assert machine.run(arch) == 0
    data = b"abcdefgh" if writes else bytes(range(8, 8 + length)) + b"abcdefgh"[length:]
    assert machine.uc.mem_read(RUN + 40, 8) == data
    held = (
        bytes(range(8)) + b"abcdefgh"[:length] + bytes(range(8 + length, 16))
        if writes
        else bytes(range(16))
    )
    assert machine.uc.mem_read(HELD, 16) == held


def test_what_crosses_the_end_of_a_section_is_for_python(arch: str) -> None:
    machine = Machine(arch, [KnownExit(6, 1, (), loop.FROM_GUEST, HELD - 0x5000, 0x5010)], 1, quiet)
    machine.exit(6, mmio(0x500C, b"abcdefgh", 8, 1))
    assert machine.run(arch) == 1
    assert machine.records == []
    assert machine.uc.mem_read(HELD, 24) == bytes(24)


def test_what_the_caller_keeps_is_kept(arch: str) -> None:
    registers = {
        "x86_64": [
            getattr(x86_const, f"UC_X86_REG_{r}")
            for r in ("RBX", "RBP", "R12", "R13", "R14", "R15")
        ],
        "arm64": [getattr(arm64_const, f"UC_ARM64_REG_X{n}") for n in range(19, 29)],
        "riscv64": [getattr(riscv_const, f"UC_RISCV_REG_S{n}") for n in range(12)],
    }[arch]
    for row in (KnownExit(0, 1, ()), KnownExit(5, 1, ())):
        machine = Machine(arch, [row], 2, quiet)
        for n, register in enumerate(registers):
            machine.uc.reg_write(register, 0x1111 * (n + 1))
        machine.run(arch)
        assert [machine.uc.reg_read(register) for register in registers] == [
            0x1111 * (n + 1) for n in range(len(registers))
        ]
