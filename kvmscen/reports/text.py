"""The report that people read: a line a case while it runs, what each failure was, and a table with
totals.

ASCII but for what the user wrote. No function here ends its text in a newline but `render`. Colour
is the caller's decision.
"""

# No `from __future__ import annotations` here: a function has that name.
from collections.abc import Iterable, Sequence

from kvmscen.errors import HOST, OPTIONS, Problem
from kvmscen.reports import harmless
from kvmscen.reports.counts import accesses, notes
from kvmscen.reports.explained import again, explanation, whole
from kvmscen.reports.story import (
    BAD,
    PREDICTED,
    brief,
    clean,
    headline,
    one_line,
    painter,
    place,
    plural,
    what_is_wrong,
    where,
)
from kvmscen.results.result import STATUSES, Result, Run

# Cases that the table lists one by one; of more, only those that are not as they should be.
LISTED = 40
# Columns of a report that goes to a file.
PAGE = 120

# (file, case) to host to result.
Cases = dict[tuple[str, str], dict[str, Result]]

_COLOUR = {
    "PASS": "green",
    "FAIL": "red",
    "ERROR": "red",
    "SKIP": "yellow",
    "XFAIL": "yellow",
    "XPASS": "red",
}
_WORDS = {
    "PASS": "passed",
    "FAIL": "failed",
    "SKIP": "skipped",
    "XFAIL": "xfailed",
    "XPASS": "xpassed",
}


def line(result: Result, color: bool) -> str:
    """One line for a case that is done: status, name, host, time, and the reason if there is
    one.
    """
    paint = painter(color)
    status = paint(f"{result.status:5}", _COLOUR.get(result.status, "bold"))
    time = "" if result.status == "SKIP" else f" ({_seconds(result.elapsed)})"
    reason = f": {brief(result)}" if result.reason else ""
    return f"{status} {clean(result.name)} on {where(result)}{time}{reason}"


def beneath(result: Result, asked: bool) -> list[str]:
    """What stands under a case's line: notes, and the accesses where the host carried some out, or
    where they are `asked` for.
    """
    return ["  " + line for line in (*notes(result), *accesses(result, asked))]


def problem(problem: Problem) -> str:
    """`file:line:column: message` in one line, however long: editors and people follow it to its
    place.
    """
    return one_line(str(problem))


def failure(result: Result, color: bool, width: int, before: Result | None = None) -> str:
    """What was wrong in a FAIL, an ERROR or an XPASS, and how to repeat the case; empty for any
    other status.

    Where it is the same as that of `before`, on another host, just that is said.
    """
    if result.status not in BAD:
        return ""
    paint = painter(color)
    title = (
        f"{paint(result.status, _COLOUR[result.status])} {clean(result.name)} on {where(result)}"
    )
    if before is not None and alike(before, result):
        headline_text = paint(headline(result, full=False), "bold")
        return "\n".join([title, headline_text, f"  the same as on {where(before)}", again(result)])
    return "\n".join([title, *explanation(result, width, paint)])


def alike(one: Result, other: Result) -> bool:
    """Whether two hosts differ from what was expected in the same way."""
    keys = ("file", "case", "status", "reason", "mismatches", "hint")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def passed(result: Result, color: bool, width: int) -> str:
    """A case that is as it should be with its whole story, to be pasted into a mail: exits, source
    lines, what it ran on.
    """
    paint = painter(color)
    title = (
        f"{paint(result.status, _COLOUR.get(result.status, 'bold'))} {clean(result.name)} on "
        f"{where(result)}"
    )
    return "\n".join([title, *whole(result, width, paint)])


def end(run: Run, width: int) -> str:
    """The end of a run whose cases have had a line each: where the hosts differ or something
    failed, and the summary.
    """
    cases = _by_case(run.results)
    parts: list[str] = []
    if any(len(hosts) > 1 for hosts in cases.values()):
        marked = {
            case: hosts
            for case, hosts in cases.items()
            if {r.status for r in hosts.values()} != {"PASS"}
        }
        shown = dict(list(marked.items())[:LISTED])
        if shown:
            parts.append(_matrix(shown, width))
        if len(marked) > LISTED:
            parts.append(f"... and {plural(len(marked) - LISTED, 'more case')} like these")
        if shown and len(cases) > len(marked):
            parts.append(f"{plural(len(cases) - len(marked), 'more case')} passed on every host")
        if len(cases) > LISTED:
            parts.append(_totals(run.results, width))
    parts.append(summary(run, width))
    return "\n".join(parts)


