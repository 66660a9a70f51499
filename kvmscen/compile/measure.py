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


class Timing(NamedTuple):
    """How cases are timed: their samples spread over so many rounds, each a run of its own, and by
    which loop.
    """

    rounds: int = 1
    loop: str = "native"


class Names(Protocol):
    """Who looks the names of a step up."""

    def fields(self, step: Step) -> Mapping[str, Any]:
        """Its members."""

    def step(self, step: Step) -> ScriptStep:
        """The step as a host has it, with its reply."""


def told(case: Case, timing: Timing, names: Names, stall: float) -> Measure:
    """What the host is told for one round; `stall` seconds without a sample end it."""
    return Measure(tuple(_kind(one, timing, names) for one in case.measure), timing.loop, stall)


def _kind(one: Timed, timing: Timing, names: Names) -> Kind:
    since = None if one.since is None else _place(one.since, names)
    return Kind(
        one.name, _place(one.to, names), since, -(-one.samples // timing.rounds), one.warmup
    )


def _place(step: Step, names: Names) -> TimedExit:
    return TimedExit(step.kind, names.fields(step), names.step(step).reply)


def wanted(case: Case, names: Names, notation: Notation) -> tuple[Wanted, ...]:
    """What was asked, in words and numbers."""

    def text(step: Step) -> str:
        return notation.expected(Expected(step.kind, 0, 0, fields=names.fields(step)))

    return tuple(
        Wanted(
            one.name,
            one.place.line,
            one.place.column,
            text(one.to) if one.since is None else f"{text(one.since)} to {text(one.to)}",
            one.samples,
            one.warmup,
            one.per,
            one.less,
            one.since is not None,
        )
        for one in case.measure
    )
