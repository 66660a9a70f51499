"""How often a guest accessed what: its MMIO exits, and what was carried out for it, by section, symbol, size and kind. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator

from kvmscen.job import Legend
from kvmscen.observation import Event, Observation
from kvmscen.result import Tally

_Key = tuple[int, int, bool]


def tally(observation: Observation, legend: Legend) -> tuple[Tally, ...]:
    """The accesses of a run, those to one place of one kind as one, in the order of their places."""
    known = _Places(legend)
    counts: Counter[tuple[int, int, str | None, str | None, bool, int, bool]] = Counter()
    places: dict[int, tuple[int, int, str | None, str | None]] = {}
    for (at, size, is_write), emulated, count in _accesses(observation.events):
        if at not in places:
            places[at] = known.of(at)
        counts[(*places[at], is_write, size, emulated)] += count
    return tuple(
        Tally(section, symbol, "write" if is_write else "read", size, emulated, count)
        for (_, _, section, symbol, is_write, size, emulated), count in sorted(counts.items(), key=lambda one: _order(one[0]))
    )


def _order(key: tuple[int, int, str | None, str | None, bool, int, bool]) -> tuple[int, int, bool, int, bool]:
    return key[0], key[1], key[4], key[5], key[6]


def _accesses(events: Iterable[Event]) -> Iterator[tuple[_Key, bool, int]]:
    for event in events:
        if event.kind == "exit" and event.name == "mmio":
            yield (event.fields["phys_addr"], event.fields["len"], event.fields["is_write"]), False, event.count
        for part in event.fields.get("accesses", ()):
            yield (part["phys_addr"], part["len"], part["is_write"]), True, event.count


class _Places:
    """Sections and symbols by address."""

    def __init__(self, legend: Legend) -> None:
        self._sections = sorted((at, size, name) for name, at, size in legend.sections)
        best = legend.best
        usable = ((name, at) for name, at in legend.symbols.items() if not name.startswith(("__", ".L", "$")))
        named = sorted((at, name not in best, name) for name, at in usable)
        self._at = [at for at, _, _ in named]
        self._names = [name for _, _, name in named]

    def of(self, address: int) -> tuple[int, int, str | None, str | None]:
        """Where the section and where the symbol begins, and their names; of what is in none, its own address."""
        section = next((s for s in self._sections if s[0] <= address < s[0] + s[1]), None)
        if section is None:
            return address, address, None, None
        index = bisect_right(self._at, address) - 1
        while index > 0 and self._at[index - 1] == self._at[index]:
            index -= 1
        if index < 0 or self._at[index] < section[0]:
            return section[0], section[0], section[2], None
        return section[0], self._at[index], section[2], self._names[index]