def table(run: Run, width: int) -> str:
    """All of it: cases by host, why some were skipped, and the summary as the last line."""
    cases = _by_case(run.results)
    listed = list(cases)
    parts: list[str] = []
    if len(cases) > LISTED:
        listed = [case for case in cases if any(r.status in BAD for r in cases[case].values())]
    shown = {case: cases[case] for case in listed[:LISTED]}
    matrix = any(len(hosts) > 1 for hosts in cases.values())
    if shown:
        parts.append(_matrix(shown, width) if matrix else _list(shown, width))
    if len(listed) > LISTED:
        parts.append(f"... and {plural(len(listed) - LISTED, 'more case')} like these")
    if len(cases) > LISTED:
        if matrix:
            parts.append(_totals(run.results, width))
        if shown:
            parts.append(f"{len(cases):,} cases, of which the table lists only those that failed")
    parts += _reasons(run.results)
    parts.append(summary(run, width))
    return "\n".join(parts)


def summary(run: Run, width: int = 0) -> str:
    """`12 passed, 1 failed, 2 skipped in 0.8 s`, and how many of these no KVM has run."""
    counts = run.summary
    words = [
        f"{counts[s]:,} {_WORDS[s]}" if s in _WORDS else plural(counts[s], "error")
        for s in STATUSES
        if counts[s]
    ]
    files, cases = (
        {p.file for p in run.problems if not p.cases},
        {(p.file, name) for p in run.problems for name in p.cases},
    )
    numbers = (
        (len({case for case in cases if case[0] not in files}), "wrong case"),
        (len(files - {HOST, OPTIONS}), "wrong file"),
        (sum(p.file == OPTIONS for p in run.problems), "wrong option"),
        (sum(p.file == HOST for p in run.problems), "unusable host"),
    )
    words += [plural(count, what) for count, what in numbers if count]
    out = f"{', '.join(words) or 'nothing ran'} in {run.elapsed:.1f} s"
    if run.results and counts["SKIP"] == len(run.results):
        out += ": nothing ran"
    if run.interrupted:
        out += "; interrupted, the rest did not run"
    ran = [r for r in run.results if r.status not in ("SKIP", "ERROR")]
    predicted = sum(r.predicted for r in ran)
    if not predicted:
        return out
    if predicted < len(ran):
        note = (
            f"{predicted:,} of the {len(ran):,} that ran {'was' if predicted == 1 else 'were'} "
            f"{PREDICTED}"
        )
    else:
        note = PREDICTED if predicted == 1 else f"all {PREDICTED}"
    # The counts stay the last line.
    return f"{note}\n{out}" if width and len(out) + len(note) + 3 > width else f"{out} ({note})"


def render(run: Run) -> str:
    """The whole report, for a file: wrong files, failures, table; no colour."""
    parts = ["\n".join(map(problem, run.problems))] if run.problems else []
    first_of_case: dict[tuple[str, str], Result] = {}
    for result in run.results:
        below = beneath(result, False)
        if result.status in BAD or below:
            before = first_of_case.setdefault((result.file, result.case), result)
            shown = failure(result, False, PAGE, None if before is result else before)
            parts.append("\n".join([shown or line(result, False), *below]))
        if result.measured:
            from kvmscen.reports import prices  # here, since a run has none

            parts.append(prices.figures(result))
    parts.append(table(run, PAGE))
    return "\n\n".join(parts) + "\n"


def annotations(run: Run) -> str:
    """GitHub's workflow commands, one a line: an error at the place of each failure and of each
    wrong line; may be empty.
    """
    out = [_annotation(p.file, p.line, p.message) for p in run.problems]
    for result in run.results:
        if result.status in BAD:
            text = (
                f"{result.status} {clean(result.name)} on {where(result)}: {what_is_wrong(result)}"
            )
            out.append(_annotation(*place(result), text))
    return "\n".join(out)


def _annotation(file: str, number: int, text: str) -> str:
    at = f"file={_escape(file).replace(':', '%3A').replace(',', '%2C')}" + (
        f",line={number}" if number else ""
    )
    return harmless.command(f"::error {at}::{_escape(text)}")


