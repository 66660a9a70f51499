"""The way that a host went along a story: which step each event took, and what must still have
come.

The host says in each Event which step it took (`at`), and what it replied and did there; the
verdict goes by that. `retrace` says how a host would have gone whose script was another story.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kvmscen.job.expectation import Deed, Expected, Story, parts
from kvmscen.sent.machine import Action, Step
from kvmscen.sent.observation import Event, behind
from kvmscen.sent.script.interpreter import Position, Script, iteration
from kvmscen.sent.script.recorder import op_of


class Occurrence(NamedTuple):
    """One expected occurrence: the step, its round from 0, and the step's number from 1 as it is
    written.
    """

    step: Expected
    nth: int
    number: int


class TracedEvent(NamedTuple):
    """One event along a story (its `times` is 1, and those of one Event are one object), and the
    step that it took at `at`; None: it took none.

    `deed` is the slot, capability or action whose ioctl it is of. `host_occurrence` is the step for
    which the host replied and acted: of another story, where it went by that.
    """

    event: Event
    at: Position | None = None
    occurrence: Occurrence | None = None
    deed: Deed | None = None
    ignored: bool = False
    host_occurrence: Occurrence | None = None

    @property
    def step(self) -> Expected | None:
        return None if self.occurrence is None else self.occurrence.step

    @property
    def host_step(self) -> Expected | None:
        return None if self.host_occurrence is None else self.host_occurrence.step

    @property
    def errno_written(self) -> bool:
        """Whether an `errno` is written at the slot, capability or action whose ioctl this is."""
        return self.deed is not None and self.deed.errno is not None

    @property
    def failed_as_written(self) -> bool:
        """Whether the ioctl failed with the `errno` written at its slot, capability or action."""
        return (
            self.deed is not None
            and self.event.kind == "error"
            and self.deed.errno == self.event.name
        )


class Course:
    """A story as each vCPU goes along it."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self._numbers: dict[int, int] = {}
        _count(story.steps or (), self._numbers)
        self._own: dict[int, tuple[Expected, ...]] = {}
        self._mirrors: dict[int, tuple[Step, ...]] = {}
        self.setup = parts(story.setup)
        self._occurrences: dict[tuple[int, Position], Occurrence | None] = {}

    @property
    def vcpus(self) -> list[int]:
        """The vCPUs that have steps, in order."""
        return sorted(_vcpus(self.story.steps or ()))

    def steps(self, vcpu: int) -> tuple[Expected, ...]:
        """The steps of one vCPU, as its script has them."""
        if vcpu not in self._own:
            self._own[vcpu] = _of(self.story.steps or (), vcpu)
        return self._own[vcpu]

    def script(self, vcpu: int) -> Script:
        """A Script of one vCPU's steps, as the host's interpreter has."""
        if self.story.steps is None:
            return Script(None, self._ignored())
        if vcpu not in self._mirrors:
            self._mirrors[vcpu] = tuple(map(_mirror, self.steps(vcpu)))
        return Script(self._mirrors[vcpu], self._ignored())

    def occurrence(self, vcpu: int, at: Position) -> Occurrence | None:
        """The step at a position; None where there is none, as a recording may have it."""
        if (vcpu, at) not in self._occurrences:
            self._occurrences[vcpu, at] = self._find(vcpu, at)
        return self._occurrences[vcpu, at]

    def _find(self, vcpu: int, at: Position) -> Occurrence | None:
        steps, step = self.steps(vcpu), None
        for index, _ in at:
            if not 0 <= index < len(steps):
                return None
            step = steps[index]
            steps = step.steps
        if step is None or step.kind == "group":
            return None
        return Occurrence(step, iteration(at, step.repeat), self._numbers[id(step)])

    def deed(self, event: Event) -> Deed | None:
        """The slot, capability or action that an event's ioctl is of."""
        if event.op is None:
            return None
        where, _, number = event.op.rpartition("/")
        if where == "setup":
            return _at(self.setup, number)
        if not where.startswith("steps/"):
            return self.story.built.get(event.op)
        path = where[len("steps/") : -len("/then")]
        at = tuple((int(index), 0) for index in path.split("/") if index.isdecimal())
        occurrence = self.occurrence(event.vcpu, at) if at else None
        return None if occurrence is None else _at(parts(occurrence.step.then or ()), number)

    def walk(self, events: Sequence[Event]) -> Iterator[TracedEvent]:
        """Each event, as often as it happened, with the step that the host says it took."""
        for whole in events:
            deed = self.deed(whole)
            event = whole if whole.times == 1 else whole._replace(times=1)
            for nth in range(whole.times):
                at = behind(whole.at, nth)
                occurrence = None if at is None else self.occurrence(whole.vcpu, at)
                yield TracedEvent(
                    event,
                    None if occurrence is None else at,
                    occurrence,
                    deed,
                    event.ignored,
                    occurrence,
                )

    def retrace(self, walk: Iterable[TracedEvent]) -> Iterator[TracedEvent]:
        """The same events, as a host takes them whose script is this story, as far as it would have
        gone.
        """
        scripts: dict[int, Script] = {}
        left: set[int] = set()
        for traced in walk:
            event = traced.event
            deed = self.deed(event)
            script = scripts.setdefault(event.vcpu, self.script(event.vcpu))
            if event.kind == "succeeded" or (deed is not None and deed.errno == event.name):
                yield TracedEvent(event, deed=deed)
                continue
            if (script.over() or event.vcpu in left) and (
                event.kind != "error" or event.fields.get("ioctl") == "KVM_RUN"
            ):
                # It would not have entered the guest again.
                return
            verdict = script.take(event.kind, event.name, event.fields)
            if verdict.stop in ("expected", "error") and event.name != "arm_nisv":
                left.add(event.vcpu)
            occurrence = None if verdict.at is None else self.occurrence(event.vcpu, verdict.at)
            yield TracedEvent(
                event, verdict.at, occurrence, deed, verdict.ignored, traced.occurrence
            )

    def owed(self, trace: Sequence[TracedEvent]) -> Iterator[tuple[int, Occurrence]]:
        """What must still have come behind these events, by vCPU and in order."""
        last: dict[int, Position] = {}
        for traced in trace:
            if traced.at is not None:
                last[traced.event.vcpu] = traced.at
        for vcpu in self.vcpus:
            yield from ((vcpu, occurrence) for occurrence in self._behind(vcpu, last.get(vcpu)))

    def _behind(self, vcpu: int, at: Position | None) -> Iterator[Occurrence]:
        if at is None:
            yield from self._must(vcpu, (), self.steps(vcpu), 0)
            return
        steps: list[Sequence[Expected]] = [self.steps(vcpu)]
        for index, _ in at[:-1]:
            steps.append(steps[-1][index].steps)
        for depth in range(len(at) - 1, -1, -1):
            index, nth = at[depth]
            step = steps[depth][index]
            yield from self._rounds(vcpu, at[:depth], index, step, nth + 1)
            yield from self._must(vcpu, at[:depth], steps[depth], index + 1)

    def _must(
        self, vcpu: int, outer: Position, steps: Sequence[Expected], first: int
    ) -> Iterator[Occurrence]:
        for index in range(first, len(steps)):
            yield from self._rounds(vcpu, outer, index, steps[index], 0)

    def _rounds(
        self, vcpu: int, outer: Position, index: int, step: Expected, first: int
    ) -> Iterator[Occurrence]:
        if _may_be_missing(step):
            return
        for nth in range(first, step.repeat[0]):
            at = (*outer, (index, nth))
            if step.kind == "group":
                yield from self._must(vcpu, at, step.steps, 0)
            else:
                occurrence = self.occurrence(vcpu, at)
                assert occurrence is not None
                yield occurrence

    def _ignored(self) -> list[Step]:
        return [Step(step.kind, where=step.fields) for step in self.story.ignore]


