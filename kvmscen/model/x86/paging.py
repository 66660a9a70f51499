"""x86: page tables of the guest's own (Intel SDM volume 3, 4.5 "4-level paging").

They are followed where they map addresses to themselves. Unicorn walks them as a CPU does; what the
model adds takes linear and physical addresses for the same.
"""

from __future__ import annotations

from collections.abc import Callable

from kvmscen.model.building import Unpredicted

PAGE = 0x1000
_PRESENT, _LARGE, _ENTRIES = 1, 1 << 7, 512
_ADDRESS = 0xFFFFFFFFFF000
# Tables are few where somebody writes them for a test; each is read whole.
_TABLES_MOST = 4096


def tables(root: int, read: Callable[[int, int], bytes | None]) -> set[int]:
    """The pages of the tables at `root`, by address. Raises Unpredicted where one entry maps an
    address to another.
    """
    pages = {root & _ADDRESS}
    pending = [(root & _ADDRESS, 3, 0)]
    while pending:
        at, level, linear = pending.pop()
        raw = read(at, PAGE)
        if raw is None:
            raise Unpredicted(f"the guest's page tables lie in no slot (at {at:#x})")
        for index in range(_ENTRIES):
            entry = int.from_bytes(raw[8 * index : 8 * index + 8], "little")
            if not entry & _PRESENT:
                continue
            size = 1 << 12 + 9 * level
            here = linear + index * size
            if level and not entry & _LARGE:
                pages.add(entry & _ADDRESS)
                pending.append((entry & _ADDRESS, level - 1, here))
            elif level == 3 or entry & _ADDRESS & -size != here:
                raise Unpredicted(
                    f"the guest's page tables map {here:#x} to {entry & _ADDRESS & -size:#x}"
                )
            elif level == 2:
                raise Unpredicted(
                    "the guest's page tables have pages of 1 GiB, which not every host has"
                )
        if len(pages) > _TABLES_MOST:
            raise Unpredicted("the guest has more page tables than the model looks through")
    return pages
