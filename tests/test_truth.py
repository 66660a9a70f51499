"""A sample of the random programs that tests/truth.py runs on the model and on real KVM."""

from __future__ import annotations

import pytest
import truth
from truth_kinds import Kind


def _named(kind: Kind) -> str:
    return kind.name


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.kvm
def test_odd_x86_programs_are_as_the_model_says() -> None:
    found = truth.odd(
        [
            truth.ROOT / "tests" / "odd" / f"x86_64-{name}.yaml"
            for name in ("real", "protected", "user", "exchange")
        ],
        "kvm",
    )
    assert found.differences == ()
    assert found.alike > 120, found.skipped


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


def test_an_alignment_that_qemu_does_not_check_is_refused_by_name_there_and_nowhere_else() -> None:
    fault = {"exit": "shutdown", "pc": 34, "source": "72: unpcklps xmm5, xmmword ptr [rbx + 5]"}
    on = {"exit": "mmio", "phys_addr": 0x10000, "pc": 38}
    first = {"exit": "mmio", "phys_addr": 0x10008, "pc": 30}
    base = {"arch": "x86_64", "status": "PASS", "stopped": "end", "final": {"regs": {}}}

    def pair(model: list[object], real: list[object]) -> dict[bool, dict[str, object]]:
        return {True: {**base, "events": model}, False: {**base, "events": real}}

    gone_on = pair([first, fault], [first, on])
    assert truth.unchecked(gone_on, "qemu:x86_64@6.1") == truth.UNALIGNED + "unpcklps"
    # A processor does check it; and on QEMU nothing else is excused by it.
    assert truth.unchecked(gone_on, "kvm") is None
    assert truth.unchecked(pair([first, fault], [on, on]), "qemu:x86_64@6.1") is None
    assert truth.unchecked(pair([first, fault], [first]), "qemu:x86_64@6.1") is None
    assert truth.unchecked(pair([first, fault], [first, fault]), "qemu:x86_64@6.1") is None
    assert truth.unchecked(pair([first, on], [first, fault]), "qemu:x86_64@6.1") is None
    ends = {"exit": "shutdown", "pc": 34, "source": "72: ud2"}
    assert truth.unchecked(pair([first, ends], [first, on]), "qemu:x86_64@6.1") is None
