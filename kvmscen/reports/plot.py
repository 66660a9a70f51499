"""What was timed, as an SVG: for each case and host the share of samples up to each time, by matplotlib (the extra `plot`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from kvmscen.errors import UsageError
from kvmscen.measured import number
from kvmscen.reports.story import clean, where
from kvmscen.result import Result, Run

# Points of one line: more than the eye can tell, and few enough for a small file.
_POINTS = 500
# Where the lines end: the last samples are those that something disturbed, and would set the scale.
_MOST = 0.99


def check() -> None:
    """Raises UsageError where matplotlib is not installed, before anything is timed for it."""
    if find_spec("matplotlib") is None:
        raise UsageError("an svg is drawn by matplotlib, which is not installed: pip install 'kvmscen[plot]'")


def render(run: Run) -> str:
    """The whole picture."""
    check()
    import matplotlib
    from matplotlib.figure import Figure

    results = [result for result in run.results if result.measured]
    # The same run gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "kvmscen", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 3.6 * max(len(results), 1) + 0.4), layout="constrained")
        for row, result in enumerate(results):
            _panel(figure.add_subplot(len(results), 1, row + 1), result)
        if not results:
            figure.text(0.5, 0.5, "nothing was timed", ha="center")
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": "kvmscen", "Title": "kvmscen measure"})
    return out.getvalue()


def _panel(axes: Any, result: Result) -> None:
    for one in result.measured:
        across, up = curve(one.samples_ns)
        if across:
            axes.plot(across, up, label=_plain(f"{clean(one.name)}: {number(one.ns.median)} ns"), linewidth=1.4)
    axes.set_xscale("log")
    axes.set_title(_plain(f"{clean(result.name)} on {where(result)}, {result.measured[0].loop} loop"), fontsize=10)
    axes.set_xlabel("ns")
    axes.set_ylabel("share of samples up to")
    axes.grid(True, which="both", alpha=0.25)
    if axes.lines:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _plain(text: str) -> str:
    # A dollar begins a formula there.
    return text.replace("$", r"\$")


def curve(samples: Sequence[float]) -> tuple[list[float], list[float]]:
    """The distribution function of samples above 0, at so many shares: times and shares."""
    ordered = sorted(sample for sample in samples if sample > 0)
    if not ordered:
        return [], []
    shares = [_MOST * n / (_POINTS - 1) for n in range(_POINTS)]
    return [ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in shares], shares
