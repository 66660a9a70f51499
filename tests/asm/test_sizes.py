"""Size words of memory operands, a part of them; all: `python tests/asm/sizes.py`."""

from __future__ import annotations

import pytest
import reference
import sizes

from kvmscen.asm import Source, assemble
from kvmscen.errors import ScenarioError


@pytest.mark.parametrize("mode", sizes.PLACES)
def test_each_size_word_means_what_gnu_as_says(mode: int) -> None:
    pytest.importorskip("keystone")
    reference.tools("x86_64")
    different, counts = sizes.compare(mode, 4)
    assert different == []
    assert counts["same"] > 300
    assert counts["both refuse"] > 1500
    assert counts["left to GNU as"] < 40


@pytest.mark.parametrize(
    ("mode", "text", "code"),
    [
        (64, "movups xmmword ptr [rdi], xmm1", "0f110f"),
        (64, "MOVDQA xmm3, XMMWORD PTR [rip + cell]", "660f6f1d00000000"),
        (64, "pxor xmm1, oword ptr [rsp + rcx*8 + 0x100]", "660fef8ccc00010000"),
        (64, "movups xmmword ptr fs:[r9 + 8], xmm12", "6445 0f116108"),
        (32, "movaps xmm1, xmmword ptr [esp - 16]", "0f284c24f0"),
        (16, "movups xmmword ptr [bp + di + 4], xmm1", "0f114b04"),
        (64, "vmovdqu ymm1, ymmword ptr [rdi]", "c5fe6f0f"),
        (64, "cmpxchg16b xmmword ptr [rdi]", "480fc70f"),
        (64, "mov word ptr [rdi], es", "8c07"),
        (32, "mov [edi], gs", "8c2f"),
        (16, "lgdt fword ptr [bx]", "660f0117"),
        (64, "pop [rdi]", "8f07"),
    ],
)
def test_sized_operands(mode: int, text: str, code: str) -> None:
    pytest.importorskip("keystone")
    program = assemble("x86_64", mode, Source("s", f"{text}\ncell:"), [], 0, "keystone")
    assert program.sections[0].data == bytes.fromhex(code)


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (32, "inc qword ptr [edi]"),
        (16, "add qword ptr [bx], 5"),
        (32, "call qword ptr [edi]"),
        (64, "fxsave dword ptr [rdi]"),
        (64, "movups xmm1, near ptr [rdi]"),
        (64, "vaddss xmm1, xmm2, xmmword ptr [rdi]"),
        (64, "movzx cx, [rdi]"),
        (64, "stos xmmword ptr [rdi]"),
    ],
)
@pytest.mark.parametrize("assembler", ["keystone", "gnu", None])
def test_wrong_sizes_are_refused_by_all(mode: int, text: str, assembler: str | None) -> None:
    if assembler != "gnu":
        pytest.importorskip("keystone")
    if assembler != "keystone":
        reference.tools("x86_64")
    with pytest.raises(ScenarioError) as caught:
        assemble("x86_64", mode, Source("s", text), [], 0, assembler)
    assert [(problem.line, problem.column) for problem in caught.value.problems] == [(1, 1)]
