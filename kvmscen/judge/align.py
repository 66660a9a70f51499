"""Expected against observed: one extra exit is one difference. Pure; knows no host and no YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import repeat, zip_longest
from math import inf
from typing import Any

from kvmscen.expectation import Deed, Expected, Story
from kvmscen.job import Legend
from kvmscen.judge.walk import deed_of
from kvmscen.kvm.script import Script, answered, fits, iteration, matches
from kvmscen.machine import Step
from kvmscen.notation import Notation, seen
from kvmscen.observation import Event, Observation
from kvmscen.result import Mismatch, Row
from kvmscen.whence import source

# After so many states the cheapest alignment is given up, and the rest of a story is paired in order.
_STATES = 150_000
# What an alignment costs: a step or an event alone 1, the same exit with other values, the same exit elsewhere, another exit
# or errno. All are below 2, so that a difference in one place is one difference.
_ALONE, _HELD, _ELSEWHERE, _OTHER, _LATE, _NEVER = 1.0, 1.0, 1.5, 1.75, 1e-6, 3.0


@dataclass(frozen=True)
class _Slot:
    """One expected occurrence: the step, its round from 0, and the step's number from 1."""

    step: Expected
    nth: int
    number: int


@dataclass(frozen=True)
class _Course:
    """All that may come, in order. `jumps`: from where one may go on to where, since what is between need not come."""

    slots: list[_Slot]
    jumps: dict[int, list[int]]


Pair = tuple["_Slot | None", "Event | None"]


