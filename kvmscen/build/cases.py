"""The cases of one file, each laid out, with the problems of all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from kvmscen.build.plan import Plan, plan
from kvmscen.build.ready import ready
from kvmscen.errors import Problem, ScenarioError
from kvmscen.facts import Facts
from kvmscen.scenario import Case, Scenario

Made = TypeVar("Made")


def plans(scenario: Scenario, cases: Iterable[Case]) -> list[tuple[Case, Plan]]:
    """Every case laid out; raises ScenarioError with the problems of all, each once however many cases share it."""

    def lay_out(case: Case) -> tuple[Case, Plan]:
        made = plan(scenario.file, case)
        resolve(scenario, case, made)
        return case, made

    return each(cases, lay_out)


def resolve(scenario: Scenario, case: Case, planned: Plan) -> None:
    """Look the names of a case up for no host in particular. Raises ScenarioError."""
    ready(scenario.file, case, planned, Facts(case.arch, None, {}), "")


def each(cases: Iterable[Case], make: Callable[[Case], Made]) -> list[Made]:
    """What `make` makes of every case; raises ScenarioError with the problems of all, each once."""
    problems: dict[Problem, list[Case]] = {}
    out: list[Made] = []
    cases = list(cases)
    for case in cases:
        try:
            out.append(make(case))
        except ScenarioError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(case)
    if problems:
        raise ScenarioError(_named(problem, wrong, len(cases)) for problem, wrong in problems.items())
    return out


def _named(problem: Problem, wrong: Sequence[Case], cases: int) -> Problem:
    """The problem, with the case where it stands in a key that only some of the cases trip over."""
    if len(wrong) == cases or problem.line >= wrong[0].place.line > 1:
        return problem
    names = ", ".join(case.name for case in wrong[:3]) + (", ..." if len(wrong) > 3 else "")
    return replace(problem, message=f"{problem.message} (in case {names})")
