"""The picture of what was timed."""

from __future__ import annotations

import re
import sys
from xml.etree import ElementTree

import pytest

from kvmscen.cli import measure
from kvmscen.errors import UsageError
from kvmscen.reports import plot
from kvmscen.results.measured import Measured, spread
from kvmscen.results.result import Result, Run


def run(*results: Result) -> Run:
    return Run("id", 0.0, "0", results)


def result(name: str = "sto$re") -> Result:
    ticks = tuple(float(n) for n in range(1000, 3000))
    figures = spread(ticks)
    measured = Measured(
        name, 1, "mmio", len(ticks), figures, figures, "native", None, 50, 50, 0.01, 1e9, (ticks,)
    )
    return Result(
        "a.yaml",
        "a$b",
        "default",
        1,
        "",
        "x86_64",
        "kvm",
        "6.1",
        False,
        "PASS",
        measured=(measured,),
    )


def test_a_bar_for_each_kind() -> None:
    pytest.importorskip("matplotlib")
    made = plot.render(run(result("one"), result("t<o")))
    ElementTree.fromstring(made)
    shown = re.sub(r"<[^>]*>", " ", made)
    for text in (
        "one",
        "t&lt;o",
        "2,000 ns",
        "a$b on kvm, kernel 6.1, native loop; 1 is one, 2,000 ns",
        "exit alone",
        "with user space",
    ):
        assert text in shown
    assert made == plot.render(run(result("one"), result("t<o")))


def test_nothing_timed_is_a_picture_too() -> None:
    pytest.importorskip("matplotlib")
    assert "nothing was timed" in plot.render(run())


def kind(name: str, alone: float, user: float = 0.0) -> Measured:
    ticks = tuple(alone + n / 100 for n in range(-50, 51))
    whole = tuple(tick + user for tick in ticks)
    figures = spread(ticks)
    return Measured(
        name,
        1,
        "mmio",
        len(ticks),
        figures,
        figures,
        "native",
        None,
        50,
        50,
        0.01,
        1e9,
        (ticks,),
        (whole,),
    )


def panel(*kinds: Measured, host: str = "kvm") -> Result:
    return Result(
        "a.yaml", "a", "default", 1, "", "arm64", host, "6.1", False, "PASS", measured=kinds
    )


def test_kinds_are_ranked_and_compared_with_user_space() -> None:
    nisv, mmio, ram = (
        kind("nisv", 300.0, 9000.0),
        kind("mmio", 400.0, 10.0),
        kind("ram", 4.0)._replace(is_span=True),
    )
    result = panel(nisv, mmio, ram)
    (table,) = measure._compared([result], None)
    rows = [re.split(r"\s{2,}", line) for line in table.splitlines()[3:]]
    # The base is the cheapest, and a span has no price of an exit alone.
    assert rows == [
        ["ram", "-", "4 ns", "1", "1 to 1"],
        ["mmio", "400 ns", "410 ns", "102", rows[1][4]],
        ["nisv", "300 ns", "9,300 ns", "2,325", rows[2][4]],
    ]
    (table,) = measure._compared([panel(nisv, mmio)], None)
    assert "times mmio" in table
    cheap = kind("less", 0.2)._replace(rounds=((-1.0,),))
    (table,) = measure._compared([panel(nisv._replace(rounds=((1.0,),)), cheap)], None)
    assert table.endswith(
        "less: too little to be told from nothing, so no base: write a larger `per`"
    )


def test_bars_are_multiples_of_ram_or_of_the_cheapest_with_user_space() -> None:
    nisv, mmio, ram = kind("nisv", 300.0, 9000.0), kind("mmio", 400.0, 10.0), kind("ram", 4.0)
    assert plot.base([panel(nisv, mmio)], "kvm") is mmio
    assert (
        plot.base(
            [
                panel(nisv, mmio, kind("less", 2.0)),
                panel(ram),
                panel(kind("ram", 1.0), host="ssh:x"),
            ],
            "kvm",
        )
        is ram
    )
    assert plot.multiples(nisv, 4.0) == pytest.approx((75, 2325))
    assert plot.multiples(kind("nothing", -1.0), 4.0) == (0.01, 0.01)
    pytest.importorskip("matplotlib")
    shown = re.sub(
        r"<[^>]*>", " ", plot.render(run(panel(nisv, mmio, ram), panel(mmio, host="ssh:x")))
    )
    for text in (
        "9,300 ns, 2,325 times",
        "410 ns, 102 times",
        "4 ns",
        "1 is ram, 4 ns",
        "1 is mmio, 410 ns",
        "1,000",
        "10,000",
    ):
        assert text in shown


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python itself marks what cannot be imported.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'kvmscen\[plot\]'"):
        plot.check()
