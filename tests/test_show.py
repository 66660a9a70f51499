"""What `kvmscen show` shows: the memory map, symbols and the listing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvmscen.cli.listing import render
from kvmscen.compile.show import show

TEXT = """\
arch: x86_64
memslots:
  - {slot: 0, gpa: 0x0, size: 0x1000}
  - {slot: 1, gpa: 0x8000, size: 0x1000, flags: [KVM_MEM_READONLY]}
  - {slot: 9, gpa: 0x2000, size: 0x10, errno: EINVAL}
sections:
  .text: 0x10
  .data: 0x5000
  .rodata: {at: 0x100, load: 0x8000}
asm: |
  _start:
      mov  eax, 1       # one
      hlt
  .data
  counter: .quad 1, 2
      .skip 200
  .section .rodata
      .byte 1, 2, 3
expect: [hlt]
cases:
  arm:
    arch: arm64
    sections: null
    asm: nop
    expect: [mmio]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "a.yaml"
    path.write_text(TEXT)
    return str(path)


def test_data(file: str) -> None:
    shown: dict[str, Any] = show(file, None)
    assert json.loads(json.dumps(shown["cases"])) == shown["cases"]
    assert shown["problems"] == ()
    assert [case["case"] for case in shown["cases"]] == ["default", "arm"]
    case = shown["cases"][0]
    assert (case["arch"], case["entry"]) == ("x86_64", 0x10)
    sections = {s["name"]: s for s in case["sections"]}
    assert sections[".text"] == {
        "name": ".text",
        "gpa": 0x10,
        "load": 0x10,
        "size": 6,
        "bytes": "b801000000f4",
    }
    assert (
        sections[".rodata"]["gpa"],
        sections[".rodata"]["load"],
        sections[".rodata"]["bytes"],
    ) == (0x100, 0x8000, "010203")
    assert case["symbols"]["counter"] == 0x5000
    assert [slot["slot"] for slot in case["memslots"]] == [0, 1, 9]
    assert case["tables"] == {"gpa": 0xFFFC0000, "size": 0x8000}
    assert case["listing"][:2] == [
        {"gpa": 0x10, "size": 5, "bytes": "b801000000", "line": 12, "text": "mov  eax, 1"},
        {"gpa": 0x15, "size": 1, "bytes": "f4", "line": 13, "text": "hlt"},
    ]
    assert shown["cases"][1]["tables"] is None


def test_one_case(file: str) -> None:
    assert [case["case"] for case in show(file, "arm")["cases"]] == ["arm"]
    shown = show(file, "armm")
    assert shown["cases"] == []
    assert [problem.message for problem in shown["problems"]] == [
        "there is no case 'armm'; the cases are default, arm"
    ]


def test_wrong_file(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(TEXT.replace("hlt\n  .data", "hltt\n  .data"))
    shown = show(str(path), "default")
    assert shown["cases"] == []
    (problem,) = shown["problems"]
    assert (problem.line, problem.column) == (13, 7)
    assert problem.message.startswith("this does not assemble: hltt")


def test_text(file: str) -> None:
    text = render("a.yaml", show(file, "default"))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "a.yaml, case default (x86_64, assembled by keystone), entry at 0x10"
    start = lines.index("from to size what") + 2
    assert lines[start : lines.index("symbols:") - 1] == [
        "0x0 0xfff 0x1000 memslot 0",
        "0x10 0x15 0x6 section .text",
        "0x100 0x102 0x3 section .rodata, loaded at 0x8000",
        "0x1000 0x7fff 0x7000 hole",
        "0x2000 0x200f 0x10 memslot 9, must fail with EINVAL",
        "0x5000 0x50d7 0xd8 section .data, outside every memslot: each access exits",
        "0x8000 0x8fff 0x1000 memslot 1, KVM_MEM_READONLY",
        "0x9000 0xfffbffff 0xfffb7000 hole",
        "0xfffc0000 0xfffc7fff 0x8000 engine's own memslot: page tables and GDT",
    ]
    assert "0x5000 counter" in lines
    listing = lines[lines.index("listing:") + 1 :]
    assert "0x10 b801000000 12 mov eax, 1" in listing
    assert "0x15 f4 13 hlt" in listing
    # Long data is cut, its size is told.
    at = listing.index("0x5000 0100000000000000 15 .quad 1, 2")
    assert listing[at + 1] == "0x5008 0200000000000000"
    assert "... 200 bytes" in listing
    assert len(listing) < 20


def test_an_entry_that_no_label_names_says_so(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(
        "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x1000}]\nasm: |\n  a: nop\n  "
        "hlt\nexpect: [hlt]\n"
    )
    head = render("b.yaml", show(str(path), None)).splitlines()[0]
    assert head.endswith("entry at 0x0 (there is no `_start`: line 4, the first of .text)")
