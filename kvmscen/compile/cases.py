"""The cases of one file, each laid out, with the problems of all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from kvmscen.compile import budget
from kvmscen.compile.plan import Plan, lay_out
from kvmscen.compile.ready import ready
from kvmscen.errors import Problem, ScenarioError
from kvmscen.scenario import Case, Scenario
from kvmscen.sent.facts import Facts

Made = TypeVar("Made")


def plan(file: str, case: Case) -> Plan:
    """Lay one case out. Raises ScenarioError with every problem of program and layout; with those,
    of names too.
    """
    planned, problems = lay_out(file, case)
    if problems:
        try:
            ready(file, case, planned, Facts(case.arch, None, {}), "")
        except ScenarioError as error:
            problems += error.problems
        raise ScenarioError(dict.fromkeys(problems))
    return planned


def plans(scenario: Scenario, cases: Iterable[Case]) -> list[tuple[Case, Plan]]:
    """Every case laid out; raises ScenarioError with the problems of all, each once however many
    cases share it.
    """
    planned, problems = laid_out(scenario, cases)
    if problems:
        raise ScenarioError(problems)
    return planned


def laid_out(
    scenario: Scenario, cases: Iterable[Case]
) -> tuple[list[tuple[Case, Plan]], list[Problem]]:
    """The cases that can be laid out, and what is wrong with the others, each problem once."""
    left = budget.Budget(scenario.file)

    def planned(case: Case) -> tuple[Case, Plan]:
        planned = plan(scenario.file, case)
        resolve(scenario, case, planned)
        left.take(case, budget.size(planned))
        return case, planned

    return each(scenario.file, cases, planned)


def resolve(scenario: Scenario, case: Case, planned: Plan) -> None:
    """Look the names of a case up for no host in particular. Raises ScenarioError."""
    ready(scenario.file, case, planned, Facts(case.arch, None, {}), "")


def each(
    file: str, cases: Iterable[Case], make: Callable[[Case], Made]
) -> tuple[list[Made], list[Problem]]:
    """What `make` makes of every case that is right, and the problems of the others: each once,
    with its cases.
    """
    problems: dict[Problem, list[Case]] = {}
    out: list[Made] = []
    cases = list(cases)
    for case in cases:
        try:
            out.append(make(case))
        except ScenarioError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(case)
    return out, sorted(
        _named(problem, wrong, len(cases), file) for problem, wrong in problems.items()
    )


def _named(problem: Problem, wrong: Sequence[Case], cases: int, file: str) -> Problem:
    """The problem, with the case where it stands in a key that only some of the cases trip over."""
    # The case `default` is the top level itself.
    here = (
        problem.file == file and wrong[0].name != "default" and problem.line >= wrong[0].place.line
    )
    problem = problem._replace(cases=tuple(case.name for case in wrong))
    if len(wrong) == cases or here:
        return problem
    names = ", ".join(case.name for case in wrong[:3]) + (", ..." if len(wrong) > 3 else "")
    return problem._replace(message=f"{problem.message} (in case {names})")
