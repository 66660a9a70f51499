"""Expected against observed: one extra exit is one difference. Pure; knows no host and no YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvmscen.arch import ARCHES
from kvmscen.expectation import Expected, Story
from kvmscen.job import Legend
from kvmscen.kvm.script import Script, fits, iteration, matches
from kvmscen.machine import Event, Observation, Step
from kvmscen.notation import Notation, seen
from kvmscen.result import Mismatch, Row

# Above so many pairs the rest of a story is paired in order instead of by the cheapest alignment.
_PAIRS = 1_000_000
# What an alignment costs: a step or an event alone 1, the same exit elsewhere, another exit (a little less
# than both alone, so that what came instead stands beside what should have come).
_ALONE, _HELD, _ELSEWHERE, _OTHER = 1.0, 1.0, 1.5, 1.9


@dataclass(frozen=True)
class _Slot:
    """One expected occurrence: the step, its round, whether it may be missing, and its number from 1."""

    step: Expected
    nth: int
    optional: bool
    number: int


_OUT = re.compile(r"\s*out[bwl]?\b", re.IGNORECASE)
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
        # Each event by itself, so that it can be told from its equals.
        self.events = [replace(event, count=1) for event in observation.events for _ in range(event.count)]

    def rows(self) -> tuple[Row, ...]:
        """The whole story side by side, in order."""
        if self.story.steps is None:
            return tuple(self._row((None, event), compared=False) for event in self.events)
        ignored = [event for event in self.events if self._ignored(event)]
        pairs = self._align([event for event in self.events if not self._ignored(event)])
        rows: list[Row] = []
        left = iter(ignored)
        waiting = next(left, None)
        order = {id(event): n for n, event in enumerate(self.events)}
        for slot, event in pairs:
            while waiting is not None and event is not None and order[id(waiting)] < order[id(event)]:
                rows.append(self._row((None, waiting), compared=False))
                waiting = next(left, None)
            rows.append(self._row((slot, event)))
        rows += [self._row((None, event), compared=False) for event in ([] if waiting is None else [waiting, *left])]
        return tuple(rows)

    def mismatches(self, rows: Sequence[Row]) -> tuple[Mismatch, ...]:
        """Every difference: of the rows, of the end, and of the final state."""
        out: list[Mismatch] = []
        step = 0
        for row in rows:
            step += row.mark in " !-"
            if row.mark in "!-+":
                number = 0 if row.mark == "+" else step
                out.append(Mismatch(number, row.line, row.expected or None, row.observed or None))
        stopped = self.observation.stopped
        if stopped == "exits" or (stopped == "timeout" and self.story.steps is None):
            what = "the limit of exits was reached" if stopped == "exits" else "the time limit was reached"
            out.append(Mismatch(0, self.story.line, "the run ends", what))
        return (*out, *self._final())

    # --- comparing --------------------------------------------------------------------------------------------------

    def differences(self, step: Expected, event: Event, nth: int) -> tuple[str, ...]:
        """What of a step an event does not hold: member names, `regs.x2`, `memory.counter`."""
        fields: Mapping[str, Any] = {**event.fields, "errno": event.name} if event.kind == "error" else event.fields
        if step.kind != (event.name if event.kind == "exit" else event.kind):
            return ("exit",)
        out = [key for key, matcher in step.fields.items() if not holds(matcher, fields.get(key), nth)]
        regs = event.regs or {}
        out += [f"regs.{name}" for name, matcher in step.regs.items() if not matches(matcher, regs.get(name), nth)]
        for check in step.memory:
            if not memory_holds(check, event.memory or {}, nth):
                out.append("memory." + self.notation.address(check[0]))
        return tuple(out)

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
            slot = walk.take(lambda step, nth, event=event: not self.differences(step, event, nth))
            if slot is None:
                break
            pairs.append((slot, event))
        rest = events[len(pairs) :]
        if not rest and walk.finished():
            return pairs
        slots = list(walk.rest())
        if (len(slots) + 1) * (len(rest) + 1) > _PAIRS:
            return pairs + self._in_order(slots, rest)
        return pairs + self._cheapest(slots, rest)

    def _in_order(self, slots: Sequence[_Slot], events: Sequence[Event]) -> list[Pair]:
        must = [slot for slot in slots if not slot.optional]
        count = max(len(must), len(events))
        return [(must[n] if n < len(must) else None, events[n] if n < len(events) else None) for n in range(count)]

    def _cost(self, slot: _Slot, event: Event) -> float:
        step = slot.step
        if not self.differences(step, event, slot.nth):
            return 0.0
        if step.kind != (event.name if event.kind == "exit" else event.kind):
            return _OTHER
        where = {key: step.fields[key] for key in step.where}
        return _HELD if fits(Step(step.kind, where), event.kind, event.name, event.fields, slot.nth) else _ELSEWHERE

    def _cheapest(self, slots: Sequence[_Slot], events: Sequence[Event]) -> list[Pair]:
        """Least-cost alignment (Needleman and Wunsch), from the end so that it is read off from the start."""
        rows, columns = len(slots), len(events)
        best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
        for i in range(rows, -1, -1):
            for j in range(columns, -1, -1):
                if i == rows and j == columns:
                    continue
                choices = []
                if i < rows and j < columns:
                    choices.append(best[i + 1][j + 1] + self._cost(slots[i], events[j]))
                if i < rows:
                    choices.append(best[i + 1][j] + (0.0 if slots[i].optional else _ALONE))
                if j < columns:
                    choices.append(best[i][j + 1] + _ALONE)
                best[i][j] = min(choices)
        return self._read_off(slots, events, best)

    def _read_off(self, slots: Sequence[_Slot], events: Sequence[Event], best: list[list[float]]) -> list[Pair]:
        out: list[Pair] = []
        i = j = 0
        while i < len(slots) or j < len(events):
            here = best[i][j]
            if i < len(slots) and j < len(events) and here == best[i + 1][j + 1] + self._cost(slots[i], events[j]):
                out.append((slots[i], events[j]))
                i, j = i + 1, j + 1
            elif i < len(slots) and here == best[i + 1][j] + (0.0 if slots[i].optional else _ALONE):
                if not slots[i].optional:
                    out.append((slots[i], None))
                i += 1
            else:
                out.append((None, events[j]))
                j += 1
        return out

    # --- rows -------------------------------------------------------------------------------------------------------

    def _row(self, pair: Pair, compared: bool = True) -> Row:
        slot, event = pair
        step = slot.step if slot is not None else None
        differs = self.differences(step, event, slot.nth) if slot is not None and step is not None and event is not None else ()
        if not compared:
            mark = "~" if self.story.steps is not None else " "
        else:
            mark = "-" if event is None else "+" if slot is None else "!" if differs else " "
        return Row(
            mark,
            0 if step is None else step.line,
            "" if step is None else self.notation.expected(step),
            "" if event is None else self.notation.event(event, step),
            differs,
            "" if event is None else self.source(event),
        )

    def source(self, event: Event) -> str:
        """`LINE: TEXT` of the instruction that the event comes from."""
        advanced = None
        if event.kind == "exit":
            advanced = ARCHES[self.arch].pc_advanced(event.name, event.fields, self.flavour)
        found = self.legend.source(event.pc, advanced)
        if event.name == "io" and advanced and (found is None or not _OUT.match(found[1])):
            # OUTS with a repeat prefix has not advanced where OUT has.
            found = self.legend.source(event.pc, False) or found
        return "" if found is None else f"{found[0]}: {found[1]}"


def holds(matcher: Any, value: Any, nth: int) -> bool:
    """As `matches`, and a member that is a map (memory_fault) by its own members."""
    if isinstance(matcher, dict) and isinstance(value, dict):
        return all(matches(inner, value.get(key), nth) for key, inner in matcher.items())
    return matches(matcher, value, nth)


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
                return _Slot(expected, nth, False, number)
        return None

    def finished(self) -> bool:
        """Whether nothing more must come."""
        return self._script.finished()

    def rest(self) -> Iterator[_Slot]:
        """Every occurrence that may still come, in order; those above a minimum are optional."""
        yield from self._rest(self._steps, self._script.position, False, 0)

    def _rest(self, steps: Sequence[Step], at: tuple[tuple[int, int], ...], optional: bool, around: int) -> Iterator[_Slot]:
        (index, count), inner = (at[0], at[1:]) if at else ((0, 0), ())
        for n in range(index, len(steps)):
            step = steps[n]
            done = count if n == index else 0
            for nth in range(done, step.repeat[1]):
                spare = optional or nth >= step.repeat[0]
                if step.exit == "group":
                    inside = inner if n == index and nth == done else ()
                    # An iteration that has begun must be finished.
                    yield from self._rest(step.steps, inside, spare and not _begun(inside), nth)
                else:
                    expected, number = self._of[id(step)]
                    yield _Slot(expected, around if step.repeat == (1, 1) else nth, spare, number)


def _begun(at: tuple[tuple[int, int], ...]) -> bool:
    return any(pair != (0, 0) for pair in at)
