"""`measure` of a case: what the host is told to time, and what the main process needs to read the
figures by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from kvmscen.job.expectation import Expected
from kvmscen.job.job import Wanted
from kvmscen.job.notation import Notation
from kvmscen.scenario import Case, Step, Timed
from kvmscen.sent.machine import Step as ScriptStep
from kvmscen.sent.measure import Kind, Measure, TimedExit


class Sampling(NamedTuple):
    """How cases are timed: their samples spread over so many rounds, each a run of its own, and by
    which loop.
    """

    rounds: int = 1
    loop: str = "native"


class Names(Protocol):
    """Resolves the names in a step to numbers."""

    def fields(self, step: Step) -> Mapping[str, Any]:
        """The members of the step's exit, as numbers."""

    def step(self, step: Step) -> ScriptStep:
        """The step as a host has it, with its reply."""


def host_measure(case: Case, timing: Sampling, names: Names, stall: float) -> Measure:
    """The Measure of a host for one round; `stall` seconds without a sample end the round."""
    return Measure(tuple(_kind(timed, timing, names) for timed in case.measure), timing.loop, stall)


def _kind(timed: Timed, timing: Sampling, names: Names) -> Kind:
    since = None if timed.since is None else _place(timed.since, names)
    return Kind(
        timed.name, _place(timed.to, names), since, -(-timed.samples // timing.rounds), timed.warmup
    )


def _place(step: Step, names: Names) -> TimedExit:
    return TimedExit(step.kind, names.fields(step), names.step(step).reply)


def wanted(case: Case, names: Names, notation: Notation) -> tuple[Wanted, ...]:
    """The entries of `measure`, resolved, for reading the figures."""

    def text(step: Step) -> str:
        return notation.expected(Expected(step.kind, 0, 0, fields=names.fields(step)))

    return tuple(
        Wanted(
            timed.name,
            timed.place.line,
            timed.place.column,
            text(timed.to) if timed.since is None else f"{text(timed.since)} to {text(timed.to)}",
            timed.samples,
            timed.warmup,
            timed.per,
            timed.less,
            timed.since is not None,
        )
        for timed in case.measure
    )
