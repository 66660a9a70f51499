"""`kvmscen run`: runs the cases of files on hosts, and reports them. Returns the exit status."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from kvmscen.cli.cached import used
from kvmscen.cli.files import find
from kvmscen.cli.outputs import INTERRUPTED, report_of, say, write_report
from kvmscen.cli.screen import Screen
from kvmscen.cli.selected import tell_unselected
from kvmscen.engine import work
from kvmscen.engine.outcome import Outcome, Telling
from kvmscen.errors import HOST, HostError, Problem, UsageError
from kvmscen.hosts import defaults, host, recordings
from kvmscen.reports import FORMATS
from kvmscen.results.result import Run
from kvmscen.worker import load


def run(arguments: argparse.Namespace) -> int:
    """`kvmscen run`."""
    reports = _reports(arguments)
    named: list[str] = list(dict.fromkeys(arguments.on or ()))
    record = _Records(arguments.record) if arguments.record else None
    workers = _workers(arguments.j)
    if arguments.j is not None and workers > work.MOST_AT_ONCE:
        print(
            f"kvmscen: -j {workers}: {work.MOST_AT_ONCE} run at once, more never do",
            file=sys.stderr,
        )
    found = find(arguments.paths)
    files, problems = found.files, found.problems
    taken = arguments.observed or any(file is None for _, file in reports)
    screen = Screen(
        sys.stderr if taken else sys.stdout, arguments.observed, arguments.quiet, arguments.verbose
    )
    for problem in problems:
        screen.problem(problem)
    for line in found.passed_over:
        screen.say(line)

    def on_result(outcome: Outcome, progress: work.Progress) -> None:
        screen.result(outcome.result, progress)
        if record is not None:
            record.keep(outcome)
        if outcome.observed is not None:
            print(outcome.observed, flush=True)

    selection = work.Selection(arguments.k, tuple(arguments.case or ()), arguments.assembler)
    try:
        hosts = [host(name) for name in named] or defaults(say)
        made = work.run(
            load,
            files,
            hosts,
            bool(named),
            selection,
            workers,
            on_result,
            screen.problem,
            problems,
            screen.waiting,
            Telling(bool(reports or record), arguments.verbose, arguments.observed),
            used(arguments.no_cache),
        )
        if not made.interrupted:
            tell_unselected(made, found, arguments, screen)
        screen.end(made)
    except HostError as error:
        print(f"kvmscen: {error}", file=sys.stderr)
        made = work.broken([*problems, Problem(HOST, 0, 0, str(error))])
    failed = _write(reports, made, None if record is None else record.failed)
    if failed is not None:
        raise failed
    return INTERRUPTED if made.interrupted else made.exit_status


def _reports(arguments: argparse.Namespace) -> list[tuple[str, str | None]]:
    """Format and file of each --report; a file of None is standard output."""
    reports = [report_of(wanted) for wanted in arguments.report or ()]
    outputs = [file for _, file in reports] + [None] * arguments.observed
    if len(outputs) > len(set(outputs)):
        one = "a file" if None not in outputs else "standard output"
        raise UsageError(
            f"only one report can go to {one} (--observed is one): give the others a file, as "
            f"junit=report.xml"
        )
    return reports


def _write(
    reports: list[tuple[str, str | None]], made: Run, failed: HostError | None
) -> HostError | None:
    """Write each report, whatever became of the others; the first thing that failed."""
    for name, file in reports:
        try:
            write_report(FORMATS[name](made), file)
        except HostError as error:
            failed = failed or error
    return failed


def _workers(wanted: int | str | None) -> int:
    """How many run at once: what -j or KVMSCEN_J says, else the CPUs that this process may use."""
    if wanted is None:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    return int(wanted)


class _Records:
    """The folder of --record. When it cannot be written to, the run goes on, and ends with what
    `failed` says.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.failed: HostError | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            wrong = (
                UsageError
                if isinstance(error, (FileExistsError, NotADirectoryError))
                else HostError
            )
            raise wrong(f"--record {folder}: {os.strerror(error.errno or 0)}") from None

    def keep(self, outcome: Outcome) -> None:
        """Record what was seen of one case."""
        result = outcome.result
        if (
            self.failed
            or result.observation is None
            or outcome.facts is None
            or result.machine is None
        ):
            return
        name = f"{result.scenario}:{result.case}"
        try:
            recordings.keep(
                self.folder, name, result.host, outcome.facts, result.machine, result.observation
            )
        except OSError as error:
            why = os.strerror(error.errno or 0)
            self.failed = HostError(
                f"--record {self.folder}: {why}: {name} and what came behind it was not kept"
            )
