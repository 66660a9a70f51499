"""Accesses to Device memory that QEMU answers and silicon does not: a note on real KVM, a SKIP of
the same words on the model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MISALIGNED = (
    *(
        "str w0, [x2, #5]",
        "ldrsh x0, [x2, #3]",
        "str w0, [x3], #4",
        "ldr x0, [x3, #8]!",
        "stp x0, x1, [x3]",
    ),
    *("str q0, [x3]", "st1 {v0.4s}, [x3]", "ldapr w0, [x3]", "ldr w0, [x2, x7]", "dc zva, x3"),
)
ALIGNED = ("str w0, [x2, #4]", "str q0, [x2, #16]", "st1 {v0.16b}, [x3]", "stp x0, x1, [x2, #8]")
REGS = "{x2: 0x40000000, x3: 0x40000005, x7: 3, cpacr_el1: 0x300000}"


def run(
    tmp_path: Path, mmu: str, on: str, env: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    path, report = tmp_path / "device.yaml", tmp_path / "report.json"
    lines = [
        "arch: arm64",
        mmu,
        "undecoded: emulate",
        "memslots: [{slot: 0, gpa: 0, size: 0x1000}]",
        f"regs: {REGS}",
        "cases:",
    ]
    for number, access in enumerate((*MISALIGNED, *ALIGNED)):
        lines += [
            f"  p{number:02}:",
            "    final: {}",
            "    asm: |",
            "      _start:",
            f"          {access}",
        ]
        lines += [
            "          movz w0, #0x8400, lsl #16",
            "          movk w0, #8",
            "          hvc #0",
        ]
    path.write_text("\n".join(lines) + "\n")
    argv = [
        sys.executable,
        "-m",
        "kvmscen",
        "run",
        str(path),
        "--on",
        on,
        "--report",
        f"json={report}",
    ]
    subprocess.run(argv, capture_output=True, env=env or dict(os.environ), check=False)
    results: list[dict[str, Any]] = json.loads(report.read_text())["results"]
    assert len(results) == len(MISALIGNED) + len(ALIGNED)
    return results


@pytest.mark.qemu
@pytest.mark.parametrize("mmu", ["", "mmu: identity"], ids=["off", "on"])
def test_a_note_there_is_a_skip_here(
    tmp_path: Path, qemu_arm64: tuple[str, dict[str, str]], mmu: str
) -> None:
    name, environment = qemu_arm64
    for access, model, real in zip(
        (*MISALIGNED, *ALIGNED),
        run(tmp_path, mmu, "model"),
        run(tmp_path, mmu, name, environment),
        strict=True,
    ):
        assert real["status"] == "PASS", access
        notes = [note for note in real.get("notes", []) if "silicon" in note]
        if access in ALIGNED:
            assert (model["status"], notes) == ("PASS", []), access
            assert model["events"] == real["events"], access
            continue
        (note,) = notes
        why = model["reason"].partition("the model does not predict this: ")[2]
        assert model["status"] == "SKIP"
        assert ("with the MMU on" in why) == bool(mmu), why
        assert why.endswith("a CPU of silicon takes an alignment fault")
        assert note.startswith(f"at pc 0x0: {why}, QEMU does not check and answers it"), note
