"""What each verb does with its arguments, and what it prints. Returns the exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from kvmscen import checking, engine
from kvmscen.cli.files import find, what
from kvmscen.cli.screen import Screen
from kvmscen.disk import whole
from kvmscen.errors import HOST, HostError, Problem, UsageError
from kvmscen.hosts import defaults, host, recordings
from kvmscen.reports import FORMATS, harmless, text
from kvmscen.result import Result

INTERRUPTED = 130
# Paths that are listed by name.
_NAMED = 8


# --- run ------------------------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> int:
    """`kvmscen run`."""
    reports = [report_of(wanted) for wanted in arguments.report or ()]
    outputs = [file for _, file in reports] + [None] * arguments.observed
    if len(outputs) > len(set(outputs)):
        one = "a file" if None not in outputs else "standard output"
        raise UsageError(f"only one report can go to {one} (--observed is one): give the others a file, as junit=report.xml")
    named: list[str] = list(dict.fromkeys(arguments.on or ()))
    record = _Records(arguments.record) if arguments.record else None
    workers = engine_workers(arguments.j)
    if arguments.j is not None and workers > engine.MOST_AT_ONCE:
        print(f"kvmscen: -j {workers}: {engine.MOST_AT_ONCE} run at once, more never do", file=sys.stderr)
    found = find(arguments.paths)
    files, problems = found.files, found.problems
    taken = arguments.observed or any(file is None for _, file in reports)
    screen = Screen(sys.stderr if taken else sys.stdout, arguments.observed, arguments.quiet, arguments.verbose)
    for problem in problems:
        screen.problem(problem)
    for line in found.passed_over:
        screen.say(line)

    def on_result(outcome: engine.Outcome, progress: engine.Progress) -> None:
        screen.result(_whole(outcome) if arguments.verbose else outcome.result, progress)
        if record is not None:
            record.keep(outcome)
        if arguments.observed:
            from kvmscen.observed import observed

            if outcome.job.legend is not None and outcome.job.expectation is not None:
                print(observed(outcome.result, outcome.job.legend, outcome.job.expectation), flush=True)

    selection = engine.Selection(arguments.k, tuple(arguments.case or ()), arguments.assembler)
    try:
        hosts = [host(name) for name in named] or defaults(say)
        made = engine.run(files, hosts, bool(named), selection, workers, on_result, screen.problem, problems, screen.waiting)
        if not made.results and not made.problems and files and not made.interrupted:
            screen.say("no case of these files is selected by " + " ".join(_selecting(arguments)))
        elif not made.interrupted and _selecting(arguments):
            ran = {result.file for result in made.results} | {problem.file for problem in made.problems}
            _not_selected(found.unselected(ran), arguments, screen)
        screen.end(made)
    except HostError as error:
        print(f"kvmscen: {error}", file=sys.stderr)
        made = engine.broken([*problems, Problem(HOST, 0, 0, str(error))])
    failed = None if record is None else record.failed
    for name, file in reports:
        try:
            write_report(FORMATS[name](made), file)
        except HostError as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return INTERRUPTED if made.interrupted else made.exit_status


def _whole(outcome: engine.Outcome) -> Result:
    from kvmscen.judge.verdict import told  # here, since most runs do not ask for it

    return told(outcome.job, outcome.result)


def say(told: str) -> None:
    """One line on standard error."""
    print(f"kvmscen: {told}", file=sys.stderr)


def _selecting(arguments: argparse.Namespace) -> list[str]:
    text = [f"-k {arguments.k}"] if arguments.k else []
    return text + [f"--case {name}" for name in arguments.case or ()]


def _not_selected(paths: list[str], arguments: argparse.Namespace, screen: Screen) -> None:
    """Tells which of several paths have no case that is selected: nothing of them ran, though others did."""
    if paths:
        names = ", ".join(paths[:_NAMED]) + ", ..." * (len(paths) > _NAMED)
        few = "1 path has" if len(paths) == 1 else f"{len(paths):,} paths have"
        screen.say(f"{few} no case that is selected by {' '.join(_selecting(arguments))}: {names}")


def engine_workers(wanted: int | str | None) -> int:
    """How many run at once: what -j or KVMSCEN_J says, else the CPUs that this process may use."""
    if wanted is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(wanted)


def report_of(wanted: str, formats: Collection[str] = FORMATS.keys()) -> tuple[str, str | None]:
    """Format and file of a --report, file None for standard output."""
    name, equals, file = wanted.partition("=")
    if name not in formats:
        raise UsageError(f"there is no report {name!r}; reports are {', '.join(formats)}")
    if equals and not file:
        raise UsageError(f"--report {wanted}: write a file name behind the =")
    if file and (os.path.isdir(file) or not os.path.isdir(os.path.dirname(file) or ".")):
        raise UsageError(f"--report {wanted}: {file} cannot be written there")
    return name, file or None


class _Records:
    """The folder of --record. When it cannot be written to, the run goes on, and ends with what `failed` says."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.failed: HostError | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            wrong = UsageError if isinstance(error, (FileExistsError, NotADirectoryError)) else HostError
            raise wrong(f"--record {folder}: {os.strerror(error.errno or 0)}") from None

    def keep(self, outcome: engine.Outcome) -> None:
        """Record what was seen of one case."""
        result = outcome.result
        if self.failed or result.observation is None or outcome.facts is None or result.machine is None:
            return
        name = f"{result.scenario}:{result.case}"
        try:
            recordings.keep(self.folder, name, result.host, outcome.facts, result.machine, result.observation)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            self.failed = HostError(f"--record {self.folder}: {why}: {name} and what came behind it was not kept")


