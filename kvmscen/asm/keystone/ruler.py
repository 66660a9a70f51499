"""Distances that are known before the layout: between labels with nothing between them whose size
may still change.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmscen.asm.keystone.items import Align, Assign, Item, Label, Space
from kvmscen.asm.layout import align_up

# Section, subsection, and how many items of unknown size stand before it there.
Stretch = tuple[str, int, int]


class Ruler:
    """Where labels are within their stretches. `read` goes on from where it was."""

    def __init__(self) -> None:
        self.labels: dict[str, tuple[Stretch, int]] = {}
        self._ends: dict[tuple[str, int], tuple[int, int]] = {}
        self._read = 0

    def read(self, items: Sequence[Item]) -> None:
        """Add the items that came since the last call."""
        for index in range(self._read, len(items)):
            item = items[index]
            key = (item.chunk.name, item.subsection)
            count, offset = self._ends.get(key, (0, 0))
            if type(item) is Label:
                self.labels[item.name] = ((*key, count), offset)
                continue
            size = _size(item, offset if key[1] == count == 0 else None)
            self._ends[key] = (count, offset + size) if size is not None else (count + 1, 0)
        self._read = len(items)

    def here(self, name: str, subsection: int) -> tuple[Stretch, int]:
        """The place right behind the last item of a section."""
        count, offset = self._ends.get((name, subsection), (0, 0))
        return (name, subsection, count), offset


def _size(item: Item, offset: int | None) -> int | None:
    if item.rigid:
        return item.size
    if isinstance(item, Assign):
        return 0
    if isinstance(item, Space) and not item.org and item.count.constant is not None:
        return max(0, item.count.constant) * item.unit
    if isinstance(item, Align) and offset is not None:
        count = align_up(offset, item.align) - offset
        return 0 if item.most and count > item.most else count
    return None
