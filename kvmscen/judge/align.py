"""For reports only: expected and observed laid side by side at the least cost, so that one extra
exit is one difference.

The verdict does not go by this: what a host replied and did depends on which step it took, and
`trial` goes by that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from itertools import zip_longest
from math import inf

from kvmscen.job.expectation import Expected
from kvmscen.judge.walk import Course, Occurrence, TracedEvent
from kvmscen.sent.machine import Step
from kvmscen.sent.observation import Event
from kvmscen.sent.script.interpreter import fits

# After so many states the cheapest alignment is given up, and the rest of a story is paired in
# order.
_STATES = 150_000
# With more events, or steps that may come, nothing is aligned.
_LONGEST = 200_000
# What an alignment costs: a step or an event alone 1, the same exit with other values, the same
# exit elsewhere, another exit or errno. All are below 2, so that a difference in one place is one
# difference.
_ALONE, _HELD, _ELSEWHERE, _OTHER, _LATE = 1.0, 1.0, 1.5, 1.75, 1e-6
_NEVER = 3.0

Differs = Callable[[Occurrence, Event], tuple[str, ...]]
Pair = tuple["Occurrence | None", "TracedEvent | None"]


class _TooLong(Exception):
    """There is more than can be aligned in a moment."""


class _Line:
    """All that may come on one vCPU, in order. `jumps`: from where to where one may go on, as what
    is between need not come.
    """

    def __init__(self) -> None:
        self.occurrences: list[Occurrence] = []
        self.jumps: dict[int, list[int]] = {}


def aligned(course: Course, trace: Sequence[TracedEvent], differs: Differs) -> list[Pair] | None:
    """Steps and events side by side, in order; an event that is not compared stands alone. None:
    there are too many.
    """
    placed: dict[int, list[Pair]] = {}
    rest: list[Pair] = []
    compared = [
        n
        for n, traced in enumerate(trace)
        if not traced.ignored and traced.event.kind != "succeeded" and not traced.errno_written
    ]
    vcpus = sorted({*course.vcpus, *(trace[n].event.vcpu for n in compared)})
    try:
        for vcpu in vcpus:
            own = [n for n in compared if trace[n].event.vcpu == vcpu]
            missing: list[Pair] = []
            numbers = iter(own)
            for occurrence, traced in _align(course, vcpu, [trace[n] for n in own], differs):
                missing.append((occurrence, traced))
                if traced is not None:
                    placed[next(numbers)] = missing
                    missing = []
            rest += missing
    except _TooLong:
        return None
    return [
        pair for n, traced in enumerate(trace) for pair in placed.get(n, [(None, traced)])
    ] + rest


def _align(course: Course, vcpu: int, trace: Sequence[TracedEvent], differs: Differs) -> list[Pair]:
    if len(trace) > _LONGEST:
        raise _TooLong
    line = _Line()
    _lay(course, line, vcpu, course.steps(vcpu), (), len(trace))
    return _cheapest(line, trace, differs)


def _lay(
    course: Course,
    line: _Line,
    vcpu: int,
    steps: Sequence[Expected],
    outer: tuple[tuple[int, int], ...],
    events: int,
) -> None:
    """Every occurrence that may come; of those above a minimum no more than there are events."""
    for index, step in enumerate(steps):
        low, high = step.repeat
        optional: list[int] = []
        for nth in range(min(high, low + events)):
            if len(line.occurrences) > _LONGEST:
                raise _TooLong
            if nth >= low:
                optional.append(len(line.occurrences))
            at = (*outer, (index, nth))
            if step.kind == "group":
                _lay(course, line, vcpu, step.steps, at, events)
            else:
                occurrence = course.occurrence(vcpu, at)
                assert occurrence is not None
                line.occurrences.append(occurrence)
        # A round that does not come is the last: none comes behind it.
        for start in optional:
            if start < len(line.occurrences):
                line.jumps.setdefault(start, []).append(len(line.occurrences))


def _cost(occurrence: Occurrence, traced: TracedEvent, differs: Differs) -> float:
    step, event = occurrence.step, traced.event
    differing = differs(occurrence, event)
    if not differing:
        return 0.0
    if event.op is not None and step.kind != "error":
        # It is told at the line of the slot, capability or action, not at that of an exit that had
        # yet to come.
        return _NEVER
    if differing == ("exit",):
        return _OTHER
    where = {key: step.fields[key] for key in step.where}
    if fits(Step(step.kind, where), event.kind, event.name, event.fields, occurrence.nth):
        return _HELD
    return _OTHER if event.kind == "error" else _ELSEWHERE


def _cheapest(line: _Line, trace: Sequence[TracedEvent], differs: Differs) -> list[Pair]:
    """Least-cost alignment, by Dijkstra's search over (occurrences passed, events passed): few
    differences are found soon.
    """
    end = (len(line.occurrences), len(trace))
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
        for more, there in _ways(line, trace, here, differs):
            if cost + more < costs.get(there, inf):
                costs[there] = cost + more
                came[there] = here
                heappush(heap, (cost + more, -there[1], -there[0]))
    last = max(done, key=lambda at: (at[1] + at[0], at[1])) if here != end else end
    return [*_read_off(line, trace, came, last), *_in_order(line, trace, last)]


def _ways(
    line: _Line, trace: Sequence[TracedEvent], here: tuple[int, int], differs: Differs
) -> Iterator[tuple[float, tuple[int, int]]]:
    i, j = here
    jumps = line.jumps.get(i, ())
    if i < len(line.occurrences) and j < len(trace):
        cost = _cost(line.occurrences[i], trace[j], differs)
        yield cost, (i + 1, j + 1)
        if not cost and not jumps:
            # Nothing can be cheaper than what is equal.
            return
    for there in jumps:
        yield 0.0, (there, j)
    # Of equal alignments the one that pairs first: what came instead stands where something else
    # should have been.
    if i < len(line.occurrences):
        yield _ALONE + _LATE * (1 - j / (len(trace) + 1)), (i + 1, j)
    if j < len(trace):
        yield _ALONE + _LATE * (1 - i / (len(line.occurrences) + 1)), (i, j + 1)


def _in_order(line: _Line, trace: Sequence[TracedEvent], at: tuple[int, int]) -> list[Pair]:
    i, j = at
    must: list[Occurrence] = []
    while i < len(line.occurrences):
        if i in line.jumps:
            i = max(line.jumps[i])
        else:
            must.append(line.occurrences[i])
            i += 1
    return list(zip_longest(must, trace[j:]))


def _read_off(
    line: _Line,
    trace: Sequence[TracedEvent],
    came: Mapping[tuple[int, int], tuple[int, int]],
    at: tuple[int, int],
) -> list[Pair]:
    """The pairs along the cheapest way to a state; occurrences jumped over are left out."""
    out: list[Pair] = []
    while at in came:
        (i, j), there = came[at], at
        at = (i, j)
        if there[1] > j:
            out.append((line.occurrences[i] if there[0] > i else None, trace[j]))
        elif there[0] not in line.jumps.get(i, ()):
            out.append((line.occurrences[i], None))
    return out[::-1]
