"""Whether the case itself was tried where the host went by a known wrong outcome: only then does
that outcome say anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvmscen.job.expectation import Expected
from kvmscen.judge.walk import Course, TracedEvent
from kvmscen.sent.script.interpreter import Script, Verdict

Wrong = Callable[[TracedEvent], tuple[str, ...]]


def untried(
    course: Course,
    host: Course,
    trace: Sequence[TracedEvent],
    walk: Sequence[TracedEvent],
    wrong: Wrong,
    stopped: str,
) -> int | None:
    """The line at which the host went otherwise than a story says, before anything else differed;
    None: nowhere.

    `course` and `trace` are the story and the events along it, `host` and `walk` those that the
    host went by, `wrong` says what of an event is not as the story has it. What came behind such a
    place says nothing about the story: its guest was not given what it was to get, was left too
    soon, or was entered again though the story ends there.
    """
    ours: dict[int, Script] = {}
    theirs: dict[int, Script] = {}
    last: tuple[int, int, Verdict] | None = None
    line = host.story.line
    for traced, its in zip(trace, walk, strict=False):
        event = traced.event
        line = its.occurrence.step.line if its.occurrence is not None else line
        differs = wrong(traced)
        if event.op is None:
            mine = ours.setdefault(event.vcpu, course.script(event.vcpu))
            other = theirs.setdefault(event.vcpu, host.script(event.vcpu))
            if differs and _otherwise_waited(
                event.kind, event.fields, mine.timeout(), other.timeout()
            ):
                return line
            last = event.vcpu, line, mine.take(event.kind, event.name, event.fields)
            other.take(event.kind, event.name, event.fields)
        if not set(differs) <= {"reply", "then", "timeout"}:
            return None
        if _done(traced.step) != _done(its.step):
            return line
        if differs:
            return None
    if len(trace) < len(walk):
        # The story was over and was seen to be; but its final state was not.
        told = course.story
        return line if told.regs or told.memory or any(True for _ in course.owed(trace)) else None
    last_op = trace[-1].event.op if trace and not trace[-1].failed_as_written else None
    if stopped in ("timeout", "exits") or last_op is not None:
        # The run would have ended there by any story.
        return None
    scripts = [ours.get(vcpu, course.script(vcpu)) for vcpu in {0, *course.vcpus}]
    ended = last is not None and last[2].stop is not None
    return None if ended or all(script.over() for script in scripts) else line


def cut_short(course: Course, trace: Sequence[TracedEvent]) -> bool:
    """Whether a run that a limit ended would have gone on: steps may come that were not waited
    for.
    """
    if course.story.steps is None:
        return False
    scripts = {vcpu: course.script(vcpu) for vcpu in course.vcpus}
    ended: set[int] = set()
    for traced in trace:
        event = traced.event
        if traced.at is not None and event.vcpu in scripts:
            verdict = scripts[event.vcpu].take(event.kind, event.name, event.fields)
            if verdict.stop is not None:
                ended.add(event.vcpu)
    return any(vcpu not in ended and not script.over() for vcpu, script in scripts.items())


def _otherwise_waited(
    kind: str, fields: Mapping[str, Any], mine: float | None, other: float | None
) -> bool:
    """Whether the story waits for nothing to happen, and the host waited for another time, so that
    it cannot be told.
    """
    if mine is None:
        return False
    if kind == "timeout":
        # Where the run's own limit cut it short, it would have cut the story's wait short too.
        return other is not None and other < mine and bool(fields["timeout"] >= other)
    return other is None or other > mine


def _done(step: Expected | None) -> tuple[object, list[str]]:
    if step is None:
        return None, []
    return step.reply, [deed.text for deed in step.then or ()]
