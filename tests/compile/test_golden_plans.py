"""What the cases of a few scenarios are to a host, byte for byte as in tests/golden/plans/: those
that show each form of it.

After a wanted change: `KVMSCEN_UPDATE_GOLDEN=1 pytest tests/compile/test_golden_plans.py`, then
read `git diff tests/golden/plans` before the commit. Where CI is set nothing is rewritten. The
hosts are made up and have everything, so that the same file comes out on any machine.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from build_cases import FACTS

from kvmscen.asm import absent
from kvmscen.compile import plan, ready
from kvmscen.load import load
from kvmscen.scenario import Conditions
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.facts import Facts
from kvmscen.sent.header.caps import CAPABILITIES
from kvmscen.sent.machine import Machine

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "tests" / "golden" / "plans"
FEW = """
arm64-atomics arm64-boot arm64-cost arm64-identity arm64-mmio arm64-undecoded riscv64-sbi
x86_64-coalesced x86_64-debug x86_64-modes x86_64-section-edges x86_64-slots x86_64-vcpu-events
"""
FILES = [ROOT / "scenarios" / f"{name}.yaml" for name in FEW.split()]


# Of a file that holds every form of something, the first tell.
MOST = 20
EVERYTHING = {**dict.fromkeys(CAPABILITIES, 1), "KVM_CAP_NR_MEMSLOTS": 509}


def facts(arch: str, requires: Conditions) -> Facts:
    """A host that meets `requires`."""
    plain = FACTS[arch]
    return Facts(
        arch,
        requires.kernel_from or plain.kernel,
        EVERYTHING,
        4096,
        requires.kvm[0] if requires.kvm else plain.flavour,
        requires.cpu,
    )


def plans_of(path: Path) -> str:
    """The Machine of each case, one member a line where it is long."""
    scenario = load(str(path.relative_to(ROOT)))
    out: dict[str, Any] = {}
    for case in scenario.cases[:MOST]:
        kind = case.requires.host[0] if case.requires.host else "kvm"
        found = ready(
            scenario.file, case, plan(scenario.file, case), facts(case.arch, case.requires), kind
        )
        assert found.skip is None
        assert found.machine is not None
        data = encode(found.machine)
        assert decode(Machine, json.loads(json.dumps(data))) == found.machine
        out[case.name] = data
    return (
        "{\n"
        + ",\n".join(f"{json.dumps(name)}: {_lines(data)}" for name, data in out.items())
        + "\n}\n"
    )


def _lines(data: dict[str, Any]) -> str:
    members = [
        f"  {json.dumps(key)}: {_list(key, value)}"
        for key, value in data.items()
        if value not in ([], None)
    ]
    return "{\n" + ",\n".join(members) + "\n}"


def _list(key: str, value: Any) -> str:
    if key == "vcpus":
        return "[" + ", ".join(_lines(item) for item in value) + "]"
    if isinstance(value, list) and len(json.dumps(value)) > 100:
        return "[\n    " + ",\n    ".join(map(json.dumps, value)) + "\n  ]"
    return json.dumps(value)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_plans(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if path.stem.startswith("riscv64") and (lacks := absent("riscv64")):
        pytest.skip(lacks)
    golden, text = GOLDEN / f"{path.stem}.json", plans_of(path)
    if os.environ.get("KVMSCEN_UPDATE_GOLDEN") == "1":
        if os.environ.get("CI"):
            pytest.fail("golden files are not rewritten where CI is set", pytrace=False)
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert golden.is_file(), f"no {golden}: make it with KVMSCEN_UPDATE_GOLDEN=1"
    assert text == golden.read_text()


def test_no_golden_file_is_left_over() -> None:
    left = {path.stem for path in GOLDEN.glob("*.json")} - {path.stem for path in FILES}
    if os.environ.get("KVMSCEN_UPDATE_GOLDEN") == "1" and not os.environ.get("CI"):
        for stem in left:
            (GOLDEN / f"{stem}.json").unlink()
    else:
        assert not left
