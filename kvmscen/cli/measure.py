"""`kvmscen measure`: times exits, compares them with each other and with a baseline. Returns the
exit status.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence

from kvmscen.cli.files import find
from kvmscen.cli.outputs import INTERRUPTED, report_of, say, write_report
from kvmscen.cli.progress import Progress
from kvmscen.cli.screen import Screen
from kvmscen.cli.selected import tell_unselected
from kvmscen.engine import work
from kvmscen.errors import HOST, HostError, Problem, UsageError
from kvmscen.hosts import defaults, host
from kvmscen.measure import baseline, confidence, rounds
from kvmscen.reports import MEASURED, plot, prices
from kvmscen.reports.json_report import iso
from kvmscen.results.measured import Measured
from kvmscen.results.result import Result, Run
from kvmscen.worker import load

_ROUNDS = 10


def measure(arguments: argparse.Namespace) -> int:
    """`kvmscen measure`: 0 all was timed, 1 an exit did not come or a price has changed, 4 nothing
    was timed.
    """
    reports = [report_of(wanted, MEASURED) for wanted in arguments.report or ()]
    if any(name == "svg" for name, _ in reports):
        plot.check()
    if len(reports) > len({file for _, file in reports}):
        raise UsageError(
            "only one report can go to a file, and to standard output: give the others a file, as "
            "json=cost.json"
        )
    plan = rounds.Schedule(arguments.rounds or _ROUNDS, arguments.loop or "native")
    if (arguments.save or arguments.against) and plan.rounds < baseline.ROUNDS_LEAST:
        raise UsageError(
            f"{plan.rounds} rounds are too few for a baseline: write --rounds "
            f"{baseline.ROUNDS_LEAST} or more"
        )
    kept = baseline.load(arguments.against) if arguments.against else None
    if arguments.save:
        baseline.path_of(arguments.save)
    selected = find(arguments.paths)
    files, problems = selected.files, selected.problems
    verdict = ""
    screen = Screen(sys.stderr if any(file is None for _, file in reports) else sys.stdout)
    for problem in problems:
        screen.problem(problem)
    for line in selected.passed_over:
        screen.say(line)
    try:
        hosts = _Hosts(arguments)
        run = hosts.timed(files, plan, screen, problems)
        if not run.interrupted:
            tell_unselected(run, selected, arguments, screen, "measure")
        if kept is not None:
            run, verdict = _against(arguments.against, kept, run, hosts, plan, screen)
    except HostError as error:
        print(f"kvmscen: {error}", file=sys.stderr)
        run = work.broken([*problems, Problem(HOST, 0, 0, str(error))])
    for name, file in reports:
        write_report(MEASURED[name](run), file)
    _show(run, arguments, screen)
    if verdict:
        screen.say(verdict)
    return INTERRUPTED if run.interrupted else run.exit_status


def _show(run: Run, arguments: argparse.Namespace, screen: Screen) -> None:
    for result in run.results:
        screen.say(_told(result, screen))
    if run.interrupted:
        screen.say("interrupted: what had not had all its rounds is left out")
    if arguments.compare or arguments.base:
        for table in _compared(run.results, arguments.base):
            screen.say("\n" + table)
    if arguments.save and not run.interrupted and any(result.measured for result in run.results):
        screen.say(f"\nkept as {baseline.save(arguments.save, run.results, iso(run.started))}")


class _Hosts:
    """The hosts that were named, for one measurement after another."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.named: list[str] = list(dict.fromkeys(arguments.on or ()))
        self.quiet: bool = arguments.quiet
        self.selection = work.Selection(
            arguments.k, tuple(arguments.case or ()), arguments.assembler
        )

    def timed(
        self,
        files: Sequence[str],
        plan: rounds.Schedule,
        screen: Screen,
        problems: Sequence[Problem] = (),
    ) -> Run:
        """Time all cases on all hosts, round by round."""
        hosts = [host(name) for name in self.named] or defaults(say)
        progress = Progress(screen, self.quiet)
        return rounds.measure(
            load,
            files,
            hosts,
            bool(self.named),
            self.selection,
            plan,
            screen.problem,
            progress,
            problems,
        )


