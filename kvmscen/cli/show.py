"""`kvmscen show`: the memory map, the symbols and the listing of a file. Returns the exit
status.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from kvmscen.cli.files import why_no_scenario
from kvmscen.engine import checking
from kvmscen.errors import Problem, UsageError
from kvmscen.reports import harmless, text
from kvmscen.sent.codec import decode
from kvmscen.worker import load


def show(arguments: argparse.Namespace) -> int:
    """`kvmscen show`: 0, or 2 when the file is wrong."""
    if os.path.isdir(arguments.path):
        raise UsageError(f"{arguments.path} is a folder: name one scenario of it")
    if not os.path.isfile(arguments.path):
        raise UsageError(f"{arguments.path}: {why_no_scenario(arguments.path)}")
    shown = checking.show(load, arguments.path, arguments.case, arguments.assembler)
    wrong = [decode(Problem, problem) for problem in shown["problems"]]
    for problem in wrong:
        print(text.problem(problem), file=sys.stderr)
    if wrong and not shown["cases"]:
        return 2
    if arguments.json:
        print(harmless.json(json.dumps({"cases": shown["cases"]})))
    else:
        from kvmscen.cli.listing import render

        print(render(arguments.path, shown), end="")
    return 2 if wrong else 0
