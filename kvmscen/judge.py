"""A Job and what was observed of it, to a Result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmscen.diff import Diff
from kvmscen.expectation import Story
from kvmscen.hints import hint
from kvmscen.job import Job
from kvmscen.notation import seen
from kvmscen.observation import Event, Observation
from kvmscen.result import Mismatch, Result, Row


def judge(job: Job, observation: Observation) -> Result:
    """The verdict on one case on one host."""
    if observation.unpredicted is not None:
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
        machine=None if job.machine is None else job.machine.digest,
        **more,
    )
