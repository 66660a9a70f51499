"""Tells which of the paths of a command line have no case that was selected: nothing of them ran,
though others did.
"""

from __future__ import annotations

import argparse

from kvmscen.cli.files import SelectedFiles
from kvmscen.cli.screen import Screen
from kvmscen.results.result import Run

# Paths that are listed by name.
_NAMED = 8


def tell_unselected(
    run: Run, selected: SelectedFiles, arguments: argparse.Namespace, screen: Screen, key: str = ""
) -> None:
    """Say what --case and -k did not select. `key`: only cases that have it run at all."""
    chosen = [f"-k {arguments.k}"] if arguments.k else []
    chosen += [f"--case {name}" for name in arguments.case or ()]
    must = [f"has `{key}`"] * bool(key)
    must += [f"is selected by {' '.join(chosen)}"] * bool(chosen)
    if not must:
        return
    if not run.results and not run.problems and selected.files:
        screen.say(f"no case of these files {' and '.join(must)}")
        return
    files = {result.file for result in run.results} | {problem.file for problem in run.problems}
    paths = selected.unselected(files)
    if paths:
        few = "1 path has" if len(paths) == 1 else f"{len(paths):,} paths have"
        names = ", ".join(paths[:_NAMED]) + ", ..." * (len(paths) > _NAMED)
        screen.say(f"{few} no case that {' and '.join(must)}: {names}")