class Diff:
    """Holds one observation against one story. `flavour` tells where pc stands at an exit."""

    def __init__(self, story: Story, observation: Observation, legend: Legend, arch: str, flavour: str | None) -> None:
        self.story = story
        self.observation = observation
        self.notation = Notation(legend, arch)
        self.legend = legend
        self.arch = arch
        self.flavour = flavour
        # One for each time that it happened.
        self.events = [one for event in observation.events for one in _each(event)]
        self._numbers: list[int] = []
        self._counting: dict[int, bool] = {}
        self._known: dict[tuple[int, int, int], tuple[str, ...]] = {}
        self._made: dict[tuple[Any, ...], Row] = {}

    def holds(self) -> bool:
        """Whether nothing differs; cheaper than `mismatches`, since nothing is written down."""
        if self._ending() is not None or any(True for _ in self._final()):
            return False
        if self.story.steps is None:
            return True
        walk = _Walk(self.story.steps)
        return self._begins(walk) and walk.finished()

    def begins(self) -> bool:
        """Whether what was seen is how the story begins, whatever may come after it."""
        return self.story.steps is None or self._begins(_Walk(self.story.steps))

    def _begins(self, walk: _Walk) -> bool:
        return all(self._ignored(event) or self._take(walk, event) is not None for event in self.events)

    def rows(self) -> tuple[Row, ...]:
        """The whole story side by side, in order."""
        self._numbers = []
        if self.story.steps is None:
            return tuple(self._row((None, event), compared=False) for event in self.events)
        ignored = [self._ignored(event) for event in self.events]
        rows: list[Row] = []
        at = 0
        for slot, event in self._align([event for event, out in zip(self.events, ignored, strict=True) if not out]):
            if event is not None:
                while ignored[at]:
                    rows.append(self._row((None, self.events[at]), compared=False))
                    at += 1
                at += 1
            rows.append(self._row((slot, event)))
        rows += [self._row((None, event), compared=False) for event in self.events[at:]]
        return tuple(rows)

    def mismatches(self, rows: Sequence[Row]) -> tuple[Mismatch, ...]:
        """Every difference: of the rows that `rows` gave, of the end, and of the final state."""
        out: list[Mismatch] = []
        for row, number in zip(rows, self._numbers, strict=True):
            if row.mark in "!-+":
                out.append(Mismatch(number, row.line, row.expected or None, row.observed or None))
        ending = self._ending()
        if ending is not None:
            out.append(Mismatch(0, self.story.line, "the run ends", ending))
        return (*out, *self._final())

    # --- comparing --------------------------------------------------------------------------------------------------

    def differences(self, step: Expected, event: Event, nth: int) -> tuple[str, ...]:
        """What of a step an event does not hold: member names, `regs.x2`, `memory.counter`."""
        # Steps and events live as long as this does, so their ids name them; without a series every round is the same.
        if id(step) not in self._counting:
            self._counting[id(step)] = _counts(step.fields) or _counts(step.regs) or _counts([m[2] for m in step.memory])
        key = (id(step), id(event), nth if self._counting[id(step)] else 0)
        if key not in self._known:
            self._known[key] = self._differences(step, event, nth)
        return self._known[key]

    def _differences(self, step: Expected, event: Event, nth: int) -> tuple[str, ...]:
        fields: Mapping[str, Any] = {**event.fields, "errno": event.name} if event.kind == "error" else event.fields
        if step.kind != (event.name if event.kind == "exit" else event.kind):
            return ("exit",)
        out = [key for key, matcher in step.fields.items() if not holds(matcher, fields.get(key), nth, step.kind == "io")]
        if step.kind == "timeout" and event.fields["timeout"] < step.timeout:
            # The run's own time was over first.
            out.append("timeout")
        regs = event.regs or {}
        out += [f"regs.{name}" for name, matcher in step.regs.items() if not matches(matcher, regs.get(name), nth)]
        for check in step.memory:
            if not memory_holds(check, event.memory or {}, nth):
                out.append("memory." + self.notation.address(check[0]))
        if event.reply and not answered(event.name, event.fields, event.reply):
            out.append("reply")
        return tuple(out)

    def _ending(self) -> str | None:
        """What ended the run where that is a difference by itself."""
        stopped = self.observation.stopped
        if stopped == "exits":
            return "the limit of exits was reached"
        last = self.events[-1] if self.events else None
        if self.story.steps is None and last is not None and last.kind == "error" and last.fields["ioctl"] == "emulate":
            return f"{self.notation.event(last)} at {source(last, self.legend, self.arch, self.flavour)}"
        return "the time limit was reached" if stopped == "timeout" and self.story.steps is None else None

    def _take(self, walk: _Walk, event: Event) -> _Slot | None:
        return walk.take(lambda step, nth: not self.differences(step, event, nth))

    def _final(self) -> Iterator[Mismatch]:
        notation, seen_regs = self.notation, self.observation.regs
        for name, matcher in self.story.regs.items():
            value = seen_regs.get(name)
            if not matches(matcher, value):
                observed = "nothing" if value is None else notation.register(value)
                yield Mismatch(0, self.story.line, f"final {name}: {notation.register(matcher)}", f"final {name}: {observed}")
        for check in self.story.memory:
            if not memory_holds(check, self.observation.memory, 0):
                observed = notation.memory(seen(check, self.observation.memory))
                if check[0] not in self.observation.memory:
                    observed = f"{notation.address(check[0])}: in no memslot and no section"
                yield Mismatch(0, self.story.line, f"final {notation.memory(check)}", f"final {observed}")

    # --- aligning ---------------------------------------------------------------------------------------------------

    def _ignored(self, event: Event) -> bool:
        return any(not self.differences(step, event, 0) for step in self.story.ignore)

    def _align(self, events: Sequence[Event]) -> list[Pair]:
        """Pairs of expected and observed, in order. What passes is walked; the rest is aligned at the least cost."""
        walk = _Walk(self.story.steps or ())
        pairs: list[Pair] = []
        for event in events:
            slot = self._take(walk, event)
            if slot is None:
                break
            pairs.append((slot, event))
        if len(pairs) == len(events) and walk.finished():
            return pairs
        # Not from where the walk ended: what it took first may be what is too much.
        return self._cheapest(walk.course(len(events)), events)

    def _cost(self, slot: _Slot, event: Event) -> float:
        step = slot.step
        if not self.differences(step, event, slot.nth):
            return 0.0
        if step.kind != (event.name if event.kind == "exit" else event.kind):
            # What failed is not what the guest should have done: each stands at its own line.
            return _NEVER if event.op else _OTHER
        where = {key: step.fields[key] for key in step.where}
        if fits(Step(step.kind, where), event.kind, event.name, event.fields, slot.nth):
            return _HELD
        return _OTHER if event.kind == "error" else _ELSEWHERE

    def _cheapest(self, course: _Course, events: Sequence[Event]) -> list[Pair]:
        """Least-cost alignment, by Dijkstra's search over (slots passed, events passed): few differences are found soon."""
        end = (len(course.slots), len(events))
        came: dict[tuple[int, int], tuple[int, int]] = {}
        done: set[tuple[int, int]] = set()
        costs = {(0, 0): 0.0}
        # Of equal costs the one that is farthest goes first.
        heap = [(0.0, 0, 0)]
        here = (0, 0)
        while heap:
            cost, j, i = heappop(heap)
            here = (-i, -j)
            if here in done:
                continue
            done.add(here)
            if here == end or len(done) > _STATES:
                break
            for more, there in self._ways(course, events, here):
                if cost + more < costs.get(there, inf):
                    costs[there] = cost + more
                    came[there] = here
                    heappush(heap, (cost + more, -there[1], -there[0]))
        last = max(done, key=lambda at: (at[1] + at[0], at[1])) if here != end else end
        return [*_read_off(course, events, came, last), *self._in_order(course, events, last)]

    def _ways(self, course: _Course, events: Sequence[Event], here: tuple[int, int]) -> Iterator[tuple[float, tuple[int, int]]]:
        i, j = here
        jumps = course.jumps.get(i, ())
        if i < len(course.slots) and j < len(events):
            cost = self._cost(course.slots[i], events[j])
            yield cost, (i + 1, j + 1)
            if not cost and not jumps:
                # Nothing can be cheaper than what is equal.
                return
        for there in jumps:
            yield 0.0, (there, j)
        # Of equal alignments the one that pairs first: what came instead stands where something else should have been.
        if i < len(course.slots):
            yield _ALONE + _LATE * (1 - j / (len(events) + 1)), (i + 1, j)
        if j < len(events):
            yield _ALONE + _LATE * (1 - i / (len(course.slots) + 1)), (i, j + 1)

    def _in_order(self, course: _Course, events: Sequence[Event], at: tuple[int, int]) -> list[Pair]:
        i, j = at
        must: list[_Slot] = []
        while i < len(course.slots):
            if i in course.jumps:
                i = max(course.jumps[i])
            else:
                must.append(course.slots[i])
                i += 1
        return list(zip_longest(must, events[j:]))

    # --- rows -------------------------------------------------------------------------------------------------------

    def _row(self, pair: Pair, compared: bool = True) -> Row:
        slot, event = pair
        self._numbers.append(0 if slot is None else slot.number)
        step = slot.step if slot is not None else None
        nth = slot.nth if slot is not None else 0
        counting = step is not None and self._counting.get(id(step), True)
        key = (id(step), id(event), nth if counting else 0, compared)
        if key not in self._made:
            self._made[key] = self._new_row(step, event, nth, compared)
        return self._made[key]

    def _new_row(self, step: Expected | None, event: Event | None, nth: int, compared: bool) -> Row:
        differs = self.differences(step, event, nth) if step is not None and event is not None else ()
        if not compared:
            mark = "~" if self.story.steps is not None else " "
        else:
            mark = "-" if event is None else "+" if step is None else "!" if differs else " "
        deed = None if event is None else deed_of(self.story, self.observation.events, event)
        return Row(
            mark,
            step.line if step is not None else deed.line if deed is not None else 0,
            "" if step is None else self.notation.expected(step),
            "" if event is None else self.notation.event(event, step),
            differs,
            self._at(event, deed),
        )

    def _at(self, event: Event | None, deed: Deed | None) -> str:
        where = "" if event is None else source(event, self.legend, self.arch, self.flavour)
        if deed is None:
            return where
        # Of all actions, `emulate` alone is about the guest's instruction.
        about = f" ({where})" if where and event is not None and event.fields.get("ioctl") == "emulate" else ""
        return f"{deed.line}: {deed.text}{about}"