def write_report(report: str, file: str | None) -> None:
    """A report to its file, or to standard output."""
    if file is None:
        sys.stdout.write(report)
        return
    try:
        whole.write(file, report, lasting=True)
    except OSError as error:
        raise HostError(f"{file} could not be written: {os.strerror(error.errno or 0)}") from None


# --- the other verbs ------------------------------------------------------------------------------------------------


def check(arguments: argparse.Namespace) -> int:
    """`kvmscen check`: 0 all is well, 2 something is wrong, 4 there was nothing to check."""
    meant = find(arguments.paths)
    files, problems = meant.files, meant.problems
    for problem in problems:
        print(problem)
    for line in meant.passed_over:
        print(line, file=sys.stderr)
    cases = wrong = 0

    def on_file(file: str, count: int, found: list[Problem], notes: list[Problem]) -> None:
        nonlocal cases, wrong
        cases += count
        wrong += bool(found)
        for problem in (*found, *notes):
            print(text.problem(problem))

    found = checking.check(files, arguments.assembler, on_file)
    said = f"{len(files)} file{'s' * (len(files) != 1)}, {cases} case{'s' * (cases != 1)}"
    wrong += len(problems)
    print(f"{said}: " + (f"{wrong} wrong" if wrong else "nothing wrong"), file=sys.stderr)
    if any(problem.ours for problem in found):
        return 3
    if found or problems:
        return 2
    return 0 if files else 4


def show(arguments: argparse.Namespace) -> int:
    """`kvmscen show`: 0, or 2 when the file is wrong."""
    if os.path.isdir(arguments.path):
        raise UsageError(f"{arguments.path} is a folder: name one scenario of it")
    if not os.path.isfile(arguments.path):
        raise UsageError(f"{arguments.path}: {what(arguments.path)}")
    shown = checking.show(arguments.path, arguments.case, arguments.assembler)
    wrong = engine.problems_of(shown)
    for problem in wrong:
        print(text.problem(problem), file=sys.stderr)
    if wrong and not shown["cases"]:
        return 2
    if arguments.json:
        print(harmless.json(json.dumps({"cases": shown["cases"]})))
    else:
        from kvmscen.listing import render

        print(render(arguments.path, shown), end="")
    return 2 if wrong else 0


def _hosts(arguments: argparse.Namespace) -> int:
    from kvmscen.verb_hosts import hosts  # here, since no other verb needs it

    return hosts(arguments)


def measure(arguments: argparse.Namespace) -> int:
    """`kvmscen measure`."""
    from kvmscen.verb_measure import measure  # here, since it imports this module

    return measure(arguments)


def _host(arguments: argparse.Namespace) -> int:
    from kvmscen.verb_host import host as verb  # here, since no other verb prepares

    return verb(arguments)


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": run,
    "check": check,
    "show": show,
    "hosts": _hosts,
    "measure": measure,
    "host": _host,
}
