"""From the records of a loop around KVM_RUN to samples.

Each KVM_RUN leaves a record (start, end, bits): which of the places it is at, or that a signal
broke it off. Records are read as they come and not kept: a kind may be rare among many other exits.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvmscen.sent.measure import Kind, Series, TimedExit
from kvmscen.sent.script.interpreter import matches
from kvmscen.sent.timing.loop import RECORD

# The record of a KVM_RUN that a signal broke off.
BROKEN = 1 << 63

Record = tuple[int, int, int]


class Tally:
    """The samples of one kind, in which no signal came: `to` and `since` are the bits of its
    places, `since` 0 without one.
    """

    def __init__(self, kind: Kind, to: int, since: int) -> None:
        self.kind = kind
        self.to = to
        self.since = since
        self.samples: list[int] = []
        self.within: list[int] = []  # of spans: what of each was inside KVM_RUN
        self.outside: list[
            int
        ] = []  # what was in user space; of an exit what follows it, which the last one may lack
        # How often its exits came, whatever became of the samples, and how many of these a signal
        # broke off.
        self.ends = self.begins = self.broken = 0
        self._broken = self._waiting = False
        self._begun: int | None = None  # the start of the span, behind `since`
        self._inside = 0
        self._left: int | None = None  # when the last sample's KVM_RUN returned

    @property
    def missing(self) -> int:
        """How many samples it still lacks."""
        return max(self.kind.warmup + self.kind.samples - len(self.samples), 0)

    def feed(self, records: Iterable[Record]) -> None:
        """Feed more records into this tally."""
        to, since = self.to, self.since
        for start, end, mask in records:
            if self._left is not None:
                self.outside.append(start - self._left)
                self._left = None
            if self._waiting:
                self._begun, self._inside, self._waiting = start, 0, False
            if mask == BROKEN:
                self.broken += self._begun is not None
                self._broken, self._begun = True, None
                continue
            self._inside += end - start
            if mask & to:
                self.ends += 1
                self._ended(start, end)
            if mask & since:
                self.begins += 1
                self._waiting, self._begun = True, None
            self._broken = False

    def _ended(self, start: int, end: int) -> None:
        if not self.since:
            self.broken += self._broken
            if not self._broken:
                self.samples.append(end - start)
                self._left = end
        elif self._begun is not None:
            self.samples.append(end - self._begun)
            self.within.append(self._inside)
            self.outside.append(end - self._begun - self._inside)
            self._begun = None

    def ahead(self, masks: Sequence[int]) -> int:
        """How many samples are in records of which the bits alone are known."""
        if not self.since:
            return sum(mask & self.to != 0 for mask in masks)
        samples, begun = 0, self._waiting or self._begun is not None
        for mask in masks:
            if mask & self.to and begun:
                samples, begun = samples + 1, False
            begun = begun or mask & self.since != 0
        return samples

    def series(self) -> Series:
        """The collected samples, without the warm-up."""
        first, last = self.kind.warmup, self.kind.warmup + self.kind.samples
        inside = self.within if self.since else self.samples
        came = (len(self.samples), self.ends, self.begins, self.broken)
        return Series(
            tuple(self.samples[first:last]),
            _median(inside),
            _median(self.outside),
            tuple(self._whole(first, last)),
            *came,
        )

    def _whole(self, first: int, last: int) -> Iterable[int]:
        """The samples with what user space did: an exit's is what follows it."""
        if self.since:
            return self.samples[first:last]
        return map(sum, zip(self.samples[first:last], self.outside[first:last]))


def _median(values: list[int]) -> float:
    return statistics.median(values) if values else 0.0


class Tallies:
    """All kinds of one run, and the places that they are about."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self.places: list[TimedExit] = []
        self.of = {
            kind.name: Tally(kind, self._bit(kind.to), self._bit(kind.since)) for kind in kinds
        }
        self.exits = 0

    def _bit(self, place: TimedExit | None) -> int:
        if place is None:
            return 0
        if place not in self.places:
            self.places.append(place)
        return 1 << self.places.index(place)

    def fitting(self, name: str, fields: Mapping[str, Any]) -> int:
        """A mask of the timed places that an exit fits."""
        bits = 0
        for n, place in enumerate(self.places):
            if place.exit == name and all(
                matches(m, fields.get(key)) for key, m in place.where.items()
            ):
                bits |= 1 << n
        return bits

    def answering(self, bits: int) -> TimedExit | None:
        """The place whose reply counts where an exit is several: the last that has one, as in the
        loop of machine code.
        """
        places = [place for n, place in enumerate(self.places) if bits >> n & 1]
        return next(
            (place for place in reversed(places) if place.reply is not None),
            places[-1] if places else None,
        )

    def add(self, packed: bytes) -> None:
        """Feed packed records into all tallies."""
        if packed:
            self.feed(list(RECORD.iter_unpack(packed)))

    def feed(self, records: Sequence[Record]) -> None:
        """Feed records into all tallies."""
        self.exits += sum(record[2] != BROKEN for record in records)
        for tally in self.of.values():
            if tally.missing:
                tally.feed(records)

    def count(self, waiting: bytes) -> int:
        """How many samples there are by now, with those in records that are not read yet. Called
        from another thread.
        """
        masks = [mask for _, _, mask in RECORD.iter_unpack(waiting)]
        return sum(
            len(tally.samples) + (tally.ahead(masks) if tally.missing else 0)
            for tally in self.of.values()
        )

    @property
    def missing(self) -> int:
        """The most samples that a kind still lacks."""
        return max(tally.missing for tally in self.of.values())

    def series(self) -> dict[str, Series]:
        """The samples of each kind, without the warm-up."""
        return {name: tally.series() for name, tally in self.of.items()}
