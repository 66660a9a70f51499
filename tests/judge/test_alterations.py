"""No shipped scenario passes with an expected value altered: a sample (tests/judge/alterations.py
alters all).
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from pathlib import Path

import pytest
from alterations import REASONS, SCENARIOS, Runner, mutations, survivors


def test_every_kind_of_value_is_altered() -> None:
    assert len(list(mutations((SCENARIOS / "x86_64-mmio.yaml").read_text()))) > 50
    found = [
        m.what for path in SCENARIOS.glob("x86_64-*.yaml") for m in mutations(path.read_text())
    ]
    assert set(found) == {"member", "register", "memory", "reply", "errno", "count"}


@pytest.mark.parametrize(
    ("host", "names"),
    [
        pytest.param(
            "kvm",
            ["x86_64-mmio", "x86_64-slots", "x86_64-pio", "x86_64-ends"],
            marks=pytest.mark.kvm,
        ),
        ("model", ["arm64-mmio", "arm64-psci", "arm64-slots", "arm64-undecoded", "x86_64-modes"]),
    ],
)
def test_nothing_that_is_altered_passes(host: str, names: list[str], tmp_path: Path) -> None:
    shutil.copytree(SCENARIOS, tmp_path / "scenarios")
    counts: Counter[str] = Counter()
    with contextlib.closing(Runner(host, tmp_path / "scenarios")) as runner:
        for name in names:
            for mutation, case in survivors(runner, SCENARIOS / f"{name}.yaml", counts, 40):
                assert (f"{name}.yaml", mutation.path) in REASONS, (name, case, mutation)
    killed = sum(count for what, count in counts.items() if what.endswith("killed"))
    assert killed > 50, counts