def _against(
    name: str,
    kept: baseline.Baseline,
    run: Run,
    hosts: _Hosts,
    plan: rounds.Schedule,
    screen: Screen,
) -> tuple[Run, str]:
    """Judge a run against a baseline. Cases that seem to have changed are timed again first.
    Returns the run and a sentence.
    """
    judged = baseline.judge(name, kept, run.results)
    least = baseline.least(kept, run.results)
    for _ in range(baseline.REPEATS - 1):
        doubtful = list(
            dict.fromkeys(judgement.result.file for judgement in judged if judgement.changed)
        )
        if not doubtful or run.interrupted:
            break
        screen.say(
            f"something differs from the baseline {name}: measuring again, to see whether it stays "
            f"so"
        )
        again = hosts.timed(doubtful, plan, screen)
        run = run._replace(interrupted=again.interrupted)
        judged = baseline.confirmed(judged, baseline.judge(name, kept, again.results))
    verdict = "" if run.interrupted or not least else _verdict(name, run.results, judged, least)
    return run._replace(results=tuple(judgement.result for judgement in judged)), verdict


def _verdict(
    name: str,
    results: Sequence[Result],
    judged: Sequence[baseline.Judged],
    least: Mapping[str, float],
) -> str:
    """The result of the comparison in one sentence, also where nothing has changed."""
    changed = sum(len(judgement.changed) for judgement in judged)
    timed = sum(len(result.measured) for result in results)
    beside = f"; {timed - len(least)} more are not in it" if timed > len(least) else ""
    kinds = f"{len(least)} kind{'s' * (len(least) != 1)} compared with the baseline {name}{beside}"
    if changed:
        return f"\n{changed} changed beyond the noise: {kinds}"
    most = max(least.values(), default=0.0)
    seen = (
        f"the smallest slow-down that would have been seen is "
        f"{100 * min(least.values(), default=0.0):.0f} %"
    )
    if most > min(least.values(), default=0.0) + 0.01:
        seen += (
            f" ({min(least, key=lambda kind: least[kind])}) to {100 * most:.0f} % "
            f"({max(least, key=lambda kind: least[kind])})"
        )
    return f"\nno change beyond the noise: {kinds}; {seen}"


def _told(result: Result, screen: Screen) -> str:
    from kvmscen.reports import text

    bad = text.failure(result, screen.color, screen.width)
    if result.measured:
        return "\n" + prices.figures(result) + (f"\n{bad}" if bad else "")
    return bad or text.line(result, screen.color)


def _compared(results: Iterable[Result], base: str | None) -> Iterable[str]:
    """For each host a table of all kinds in multiples of one, with user space: the one named, else
    the cheapest.
    """
    by_host: dict[str, list[tuple[str, Measured]]] = {}
    results = [result for result in results if result.measured]
    for result in results:
        several = sum(other.host == result.host for other in results) > 1
        for measured in result.measured:
            by_host.setdefault(result.host, []).append(
                (f"{result.name}:{measured.name}" if several else measured.name, measured)
            )
    for name, kinds in by_host.items():
        chosen, reference = _base(name, kinds, base)
        itself = confidence.Interval(1, 1, 1)
        rows = [
            (
                kind,
                measured,
                itself
                if measured is reference
                else confidence.ratio(measured.whole_rounds_ns, reference.whole_rounds_ns),
            )
            for kind, measured in kinds
        ]
        yield prices.ratios(f"on {name}", chosen, rows, _unfit(kinds, reference))


def _unfit(kinds: Sequence[tuple[str, Measured]], reference: Measured) -> str:
    """Why kinds that are cheaper than the base are not the base, empty where there is none."""
    less = [
        name
        for name, measured in kinds
        if measured is not reference
        and not _is_firm(measured)
        and measured.whole_ns.median < reference.whole_ns.median
    ]
    if not less:
        return ""
    return (
        f"{', '.join(less)}: too little to be told from nothing, so no base: write a larger `per`"
    )


def _is_firm(measured: Measured) -> bool:
    """Whether a kind costs enough to be told from nothing: with `less` it may not."""
    return min(measured.medians_ns) > 0


def _base(
    host_name: str, kinds: Sequence[tuple[str, Measured]], base: str | None
) -> tuple[str, Measured]:
    """The kind of that name, or of the end of a name; without one the cheapest. Raises
    UsageError.
    """
    firm = [kind for kind in kinds if _is_firm(kind[1])]
    if base is None:
        return min(firm or kinds, key=lambda kind: kind[1].whole_ns.median)
    parts = base.split(":")
    named = [kind for kind in kinds if kind[0].split(":")[-len(parts) :] == parts]
    if len(named) != 1:
        what = (
            f"several are called so on {host_name}"
            if named
            else f"nothing of that name was timed on {host_name}"
        )
        raise UsageError(
            f"--base {base}: {what}; there are {', '.join(name for name, _ in named or kinds)}"
        )
    if named[0] not in firm:
        raise UsageError(
            f"--base {base}: on {host_name} it costs too little to be told from nothing: write a "
            f"larger `per`"
        )
    return named[0]
