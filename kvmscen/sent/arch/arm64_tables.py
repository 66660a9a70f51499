"""arm64: the stage-1 tables that `mmu: identity` starts a vCPU with, and the registers that turn
them on (Arm ARM, D8).

Addresses are mapped to themselves, 512 GiB of them: each 2 MiB that a slot or section touches as
Normal memory, write-back, and all else as Device-nGnRE without execution. Whether an access leaves
the guest is for stage 2 to say, and stays the same; but a CPU faults on an unaligned access to
Device memory before that.
"""

from __future__ import annotations

import struct

PAGE = 0x1000
GRAIN = 0x10000  # the slot of the tables suits hosts with pages of 64 KiB
REACH = 1 << 39
_GIB, _BLOCK = 1 << 30, 1 << 21
_TABLE = 3
# AF, and for Normal memory inner shareable; Device memory is PXN and UXN. MAIR: 0 Device-nGnRE, 1
# Normal write-back.
_NORMAL, _DEVICE = 1 | 1 << 2 | 3 << 8 | 1 << 10, 1 | 1 << 10 | 3 << 53
_MAIR = 0xFF04
# T0SZ 25, walks write-back and inner shareable, granule 4 KiB, 40 bits of physical address; nothing
# by TTBR1_EL1.
_TCR = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 25 << 16 | 2 << 30 | 2 << 32
# As KVM_ARM_VCPU_INIT leaves it, with the MMU and both caches on.
_SCTLR = 0xC50078 | 1 << 0 | 1 << 2 | 1 << 12

Spans = tuple[tuple[int, int], ...]


def _touched(spans: Spans, unit: int) -> list[int]:
    return sorted(
        {n for at, size in spans for n in range(at // unit, (at + max(size, 1) - 1) // unit + 1)}
    )


def tables_size(spans: Spans) -> int:
    """Bytes: one table for all, one for each GiB that is touched, and one for that of the tables
    themselves, rounded up.
    """
    return -(-PAGE * (2 + len(_touched(spans, _GIB))) // GRAIN) * GRAIN


def tables(at: int, spans: Spans) -> bytes:
    """The tables as they lie at `at`; `spans` are (gpa, size) of what is Normal memory, and they
    are themselves.
    """
    spans = (*spans, (at, tables_size(spans)))
    blocks = set(_touched(spans, _BLOCK))
    first = [n * _GIB | _DEVICE for n in range(REACH // _GIB)]
    second: list[int] = []
    for number, gib in enumerate(_touched(spans, _GIB)):
        first[gib] = at + PAGE * (1 + number) | _TABLE
        own = range(gib * _GIB // _BLOCK, (gib + 1) * _GIB // _BLOCK)
        second += [n * _BLOCK | (_NORMAL if n in blocks else _DEVICE) for n in own]
    return struct.pack(f"<{len(first) + len(second)}Q", *first, *second)


def boot(at: int) -> dict[str, int]:
    """The registers of a vCPU that starts with the tables at `at`."""
    return {
        "mair_el1": _MAIR,
        "tcr_el1": _TCR,
        "ttbr0_el1": at,
        "ttbr1_el1": at,
        "sctlr_el1": _SCTLR,
    }
