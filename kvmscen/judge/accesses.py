"""How often a guest accessed what: its MMIO exits, and what was carried out for it, by section,
symbol, size and kind. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kvmscen.job.legend import Legend
from kvmscen.results.result import AccessTally
from kvmscen.sent.observation import Event, Observation


class _Place(NamedTuple):
    """Where a section and where a symbol begins, and their names; what is in none comes last."""

    section_at: int = 1 << 64
    symbol_at: int = 1 << 64
    section: str | None = None
    symbol: str | None = None


def tally(observation: Observation, legend: Legend) -> tuple[AccessTally, ...]:
    """The accesses of a run, counted by place, kind and width, in the order of their addresses."""
    known = _Places(legend)
    counts: Counter[tuple[_Place, bool, int, bool]] = Counter()
    places: dict[tuple[int, int], _Place] = {}
    for at, size, is_write, emulated, count in _accesses(observation.events):
        if (at, size) not in places:
            places[at, size] = known.of(at, size)
        counts[places[at, size], is_write, size, emulated] += count
    return tuple(
        AccessTally(
            place.section, place.symbol, "write" if is_write else "read", size, emulated, count
        )
        for (place, is_write, size, emulated), count in sorted(
            counts.items(), key=lambda counted: (counted[0][0][:2], counted[0][1:])
        )
    )


def _accesses(events: Iterable[Event]) -> Iterator[tuple[int, int, bool, bool, int]]:
    for event in events:
        if event.kind == "exit" and event.name == "mmio":
            yield (
                event.fields["phys_addr"],
                event.fields["len"],
                event.fields["is_write"],
                False,
                event.times,
            )
        for part in event.fields.get("accesses", ()):
            yield part["phys_addr"], part["len"], part["is_write"], True, event.times


class _Places:
    """Sections and symbols by address."""

    def __init__(self, legend: Legend) -> None:
        self._sections = sorted((span.gpa, span.size, span.name) for span in legend.sections)
        mine = {
            name: at
            for name, at in legend.symbols.items()
            if not name.startswith(("__", ".L", "$"))
        }
        named = sorted((at, name not in legend.best, name) for name, at in mine.items())
        self._at = [at for at, _, _ in named]
        self._names = [name for _, _, name in named]

    def of(self, address: int, size: int) -> _Place:
        """The first section that an access touches, and the last symbol of it at or before the
        access.
        """
        section = next(
            (s for s in self._sections if s[0] < address + size and address < s[0] + s[1]), None
        )
        if section is None:
            return _Place()
        start, _, name = section
        index = bisect_right(self._at, max(address, start)) - 1
        while index > 0 and self._at[index - 1] == self._at[index]:
            index -= 1
        if index < 0 or self._at[index] < start:
            return _Place(start, start, name)
        return _Place(start, self._at[index], name, self._names[index])
