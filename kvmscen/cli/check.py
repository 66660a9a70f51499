"""`kvmscen check`: everything that is wrong in files, without running them. Returns the exit
status.
"""

from __future__ import annotations

import argparse
import sys

from kvmscen.cli.files import find
from kvmscen.engine import checking
from kvmscen.errors import Problem
from kvmscen.reports import text
from kvmscen.worker import load


def check(arguments: argparse.Namespace) -> int:
    """`kvmscen check`: 0 all is well, 2 something is wrong, 4 there was nothing to check."""
    meant = find(arguments.paths)
    files, problems = meant.files, meant.problems
    for problem in problems:
        print(problem)
    for line in meant.passed_over:
        print(line, file=sys.stderr)
    cases = wrong = 0

    def on_file(file: str, count: int, problems_found: list[Problem], notes: list[Problem]) -> None:
        nonlocal cases, wrong
        cases += count
        wrong += bool(problems_found)
        for problem in (*problems_found, *notes):
            print(text.problem(problem))

    problems_found = checking.check(load, files, arguments.assembler, on_file)
    said = f"{len(files)} file{'s' * (len(files) != 1)}, {cases} case{'s' * (cases != 1)}"
    wrong += len(problems)
    print(f"{said}: " + (f"{wrong} wrong" if wrong else "nothing wrong"), file=sys.stderr)
    if any(problem.ours for problem in problems_found):
        return 3
    if problems_found or problems:
        return 2
    return 0 if files else 4
