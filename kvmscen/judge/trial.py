"""One observation held against one story, along the way that the host went: whether it holds, and
if not, what differs.

It holds if every event took a step and is all that the step says, got that step's reply and
actions, every ioctl ended as written, nothing must still have come, and the final state is as
written. What an alignment could make of the same events is for reports alone (`align`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from kvmscen.job.expectation import Deed, Expected, Story, parts
from kvmscen.job.legend import Legend
from kvmscen.job.notation import Notation, seen
from kvmscen.job.origin import source
from kvmscen.judge.align import aligned
from kvmscen.judge.astray import astray
from kvmscen.judge.compare import at_width, counts_rounds, differences, memory_holds, undone
from kvmscen.judge.untried import untried
from kvmscen.judge.walk import Course, Occurrence, Taken
from kvmscen.results.result import Mismatch, StoryRow
from kvmscen.sent.observation import Event, Observation
from kvmscen.sent.script.interpreter import answered, matches
from kvmscen.sent.script.recorder import op_of

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
        self.taken = self.walk if other is None else list(self.course.retrace(self.walk))
        # Whether the host went otherwise than its script goes, or what it tells cannot be; then
        # nothing can be said.
        self.astray = astray(self.host, self.walk, observation)
        self._last_failed = _last_action_failed(self.taken)
        self._numbers: list[int] = []
        self._shown: list[Event | None] = []
        self._counting: dict[int, bool] = {}
        self._known: dict[tuple[int, int, int], tuple[str, ...]] = {}
        self._made: dict[tuple[object, ...], StoryRow] = {}
        self._behind: dict[int, Taken] = {}

    def holds(self) -> bool:
        """Whether nothing differs; cheaper than `mismatches`, since nothing is written down."""
        if self.astray or any(True for _ in self._ending()) or any(True for _ in self._final()):
            return False
        return self.begins() and not any(True for _ in self._owed())

    def begins(self) -> bool:
        """Whether what was seen is how the story begins, whatever may come after it."""
        return not any(map(self.wrong, self.taken))

    def begun(self) -> bool:
        """As `begins`, of a run that was left where it stood: actions of the last exits may be
        undone.
        """
        last = len(self.taken)
        while last and self.wrong(self.taken[last - 1]) == ("then",):
            last -= 1
        return not any(map(self.wrong, self.taken[:last]))

    def untried(self) -> int | None:
        """The line at which the host, by another story, did not go as this one says, before
        anything else differed.
        """
        return untried(
            self.course, self.host, self.taken, self.walk, self.wrong, self.observation.stopped
        )

    # --- one event --------------------------------------------------------------------------------

    def wrong(self, one: Taken) -> tuple[str, ...]:
        """What is not as written of one event, as names; `extra` where no step is."""
        event = one.event
        if event.kind == "succeeded" or one.written:
            return () if one.told else ("errno",)
        if self.story.steps is None:
            return ()
        if one.ignored:
            fits = any(not differences(step, event, 0) for step in self.story.ignore)
            return () if fits else ("extra",)
        if one.slot is None:
            return ("extra",)
        return self.differences(one.slot, event) + self._unanswered(one, one.slot)

    def differences(self, slot: Occurrence, event: Event) -> tuple[str, ...]:
        """What of a step an event does not hold, with addresses in the scenario's own words."""
        # Steps and events live as long as this does, so their ids name them; without a series every
        # round is the same.
        step = slot.step
        if id(step) not in self._counting:
            self._counting[id(step)] = counts_rounds(step)
        key = (id(step), id(event), slot.nth if self._counting[id(step)] else 0)
        if key not in self._known:
            self._known[key] = tuple(map(self._named, differences(step, event, slot.nth)))
        return self._known[key]

    def _named(self, differs: str) -> str:
        prefix, _, at = differs.partition(".")
        return f"memory.{self.notation.address(int(at, 16))}" if prefix == "memory" else differs

    def _unanswered(self, one: Taken, slot: Occurrence) -> tuple[str, ...]:
        """What the host should have replied and done for this step, and has not."""
        step, given = slot.step, None if one.given is None else one.given.step
        failed = one.event is self._last_failed
        if given is step:
            return ("then",) if undone(step, one.event, failed) else ()
        return ("then",) * (
            _texts(step) != _texts(given)
            or (given is not None and undone(given, one.event, failed))
        )

    # --- the end ----------------------------------------------------------------------------------

    def _owed(self) -> Iterator[tuple[int, Occurrence]]:
        return iter(()) if self.story.steps is None else self.course.owed(self.taken)

    def _ending(self) -> Iterator[Mismatch]:
        """What ended the run where that is a difference by itself, and ioctls that should have
        failed and were not called.
        """
        stopped = self.observation.stopped
        if stopped == "exits":
            yield self._ends("the limit of exits was reached")
        elif self.story.steps is None:
            unwanted = self._unwanted_end()
            if unwanted is not None:
                yield self._ends(f"ended by {unwanted}: write it in `expect`")
        ops = {one.event.op for one in self.taken}
        if not any(self.wrong(one) for one in self.taken if one.event.op is not None):
            for op, deed in self._told():
                if op not in ops:
                    yield Mismatch(0, deed.line, f"error: {{errno: {deed.errno}}}", None)

    def _ends(self, how: str) -> Mismatch:
        return Mismatch(0, self.story.line, "the run ends", how)

    def _unwanted_end(self) -> str | None:
        """What ended a run without steps, where nobody can have wanted that end."""
        stopped = self.observation.stopped
        if stopped == "timeout":
            return "the time limit"
        last = self.taken[-1].event if self.taken else None
        if last is None or self.taken[-1].told:
            return "no exit"
        if last.kind == "exit" and (
            last.name in _WANTED_ENDS and last.fields.get("type") not in _CRASHES
        ):
            return None
        if stopped in ("expected", "error", "extra"):
            where = source(last, self.legend, self.arch, self.flavour)
            return self.notation.event(last) + (f" at {where}" if where else "")
        return None

    def _told(self) -> Iterator[tuple[str, Deed]]:
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
            aligned(self.course, self.taken, self.differences)
            if self.story.steps is not None
            else None
        )
        if side is not None:
            rows = self._rows(side)
            if any(row.mark in "!-+" for row in rows) or (
                self.begins() and not any(True for _ in self._owed())
            ):
                return rows
        pairs: list[tuple[Occurrence | None, Taken | None]] = [
            (one.slot, one) for one in self.taken
        ]
        pairs += [(slot, None) for _, slot in islice(self._owed(), _OWED)]
        return self._rows(pairs)

    def _rows(
        self, pairs: Sequence[tuple[Occurrence | None, Taken | None]]
    ) -> tuple[StoryRow, ...]:
        self._numbers = [0 if slot is None else slot.number for slot, _ in pairs]
        self._shown = [None if one is None else one.event for _, one in pairs]
        return tuple(self._row(slot, one) for slot, one in pairs)

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

    def _row(self, slot: Occurrence | None, one: Taken | None) -> StoryRow:
        if one is None:
            assert slot is not None
            return StoryRow("-", slot.step.line, self.notation.expected(slot.step, slot.nth), "")
        event, deed = one.event, one.deed
        if event.kind == "succeeded" or one.written:
            return self._deed_row(one)
        if slot is None:
            mark = (
                " "
                if self.story.steps is None
                else "+"
                if self.wrong(one) or not one.ignored
                else "~"
            )
            line = 0 if deed is None else deed.line
            return StoryRow(mark, line, "", self.notation.event(event), (), self._at(event, deed))
        counting = self._counting.get(id(slot.step), True)
        told = self._told_behind(one)
        key = (
            id(slot.step),
            id(event),
            slot.nth if counting else 0,
            id(one.given and one.given.step),
            told,
        )
        if key not in self._made:
            self._made[key] = self._pair(slot, one, told)
        return self._made[key]

    def _told_behind(self, one: Taken) -> bool:
        """Whether the action of its step that did not end as written has a row of its own right
        behind.
        """
        if not self._behind:
            self._behind = {
                id(this): then for this, then in zip(self.taken, self.taken[1:], strict=False)
            }
        then = self._behind.get(id(one))
        return then is not None and then.event.op is not None and bool(self.wrong(then))

    def _pair(self, slot: Occurrence, one: Taken, told: bool) -> StoryRow:
        event, step = one.event, slot.step
        differs = self.differences(slot, event)
        if differs != ("exit",):
            differs += self._unanswered(one, slot)
        if told and differs == ("then",) and one.given is not None and one.given.step is step:
            differs = ()
        return StoryRow(
            "!" if differs else " ",
            step.line,
            self.notation.expected(at_width(step, event), slot.nth),
            self.notation.event(event, step),
            tuple(dict.fromkeys(differs)),
            self._at(event, one.deed),
            self._note(slot, one, differs),
        )

    def _deed_row(self, one: Taken) -> StoryRow:
        event, deed = one.event, one.deed
        expected = "" if deed is None or deed.errno is None else f"error: {{errno: {deed.errno}}}"
        line = 0 if deed is None else deed.line
        return StoryRow(
            " " if one.told else "!",
            line,
            expected,
            self.notation.event(event),
            (),
            self._at(event, deed),
        )

    def _note(self, slot: Occurrence, one: Taken, differs: Sequence[str]) -> str:
        """What was not replied or done, and why, in words."""
        step, given = slot.step, one.given
        out: list[str] = []
        if (
            "reply" in differs
            and one.event.reply
            and not answered(one.event.name, one.event.fields, one.event.reply)
        ):
            out.append(
                "the reply could not be given: this exit is a write, or narrower than the reply"
            )
        elif "reply" in differs and step.answer:
            out.append(f"the reply {step.answer} was not given")
        elif "reply" in differs and given is not None:
            out.append(f"it got the reply {given.step.answer}")
        if "then" in differs and (given is None or given.step is not step):
            out.append("its `then` was not carried out")
        elif "then" in differs:
            out.append(f"of its `then` {one.event.done} of {len(step.then or ())} ended as written")
        if out and (given is None or given.step is not step):
            stood = (
                "no step took this exit"
                if given is None
                else f"the host took this exit as the step of line {given.step.line}"
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


def _last_action_failed(taken: Sequence[Taken]) -> Event | None:
    """The event whose last action failed, where a step `error` took that failure. The run ended
    with it.
    """
    if not taken or taken[-1].event.op is None or taken[-1].slot is None or taken[-1].deed is None:
        return None
    name, _, number = (taken[-1].event.op or "").rpartition("/then/")
    before = next((one for one in reversed(taken[:-1]) if one.at and op_of(one.at) == name), None)
    if before is None or before.slot is None or before.event.vcpu != taken[-1].event.vcpu:
        return None
    if int(number) + 1 != len(parts(before.slot.step.then or ())):
        return None
    return before.event if sum(one.event is before.event for one in taken) == 1 else None


def _texts(step: Expected | None) -> list[str]:
    return [] if step is None else [deed.text for deed in step.then or ()]
