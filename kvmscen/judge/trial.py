"""One observation held against one story, along the way that the host went: whether it holds, and
if not, what differs.

It holds if every event took a step and is all that the step says, got that step's reply and
actions, every ioctl ended as written, nothing must still have come, and the final state is as
written. What an alignment could make of the same events is for reports alone (`align`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from kvmscen.job.expectation import Deed, Expected, Story
from kvmscen.job.legend import Legend
from kvmscen.job.notation import Notation, seen
from kvmscen.job.origin import source
from kvmscen.judge.align import Pair, aligned
from kvmscen.judge.astray import astray
from kvmscen.judge.compare import at_width, counts_rounds, differences, memory_holds, undone
from kvmscen.judge.untried import cut_short, untried
from kvmscen.judge.walk import Course, Occurrence, TracedEvent, last_action_failed
from kvmscen.results.result import Mismatch, StoryRow
from kvmscen.sent.observation import Event, Observation
from kvmscen.sent.script.interpreter import answered, matches

# Missing steps that are listed.
_OWED = 1000
# Exits at which a run without `expect` may end: the guest halts, or asks to be powered off or
# reset.
_WANTED_ENDS = ("hlt", "system_event")
_CRASHES = (3, 6, 7)  # KVM_SYSTEM_EVENT_CRASH, _SEV_TERM, _TDX_FATAL


class Trial:
    """Holds one observation against one story. `flavour` tells where pc stands at an exit.

    `other` is the story that the host's script was made of, where it was not this one.
    """

    def __init__(
        self,
        story: Story,
        observation: Observation,
        legend: Legend,
        arch: str,
        flavour: str | None,
        other: Story | None = None,
    ) -> None:
        self.story = story
        self.observation = observation
        self.notation = Notation(legend, arch)
        self.legend = legend
        self.arch = arch
        self.flavour = flavour
        self.course = Course(story)
        self.host = Course(other) if other is not None else self.course
        self.walk = list(self.host.walk(observation.events))
        self.trace = self.walk if other is None else list(self.course.retrace(self.walk))
        # Whether the host went otherwise than its script goes, or what it tells cannot be; then
        # nothing can be said.
        self.astray = astray(self.host, self.walk, observation)
        self._last_failed = last_action_failed(self.trace)
        self._numbers: list[int] = []
        self._shown: list[Event | None] = []
        self._counting: dict[int, bool] = {}
        self._differences: dict[tuple[int, int, int], tuple[str, ...]] = {}
        self._paired_rows: dict[tuple[object, ...], StoryRow] = {}
        self._behind: dict[int, TracedEvent] = {}

    def holds(self) -> bool:
        """Whether nothing differs; cheaper than `mismatches`, since nothing is written down."""
        if self.astray or any(True for _ in self._ending()) or any(True for _ in self._final()):
            return False
        return self.begins() and not any(True for _ in self._owed())

    def begins(self) -> bool:
        """Whether every event so far is as the story says; steps may be missing behind them."""
        return not any(map(self.wrong, self.trace))

    def begun(self) -> bool:
        """As `begins`, of a run that was left where it stood: actions of the last exits may be
        undone.
        """
        last = len(self.trace)
        while last and self.wrong(self.trace[last - 1]) == ("then",):
            last -= 1
        return not any(map(self.wrong, self.trace[:last]))

    def untried(self) -> int | None:
        """The line at which the host, by another story, did not go as this one says, before
        anything else differed.
        """
        return untried(
            self.course, self.host, self.trace, self.walk, self.wrong, self.observation.stopped
        )

    # --- one event --------------------------------------------------------------------------------

    def wrong(self, traced: TracedEvent) -> tuple[str, ...]:
        """The names of what differs in one event (`data`, `regs.x2`, `then`, ...); `extra` where it
        took no step.
        """
        event = traced.event
        if event.kind == "succeeded" or traced.errno_written:
            return () if traced.failed_as_written else ("errno",)
        if self.story.steps is None:
            return ()
        if traced.ignored:
            fits = any(not differences(step, event, 0) for step in self.story.ignore)
            return () if fits else ("extra",)
        if traced.occurrence is None:
            return ("extra",)
        return self.differences(traced.occurrence, event) + self._unanswered(
            traced, traced.occurrence
        )

    def differences(self, occurrence: Occurrence, event: Event) -> tuple[str, ...]:
        """What of a step an event does not hold, with addresses in the scenario's own words."""
        # Steps and events live as long as this does, so their ids name them; without a series every
        # round is the same.
        step = occurrence.step
        if id(step) not in self._counting:
            self._counting[id(step)] = counts_rounds(step)
        key = (id(step), id(event), occurrence.nth if self._counting[id(step)] else 0)
        if key not in self._differences:
            self._differences[key] = tuple(
                map(self._named, differences(step, event, occurrence.nth))
            )
        return self._differences[key]

    def _named(self, differs: str) -> str:
        prefix, _, at = differs.partition(".")
        return f"memory.{self.notation.address(int(at, 16))}" if prefix == "memory" else differs

    def _unanswered(self, traced: TracedEvent, occurrence: Occurrence) -> tuple[str, ...]:
        """What the host should have replied and done for this step, and has not."""
        step, host_step = occurrence.step, traced.host_step
        failed = traced.event is self._last_failed
        if host_step is step:
            return ("then",) if undone(step, traced.event, failed) else ()
        return ("then",) * (
            _texts(step) != _texts(host_step)
            or (host_step is not None and undone(host_step, traced.event, failed))
        )

    # --- the end ----------------------------------------------------------------------------------

    def _owed(self) -> Iterator[tuple[int, Occurrence]]:
        return iter(()) if self.story.steps is None else self.course.owed(self.trace)

    def _ending(self) -> Iterator[Mismatch]:
        """What ended the run where that is a difference by itself, and ioctls that should have
        failed and were not called.
        """
        stopped = self.observation.stopped
        if stopped == "exits":
            yield self._ends("the limit of exits was reached")
        elif stopped == "timeout" and self.begins() and cut_short(self.course, self.trace):
            yield self._ends("the time limit was reached before the story was over")
        elif self.story.steps is None:
            unwanted = self._unwanted_end()
            if unwanted is not None:
                yield self._ends(f"ended by {unwanted}: write it in `expect`")
        ops = {traced.event.op for traced in self.trace}
        if not any(self.wrong(traced) for traced in self.trace if traced.event.op is not None):
            for op, deed in self._written_to_fail():
                if op not in ops:
                    yield Mismatch(0, deed.line, f"error: {{errno: {deed.errno}}}", None)

    def _ends(self, how: str) -> Mismatch:
        return Mismatch(0, self.story.line, "the run ends", how)

    def _unwanted_end(self) -> str | None:
        """What ended a run without steps, where nobody can have wanted that end."""
        stopped = self.observation.stopped
        if stopped == "timeout":
            return "the time limit"
        last = self.trace[-1].event if self.trace else None
        if last is None or self.trace[-1].failed_as_written:
            return "no exit"
        if last.kind == "exit" and (
            last.name in _WANTED_ENDS and last.fields.get("type") not in _CRASHES
        ):
            return None
        if stopped in ("expected", "error", "extra"):
            where = source(last, self.legend, self.arch, self.flavour)
            return self.notation.event(last) + (f" at {where}" if where else "")
        return None

    def _written_to_fail(self) -> Iterator[tuple[str, Deed]]:
        """The ioctls before the first entry that are written to fail."""
        yield from ((op, deed) for op, deed in self.story.built.items() if deed.errno is not None)
        yield from (
            (f"setup/{n}", deed)
            for n, deed in enumerate(self.course.setup)
            if deed.errno is not None
        )

    def _final(self) -> Iterator[Mismatch]:
        notation, seen_regs = self.notation, self.observation.regs
        for name, matcher in self.story.regs.items():
            value = seen_regs.get(name)
            if not matches(matcher, value):
                observed = "nothing" if value is None else notation.register(value)
                yield Mismatch(
                    0,
                    self.story.line,
                    f"final {name}: {notation.register(matcher)}",
                    f"final {name}: {observed}",
                )
        for check in self.story.memory:
            if not memory_holds(check, self.observation.memory, 0):
                observed = notation.memory(seen(check, self.observation.memory))
                if not self.observation.memory.get(check.gpa):
                    observed = f"{notation.address(check.gpa)}: no memory there"
                yield Mismatch(
                    0, self.story.line, f"final {notation.memory(check)}", f"final {observed}"
                )

    # --- for reports ------------------------------------------------------------------------------

    def rows(self) -> tuple[StoryRow, ...]:
        """The whole story side by side, in order: aligned so that what differs is seen at its
        place.

        Where the alignment shows no difference, though there is one along the host's way, that way
        is shown.
        """
        side = (
            aligned(self.course, self.trace, self.differences)
            if self.story.steps is not None
            else None
        )
        if side is not None:
            rows = self._rows(side)
            if any(row.mark in "!-+" for row in rows) or (
                self.begins() and not any(True for _ in self._owed())
            ):
                return rows
        pairs: list[Pair] = [(traced.occurrence, traced) for traced in self.trace]
        pairs += [(occurrence, None) for _, occurrence in islice(self._owed(), _OWED)]
        return self._rows(pairs)

    def _rows(self, pairs: Sequence[Pair]) -> tuple[StoryRow, ...]:
        self._numbers = [0 if occurrence is None else occurrence.number for occurrence, _ in pairs]
        self._shown = [None if traced is None else traced.event for _, traced in pairs]
        return tuple(self._row(occurrence, traced) for occurrence, traced in pairs)

    def mismatches(self, rows: Sequence[StoryRow]) -> tuple[Mismatch, ...]:
        """Every difference: of the rows that `rows` gave, of the end, and of the final state."""
        out: list[Mismatch] = []
        for row, number in zip(rows, self._numbers, strict=True):
            if row.mark in "!-+":
                out.append(Mismatch(number, row.line, row.expected or None, row.observed or None))
        return (*out, *self._ending(), *self._final())

    def unexpected(self, rows: Sequence[StoryRow]) -> list[Event]:
        """The events in the rows that `rows` gave which were not expected there."""
        return [
            event
            for event, row in zip(self._shown, rows, strict=True)
            if event is not None and row.mark in "!+"
        ]

    def _row(self, occurrence: Occurrence | None, traced: TracedEvent | None) -> StoryRow:
        if traced is None:
            assert occurrence is not None
            return StoryRow(
                "-",
                occurrence.step.line,
                self.notation.expected(occurrence.step, occurrence.nth),
                "",
            )
        event, deed = traced.event, traced.deed
        if event.kind == "succeeded" or traced.errno_written:
            return self._deed_row(traced)
        if occurrence is None:
            mark = (
                " "
                if self.story.steps is None
                else "+"
                if self.wrong(traced) or not traced.ignored
                else "~"
            )
            line = 0 if deed is None else deed.line
            return StoryRow(mark, line, "", self.notation.event(event), (), self._at(event, deed))
        counting = self._counting.get(id(occurrence.step), True)
        has_action_row = self._action_row_follows(traced)
        key = (
            id(occurrence.step),
            id(event),
            occurrence.nth if counting else 0,
            id(traced.host_step),
            has_action_row,
        )
        if key not in self._paired_rows:
            self._paired_rows[key] = self._pair(occurrence, traced, has_action_row)
        return self._paired_rows[key]

    def _action_row_follows(self, traced: TracedEvent) -> bool:
        """Whether the action of its step that did not end as written has a row of its own right
        behind.
        """
        if not self._behind:
            self._behind = {
                id(this): then for this, then in zip(self.trace, self.trace[1:], strict=False)
            }
        then = self._behind.get(id(traced))
        return then is not None and then.event.op is not None and bool(self.wrong(then))

    def _pair(self, occurrence: Occurrence, traced: TracedEvent, has_action_row: bool) -> StoryRow:
        event, step = traced.event, occurrence.step
        differs = self.differences(occurrence, event)
        if differs != ("exit",):
            differs += self._unanswered(traced, occurrence)
        if has_action_row and differs == ("then",) and traced.host_step is step:
            differs = ()
        return StoryRow(
            "!" if differs else " ",
            step.line,
            self.notation.expected(at_width(step, event), occurrence.nth),
            self.notation.event(event, step),
            tuple(dict.fromkeys(differs)),
            self._at(event, traced.deed),
            self._note(occurrence, traced, differs),
        )

    def _deed_row(self, traced: TracedEvent) -> StoryRow:
        event, deed = traced.event, traced.deed
        expected = "" if deed is None or deed.errno is None else f"error: {{errno: {deed.errno}}}"
        line = 0 if deed is None else deed.line
        return StoryRow(
            " " if traced.failed_as_written else "!",
            line,
            expected,
            self.notation.event(event),
            (),
            self._at(event, deed),
        )

    def _note(self, occurrence: Occurrence, traced: TracedEvent, differs: Sequence[str]) -> str:
        """The `note` of a row: which reply was not given or which action not done, and why."""
        step, host_step = occurrence.step, traced.host_step
        out: list[str] = []
        if (
            "reply" in differs
            and traced.event.reply
            and not answered(traced.event.name, traced.event.fields, traced.event.reply)
        ):
            out.append(
                "the reply could not be given: this exit is a write, or narrower than the reply"
            )
        elif "reply" in differs and step.answer:
            out.append(f"the reply {step.answer} was not given")
        elif "reply" in differs and host_step is not None:
            out.append(f"it got the reply {host_step.answer}")
        if "then" in differs and host_step is not step:
            out.append("its `then` was not carried out")
        elif "then" in differs:
            out.append(
                f"of its `then` {traced.event.done} of {len(step.then or ())} ended as written"
            )
        if out and host_step is not step:
            stood = (
                "no step took this exit"
                if host_step is None
                else f"the host took this exit as the step of line {host_step.line}"
            )
            out.append(f"when it came, {stood}")
        return "; ".join(out)

    def _at(self, event: Event, deed: Deed | None) -> str:
        where = source(event, self.legend, self.arch, self.flavour)
        if deed is None:
            return where
        # Of all actions, `emulate` alone is about the guest's instruction.
        about = f" ({where})" if where and event.fields.get("ioctl") == "emulate" else ""
        return f"{deed.line}: {deed.text}{about}"


def _texts(step: Expected | None) -> list[str]:
    return [] if step is None else [deed.text for deed in step.then or ()]
