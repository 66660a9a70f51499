"""The picture of what was timed."""

from __future__ import annotations

import re
import sys
from xml.etree import ElementTree

import pytest

from kvmscen.errors import UsageError
from kvmscen.measured import Measured, spread
from kvmscen.reports import plot
from kvmscen.result import Result, Run


def run(*results: Result) -> Run:
    return Run("id", 0.0, "0", results)


def result(name: str = "sto$re") -> Result:
    ticks = tuple(float(n) for n in range(1000, 3000))
    figures = spread(ticks)
    one = Measured(name, 1, "mmio", len(ticks), figures, figures, "native", None, 50, 50, 0.01, 1e9, (ticks,))
    return Result("a.yaml", "a$b", "default", 1, "", "x86_64", "kvm", "6.1", False, "PASS", measured=(one,))


def test_a_line_for_each_kind() -> None:
    pytest.importorskip("matplotlib")
    made = plot.render(run(result("one"), result("t<o")))
    ElementTree.fromstring(made)
    shown = re.sub(r"<[^>]*>", " ", made)
    for text in ("one: 2,000 ns", "t&lt;o: 2,000 ns", "a$b on kvm, kernel 6.1, native loop"):
        assert text in shown
    assert made == plot.render(run(result("one"), result("t<o")))


def test_nothing_timed_is_a_picture_too() -> None:
    pytest.importorskip("matplotlib")
    assert "nothing was timed" in plot.render(run())


def test_the_curve_rises_through_the_median() -> None:
    across, up = plot.curve([float(n) for n in range(1, 1001)])
    assert across == sorted(across)
    assert up == sorted(up)
    assert across[0] == 1
    assert across[min(range(len(up)), key=lambda n: abs(up[n] - 0.5))] == pytest.approx(500, rel=0.01)
    assert plot.curve([0.0, -1.0]) == ([], [])


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python itself marks what cannot be imported.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'kvmscen\[plot\]'"):
        plot.check()
