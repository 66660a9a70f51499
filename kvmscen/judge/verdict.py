"""A Job and what was observed of it, to a Result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmscen.expectation import Story
from kvmscen.job import Job
from kvmscen.judge.accesses import tally
from kvmscen.judge.align import Diff
from kvmscen.judge.hints import hint
from kvmscen.notation import seen
from kvmscen.observation import Event, Observation
from kvmscen.result import Mismatch, Result, Row
from kvmscen.whence import source

# Events whose place in the program is told in reports.
_SOURCES = 1000


def judge(job: Job, observation: Observation) -> Result:
    """The verdict on one case on one host."""
    if observation.unpredicted is not None and _may_hold(job, observation):
        return result(job, "SKIP", f"the model does not predict this: {observation.unpredicted}", observation=observation)
    if observation.stopped == "crash":
        return result(job, "ERROR", observation.detail or "the host broke", observation=observation)
    assert job.expectation is not None
    expectation = job.expectation
    if expectation.xfail is not None:
        known = _hold(job, expectation.xfail, observation)
        if not known[1]:
            return _judged(job, "XFAIL", expectation.reason, known, observation, expectation.xfail)
    held = _hold(job, expectation.story, observation)
    if held[1]:
        return _judged(job, "FAIL", None, held, observation, expectation.story)
    if expectation.xfail is not None:
        gone = f"the known wrong outcome is gone: {expectation.reason}"
        return _judged(job, "XPASS", gone, held, observation, expectation.story)
    return _judged(job, "PASS", None, held, observation, expectation.story)


def _may_hold(job: Job, observation: Observation) -> bool:
    """Whether a run that the model did not predict to its end is as it should be as far as it goes."""
    if job.expectation is None or job.legend is None:
        return True
    stories = (job.expectation.story, job.expectation.xfail)
    return any(story is not None and Diff(story, observation, job.legend, job.arch, job.flavour).begins() for story in stories)


# Rows and mismatches, both empty where the story holds, and the events that were not expected.
Held = tuple[tuple[Row, ...], tuple[Mismatch, ...], list[Event]]


def _hold(job: Job, story: Story, observation: Observation) -> Held:
    assert job.legend is not None
    diff = Diff(story, observation, job.legend, job.arch, job.flavour)
    if diff.holds():
        return (), (), []
    rows = diff.rows()
    unexpected = [event for event, row in zip(diff.events, (r for r in rows if r.observed), strict=True) if row.mark in "!+"]
    return rows, diff.mismatches(rows), unexpected


def _judged(job: Job, status: str, reason: str | None, held: Held, observation: Observation, story: Story) -> Result:
    rows, mismatches, unexpected = held
    failed = status == "FAIL"
    return result(
        job,
        status,
        reason,
        observation=observation,
        mismatches=mismatches if failed else (),
        rows=rows,
        hint=hint(job.arch, observation, unexpected) if failed else None,
        memory=_memory(story, observation),
    )


def _memory(story: Story, observation: Observation) -> Mapping[int, Mapping[str, object]]:
    out: dict[int, dict[str, object]] = {}
    for check in story.memory:
        if check[0] in observation.memory:
            at, unit, values = seen(check, observation.memory)
            out.setdefault(at, {})[unit] = values
    return out


def result(job: Job, status: str, reason: str | None, **more: Any) -> Result:
    """A Result of this job with a status; `more` are its other members."""
    observation: Observation | None = more.get("observation")
    sources: tuple[str, ...] = ()
    if observation is not None and job.legend is not None:
        sources = tuple(source(event, job.legend, job.arch, job.flavour) for event in observation.events[:_SOURCES])
    return Result(
        file=job.file,
        scenario=job.scenario,
        case=job.case,
        line=job.line,
        summary=job.summary,
        arch=job.arch,
        host=job.host,
        kernel=job.kernel,
        predicted=job.predicted,
        status=status,
        reason=reason,
        elapsed=0.0 if observation is None else observation.elapsed,
        accesses=() if observation is None or job.legend is None else tally(observation, job.legend),
        machine=None if job.machine is None else job.machine.digest,
        verb="measure" if job.wanted else "run",
        sources=sources,
        **more,
    )
