"""What goes between the engine and its workers: Targets there, Jobs back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kvmscen.job.expectation import Expectation
from kvmscen.job.legend import Legend
from kvmscen.sent.facts import Facts
from kvmscen.sent.machine import Sealed


class Wanted(NamedTuple):
    """One entry of `measure`, as the main process needs it: its place, what it is in words, and
    what is made of samples.
    """

    name: str
    line: int
    column: int
    text: str
    samples: int
    warmup: int
    per: int = 1
    less: str | None = None
    is_span: bool = False


class Target(NamedTuple):
    """A host as a worker sees it: its name, and its facts for each architecture that it
    runs.
    """

    name: str
    facts: tuple[Facts, ...]

    def of(self, arch: str) -> Facts | None:
        """The facts for an architecture; None where the host does not run it."""
        return next((facts for facts in self.facts if facts.arch == arch), None)


def elsewhere(arch: str, runs: Sequence[str]) -> str:
    """Why a case of one architecture is skipped on a host that runs others."""
    return f"the scenario is {arch}, the host runs {' and '.join(runs) or 'nothing'}"


class Job(NamedTuple):
    """One case for one host. `skip` is why it will not run there; else `machine` and `expectation`
    are set.

    `host` is the text given to --on. `legend` names addresses and source lines in reports. `wanted`
    is what is timed: then there is no expectation.
    """

    file: str
    scenario: str
    case: str
    line: int
    summary: str
    arch: str
    host: str
    kernel: str | None
    flavour: str | None
    predicted: bool
    skip: str | None
    machine: Sealed | None
    expectation: Expectation | None
    legend: Legend | None
    wanted: tuple[Wanted, ...] = ()