def _escape(text: str) -> str:
    return harmless.shown(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 10 else f"{seconds:.1f} s"


def _by_case(results: Iterable[Result]) -> Cases:
    cases: Cases = {}
    for result in results:
        cases.setdefault((result.file, result.case), {})[result.host] = result
    return cases


def names(cases: Cases) -> list[str]:
    """What each case is called: by its scenario, or by its file where two files have the same
    stem.
    """
    names = [next(iter(hosts.values())).name for hosts in cases.values()]
    twice = {name for name in names if names.count(name) > 1}
    return [
        clean(f"{file}:{case}" if name in twice else name)
        for name, (file, case) in zip(names, cases, strict=True)
    ]


def _list(cases: Cases, width: int) -> str:
    """One host a case: a line for each, with as many columns as there is room for."""
    results = [next(iter(hosts.values())) for hosts in cases.values()]
    columns: dict[str, list[str]] = {
        "case": names(cases),
        "status": [r.status for r in results],
        "host": [r.host for r in results],
        "kernel": [_kernel(r) for r in results],
        "time": ["" if r.status == "SKIP" else _seconds(r.elapsed) for r in results],
    }
    for column in ("time", "kernel"):
        if _wide(columns) > width:
            del columns[column]
    return _grid(columns, width)


def _kernel(result: Result) -> str:
    if result.predicted:
        return f"predicted for {clean(result.kernel)}" if result.kernel else "predicted"
    return " ".join(filter(None, (clean(result.kernel or ""), clean(result.flavour or ""))))


def _matrix(cases: Cases, width: int) -> str:
    """Several hosts a case: a column for each, in as many tables one below the other as the width
    asks for.
    """
    hosts: dict[str, list[str]] = {}
    for row, results in enumerate(cases.values()):
        for host, result in results.items():
            if host not in hosts:
                hosts[host] = [""] * len(cases)
            hosts[host][row] = result.status
    headed = {_head(host, cases.values()): column for host, column in hosts.items()}
    return "\n\n".join(
        _grid(part, width) for part in _split_columns({"case": names(cases)}, headed, width)
    )


def _head(host: str, cases: Iterable[dict[str, Result]]) -> str:
    """The host, and below it its kernel or that it only predicts."""
    below = {_kernel(results[host]) for results in cases if host in results} - {""}
    return f"{host}\n{' '.join(sorted(below))}" if below else host


def _split_columns(
    first: dict[str, list[str]], rest: dict[str, list[str]], width: int
) -> list[dict[str, list[str]]]:
    parts = [dict(first)]
    for head, column in rest.items():
        if len(parts[-1]) > 1 and _wide({**parts[-1], head: column}) > width:
            parts.append(dict(first))
        parts[-1][head] = column
    return parts


def _totals(results: Sequence[Result], width: int) -> str:
    """How many results of each host have each status."""
    hosts: dict[str, dict[str, int]] = {}
    for result in results:
        counts = hosts.setdefault(result.host, dict.fromkeys(STATUSES, 0))
        counts[result.status] = counts.get(result.status, 0) + 1
    statuses = [s for s in STATUSES if any(counts[s] for counts in hosts.values())]
    columns = {host: [f"{counts[s]:,}" for s in statuses] for host, counts in hosts.items()}
    return "\n\n".join(
        _grid(part, width) for part in _split_columns({"status": statuses}, columns, width)
    )


def _column(head: str, cells: Sequence[str]) -> int:
    return max(map(len, (*head.split("\n"), *cells)))


def _wide(columns: dict[str, list[str]]) -> int:
    return sum(_column(head, cells) + 2 for head, cells in columns.items()) - 2


def _grid(columns: dict[str, list[str]], width: int) -> str:
    """The columns as a table; where they are too wide for the terminal, the first one is
    wrapped.
    """
    # Not at the top: the start of the program is measured, and most of a run has no table.
    from tabulate import tabulate

    head, cells = next(iter(columns.items()))
    over = _wide(columns) - width
    first = max(_column(head, cells) - over, 16) if over > 0 else None
    rows = list(zip(*columns.values(), strict=True))
    limits = [first] + [None] * (len(columns) - 1) if first else None
    return tabulate(
        rows, headers=list(columns), tablefmt="simple", disable_numparse=True, maxcolwidths=limits
    )


def _reasons(results: Iterable[Result]) -> list[str]:
    """Why cases were skipped or are known to be wrong: a line a reason, however many cases have
    it.
    """
    groups: dict[tuple[str, str, str], list[str]] = {}
    for result in results:
        if result.status in ("SKIP", "XFAIL"):
            key = (result.status, result.host, one_line(result.reason or "no reason was given"))
            groups.setdefault(key, []).append(clean(result.name))
    out = []
    for (status, host, reason), names in list(groups.items())[:LISTED]:
        named = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
        out.append(f"{status} {named} on {host}: {reason}")
    return out + [f"... and {plural(len(groups) - LISTED, 'more reason')}"] * (len(groups) > LISTED)
