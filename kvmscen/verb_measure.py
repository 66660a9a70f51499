"""What `kvmscen measure` does with its arguments, and what it prints. Returns the exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from kvmscen import engine, noise, rounds, verbs
from kvmscen.errors import HostError, Problem, UsageError
from kvmscen.hosts import DEFAULT, host
from kvmscen.measured import Measured
from kvmscen.reports import FORMATS, prices
from kvmscen.result import Result, Run

_ROUNDS = 10


def measure(arguments: argparse.Namespace) -> int:
    """`kvmscen measure`: 0 all was timed, 1 an exit did not come, 4 nothing was timed."""
    reports = [verbs.report_of(wanted) for wanted in arguments.report or ()]
    if len(reports) > len({file for _, file in reports}):
        raise UsageError("only one report can go to a file, and to standard output: give the others a file, as json=cost.json")
    files, problems, empty = verbs.find(arguments.paths)
    screen = verbs.Screen(sys.stderr if any(file is None for _, file in reports) else sys.stdout)
    for problem in problems:
        screen.problem(problem)
    for folder in empty:
        screen.say(f"{folder}: there are no scenarios (*.yaml) in this folder")
    made = _timed(arguments, files, problems, screen)
    if not made.results and not made.problems and files and not made.interrupted:
        screen.say("no case of these files has `measure`, or none is selected")
    for result in made.results:
        screen.say(_told(result, screen))
    if arguments.compare or arguments.base:
        for table in _compared(made.results, arguments.base):
            screen.say("\n" + table)
    for name, file in reports:
        verbs.write_report(FORMATS[name](made), file)
    return verbs.INTERRUPTED if made.interrupted else made.exit_status


def _timed(arguments: argparse.Namespace, files: Sequence[str], problems: list[Problem], screen: verbs.Screen) -> Run:
    named: list[str] = list(dict.fromkeys(arguments.on or ()))
    selection = engine.Selection(arguments.k, tuple(arguments.case or ()), arguments.assembler)
    plan = rounds.Plan(arguments.rounds or _ROUNDS, arguments.loop or "native")
    try:
        hosts = [host(name) for name in named or DEFAULT]
        return rounds.measure(files, hosts, bool(named), selection, plan, screen.problem, screen.progress, problems)
    except HostError as error:
        print(f"kvmscen: {error}", file=sys.stderr)
        return engine.broken([*problems, Problem("(host)", 0, 0, str(error))])


def _told(result: Result, screen: verbs.Screen) -> str:
    from kvmscen.reports import text

    if result.measured:
        return "\n" + prices.figures(result)
    return text.failure(result, screen.color, screen.width) or text.line(result, screen.color)


def _compared(results: Iterable[Result], base: str | None) -> Iterable[str]:
    """For each host a table of all kinds in multiples of one: the one named, else the cheapest."""
    by_host: dict[str, list[tuple[str, Measured]]] = {}
    results = [result for result in results if result.measured]
    for result in results:
        several = sum(other.host == result.host for other in results) > 1
        for one in result.measured:
            by_host.setdefault(result.host, []).append((f"{result.name}:{one.name}" if several else one.name, one))
    for name, kinds in by_host.items():
        bases = [
            (kind, one) for kind, one in kinds if base is not None and kind.split(":")[-len(base.split(":")) :] == base.split(":")
        ]
        if base is not None and not bases:
            raise UsageError(
                f"--base {base}: nothing of that name was timed on {name}; there are {', '.join(k for k, _ in kinds)}"
            )
        # With `less` a kind may cost too little to be told from nothing.
        firm = [kind for kind in bases or kinds if min(kind[1].medians_ns) > 0]
        if not firm:
            raise UsageError(f"--base {base}: on {name} it costs too little to be told from nothing: write a larger `per`")
        chosen, reference = min(firm, key=lambda kind: kind[1].ns.median)
        rows = [(kind, one, noise.ratio(one.rounds_ns, reference.rounds_ns)) for kind, one in kinds]
        yield prices.ratios(f"on {name}", chosen, rows)
