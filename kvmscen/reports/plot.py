"""What was timed, as an SVG: a bar for each kind, in multiples of the cheapest of its host, by
matplotlib (the extra `plot`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from kvmscen.errors import UsageError
from kvmscen.reports.story import clean, where
from kvmscen.results.measured import Measured, number, time_text
from kvmscen.results.result import Result, Run

# The kind that is the base where it is there: what others are compared with.
_RAM = "ram"
_BAR, _HEAD = 0.34, 1.1  # inches
_ALONE, _USER = "#30638e", "#9dbad5"


def check() -> None:
    """Raises UsageError where matplotlib is not installed, before anything is timed for it."""
    if find_spec("matplotlib") is None:
        raise UsageError(
            "an svg is drawn by matplotlib, which is not installed: pip install 'kvmscen[plot]'"
        )


def render(run: Run) -> str:
    """The whole picture: a panel for each case and host, all with one axis."""
    check()
    import matplotlib
    from matplotlib.figure import Figure

    results = [result for result in run.results if result.measured]
    # The same run gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "kvmscen", "svg.fonttype": "none"}):
        heights = [_HEAD + _BAR * len(result.measured) for result in results] or [_HEAD]
        figure = Figure(figsize=(9, sum(heights)), layout="constrained")
        if results:
            panels = figure.subplots(
                len(results), 1, sharex=True, squeeze=False, height_ratios=heights
            )[:, 0]
            bars = [
                _panel(axes, result, base(results, result.host))
                for axes, result in zip(panels, results, strict=True)
            ]
            _axis(panels[-1], [bar for some in bars for bar in some])
        else:
            figure.text(0.5, 0.5, "nothing was timed", ha="center")
        out = io.StringIO()
        figure.savefig(
            out,
            format="svg",
            metadata={"Date": None, "Creator": "kvmscen", "Title": "kvmscen measure"},
        )
    return out.getvalue()


def base(results: Sequence[Result], host: str) -> Measured:
    """The kind of access that the bars of a host are multiples of: the kind called `ram`, else the
    cheapest that costs something.
    """
    kinds = [measured for result in results if result.host == host for measured in result.measured]
    some = [measured for measured in kinds if measured.whole_ns.median > 0] or kinds
    return min(
        [measured for measured in some if measured.name == _RAM] or some,
        key=lambda measured: measured.whole_ns.median,
    )


def multiples(measured: Measured, unit: float) -> tuple[float, float]:
    """What was inside KVM_RUN, and with user space, in units; what is nothing or less is told as a
    hundredth.
    """
    alone = measured.ns.median * ((1 - measured.user) if measured.is_span else 1)
    return max(alone / unit, 0.01), max(measured.whole_ns.median / unit, 0.01)


def _panel(axes: Any, result: Result, reference: Measured) -> list[float]:
    """Draw the bars of one result; returns their lengths."""
    lengths = []
    unit = max(reference.whole_ns.median, 1e-6)
    kinds = sorted(result.measured, key=lambda measured: -measured.whole_ns.median)
    for row, measured in enumerate(kinds):
        alone, whole = multiples(measured, unit)
        lengths.append(whole)
        axes.barh(row, whole, color=_USER, label="with user space" if not row else None)
        axes.barh(row, min(alone, whole), color=_ALONE, label="exit alone" if not row else None)
        text = f"  {time_text(measured.whole_ns.median)}" + (
            "" if measured is reference else f", {number(whole)} times"
        )
        axes.text(whole, row, _plain(text), va="center", fontsize=8)
    axes.set_yticks(
        range(len(kinds)), [_plain(clean(measured.name)) for measured in kinds], fontsize=9
    )
    axes.set_xscale("log")
    loop = result.measured[0].loop
    title = (
        f"{clean(result.name)} on {where(result)}, {loop} loop; 1 is {clean(reference.name)}, "
        f"{time_text(reference.whole_ns.median)}"
    )
    axes.set_title(_plain(title), fontsize=10)
    axes.grid(True, axis="x", which="major", alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return lengths


def _axis(axes: Any, lengths: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, numticks=12))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    )
    axes.xaxis.set_minor_formatter(NullFormatter())
    # Room for the words behind the longest bar.
    axes.set_xlim(min(lengths) / 3, max(lengths) * (max(lengths) / min(lengths) * 3) ** 0.35)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("times")


def _plain(text: str) -> str:
    # A dollar begins a formula there.
    return text.replace("$", r"\$")
