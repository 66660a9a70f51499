"""What a host saw of one Machine: Events, and the Observation that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kvmscen.sent.measure import Timing

Json = dict[str, Any]
# Exits of one run are at most 100,000, and an action of each may fail; whoever says more is not to
# be believed.
EVENTS_MOST = 250_000

# Why a run stopped. `end`: the story was over (the last step was reached, or the script's vCPU
# ended where it should). `expected`: an exit that ends its vCPU; `error`: an ioctl failed, or did
# not fail though it should.
STOPPED = ("end", "expected", "error", "timeout", "exits", "extra", "crash")


class Event(NamedTuple):
    """One thing that happened on a vCPU.

    `kind` is `exit` (then `name` is the exit's and `fields` its members), `error` (`name` the
    errno's, `fields` has `ioctl` and maybe `memory_fault` or `reason`), `succeeded` (what `name`
    says should have failed and did not) or `timeout` (`fields` has `timeout`, seconds). `pc` is
    raw, as KVM returns it. `regs` and `memory` (gpa to bytes) are there where the step asked for
    them, `reply` where the step gave one.

    `at` is the step that it took: (index, round) in each list of steps from the outermost in, both
    from 0. None: it took none, since it was `ignored`, or extra, or no steps are written. `done` of
    the step's actions ended as written. `times` equal events in a row are one; each took the
    innermost step in the round after that of the one before.

    `op` names the ioctl of a slot, capability, vCPU or action that failed or succeeded: `enable/N`,
    `memslots/N`, `vcpus/N`, `setup/N`, or `steps/2/0/then/N` for an action of the step at these
    indices; N from 0.
    """

    vcpu: int
    kind: str
    name: str
    fields: Mapping[str, Any]
    pc: int | None
    regs: Mapping[str, int] | None = None
    memory: Mapping[int, bytes] | None = None
    reply: Mapping[str, Any] | None = None
    times: int = 1
    op: str | None = None
    at: tuple[tuple[int, int], ...] | None = None
    ignored: bool = False
    done: int = 0

    def single(self, nth: int) -> Event:
        """Of this one's `times` events the one that came as number `nth`, from 0."""
        if self.times == 1:
            return self
        return self._replace(times=1, at=behind(self.at, nth))


def behind(
    at: tuple[tuple[int, int], ...] | None, rounds: int
) -> tuple[tuple[int, int], ...] | None:
    """The position of the same step so many rounds later."""
    return (*at[:-1], (at[-1][0], at[-1][1] + rounds)) if at else at


_TIMES, _AT = Event._fields.index("times"), Event._fields.index("at")


def follows(before: Event, event: Event) -> bool:
    """Whether an event is one more of those that `before` stands for: the same, in the step's next
    round.
    """
    # In pieces, since this is asked at each exit and a copy takes longer; most differ in the first.
    return (
        before.pc == event.pc
        and before.fields == event.fields
        and event.times == 1
        and before[:_TIMES] == event[:_TIMES]
        and before[_TIMES + 1 : _AT] == event[_TIMES + 1 : _AT]
        and before[_AT + 1 :] == event[_AT + 1 :]
        and behind(before.at, before.times) == event.at
    )


def weight(event: Event) -> int:
    """The bytes of an event as JSON, about."""
    total = 60 + 15 * len(event.fields) + _listed(event.fields)
    if event.reply:
        total += _listed(event.reply)
    if event.regs is not None:
        total += 30 * len(event.regs)
    for data in (event.memory or {}).values():
        total += 2 * len(data)
    return total


def _listed(members: Mapping[str, Any]) -> int:
    """What the lists among some members weigh."""
    total = 0
    for value in members.values():
        if type(value) is list or type(value) is tuple:
            total += sum(100 if type(item) is dict else 20 for item in value)
    return total


class Observation(NamedTuple):
    """Everything that happened: events in order, why it stopped (one of STOPPED), final state, time
    taken in seconds.

    `regs` holds all general registers of vCPU 0 and those asked for; `memory` maps gpa to bytes,
    none where no memory is. `detail` says more where the run did not end by itself; `unpredicted`
    is why a model has no prediction; `timing` is there where exits were timed. `notes` say what the
    host put right. `exception` are the registers that tell of the last exception that the guest
    took, where it hangs; with `again` they are of a second run (kvmscen.sent.executor.vectors).
    """

    stopped: str
    events: tuple[Event, ...]
    regs: Mapping[str, int]
    memory: Mapping[int, bytes]
    elapsed: float
    detail: str | None = None
    unpredicted: str | None = None
    timing: Timing | None = None
    notes: tuple[str, ...] = ()
    exception: Mapping[str, int] | None = None
