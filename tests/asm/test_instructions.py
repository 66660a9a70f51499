"""Every instruction of a long list against GNU as, byte for byte."""

from __future__ import annotations

import struct

import instructions
import pytest
import reference

from kvmscen.asm import Placement, Source, assemble

_TEXT, _DATA, _SIZES = 0x1000, 0x9000, 0xF000


@pytest.mark.parametrize(
    ("arch", "bits", "lines"),
    [
        ("arm64", 64, instructions.arm64()),
        ("x86_64", 64, instructions.x64()),
        ("x86_64", 32, instructions.x32()),
        ("x86_64", 16, instructions.x16()),
    ],
    ids=["arm64", "x64", "x32", "x16"],
)
def test_same_bytes_as_gnu_as(arch: str, bits: int, lines: list[str]) -> None:
    pytest.importorskip("keystone")
    body = (
        ".equ N, 3\n"
        + "\n".join(f"L{index}: {line}" for index, line in enumerate(lines))
        + f"\nL{len(lines)}:\n"
    )
    body += ".data\ncell: .quad 1, 2\n"
    sizes = '.section .sizes, "a"\n' + "".join(
        f".long L{index}\n" for index in range(len(lines) + 1)
    )
    places = {".text": _TEXT, ".data": _DATA, ".sizes": _SIZES}
    wanted = reference.link(arch, bits, body + sizes, places)
    offsets = struct.unpack(f"<{len(lines) + 1}I", wanted[".sizes"])

    placements = [Placement(".text", _TEXT), Placement(".data", _DATA)]
    program = assemble(arch, bits, Source("list.s", body), placements, 0)
    got = {line.line: line for line in program.lines}
    data = next(section.data for section in program.sections if section.name == ".text")
    different = []
    for index, text in enumerate(lines):
        line = got[index + 2]
        mine = data[line.gpa - _TEXT : line.gpa - _TEXT + line.size]
        theirs = wanted[".text"][offsets[index] - _TEXT : offsets[index + 1] - _TEXT]
        if mine != theirs:
            different.append(f"{text}: GNU as {theirs.hex()}, here {mine.hex()}")
    assert not different, "\n".join(different)
    assert data == wanted[".text"]
