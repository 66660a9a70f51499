"""A Job and what was seen in each of its timed rounds, to a Result with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvmscen.job.job import Job, Wanted
from kvmscen.job.notation import Notation
from kvmscen.judge.verdict import result
from kvmscen.results.measured import Measured, median, spread
from kvmscen.results.result import Mismatch, Result
from kvmscen.sent.measure import Series, Timing
from kvmscen.sent.observation import Observation


def appraise(job: Job, seen: Sequence[Observation]) -> Result:
    """PASS with the figures of all rounds, FAIL where the guest did not give every sample that was
    asked for.
    """
    wrong = next(
        (bad for observation in seen if (bad := lacking(job, observation, len(seen)))), None
    )
    if wrong is not None:
        return wrong
    measured = tuple(
        _measured(wanted, [part.timing for part in seen if part.timing is not None])
        for wanted in job.wanted
    )
    return result(job, "PASS", None, observation=seen[-1], measured=measured)


def so_far(job: Job, seen: Sequence[Observation]) -> Mapping[str, Sequence[float]]:
    """The medians of the rounds that are done, in nanoseconds, by kind."""
    done = [part.timing for part in seen if part.timing is not None]
    return (
        {wanted.name: _measured(wanted, done).medians_ns for wanted in job.wanted} if done else {}
    )


def lacking(job: Job, seen: Observation, rounds: int) -> Result | None:
    """The FAIL or ERROR of a round that lacks samples; None where every sample came."""
    if seen.timing is None:
        why = f"the VM could not be built, so nothing was timed: {_end(job, seen)}"
        return result(job, "ERROR" if seen.stopped == "crash" else "FAIL", why, observation=seen)
    wrong = [
        (wanted, missing)
        for wanted in job.wanted
        if (missing := _missing(job, wanted, seen, rounds))
    ]
    if not wrong:
        return None
    mismatches = tuple(
        Mismatch(0, wanted.line, expected, observed) for wanted, (expected, observed) in wrong
    )
    return result(job, "FAIL", None, observation=seen, mismatches=mismatches)


def _missing(job: Job, wanted: Wanted, seen: Observation, rounds: int) -> tuple[str, str] | None:
    """What was expected and what was seen of one kind that lacks samples; None where it has
    them.
    """
    assert seen.timing is not None
    series = seen.timing.series[wanted.name]
    asked = -(-wanted.samples // rounds)
    if len(series.ticks) >= asked:
        return None
    each = " in each round" if rounds > 1 else ""
    expected = (
        f"measure {wanted.name}: {wanted.text} {asked + wanted.warmup:,} times{each} ({asked:,} "
        f"samples after {wanted.warmup:,})"
    )
    return (
        expected,
        f"{_came(series, wanted.is_span)} in {seen.timing.exits:,} exits: {_end(job, seen)}",
    )


def _came(series: Series, is_span: bool) -> str:
    """How often the exits of a kind came, and what became of the samples where they came often
    enough.
    """
    broken = f", {series.broken:,} broken off by a signal" * bool(series.broken)
    if is_span:
        if not series.begins or not series.ends:
            first, second = (
                f"came {n:,} times" if n else "never came" for n in (series.begins, series.ends)
            )
            return f"`from` {first}, `to` {second}{broken}"
        return (
            f"{series.came:,} times `to` came after `from` (`from` came {series.begins:,} "
            f"times, `to` {series.ends:,}{broken})"
        )
    return f"it came {series.ends:,} times{broken}" if series.ends else "it came never"


def _end(job: Job, seen: Observation) -> str:
    last = seen.events[-1] if seen.events else None
    what = (
        Notation(job.legend, job.arch).event(last).removesuffix(": {}")
        if last is not None and job.legend is not None
        else ""
    )
    return {
        "expected": f"the guest ended with {what}; let it go round for ever",
        "error": f"{what} ended it",
        "timeout": "then no more came for as long as is waited (limits: {timeout: ...}); is it an "
        "exit that the guest makes?",
    }.get(seen.stopped, seen.detail or seen.stopped)


def _measured(wanted: Wanted, rounds: Sequence[Timing]) -> Measured:
    ticks: list[tuple[float, ...]] = []
    whole: list[tuple[float, ...]] = []
    for timing in rounds:
        series = timing.series[wanted.name]
        less = 0.0 if wanted.less is None else median(timing.series[wanted.less].ticks)
        # What does not divide by the rounds leaves the last one with fewer.
        left = wanted.samples - sum(map(len, ticks))
        ticks.append(tuple((sample - less) / wanted.per for sample in series.ticks[:left]))
        # An exit that nothing follows has no time behind it.
        whole.append(
            tuple((sample - less) / wanted.per for sample in (series.whole or series.ticks)[:left])
        )
    hz = median([timing.hz for timing in rounds])
    ticks, whole = (
        [samples for samples in ticks if samples],
        [samples for samples in whole if samples],
    )
    all_ticks = [sample for samples in ticks for sample in samples]
    figures = spread(all_ticks)
    kvm = median([timing.series[wanted.name].kvm for timing in rounds])
    user = median([timing.series[wanted.name].user for timing in rounds])
    overhead = median([sample for timing in rounds for sample in timing.overhead])
    return Measured(
        name=wanted.name,
        line=wanted.line,
        text=wanted.text,
        samples=len(all_ticks),
        ns=figures.times(1e9 / hz),
        ticks=figures,
        loop="python" if any(timing.loop == "python" for timing in rounds) else "native",
        why=next((timing.why for timing in rounds if timing.why), None),
        overhead_ns=overhead * 1e9 / hz,
        overhead_ticks=overhead,
        user=user / (kvm + user) if kvm + user else 0.0,
        hz=hz,
        rounds=tuple(ticks),
        whole=tuple(whole),
        is_span=wanted.is_span,
    )
