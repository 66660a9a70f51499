"""Accesses that leave the guest though a CPU of silicon faults on them before."""

from __future__ import annotations

from typing import Any

import pytest

from kvmscen.sent.arch import arm64_tables
from kvmscen.sent.machine import Machine, Vcpu
from kvmscen.sent.script.interpreter import Devices
from kvmscen.sent.script.recorder import Recorder
from kvmscen.sent.undecoded import emulation, unaligned
from kvmscen.sent.undecoded.emulate import Monitors

STR_W0_X2 = 0xB9000040
STRH = 0x79000040
STP_X = 0xA9000440
STLR = 0xC89FFC40
LDR_SP = 0xB94007E0  # ldr w0, [sp, #4]
TABLES = 0x10000
SPANS = ((0, 0x1000),)


def notes(word: int, regs: dict[str, int], name: str = "mmio", **members: Any) -> tuple[str, ...]:
    recorder = Recorder(Machine("arm64", (), (), (), (Vcpu(0, "el1", {}),)))
    held = {
        "pc": 0x100,
        "pstate": 0x3C5,
        "sctlr_el1": 0xC50078,
        "sp_el1": 0x800,
        "x0": 1,
        "x1": 2,
        **regs,
    }
    memory = {0x100: word.to_bytes(4, "little"), TABLES: arm64_tables.tables(TABLES, SPANS)}

    def load(gpa: int, size: int) -> bytes | None:
        for at, raw in memory.items():
            if at <= gpa and gpa + size <= at + len(raw):
                return raw[gpa - at : gpa - at + size]
        return None

    bus = emulation.Bus(
        0,
        held.__getitem__,
        held.update,
        load,
        memory.__setitem__,
        lambda _: None,
        Devices(()),
        Monitors(),
    )
    for _ in range(2):
        unaligned.look(recorder, bus.fresh(), name, members)
    return recorder.notes()


@pytest.mark.parametrize(
    ("word", "address", "size", "wrong"),
    [
        (STR_W0_X2, 0x5001, 4, True),
        (STR_W0_X2, 0x5004, 4, False),
        (STRH, 0x5003, 2, True),
        (STP_X, 0x5004, 16, True),
        (STP_X, 0x5008, 16, False),
        (STLR, 0x5004, 8, True),
    ],
)
def test_with_the_mmu_off(word: int, address: int, size: int, wrong: bool) -> None:
    name = "arm_nisv" if word == STP_X else "mmio"
    members = {"fault_ipa": address} if name == "arm_nisv" else {"phys_addr": address, "len": size}
    told = notes(word, {"x2": address}, name, **members)
    assert len(told) == wrong
    if wrong:
        assert told[0].startswith(
            f"at pc 0x100: an unaligned access to {address:#x} with the MMU off: a CPU of silicon "
            f"takes"
        )
        assert told[0].endswith("QEMU does not check and answers it (2 accesses of the kind)")


def test_with_the_mmu_on() -> None:
    on = arm64_tables.boot(TABLES)
    assert notes(STR_W0_X2, {**on, "x2": 0x40000001}, phys_addr=0x40000001, len=4)
    assert not notes(STR_W0_X2, {**on, "x2": 0x5001}, phys_addr=0x5001, len=4)  # Normal memory
    assert notes(
        STR_W0_X2, {**on, "sctlr_el1": on["sctlr_el1"] | 2, "x2": 0x5001}, phys_addr=0x5001, len=4
    )
    assert "ordered" in notes(STLR, {**on, "x2": 0x5004}, phys_addr=0x5004, len=8)[0]
    # Where the tables do not say there is nothing to tell.
    assert not notes(STR_W0_X2, {**on, "ttbr0_el1": 0x70000, "x2": 0x5001}, phys_addr=0x5001, len=4)


def test_an_access_by_sp() -> None:
    # The exit of a failing KVM_RUN has no members.
    assert (
        "an access by sp, which is 0x804"
        in notes(LDR_SP, {"sp_el1": 0x804}, "ENOSYS", ioctl="KVM_RUN")[0]
    )
    assert not notes(LDR_SP, {"sp_el1": 0x804, "sctlr_el1": 0xC50070}, "ENOSYS", ioctl="KVM_RUN")


def test_other_exits_are_not_looked_at() -> None:
    assert not notes(STR_W0_X2, {"x2": 0x5001}, "system_event", type=1)
