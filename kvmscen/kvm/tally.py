"""From the records of a loop around KVM_RUN to samples.

Each KVM_RUN leaves a record (start, end, bits): which of the places it is at, or that a signal broke it off. Records are read
as they come and not kept: a kind may be rare among many other exits.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvmscen.kvm.loop import RECORD
from kvmscen.kvm.script import matches
from kvmscen.measure import Kind, Place, Series

# The record of a KVM_RUN that a signal broke off.
BROKEN = 1 << 63

Record = tuple[int, int, int]


class Tally:
    """The samples of one kind, in which no signal came: `to` and `since` are the bits of its places, `since` 0 without one."""

    def __init__(self, kind: Kind, to: int, since: int) -> None:
        self.kind = kind
        self.to = to
        self.since = since
        self.samples: list[int] = []
        self.within: list[int] = []  # of spans: what of each was inside KVM_RUN
        self.outside: list[int] = []  # what was in user space
        self._broken = self._waiting = False
        self._begun: int | None = None  # the start of the span, behind `since`
        self._inside = 0
        self._left: int | None = None  # when the last sample's KVM_RUN returned

    @property
    def missing(self) -> int:
        """How many samples it still lacks."""
        return max(self.kind.warmup + self.kind.samples - len(self.samples), 0)

    def feed(self, records: Iterable[Record]) -> None:
        """Read on."""
        to, since = self.to, self.since
        for start, end, mask in records:
            if self._left is not None:
                self.outside.append(start - self._left)
                self._left = None
            if self._waiting:
                self._begun, self._inside, self._waiting = start, 0, False
            if mask == BROKEN:
                self._broken, self._begun = True, None
                continue
            self._inside += end - start
            if mask & to:
                self._ended(start, end)
            if mask & since:
                self._waiting, self._begun = True, None
            self._broken = False

    def _ended(self, start: int, end: int) -> None:
        if not self.since:
            if not self._broken:
                self.samples.append(end - start)
                self._left = end
        elif self._begun is not None:
            self.samples.append(end - self._begun)
            self.within.append(self._inside)
            self.outside.append(end - self._begun - self._inside)
            self._begun = None

    def series(self) -> Series:
        """What came of it."""
        kept = tuple(self.samples[self.kind.warmup :][: self.kind.samples])
        within = self.within if self.since else self.samples
        return Series(kept, len(self.samples), _median(within), _median(self.outside))


def _median(values: list[int]) -> float:
    return statistics.median(values) if values else 0.0


class Tallies:
    """All kinds of one run, and the places that they are about."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self.places: list[Place] = []
        self.of = {kind.name: Tally(kind, self._bit(kind.to), self._bit(kind.since)) for kind in kinds}
        self.exits = 0

    def _bit(self, place: Place | None) -> int:
        if place is None:
            return 0
        if place not in self.places:
            self.places.append(place)
        return 1 << self.places.index(place)

    def fitting(self, name: str, fields: Mapping[str, Any]) -> int:
        """The bits of the places that an exit is."""
        bits = 0
        for n, place in enumerate(self.places):
            if place.exit == name and all(matches(m, fields.get(key)) for key, m in place.where.items()):
                bits |= 1 << n
        return bits

    def answering(self, bits: int) -> Place | None:
        """The place whose reply counts where an exit is several: the last that has one, as in the loop of machine code."""
        found = [place for n, place in enumerate(self.places) if bits >> n & 1]
        return next((place for place in reversed(found) if place.reply is not None), found[-1] if found else None)

    def add(self, packed: bytes) -> None:
        """Read packed records."""
        if packed:
            self.feed(list(RECORD.iter_unpack(packed)))

    def feed(self, records: Sequence[Record]) -> None:
        """Read records."""
        self.exits += sum(record[2] != BROKEN for record in records)
        for tally in self.of.values():
            if tally.missing:
                tally.feed(records)

    @property
    def missing(self) -> int:
        """The most samples that a kind still lacks."""
        return max(tally.missing for tally in self.of.values())

    def series(self) -> dict[str, Series]:
        """What came of each kind."""
        return {name: tally.series() for name, tally in self.of.items()}
