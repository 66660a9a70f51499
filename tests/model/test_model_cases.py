"""Small inputs, from tests/cases/model, that the model once answered otherwise than KVM: what it
says now, and what KVM says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).resolve().parent.parent / "cases" / "model"
# The reason of a SKIP, or what the model's FAIL holds against the case's own expectation.
ON_THE_MODEL = {
    "device-unaligned-mmu-on": ("SKIP", "an unaligned access to 0x40000005 with the MMU on"),
    "model-at-par": ("SKIP", "what `at` leaves in par_el1"),
    "model-big-endian": ("FAIL", "data: 0x1000000"),
    "model-cr8": ("SKIP", "lowering cr8 is a set_tpr exit of VMX and SVM, and none of PVM"),
    "model-queued-ud": ("SKIP", "another KVM_RUN behind internal_error"),
    "model-shutdown-regs": ("SKIP", "the registers behind a shutdown"),
    "model-shutdown-twice": ("SKIP", "another KVM_RUN behind a shutdown"),
    "model-wfi-timer": ("SKIP", "the guest arms a timer"),
}
# What real KVM says of them. PVM is one of the two flavours that differ in the x86 ones, SVM of
# QEMU the other.
ON_PVM = {
    "model-cr8": "FAIL",
    "model-queued-ud": "FAIL",
    "model-shutdown-regs": "PASS",
    "model-shutdown-twice": "PASS",
}
ON_ARM64 = {
    "device-unaligned-mmu-on": "PASS",
    "model-at-par": "FAIL",
    "model-big-endian": "FAIL",
    "model-wfi-timer": "FAIL",
}


def run(
    tmp_path: Path, *arguments: str, env: dict[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    report = tmp_path / "report.json"
    argv = [
        sys.executable,
        "-m",
        "kvmscen",
        "run",
        str(CASES),
        *arguments,
        "--report",
        f"json={report}",
    ]
    subprocess.run(argv, capture_output=True, env=env or dict(os.environ), check=False)
    return {result["scenario"]: result for result in json.loads(report.read_text())["results"]}


def test_on_the_model(tmp_path: Path) -> None:
    results = run(tmp_path, "--on", "model")
    assert {name: result["status"] for name, result in results.items()} == {
        n: s for n, (s, _) in ON_THE_MODEL.items()
    }
    for name, (status, text) in ON_THE_MODEL.items():
        told = (
            results[name]["reason"]
            if status == "SKIP"
            else results[name]["mismatches"][0]["observed"]
        )
        assert text in told, name


@pytest.mark.kvm
def test_on_pvm(tmp_path: Path) -> None:
    results = run(tmp_path, "--on", "kvm")
    if any(result["kvm"] != "pvm" for result in results.values() if result["status"] != "SKIP"):
        pytest.skip("this machine's KVM is another")
    assert {name: results[name]["status"] for name in ON_PVM} == ON_PVM


@pytest.mark.qemu
def test_on_arm64(tmp_path: Path, qemu_arm64: tuple[str, dict[str, str]]) -> None:
    name, environment = qemu_arm64
    results = run(tmp_path, "--on", name, env=environment)
    assert {case: results[case]["status"] for case in ON_ARM64} == ON_ARM64
    # A fault on silicon, which QEMU answers: the reader is told.
    (note,) = results["device-unaligned-mmu-on"]["notes"]
    assert note.startswith(
        "at pc 0x4: an unaligned access to 0x40000005 with the MMU on, to what its tables call "
        "Device memory"
    )
    assert note.endswith("QEMU does not check and answers it (1 access of the kind)")
    assert not results["model-big-endian"].get("notes")
