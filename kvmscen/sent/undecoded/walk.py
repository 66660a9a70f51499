"""arm64: stage 1 of the guest's own translation, by software (Arm ARM, D8 "The AArch64 Virtual
Memory System Architecture").

KVM_TRANSLATE does not exist on arm64, so who carries out an access for a guest with its MMU on
walks the tables as the CPU does: TTBR0_EL1 and TTBR1_EL1, granules of 4, 16 and 64 KiB, up to 48
bits.
"""

from __future__ import annotations

from typing import Callable

MMU = 1 << 0  # SCTLR_EL1.M
_TG0 = {0: 12, 1: 16, 2: 14}
_TG1 = {1: 14, 2: 12, 3: 16}
_VALID, _TABLE, _READ_ONLY = 1, 2, 1 << 7
_DS = 1 << 59
_MASK48 = (1 << 48) - 1


class NoTranslation(Exception):
    """The tables do not map an address for this access; the message says at which level."""


def translate(
    address: int, write: bool, read: Callable[[str], int], fetch: Callable[[int, int], bytes | None]
) -> int:
    """The physical address of a virtual one, with the MMU on.

    `read` gives TCR_EL1 and the TTBRs by name, `fetch(physical address, size)` bytes of memory, or
    None. Raises NoTranslation.
    """
    entry, level, physical = _walk(address, read, fetch)
    if write and entry & _READ_ONLY:
        raise NoTranslation(
            f"{address:#x} may only be read by the guest's own tables (level {level})"
        )
    return physical


def device(
    address: int, read: Callable[[str], int], fetch: Callable[[int, int], bytes | None]
) -> bool:
    """Whether the tables call the memory at a virtual address Device memory; arguments as of
    `translate`, with MAIR_EL1.
    """
    entry, _, _ = _walk(address, read, fetch)
    return read("mair_el1") >> 8 * (entry >> 2 & 7) & 0xF0 == 0


def _walk(
    address: int, read: Callable[[str], int], fetch: Callable[[int, int], bytes | None]
) -> tuple[int, int, int]:
    """The entry that maps an address, its level, and the physical address."""
    tcr = read("tcr_el1")
    if tcr & _DS:
        raise NoTranslation("tables with 52-bit output addresses (TCR_EL1.DS) are not walked")
    upper = address >> 55 & 1
    bits = 64 - (tcr >> (16 if upper else 0) & 63)
    grain = (_TG1 if upper else _TG0).get(tcr >> (30 if upper else 14) & 3)
    ignored = tcr >> (38 if upper else 37) & 1  # TBI: the top byte is a tag
    high = (address & ((1 << 56) - 1 if ignored else (1 << 64) - 1)) >> bits
    ones = (1 << (56 if ignored else 64) - bits) - 1
    if (
        grain is None
        or bits > 48
        or high != (ones if upper else 0)
        or tcr >> (23 if upper else 7) & 1
    ):
        raise NoTranslation(f"{address:#x} is in no range of TCR_EL1 {tcr:#x}")
    stride = grain - 3
    level = 4 - -(-(bits - grain) // stride)
    low = address & (1 << bits) - 1
    first = max(
        bits - (grain + stride * (3 - level)) + 3, 6
    )  # the first table may be smaller than a granule
    table = read("ttbr1_el1" if upper else "ttbr0_el1") & _MASK48 >> first << first
    while True:
        shift = grain + stride * (3 - level)
        at = table + 8 * (low >> shift)
        raw = fetch(at, 8)
        if raw is None:
            raise NoTranslation(f"{address:#x} is translated by a table at {at:#x}, in no memslot")
        entry = int.from_bytes(raw, "little")
        if not entry & _VALID or (level == 3 and not entry & _TABLE):
            raise NoTranslation(f"{address:#x} has no translation: the walk ends at level {level}")
        if level < 3 and entry & _TABLE:
            table, low, level = entry & _MASK48 >> grain << grain, low & (1 << shift) - 1, level + 1
            continue
        return entry, level, (entry & _MASK48) >> shift << shift | low & (1 << shift) - 1
