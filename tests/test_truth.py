"""A sample of the random programs that tests/truth.py runs on the model and on real KVM."""

from __future__ import annotations

import pytest
import truth
from truth_kinds import Kind


def _named(kind: Kind) -> str:
    return kind.name


@pytest.mark.kvm
@pytest.mark.parametrize("kind", truth.KINDS["x86_64"], ids=_named)
def test_x86_programs_are_as_the_model_says(kind: Kind) -> None:
    found = truth.compare(kind, "kvm", seed=2, count=12)
    assert found.differences == ()
    assert found.alike >= 12 * kind.least - 1, found.skipped
    assert found.exits > 8 * found.alike


@pytest.mark.qemu
@pytest.mark.parametrize("kind", truth.KINDS["arm64"], ids=_named)
def test_arm64_programs_are_as_the_model_says(
    kind: Kind, qemu_arm64: tuple[str, dict[str, str]]
) -> None:
    name, environment = qemu_arm64
    found = truth.compare(kind, name, seed=2, count=10, env=environment)
    assert found.differences == ()
    assert found.alike >= 10 * kind.least - 2, found.skipped
    assert found.exits > 3 * found.alike


@pytest.mark.kvm
def test_odd_x86_programs_are_as_the_model_says() -> None:
    found = truth.odd(
        [
            truth.ROOT / "tests" / "odd" / f"x86_64-{name}.yaml"
            for name in ("real", "protected", "user")
        ],
        "kvm",
    )
    assert found.differences == ()
    assert found.alike > 90, found.skipped


def test_a_difference_is_told() -> None:
    result = {
        "arch": "x86_64",
        "status": "PASS",
        "stopped": "expected",
        "final": {"regs": {"rax": 1}},
    }
    model = truth.seen({**result, "events": [{"exit": "hlt", "pc": 1, "source": "hlt"}]})
    assert model == truth.seen({**result, "events": [{"exit": "hlt", "pc": 1}]})
    real = truth.seen({**result, "events": [{"exit": "hlt", "pc": 2}]})
    assert truth.difference(model, real) == [
        "event 0: model {'exit': 'hlt', 'pc': 1}",
        "event 0: real  {'exit': 'hlt', 'pc': 2}",
    ]
    assert truth.difference(model, {**model, "regs": {"rax": 2}}) == ["rax: model 1, real 0x2"]
    assert truth.difference(model, {**model, "stopped": "timeout"}) == [
        "model PASS expected, real PASS timeout"
    ]
