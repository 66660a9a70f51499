"""What is to be timed, as a host is told, and what the host saw of it; frozen, to JSON and back, as
a Machine is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Json = dict[str, Any]


class TimedExit(NamedTuple):
    """An exit by its name and by matchers of its members; `reply` are the members that user space
    writes back.
    """

    exit: str
    where: Mapping[str, Any]
    reply: Mapping[str, Any] | None = None


class Kind(NamedTuple):
    """One kind of access. A sample is the KVM_RUN that returns with `to`, or all from `since` (an
    exit) to `to`.

    `samples` are wanted, behind the first `warmup`.
    """

    name: str
    to: TimedExit
    since: TimedExit | None
    samples: int
    warmup: int


class Measure(NamedTuple):
    """What one run times. `loop` is `native` (Python where that cannot be) or `python`; `stall`:
    seconds without a sample.
    """

    kinds: tuple[Kind, ...]
    loop: str = "native"
    stall: float = 5.0


class Series(NamedTuple):
    """The samples of one kind, in ticks of the counter.

    `kvm` and `user` are the medians of the ticks that a sample took inside KVM_RUN, and in user
    space: of an exit from its return to the next KVM_RUN, of a span all that lies inside it.
    `whole` are the samples with that time; the last exit may be missing there, since nothing
    follows it.

    `came` counts the samples, with those of the warm-up; `ends` and `begins` count the exits at
    which samples end and spans begin, whatever became of them, `broken` the samples that a signal
    broke off.
    """

    ticks: tuple[int, ...]
    kvm: float
    user: float
    whole: tuple[int, ...] = ()
    came: int = 0
    ends: int = 0
    begins: int = 0
    broken: int = 0


class Timing(NamedTuple):
    """What was timed: `loop` is native or python (then `why`), `hz` the counter's measured rate in
    ticks a second.

    `overhead` are samples, in ticks, with a no-op ioctl in place of KVM_RUN; `exits` counts all
    exits.
    """

    loop: str
    hz: float
    overhead: tuple[int, ...]
    series: Mapping[str, Series] = {}
    exits: int = 0
    why: str | None = None
