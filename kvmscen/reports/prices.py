"""What was timed, as tables for people: the figures of each kind of access, and their ratios side by side."""

from __future__ import annotations

from collections.abc import Sequence

from kvmscen.measured import Measured, Spread, number
from kvmscen.noise import Interval
from kvmscen.reports.story import clean, where
from kvmscen.result import Result

_FIGURES = ("median", "p95", "p99", "mad", "min")


def figures(result: Result) -> str:
    """The table of one case on one host, in nanoseconds and ticks, with what it was taken by."""
    rows = [_row(one) for one in result.measured]
    heads = ("kind", "count", *_FIGURES, "", "user", "what")
    return "\n".join([f"{clean(result.name)} on {where(result)}", _table(rows, heads), *_notes(result.measured)])


def _row(one: Measured) -> tuple[str, ...]:
    both = zip(_cells(one.ns), _cells(one.ticks), strict=True)
    cells = ["\n".join(pair) for pair in both]
    return (clean(one.name), f"{one.count:,}", *cells, "ns\nticks", f"{100 * one.user:.1f} %", clean(one.text))


def _cells(spread: Spread) -> list[str]:
    return [number(getattr(spread, name)) for name in _FIGURES]


def _notes(measured: Sequence[Measured]) -> list[str]:
    first = measured[0]
    count = len(first.rounds)
    loop = f"{first.loop} loop" + (f" ({first.why})" if first.why else "")
    return [
        f"{loop}, {count} round{'s' * (count != 1)}, counter {first.hz / 1e6:,.3f} MHz; "
        f"with a no-op in place of KVM_RUN: {number(first.overhead_ns)} ns, {number(first.overhead_ticks)} ticks"
    ]


def ratios(title: str, base: str, rows: Sequence[tuple[str, Measured, Interval]]) -> str:
    """Kinds side by side: each in multiples of the base, with a confidence interval."""
    cells = [
        (clean(name), number(one.ns.median), number(ratio.value), f"{number(ratio.low)} to {number(ratio.high)}")
        for name, one, ratio in rows
    ]
    return f"{title}\n" + _table(cells, ("kind", "median ns", f"times {clean(base)}", "95 % of resamples"))


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    from tabulate import tabulate

    right = ["left" if head in ("kind", "", "what") else "right" for head in heads]
    return tabulate(rows, headers=heads, tablefmt="simple", disable_numparse=True, colalign=right)
