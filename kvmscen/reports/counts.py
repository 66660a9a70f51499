"""What a run accessed, and what the host put right, as lines of text: the part that text and junit
share.
"""

from __future__ import annotations

from kvmscen.reports.story import clean, one_line, plural
from kvmscen.results.result import AccessTally, Result

# Rows that a table has; of more, the most frequent.
ROWS = 20
_HEAD = ("section", "symbol", "access", "bytes", "times", "by")
_ALIGN = ("left", "left", "left", "right", "right", "left")


def notes(result: Result) -> list[str]:
    """`note: ...`, one line each."""
    seen = result.observation.notes if result.observation else ()
    return [f"note: {one_line(text)}" for text in (*result.notes, *seen)]


def accesses(result: Result, asked: bool = False) -> list[str]:
    """The table of accesses: where the host carried one out or put something right, or where it is
    `asked` for; else nothing.
    """
    if not result.accesses or not (
        asked
        or (result.observation and result.observation.notes)
        or any(tally.emulated for tally in result.accesses)
    ):
        return []
    # Not at the top: the start of the program is measured, and most of a run has no table.
    from tabulate import tabulate

    kept = sorted(result.accesses, key=lambda tally: -tally.times)[:ROWS]
    rows = [_row(tally) for tally in result.accesses if tally in kept]
    lines = tabulate(
        rows, headers=_HEAD, tablefmt="simple", disable_numparse=True, colalign=_ALIGN
    ).splitlines()
    if len(kept) < len(result.accesses):
        lines.append(f"... and {plural(len(result.accesses) - len(kept), 'more row')}")
    total, ours = (
        sum(tally.times for tally in result.accesses if tally.emulated or not only)
        for only in (False, True)
    )
    by = f", {ours:,} of them carried out for it" if ours else ""
    return [line.rstrip() for line in lines] + [
        f"{total:,} {'access' if total == 1 else 'accesses'} left the guest{by}"
    ]


def _row(tally: AccessTally) -> tuple[str, ...]:
    by = "emulate" if tally.emulated else "mmio"
    return (
        clean(tally.section or "-"),
        clean(tally.symbol or "-"),
        tally.kind,
        str(tally.len),
        f"{tally.times:,}",
        by,
    )
