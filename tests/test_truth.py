"""A sample of the random programs that tests/truth.py runs on the model and on real KVM."""

from __future__ import annotations

import pytest
import truth


@pytest.mark.kvm
def test_x86_programs_are_as_the_model_says() -> None:
    found = truth.compare("x86_64", "kvm", seed=2, count=60)
    assert found.differences == ()
    assert found.alike > 50, found.skipped
    assert found.exits > 8 * found.alike


@pytest.mark.qemu
def test_arm64_programs_are_as_the_model_says(qemu_arm64: tuple[str, dict[str, str]]) -> None:
    name, environment = qemu_arm64
    found = truth.compare("arm64", name, seed=2, count=40, env=environment)
    assert found.differences == ()
    assert found.alike > 35, found.skipped
    assert found.exits > 3 * found.alike


def test_a_difference_is_told() -> None:
    result = {"arch": "x86_64", "status": "PASS", "stopped": "expected", "final": {"regs": {"rax": 1}}}
    model = truth.seen({**result, "events": [{"exit": "hlt", "pc": 1, "source": "hlt"}]})
    assert model == truth.seen({**result, "events": [{"exit": "hlt", "pc": 1}]})
    real = truth.seen({**result, "events": [{"exit": "hlt", "pc": 2}]})
    assert truth.difference(model, real) == [
        "event 0: model {'exit': 'hlt', 'pc': 1}",
        "event 0: real  {'exit': 'hlt', 'pc': 2}",
    ]
    assert truth.difference(model, {**model, "regs": {"rax": 2}}) == ["rax: model 1, real 0x2"]
    assert truth.difference(model, {**model, "stopped": "timeout"}) == ["model PASS expected, real PASS timeout"]
