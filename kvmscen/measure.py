"""What is to be timed, as a host is told, and what the host saw of it; frozen, to JSON and back, as a Machine is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Json = dict[str, Any]


class Place(NamedTuple):
    """An exit by its name and by matchers of its members; `reply` are the members that user space writes back."""

    exit: str
    where: Mapping[str, Any]
    reply: Mapping[str, Any] | None = None

    def to_json(self) -> Json:
        out: Json = {"exit": self.exit, "where": dict(self.where)}
        if self.reply is not None:
            out["reply"] = dict(self.reply)
        return out

    @classmethod
    def from_json(cls, data: Json) -> Place:
        return cls(data["exit"], data["where"], data.get("reply"))


class Kind(NamedTuple):
    """One kind of access. A sample is the KVM_RUN that returns with `to`, or all from `since` (an exit) to `to`.

    `samples` are wanted, behind the first `warmup`.
    """

    name: str
    to: Place
    since: Place | None
    samples: int
    warmup: int

    def to_json(self) -> Json:
        out: Json = {"name": self.name, "to": self.to.to_json(), "samples": self.samples, "warmup": self.warmup}
        if self.since is not None:
            out["since"] = self.since.to_json()
        return out

    @classmethod
    def from_json(cls, data: Json) -> Kind:
        since = data.get("since")
        since = None if since is None else Place.from_json(since)
        return cls(data["name"], Place.from_json(data["to"]), since, data["samples"], data["warmup"])


class Measure(NamedTuple):
    """What one run times. `loop` is `native` (Python where that cannot be) or `python`; `stall`: seconds without a sample."""

    kinds: tuple[Kind, ...]
    loop: str = "native"
    stall: float = 5.0

    def to_json(self) -> Json:
        return {"kinds": [kind.to_json() for kind in self.kinds], "loop": self.loop, "stall": self.stall}

    @classmethod
    def from_json(cls, data: Json) -> Measure:
        return cls(tuple(map(Kind.from_json, data["kinds"])), data["loop"], data["stall"])


class Series(NamedTuple):
    """The samples of one kind, in ticks of the counter.

    `kvm` and `user` are the medians of the ticks that a sample took inside KVM_RUN, and in user space: of an exit from its
    return to the next KVM_RUN, of a span all that lies inside it. `whole` are the samples with that time; the last exit may be
    missing there, since nothing follows it.

    `came` counts the samples, with those of the warm-up; `ends` and `begins` count the exits at which samples end and spans
    begin, whatever became of them, `broken` the samples that a signal broke off.
    """

    ticks: tuple[int, ...]
    kvm: float
    user: float
    whole: tuple[int, ...] = ()
    came: int = 0
    ends: int = 0
    begins: int = 0
    broken: int = 0

    def to_json(self) -> Json:
        return {**self._asdict(), "ticks": list(self.ticks), "whole": list(self.whole)}

    @classmethod
    def from_json(cls, data: Json) -> Series:
        return cls(**{**data, "ticks": tuple(data["ticks"]), "whole": tuple(data["whole"])})


class Timing(NamedTuple):
    """What was timed: `loop` is native or python (then `why`), `hz` the counter's measured rate in ticks a second.

    `overhead` are samples, in ticks, with a no-op ioctl in place of KVM_RUN; `exits` counts all exits.
    """

    loop: str
    hz: float
    overhead: tuple[int, ...]
    series: Mapping[str, Series] = {}
    exits: int = 0
    why: str | None = None

    def to_json(self) -> Json:
        return {
            "loop": self.loop,
            "hz": self.hz,
            "overhead": list(self.overhead),
            "series": {name: one.to_json() for name, one in self.series.items()},
            "exits": self.exits,
            "why": self.why,
        }

    @classmethod
    def from_json(cls, data: Json) -> Timing:
        series = {name: Series.from_json(one) for name, one in data["series"].items()}
        return cls(data["loop"], data["hz"], tuple(data["overhead"]), series, data["exits"], data["why"])
