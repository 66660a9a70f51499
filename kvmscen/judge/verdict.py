"""A Job and what was observed of it, to a Result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmscen.job.expectation import Story
from kvmscen.job.job import Job
from kvmscen.job.notation import seen
from kvmscen.job.origin import source
from kvmscen.judge.accesses import tally
from kvmscen.judge.hints import hint
from kvmscen.judge.outcome import Outcome
from kvmscen.judge.trial import Trial
from kvmscen.results.result import Result
from kvmscen.sent.observation import Observation

# Events whose place in the program is told in reports.
_SOURCES = 1000


def judge(job: Job, observation: Observation) -> Result:
    """The verdict on one case on one host."""
    if observation.stopped == "crash":
        return result(job, "ERROR", observation.detail or "the host broke", observation=observation)
    assert job.expectation is not None
    assert job.legend is not None
    expectation = job.expectation
    story, known = expectation.story, expectation.xfail
    # The host goes by the known wrong outcome, where there is one.
    base = Trial(story, observation, job.legend, job.arch, job.flavour, known)
    overlay = (
        None if known is None else Trial(known, observation, job.legend, job.arch, job.flavour)
    )
    if base.astray:
        reason = (
            "the host took other steps than its script takes: the recording is damaged, or "
            "kvmscen is wrong"
        )
        return result(job, "ERROR", reason, observation=observation)
    if observation.unpredicted is not None and any(
        trial is not None and trial.begun() for trial in (base, overlay)
    ):
        return result(
            job,
            "SKIP",
            f"the model does not predict this: {observation.unpredicted}",
            observation=observation,
        )
    held = base.holds()
    if held and known is None:
        return _judged(job, "PASS", None, observation, base)
    if not held and (overlay is None or not overlay.holds()):
        return _judged(job, "FAIL", None, observation, base)
    untried = base.untried()
    if untried is not None:
        reason = (
            f"whether the known wrong outcome is gone was not tried: up to line {untried} "
            "nothing else differs, and there the host replied, acted, waited or ended as the "
            "entry says and the case itself does not: write the same in both, up to where the "
            "outcomes part"
        )
        return result(job, "ERROR", reason, observation=observation)
    if overlay is None or held:
        gone = f"the known wrong outcome is gone: {expectation.reason}"
        return _judged(job, "XPASS", gone, observation, base)
    return _judged(job, "XFAIL", expectation.reason, observation, overlay)


def told(job: Job, result: Result) -> Result:
    """A result with its whole story side by side in `rows`, also where nothing differs."""
    if result.observation is None or result.rows or job.expectation is None or job.legend is None:
        return result
    known = job.expectation.xfail if result.status == "XFAIL" else None
    trial = Trial(
        known or job.expectation.story, result.observation, job.legend, job.arch, job.flavour
    )
    return result._replace(rows=trial.rows())


def _judged(
    job: Job, status: str, reason: str | None, observation: Observation, trial: Trial
) -> Result:
    if status != "FAIL":
        return result(
            job, status, reason, observation=observation, memory=_memory(trial.story, observation)
        )
    rows = trial.rows()
    mismatches = trial.mismatches(rows)
    return result(
        job,
        status,
        reason,
        observation=observation,
        mismatches=mismatches,
        rows=rows,
        hint=hint(Outcome(job, trial.story, observation, trial.unexpected(rows), mismatches, rows)),
        memory=_memory(trial.story, observation),
    )


def _memory(story: Story, observation: Observation) -> Mapping[int, Mapping[str, object]]:
    out: dict[int, dict[str, object]] = {}
    for check in story.memory:
        if observation.memory.get(check.gpa):
            out.setdefault(check.gpa, {})[check.unit] = seen(check, observation.memory).values
    return out


def result(job: Job, status: str, reason: str | None, **more: Any) -> Result:
    """A Result of this job with a status; `more` are its other members."""
    observation: Observation | None = more.get("observation")
    sources: tuple[str, ...] = ()
    if observation is not None and job.legend is not None:
        sources = tuple(
            source(event, job.legend, job.arch, job.flavour)
            for event in observation.events[:_SOURCES]
        )
    return Result(
        file=job.file,
        scenario=job.scenario,
        case=job.case,
        line=job.line,
        summary=job.summary,
        arch=job.arch,
        host=job.host,
        kernel=job.kernel,
        flavour=job.flavour,
        predicted=job.predicted,
        status=status,
        reason=reason,
        elapsed=0.0 if observation is None else observation.elapsed,
        accesses=()
        if observation is None or job.legend is None
        else tally(observation, job.legend),
        machine=None if job.machine is None else job.machine.digest,
        verb="measure" if job.wanted else "run",
        sources=sources,
        notes=(job.legend.note,)
        if observation is not None and job.legend is not None and job.legend.note
        else (),
        **more,
    )