def last_action_failed(trace: Sequence[TracedEvent]) -> Event | None:
    """The event whose last action failed, where a step `error` took that failure. The run ended
    with it.
    """
    last = trace[-1] if trace else None
    if last is None or last.event.op is None or last.occurrence is None or last.deed is None:
        return None
    op, _, number = last.event.op.rpartition("/then/")
    before = next(
        (early for early in reversed(trace[:-1]) if early.at and op_of(early.at) == op), None
    )
    if before is None or before.occurrence is None or before.event.vcpu != last.event.vcpu:
        return None
    if int(number) + 1 != len(parts(before.occurrence.step.then or ())):
        return None
    return before.event if sum(traced.event is before.event for traced in trace) == 1 else None


def _mirror(step: Expected) -> Step:
    where: Mapping[str, Any] = {key: step.fields[key] for key in step.where}
    then: tuple[Action, ...] | None = None if step.then is None else ()
    return Step(
        step.kind,
        where,
        step.repeat,
        then=then,
        timeout=step.timeout,
        steps=tuple(map(_mirror, step.steps)),
    )


def _may_be_missing(step: Expected) -> bool:
    return step.repeat[0] == 0 or (step.kind == "group" and all(map(_may_be_missing, step.steps)))


def _of(steps: Sequence[Expected], vcpu: int) -> tuple[Expected, ...]:
    own = (
        step._replace(steps=_of(step.steps, vcpu)) if step.kind == "group" else step
        for step in steps
    )
    return tuple(
        step for step in own if (step.steps if step.kind == "group" else step.vcpu == vcpu)
    )


def _vcpus(steps: Sequence[Expected]) -> set[int]:
    out: set[int] = set()
    for step in steps:
        out |= _vcpus(step.steps) if step.kind == "group" else {step.vcpu}
    return out


def _count(steps: Sequence[Expected], numbers: dict[int, int]) -> None:
    for step in steps:
        if step.kind == "group":
            _count(step.steps, numbers)
        else:
            numbers[id(step)] = len(numbers) + 1


def _at(deeds: Sequence[Deed], number: str) -> Deed | None:
    return deeds[int(number)] if number.isdecimal() and int(number) < len(deeds) else None
