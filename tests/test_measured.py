"""Figures of samples, their intervals, and what a baseline makes of a change."""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscen.errors import UsageError
from kvmscen.measure import baseline, confidence
from kvmscen.results.measured import Measured, median, number, quantile, spread
from kvmscen.results.result import Result

NUMBERS = st.lists(st.floats(0.1, 1e9), min_size=1, max_size=60)


@given(NUMBERS)
def test_figures_of_a_distribution(values: list[float]) -> None:
    made = spread(values)
    assert made.min == min(values)
    assert made.median == pytest.approx(statistics.median(values))
    assert made.mad == pytest.approx(
        statistics.median(abs(v - statistics.median(values)) for v in values), abs=1e-6
    )
    for share, value in ((0.95, made.p95), (0.99, made.p99)):
        assert value in values
        assert sum(v <= value for v in values) >= share * len(values)
        assert sum(v < value for v in values) < share * len(values)


def test_quantiles_by_nearest_rank() -> None:
    ordered = list(range(1, 101))
    assert [quantile(ordered, q) for q in (0.0, 0.005, 0.01, 0.5, 0.95, 0.99, 1.0)] == [
        1,
        1,
        1,
        50,
        95,
        99,
        100,
    ]


def test_units() -> None:
    assert spread([1, 2, 3]).times(10) == spread([10, 20, 30])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2345, "0.234"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
        (0, "0"),
        (-0.15, "-0.15"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


# --- intervals ------------------------------------------------------------------------------------


def rounds(
    level: float, noisy: float, count: int = 10, samples: int = 101, seed: int = 1
) -> list[list[float]]:
    """Rounds whose medians differ, of samples that differ."""
    draw = random.Random(seed)
    return [
        [level * draw.gauss(1, 0.05) * factor for _ in range(samples)]
        for factor in (draw.gauss(1, noisy) for _ in range(count))
    ]


def test_the_median_of_a_resample_is_what_resampling_gives() -> None:
    # The short way (one Beta number) and the long way have one distribution.
    draw, ordered = random.Random(3), sorted(random.Random(2).gauss(100, 10) for _ in range(51))
    short = sorted(confidence._median(ordered, draw) for _ in range(4000))
    long = sorted(median(draw.choices(ordered, k=len(ordered))) for _ in range(4000))
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert quantile(short, share) == pytest.approx(quantile(long, share), abs=0.6)


def test_a_ratio_is_found_within_its_interval() -> None:
    made = confidence.ratio(rounds(1200, 0.01), rounds(1000, 0.01, seed=2))
    assert made.low <= made.value <= made.high
    assert made.low < 1.2 < made.high
    assert made.high - made.low < 0.06


def test_noisier_rounds_make_a_wider_interval() -> None:
    calm = confidence.ratio(rounds(1000, 0.01), rounds(1000, 0.01, seed=2))
    noisy = confidence.ratio(rounds(1000, 0.2), rounds(1000, 0.2, seed=2))
    assert noisy.high - noisy.low > 3 * (calm.high - calm.low)


def test_what_drifts_for_both_does_not_count() -> None:
    drift = [1 + n / 10 for n in range(10)]
    ones = [[1200 * factor] * 101 for factor in drift]
    others = [[1000 * factor] * 101 for factor in drift]
    made = confidence.ratio(ones, others)
    assert made == pytest.approx((1.2, 1.2, 1.2))


def test_a_base_that_is_nothing_is_infinitely_less() -> None:
    assert confidence.ratio([[5.0]], [[0.0]]).value == float("inf")


# --- baselines ------------------------------------------------------------------------------------


def measured(
    medians: list[float], name: str = "store", line: int = 7, loop: str = "native"
) -> Measured:
    ticks = tuple((m, m, m) for m in medians)
    figures = spread([m for samples in ticks for m in samples])
    return Measured(
        name, line, "mmio", 3 * len(medians), figures, figures, loop, None, 50, 50, 0.01, 1e9, ticks
    )


def result(*kinds: Measured, case: str = "default", status: str = "PASS") -> Result:
    return Result(
        "a.yaml",
        "a",
        case,
        1,
        "",
        "x86_64",
        "kvm",
        "6.1",
        False,
        status,
        machine="sha256:0",
        measured=kinds,
    )


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "kvmscen" / "baselines"


def noisy(level: float, seed: int, by: float = 0.01) -> list[float]:
    draw = random.Random(seed)
    return [level * draw.gauss(1, by) for _ in range(10)]


def held(state: Path, now: Measured) -> baseline.Judged:
    baseline.save("base", [result(measured(noisy(9000, 1)))], "now")
    (judged,) = baseline.judge("base", baseline.load("base"), [result(now)])
    return judged


@pytest.mark.parametrize(("factor", "slower"), [(1.2, True), (0.8, False), (1.13, True)])
def test_a_change_is_found(state: Path, factor: float, slower: bool) -> None:
    judged = held(state, measured(noisy(9000 * factor, 2)))
    assert judged.changed == {"store": slower}
    assert judged.result.status == "FAIL"
    (mismatch,) = judged.result.mismatches
    assert (mismatch.step, mismatch.line) == (0, 7)
    assert "within 10% (baseline base)" in (mismatch.expected or "")
    assert " times that (" in (mismatch.observed or "")


def test_within_the_noise_nothing_is_found(state: Path) -> None:
    for seed in range(2, 40):
        assert held(state, measured(noisy(9000, seed))).changed == {}
    # Half of the rounds disturbed, all of them wide, and a clock that differs by a twentieth.
    disturbed = [m * (1.5 if n % 2 else 1) for n, m in enumerate(noisy(9000, 3))]
    assert held(state, measured(disturbed)).changed == {}
    assert held(state, measured(noisy(9500, 4, 0.15))).changed == {}
    assert held(state, measured(noisy(9450, 5))).changed == {}


def test_what_would_have_been_seen_is_told(state: Path) -> None:
    baseline.save("base", [result(measured(noisy(9000, 1)))], "now")
    kept = baseline.load("base")
    for by in (0.002, 0.02, 0.1):
        now = noisy(9000, 2, by)
        (share,) = baseline.least(kept, [result(measured(now))]).values()
        assert share >= baseline.LEAST - 0.01
        # So much slower it is told, and a little less it is not.
        assert (
            baseline.beyond(baseline.change(noisy(9000, 1), [m * (1 + share) * 1.03 for m in now]))
            or by > 0.05
        )
        ratio = baseline.change(noisy(9000, 1), now)
        assert not baseline.beyond(
            baseline.change(noisy(9000, 1), [m * (1 + share) * 0.97 / ratio.value for m in now])
        )
    assert baseline.least(kept, [result(measured([1.0] * 5, "new"))]) == {}


def test_a_change_counts_only_where_it_stays(state: Path) -> None:
    slow, quick, same = (held(state, measured(noisy(9000 * f, 9))) for f in (1.3, 0.7, 1.0))
    assert [judgement.result.status for judgement in baseline.confirmed([slow], [slow])] == ["FAIL"]
    assert [judgement.result.status for judgement in baseline.confirmed([slow], [same])] == ["PASS"]
    assert [judgement.result.status for judgement in baseline.confirmed([slow], [quick])] == [
        "PASS"
    ]
    assert [judgement.result.status for judgement in baseline.confirmed([same], [])] == ["PASS"]
    # What could not be timed the second time is told.
    gone = baseline.Judged(slow.result._replace(status="ERROR", measured=(), mismatches=()))
    assert [judgement.result.status for judgement in baseline.confirmed([slow], [gone])] == [
        "ERROR"
    ]


def test_only_what_is_in_both_is_compared(state: Path) -> None:
    baseline.save("base", [result(measured([10.0] * 5))], "now")
    kept = baseline.load("base")
    both = result(measured([10.0] * 5), measured([99.0] * 5, "new"))
    assert [judgement.result.status for judgement in baseline.judge("base", kept, [both])] == [
        "PASS"
    ]
    with pytest.raises(UsageError, match="has none of what was timed"):
        baseline.judge("base", kept, [result(measured([10.0] * 5), case="other")])
    with pytest.raises(UsageError, match="is of the native loop, this of the python loop"):
        baseline.judge("base", kept, [result(measured([10.0] * 5, loop="python"))])
    failed = result()._replace(status="FAIL")
    assert [judgement.result for judgement in baseline.judge("base", kept, [failed])] == [failed]


def test_nothing_left_by_less_is_no_division_by_zero(state: Path) -> None:
    baseline.save("base", [result(measured([0.0] * 5))], "now")
    (same,) = baseline.judge("base", baseline.load("base"), [result(measured([-0.1] * 5))])
    assert same.changed == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "kvmscen-report"}',
        '{"format": "kvmscen-baseline", "version": 1, "kinds": [{}]}',
        "\x00",
    ],
)
def test_what_is_no_baseline(state: Path, text: str) -> None:
    state.mkdir(parents=True)
    (state / "bad.json").write_text(text)
    with pytest.raises(UsageError, match=r"bad\.json (is no baseline|cannot be read)"):
        baseline.load("bad")


def test_a_baseline_of_few_rounds_is_none(state: Path) -> None:
    path = baseline.save("few", [result(measured([10.0] * 5))], "now")
    data = json.loads(path.read_text())
    data["kinds"][0]["medians_ns"] = [1.0] * 4
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match="is no baseline"):
        baseline.load("few")


def test_names(state: Path) -> None:
    baseline.save("one", [result(measured([10.0] * 5))], "now")
    with pytest.raises(UsageError, match="there is no baseline other: there are one"):
        baseline.load("other")
    for name in ("../one", "a/b", "", ".hidden"):
        with pytest.raises(UsageError, match="is no name of a baseline"):
            baseline.path_of(name)
