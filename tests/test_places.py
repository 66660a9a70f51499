"""A failing ioctl is shown at the line of the slot, capability or action that it was of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = """\
arch: x86_64
memslots:
  - {slot: 0, gpa: 0x0, size: 0x1000}
asm: |
  _start:
      out 0x10, al
      hlt
expect:
  - io: {port: 0x10}
    then:
      - write_memory: {0x0: {u8: 0xe6}, 0x10: 1}
      - set_memslot:
          {slot: 2, gpa: 0x0, size: 0x2000}
  - hlt
cases:
  setup:
    setup:
      - set_memslot: {slot: 1, gpa: 0x4000, size: 0x1000}
      - set_memslot: {slot: 2, gpa: 0x0, size: 0x1000}
  another-errno:
    setup:
      - set_memslot: {slot: 2, gpa: 0x0, size: 0x1000}
        errno: EINVAL
  no-failure:
    setup:
      - set_memslot: {slot: 2, gpa: 0x8000, size: 0x1000}
        errno: EEXIST
    expect: [io, hlt]
  slot:
    memslots:
      - {slot: 0, gpa: 0x0, size: 0x1000}
      - {slot: 1, gpa: 0x1000, size: 0x1000}
      - {slot: 60000, gpa: 0x4000, size: 0x1000}
  repeated:
    asm: |
      _start:
          out 0x10, al
          out 0x10, al
          out 0x10, al
          hlt
    expect:
      - io: {port: 0x10}
        repeat: 2
        then:
          - {set_memslot: {slot: 2, gpa: 0x0, size: 0x1000}, errno: EEXIST}
      - io: {port: 0x10}
        then: [set_memslot: {slot: 2, gpa: 0x0, size: 0x1000}]
      - hlt
"""
SLOT = "error: {ioctl: KVM_SET_USER_MEMORY_REGION, errno: "
# The first difference of each case: step, line, expected, observed.
FIRST = {
    "default": (0, 12, None, SLOT + "EEXIST}"),
    "setup": (0, 19, None, SLOT + "EEXIST}"),
    "another-errno": (0, 22, "error: {errno: EINVAL}", SLOT + "EEXIST}"),
    "no-failure": (0, 26, "error: {errno: EEXIST}", "set_memslot succeeded"),
    "slot": (0, 33, None, SLOT + "EINVAL}"),
    "repeated": (0, 47, None, SLOT + "EEXIST}"),
}


@pytest.mark.parametrize("host", ["model", pytest.param("kvm", marks=pytest.mark.kvm)])
def test_the_line_of_what_failed(host: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TEXT)
    command = [sys.executable, "-m", "kvmscen", "run", "a.yaml", "--on", host, "--report", "json"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    results = {result["case"]: result for result in json.loads(done.stdout)["results"]}
    first = {case: result["mismatches"][0] for case, result in results.items()}
    assert {
        case: (m["step"], m["line"], m["expected"], m["observed"]) for case, m in first.items()
    } == FIRST
    assert {result["status"] for result in results.values()} == {"FAIL"}
    assert results["repeated"]["events"][-1]["op"] == "steps/1/then/0"
    assert (
        "\na.yaml:12: observed, not expected: error: {ioctl: KVM_SET_USER_MEMORY_REGION"
        in done.stderr
    )
    assert "    at 12: set_memslot: {slot: 2, gpa: 0, size: 0x2000}\n" in done.stderr
    # What should have come next is not compared with it.
    assert [m["expected"] for m in results["default"]["mismatches"][1:]] == ["hlt: {}"]


@pytest.mark.kvm
def test_registers_that_kvm_refuses(tmp_path: Path) -> None:
    head = "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x1000}]\nasm: |\n  hlt\n"
    text = head + "regs:\n  cr0: 1\n  efer: 0x500\nexpect: [hlt]\n"
    (tmp_path / "a.yaml").write_text(text)
    command = [sys.executable, "-m", "kvmscen", "run", "a.yaml", "--on", "kvm"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert (
        "a.yaml:6: observed, not expected: error: {ioctl: KVM_SET_SREGS, errno: EINVAL}\n"
        in done.stdout
    )
