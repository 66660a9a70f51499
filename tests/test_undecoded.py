"""What `undecoded: emulate` tells of an instruction that it does not carry out, from the file to
the report.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HEAD = """\
arch: arm64
memslots:
  - {slot: 0, gpa: 0x0, size: 0x2000}
sections: {.text: 0x0, .data: 0x5000}
undecoded: emulate
asm: |
  _start:
      ldr  x2, =counter
      str  xzr, [x2], #8
      .inst 0xa9400c43
      add  x2, x2, #8
  .data
  counter: .quad 1, 2, 5
"""


def run(tmp_path: Path, text: str) -> tuple[dict[str, Any], str]:
    (tmp_path / "a.yaml").write_text(text)
    argv = [
        sys.executable,
        "-m",
        "kvmscen",
        "run",
        "a.yaml",
        "--on",
        "model",
        "--report",
        "json=out.json",
    ]
    done = subprocess.run(
        argv, capture_output=True, text=True, cwd=tmp_path, env={"COLUMNS": "200"}
    )
    assert "Traceback" not in done.stderr
    result: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())["results"][0]
    return result, done.stdout


def test_it_is_a_failure_also_where_only_the_end_is_looked_at(tmp_path: Path) -> None:
    result, text = run(tmp_path, HEAD + "final: {memory: {counter: 0}}\n")
    assert result["status"] == "FAIL"
    assert result["events"][-1]["ioctl"] == "emulate"
    assert "loads one register twice" in result["events"][-1]["reason"]
    assert "ended by error: {ioctl: emulate, errno: ENOSYS} at 10: .inst 0xa9400c43" in text
    assert (
        "stopped: emulate failed with ENOSYS: ldp loads one register twice: CONSTRAINED "
        "UNPREDICTABLE" in text
    )


def test_it_can_be_expected(tmp_path: Path) -> None:
    text = HEAD + "expect: [arm_nisv, arm_nisv, error: {ioctl: emulate, errno: ENOSYS}]\n"
    assert run(tmp_path, text)[0]["status"] == "PASS"


def test_an_instruction_that_is_no_memory_access(tmp_path: Path) -> None:
    text = HEAD.replace("undecoded: emulate", "enable: [KVM_CAP_ARM_NISV_TO_USER]").replace(
        "      .inst 0xa9400c43\n", ""
    )
    result, shown = run(
        tmp_path, text + "expect:\n  - arm_nisv: {}\n    then: [set_regs: {pc: 8}, emulate]\n"
    )
    assert result["status"] == "FAIL"
    assert "at 15: emulate (10: add  x2, x2, #8)" in shown
    assert "the instruction is not a memory access" in result["detail"]


def test_observed_can_be_pasted(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        HEAD.replace(
            "      .inst 0xa9400c43\n",
            "      ldp x3, x4, [x2]\n      ldr w0, =0x84000008\n      hvc #0\n",
        )
        + "final: {}\n"
    )
    argv = [
        sys.executable,
        "-m",
        "kvmscen",
        "run",
        str(tmp_path / "a.yaml"),
        "--on",
        "model",
        "--observed",
    ]
    shown = subprocess.run(argv, capture_output=True, text=True).stdout
    assert "emulated: true" in shown
    result, _ = run(
        tmp_path, (tmp_path / "a.yaml").read_text().replace("final: {}\n", shown.split("\n", 1)[1])
    )
    assert (result["status"], result["mismatches"]) == ("PASS", [])
    assert sum(row["count"] for row in result["accesses"]) == 3