def holds(matcher: Any, value: Any, nth: int, whole: bool = False) -> bool:
    """As `matches`, and a member that is a map (memory_fault) by its own members. `whole`: a list must have no more."""
    if isinstance(matcher, dict) and isinstance(value, dict):
        return all(matches(inner, value.get(key), nth) for key, inner in matcher.items())
    if isinstance(value, list) and value and isinstance(value[0], dict) and isinstance(matcher, list):
        return len(matcher) == len(value) and all(map(holds, matcher, value, repeat(nth)))
    # The elements of an io exit are all there is; an array member of a struct is as long as the header says.
    if whole and isinstance(matcher, list) and isinstance(value, list) and len(matcher) != len(value):
        return False
    return matches(matcher, value, nth)


def _each(event: Event) -> list[Event]:
    return [event] if event.count == 1 else [replace(event, count=1)] * event.count


def _counts(value: Any) -> bool:
    """Whether a series is in a matcher, or in a map or list of them."""
    if isinstance(value, int):
        return False
    if isinstance(value, Mapping):
        return "from" in value or any(map(_counts, value.values()))
    return isinstance(value, list) and any(map(_counts, value))


def memory_holds(check: tuple[int, str, Any], memory: Mapping[int, bytes], nth: int) -> bool:
    """Whether memory at a check's place is what it says."""
    at, unit, values = check
    if at not in memory:
        return False
    _, _, found = seen(check, memory)
    return bool(found == values) if unit == "hex" else matches(values, found, nth)


