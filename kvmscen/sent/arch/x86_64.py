"""x86: registers, modes and the state in which kvmscen starts a vCPU (Intel SDM volume 3, chapters
2, 3 and 5).

The engine's own slot holds, from `Tables.at`: PML4, PDPT, four page directories (2 MiB pages; PVM
has no 1 GiB pages), the GDT, one page spare, and one page directory more for each GiB in use above
4 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from kvmscen.sent.arch.registers import Register, Registers

NAME = "x86_64"
MACHINES = ("x86_64", "AMD64", "amd64")  # what uname -m calls it
MODES = ("long", "protected", "real")
BITS = {"long": 64, "protected": 32, "real": 16}
FEATURES: tuple[str, ...] = ()
DEFAULT_FEATURES: tuple[str, ...] = ()
FEATURE_CAPABILITIES: dict[str, str] = {}
PC = "rip"

# struct kvm_regs, in order.
KVM_REGS = (
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "rsp",
    "rbp",
    *(f"r{n}" for n in range(8, 16)),
    "rip",
    "rflags",
)
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
SEGMENT_MEMBERS = {
    "base": 64,
    "limit": 32,
    "selector": 16,
    "type": 8,
    "present": 8,
    "dpl": 8,
    "db": 8,
    "s": 8,
    "l": 8,
    "g": 8,
    "avl": 8,
}
CONTROL = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")
# Naming one of these in `regs` means that the guest brings its own tables.
OWN_TABLES = ("cr3", "gdt.base", "gdt.limit")


def _registers() -> Registers:
    table: Registers = {name: Register(64) for name in KVM_REGS}
    for letter in "abcd":
        whole = f"r{letter}x"
        table[f"e{letter}x"] = Register(32, whole, zeroes=True)
        table[f"{letter}x"] = Register(16, whole)
        table[f"{letter}l"] = Register(8, whole)
        table[f"{letter}h"] = Register(8, whole, 8)
    for short in ("si", "di", "sp", "bp"):
        table["e" + short] = Register(32, "r" + short, zeroes=True)
        table[short] = Register(16, "r" + short)
        table[short + "l"] = Register(8, "r" + short)
    for n in range(8, 16):
        table[f"r{n}d"] = Register(32, f"r{n}", zeroes=True)
        table[f"r{n}w"] = Register(16, f"r{n}")
        table[f"r{n}b"] = Register(8, f"r{n}")
    table["pc"] = Register(64, "rip")
    table["eip"] = Register(32, "rip", zeroes=True)
    table["ip"] = Register(16, "rip")
    table["eflags"] = Register(32, "rflags", zeroes=True)
    table["flags"] = Register(16, "rflags")
    for name in CONTROL:
        table[name] = Register(64)
    for segment in SEGMENTS:
        table[segment] = Register(16, f"{segment}.selector")
        for member, bits in SEGMENT_MEMBERS.items():
            table[f"{segment}.{member}"] = Register(bits)
    for dtable in ("gdt", "idt"):
        table[f"{dtable}.base"] = Register(64)
        table[f"{dtable}.limit"] = Register(16)
    for n in range(16):
        table[f"xmm{n}"] = Register(128)
    return table


REGISTERS = _registers()
GENERAL = KVM_REGS


def pc_advanced(name: str, fields: Mapping[str, object], flavour: str | None) -> bool | None:
    """Whether pc already points behind the instruction at this exit; None where it cannot be
    told.
    """
    if name == "hlt":
        return True
    if name == "mmio":
        return bool(fields.get("is_write"))
    if name == "io" and fields.get("direction") == 1:
        return {"pvm": True, "svm": False, "vmx": False}.get(flavour or "")
    return False


# --- boot state -----------------------------------------------------------------------------------

# CR0: PE | MP | ET | NE, and PG in long mode. CR4: PAE | OSFXSR | OSXMMEXCPT.
CR0_PROTECTED = 0x33
CR0_PG = 1 << 31
CR4_LONG = 0x620
CR4_PROTECTED = 0x600
EFER_LONG = 0x500  # LME | LMA

PAGE = 0x1000
GIB = 1 << 30
TABLES_SIZE = 0x8000
TABLES_AT = 0xFFFC0000
# Intel needs three pages for real mode (KVM_SET_TSS_ADDR, KVM API 4.32): they lie so far below the
# engine's slot.
TSS_BELOW = 0x4000
TSS_SIZE = 3 * PAGE
_PRESENT = 0x63  # P | RW | A | D, preset so that no write to the tables is needed
_LARGE = 0x80


class Segment(NamedTuple):
    """struct kvm_segment, without padding."""

    base: int
    limit: int
    selector: int
    type: int
    present: int
    dpl: int
    db: int
    s: int
    l: int  # noqa: E741 the header's name
    g: int
    avl: int = 0


_CODE64 = Segment(0, 0xFFFFFFFF, 0x08, 11, 1, 0, 0, 1, 1, 1)
_CODE32 = Segment(0, 0xFFFFFFFF, 0x08, 11, 1, 0, 1, 1, 0, 1)
_DATA32 = Segment(0, 0xFFFFFFFF, 0x10, 3, 1, 0, 1, 1, 0, 1)
_CODE16 = Segment(0, 0xFFFF, 0, 11, 1, 0, 0, 1, 0, 0)
_DATA16 = Segment(0, 0xFFFF, 0, 3, 1, 0, 0, 1, 0, 0)


def tables_size(spans: tuple[tuple[int, int], ...]) -> int:
    """Bytes that the engine's slot takes when `spans` (gpa, size) are to be mapped beside the first
    4 GiB.
    """
    return TABLES_SIZE + PAGE * len(_high_gibs(spans)) + (PAGE * len(_high_pdpts(spans)))


def _high_gibs(spans: tuple[tuple[int, int], ...]) -> list[int]:
    return sorted(
        {
            gib
            for at, size in spans
            for gib in range(at // GIB, (at + size - 1) // GIB + 1)
            if gib >= 4
        }
    )


def _high_pdpts(spans: tuple[tuple[int, int], ...]) -> list[int]:
    return sorted({gib >> 9 for gib in _high_gibs(spans)} - {0})


@lru_cache(maxsize=16)
def tables(at: int, spans: tuple[tuple[int, int], ...]) -> bytes:
    """The bytes of the engine's slot at gpa `at`: identity map of the first 4 GiB and of each GiB
    that `spans` touch.
    """
    raw = bytearray(tables_size(spans))
    high, pdpts = _high_gibs(spans), _high_pdpts(spans)
    extra = TABLES_SIZE
    pdpt_at: dict[int, int] = {0: PAGE}
    for index in pdpts:
        pdpt_at[index] = extra
        extra += PAGE
    for index, offset in pdpt_at.items():
        struct.pack_into("<Q", raw, index * 8, (at + offset) | _PRESENT)
    directory = {gib: 2 * PAGE + gib * PAGE for gib in range(4)}
    for gib in high:
        directory[gib] = extra
        extra += PAGE
    for gib, offset in directory.items():
        struct.pack_into("<Q", raw, pdpt_at[gib >> 9] + (gib & 511) * 8, (at + offset) | _PRESENT)
        entries = [(gib * GIB + n * 0x200000) | _PRESENT | _LARGE for n in range(512)]
        struct.pack_into("<512Q", raw, offset, *entries)
    # Null, 64-bit code or 32-bit code by mode (the hidden parts are set by KVM_SET_SREGS), data;
    # then both code kinds again.
    struct.pack_into(
        "<5Q",
        raw,
        6 * PAGE,
        0,
        0x00AF9B000000FFFF,
        0x00CF93000000FFFF,
        0x00CF9B000000FFFF,
        0x00AF9B000000FFFF,
    )
    return bytes(raw)


def boot(mode: str, at: int | None) -> dict[str, int]:
    """The registers that differ from KVM's reset state, by name. `at` is the engine's slot, None
    when it is off.
    """
    code, data = {
        "long": (_CODE64, _DATA32),
        "protected": (_CODE32, _DATA32),
        "real": (_CODE16, _DATA16),
    }[mode]
    regs: dict[str, int] = dict.fromkeys(KVM_REGS, 0)
    regs["rflags"] = 2
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        for member, value in zip(Segment._fields, code if name == "cs" else data):
            regs[f"{name}.{member}"] = value
    if mode == "real":
        return regs
    regs["idt.base"] = regs["idt.limit"] = 0
    regs["cr0"], regs["cr4"] = CR0_PROTECTED, CR4_PROTECTED
    if at is not None:
        regs["gdt.base"], regs["gdt.limit"] = at + 6 * PAGE, 5 * 8 - 1
    if mode == "long":
        regs["cr0"], regs["cr4"], regs["efer"] = CR0_PROTECTED | CR0_PG, CR4_LONG, EFER_LONG
        if at is not None:
            regs["cr3"] = at
    elif at is not None:
        # In the GDT, selector 8 is 64-bit code: a 32-bit guest that reloads CS finds its own kind
        # at 0x18.
        regs["cs.selector"] = 0x18
    return regs
