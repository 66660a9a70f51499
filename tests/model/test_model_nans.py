"""x86: two NaNs that meet in SSE arithmetic: which is taken is the first one's, and Unicorn takes
the larger one's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvmscen.model.x86.nans import two_nans

QUIET, OTHER, ONE = 0x7FFC000000000000, 0x7FF8000000000000, 0x3FF0000000000000
FLOAT, ANOTHER = 0x7FC00001, 0x7FC00002


def lanes(*values: int, size: int) -> int:
    return sum(value << 8 * size * at for at, value in enumerate(values))


@pytest.mark.parametrize(
    ("name", "first", "second", "wanted"),
    [
        ("addsd", QUIET, OTHER, True),
        ("addsd", QUIET, QUIET, False),
        ("addsd", QUIET, ONE, False),
        ("mulsd", ONE << 64 | ONE, OTHER, False),
        ("addsd", lanes(ONE, QUIET, size=8), lanes(ONE, OTHER, size=8), False),
        ("divpd", lanes(ONE, QUIET, size=8), lanes(ONE, OTHER, size=8), True),
        ("divpd", lanes(ONE, QUIET, size=8), lanes(OTHER, ONE, size=8), False),
        ("subps", lanes(0, 0, 0, FLOAT, size=4), lanes(0, 0, 0, ANOTHER, size=4), True),
        ("subss", lanes(0, 0, 0, FLOAT, size=4), lanes(0, 0, 0, ANOTHER, size=4), False),
        ("haddpd", lanes(QUIET, OTHER, size=8), 0, True),
        ("addsubpd", lanes(QUIET, 0, size=8), lanes(0, OTHER, size=8), False),
        ("addsd", 1 << 63 | QUIET, 0x7FF << 52, False),
    ],
)
def test_where_two_meet(name: str, first: int, second: int, wanted: bool) -> None:
    values = {"xmm1": first, "xmm2": second}
    assert (
        two_nans(
            name,
            "xmm1, xmm2",
            lambda names: {name_: values[name_] for name_ in names},
            lambda size: 0,
        )
        is wanted
    )
    text = "xmm1, xmmword ptr [rdi + 8]"
    assert (
        two_nans(
            name, text, lambda names: {name_: values[name_] for name_ in names}, lambda size: second
        )
        is wanted
    )


SCENARIO = f"""
arch: x86_64
memslots: [{{slot: 0, gpa: 0, size: 0x8000}}]
sections: {{.text: 0, .tables: 0x5000}}
regs:
  xmm1: {OTHER:#x}
  xmm2: {QUIET:#x}
  rbp: 0x10000
  cr3: 0x5000
  cs.selector: 0x33
  cs.dpl: 3
  ss.selector: 0x2B
  ss.dpl: 3
macros:
  end: |
    .section .tables, "a"
    .quad 0x6007
    .zero 4088
    .quad 0x7007
    .zero 4088
    .quad 0xe7
    .zero 4088
cases:
  two:
    asm: |
      _start:
          addsd xmm1, xmm2
          movq rax, xmm1
          mov [rbp], rax
          ud2
          end
    expect:
      - mmio: {{phys_addr: 0x10000, is_write: true, data: {OTHER:#x}}}
      - shutdown
  flags:
    asm: |
      _start:
          paddb xmm4, xmmword ptr [rbp - 0xf000]
          stc
          mov eax, 1
          neg rax
          movaps xmm4, xmmword ptr [rbp + 16]
          seta al
          movzx eax, al
          mov [rbp], rax
          ud2
          end
    expect:
      - mmio: {{is_write: false}}
      - mmio: {{is_write: false}}
      - mmio: {{phys_addr: 0x10000, is_write: true, data: 0}}
      - shutdown
"""


def outcome(tmp_path: Path, on: str) -> dict[str, tuple[str, str | None]]:
    path, report = tmp_path / "nans.yaml", tmp_path / "report.json"
    path.write_text(SCENARIO)
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
    done = subprocess.run(argv, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert report.exists(), done.stderr
    return {
        result["case"]: (result["status"], result["reason"])
        for result in json.loads(report.read_text())["results"]
    }


def test_the_model_refuses(tmp_path: Path) -> None:
    found = outcome(tmp_path, "model")
    assert found["two"][0] == "SKIP"
    assert "of two NaNs Unicorn takes another" in str(found["two"][1])
    assert found["flags"][0] == "PASS", found


@pytest.mark.kvm
def test_what_processors_do(tmp_path: Path) -> None:
    found = outcome(tmp_path, "kvm")
    assert {name: status for name, (status, _) in found.items()} == {"two": "PASS", "flags": "PASS"}