class _Walk:
    """Goes through the steps of a story as the hosts' script does, but takes a step only where all of it holds."""

    def __init__(self, steps: Sequence[Expected]) -> None:
        self._of: dict[int, tuple[Expected, int]] = {}
        self._steps = tuple(self._mirror(step) for step in steps)
        self._script = Script(self._steps)

    def _mirror(self, step: Expected) -> Step:
        number = len(self._of) + 1
        if step.kind == "group":
            return Step("group", repeat=step.repeat, steps=tuple(self._mirror(inner) for inner in step.steps))
        made = Step(step.kind, repeat=step.repeat)
        self._of[id(made)] = (step, number)
        return made

    def take(self, holds_here: Any) -> _Slot | None:
        """The first step that may come next and holds, taken; None where there is none."""
        for at, step in self._script.options():
            if step is None:
                return None
            expected, number = self._of[id(step)]
            nth = iteration(at, step)
            if holds_here(expected, nth):
                self._script.move(at)
                return _Slot(expected, nth, number)
        return None

    def finished(self) -> bool:
        """Whether nothing more must come."""
        return self._script.finished()

    def course(self, events: int) -> _Course:
        """Every occurrence that may come; of those above a minimum no more than there are events."""
        course = _Course([], {})
        self._lay(course, self._steps, 0, events)
        return course

    def _lay(self, course: _Course, steps: Sequence[Step], around: int, events: int) -> None:
        for step in steps:
            low, high = step.repeat
            optional: list[int] = []
            for nth in range(min(high, low + events)):
                if nth >= low:
                    optional.append(len(course.slots))
                if step.exit == "group":
                    self._lay(course, step.steps, nth, events)
                else:
                    expected, number = self._of[id(step)]
                    course.slots.append(_Slot(expected, around if step.repeat == (1, 1) else nth, number))
            # A round that does not come is the last: none comes behind it.
            for start in optional:
                if start < len(course.slots):
                    course.jumps.setdefault(start, []).append(len(course.slots))


def _read_off(
    course: _Course, events: Sequence[Event], came: Mapping[tuple[int, int], tuple[int, int]], at: tuple[int, int]
) -> list[Pair]:
    """The pairs on the way to a state; what is jumped over is not there."""
    out: list[Pair] = []
    while at in came:
        (i, j), there = came[at], at
        at = (i, j)
        if there[1] > j:
            out.append((course.slots[i] if there[0] > i else None, events[j]))
        elif there[0] not in course.jumps.get(i, ()):
            out.append((course.slots[i], None))
    return out[::-1]
