"""What was timed, as tables for people: the figures of each kind of access, and their ratios side
by side.

An exit has two prices: KVM_RUN alone, and with what user space does until it enters the guest
again. What an access that KVM cannot decode costs is nearly all in the second.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmscen.measure.confidence import Interval
from kvmscen.reports.story import clean, where
from kvmscen.results.measured import Measured, Spread, number, time_text, unit
from kvmscen.results.result import Result

_FIGURES = ("median", "p95", "p99", "mad", "min")


def figures(result: Result) -> str:
    """The table of one case on one host, in time and ticks, with what it was taken by."""
    rows = [_row(measured) for measured in result.measured]
    heads = ("kind", "count", *_FIGURES, "", "with user space", "what")
    return "\n".join(
        [f"{clean(result.name)} on {where(result)}", _table(rows, heads), *_notes(result.measured)]
    )


def _row(measured: Measured) -> tuple[str, ...]:
    name, size = unit(measured.ns.median)
    both = zip(_cells(measured.ns.times(1 / size)), _cells(measured.ticks), strict=True)
    cells = ["\n".join(pair) for pair in both]
    user = f"{time_text(measured.whole_ns.median)}\n{100 * measured.user:.1f} % user"
    return (
        clean(measured.name),
        f"{measured.samples:,}",
        *cells,
        f"{name}\nticks",
        user,
        clean(measured.text),
    )


def _cells(spread: Spread) -> list[str]:
    return [number(getattr(spread, name)) for name in _FIGURES]


def _notes(measured: Sequence[Measured]) -> list[str]:
    first = measured[0]
    count = len(first.rounds)
    loop = f"{first.loop} loop" + (f" ({first.why})" if first.why else "")
    return [
        f"{loop}, {count} round{'s' * (count != 1)}, counter {first.hz / 1e6:,.3f} MHz; "
        f"with a no-op in place of KVM_RUN: {time_text(first.overhead_ns)}, "
        f"{number(first.overhead_ticks)} ticks"
    ]


def ratios(
    title: str, base: str, rows: Sequence[tuple[str, Measured, Interval]], note: str = ""
) -> str:
    """Kinds side by side, the cheapest first: each in multiples of the base, by what it costs with
    user space.
    """
    ranked = sorted(rows, key=lambda row: row[1].whole_ns.median)
    cells = [
        (
            clean(name),
            "-" if measured.is_span else time_text(measured.ns.median),
            time_text(measured.whole_ns.median),
            number(ratio.value),
            f"{number(ratio.low)} to {number(ratio.high)}",
        )
        for name, measured, ratio in ranked
    ]
    heads = ("kind", "exit alone", "with user space", f"times {clean(base)}", "95 % of resamples")
    return f"{title}\n" + _table(cells, heads) + (f"\n{note}" if note else "")


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    from tabulate import tabulate

    right = ["left" if head in ("kind", "", "what") else "right" for head in heads]
    return tabulate(rows, headers=heads, tablefmt="simple", disable_numparse=True, colalign=right)
