"""Names that GNU as takes for keywords or registers: both assemblers refuse them as symbols, where
they are defined.
"""

from __future__ import annotations

import re

import pytest
import reference

from kvmscen.asm import Source, assemble, taken_names
from kvmscen.errors import ScenarioError

ASSEMBLERS = ["keystone", "gnu", None]
REGISTERS = """
al ah axl bpl
r8 r8b r9w r15d eax rax eip rip riz sp esp rsp cs gs cr0 cr15 dr7 db3 tr6 st mm0 xmm0 xmm31 ymm8
zmm31 tmm7 k0 k7 bnd3
""".split()
FREE = """
r16 r8x xmm32 k8 mm8 bnd4 axx type size high low proc this seg dup far_ nearby words quad main
_start counter loop rep
""".split()
DEFINITIONS = [
    "W: nop",
    ".set W, 5",
    ".equ W, 5",
    "W = 5",
    ".equiv W, 5",
    ".comm W, 8",
    ".lcomm W, 8",
    ".data\nW: .quad 1",
]


def problems(text: str, assembler: str | None, arch: str = "x86_64") -> list[tuple[int, int, str]]:
    if assembler != "gnu":
        pytest.importorskip("keystone")
    if assembler != "keystone":
        reference.tools(arch)
    try:
        assemble(arch, 64, Source("s", text), [], 0x1000, assembler)
    except ScenarioError as error:
        return [(problem.line, problem.column, problem.message) for problem in error.problems]
    return []


@pytest.mark.parametrize("assembler", ASSEMBLERS)
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_each_way_to_define_a_symbol(definition: str, assembler: str | None) -> None:
    line = definition.count("\n") + 2
    for name in ("far", "QWORD", "Short", "eq", "eax"):
        text = "nop\n" + definition.replace("W", name)
        ((where, _, message),) = problems(text, assembler)
        assert where == line
        kind = "register of x86_64" if name == "eax" else "keyword of Intel syntax"
        assert f"{name} is a {kind}" in message
        assert f"give the symbol another name, such as {name}_1" in message


@pytest.mark.parametrize("assembler", ASSEMBLERS)
def test_every_name_that_is_taken(assembler: str | None) -> None:
    names = [*sorted(taken_names.KEYWORDS - {"$"}), *REGISTERS]
    text = "\n".join(f"{name}: nop" for name in names)
    assert [line for line, _, _ in problems(text, assembler)] == list(range(1, len(names) + 1))
    text = "\n".join(f"{name}: nop\njmp {name}\nmov ecx, offset {name}" for name in FREE)
    assert problems(text, assembler) == []


def test_no_other_word_has_a_meaning_of_its_own_for_gnu_as() -> None:
    # A sample of the words by which the list was found: as takes each for the symbol.
    reference.tools("x86_64")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [a + b for a in letters for b in letters] + [
        a + b + c for a in "efmnoswxz" for b in letters for c in "adelprtxz"
    ]
    words = [word for word in (*words, *FREE) if taken_names.taken(word) is None]
    assert len(words) > 2000
    lines = [
        "W: jmp W\nmov ecx, offset W\nmov edx, [W]\n.quad W".replace("W", word).replace("\n", ";")
        for word in words
    ]
    made = reference.each(64, [re.sub(r"^\w+: jmp", "jmp", line) for line in lines])
    codes = {code for code in made if code is not None}
    assert None not in made
    assert len(codes) == 1


@pytest.mark.parametrize("assembler", ASSEMBLERS)
@pytest.mark.parametrize(
    "text",
    [
        "jmp far",
        "mov eax, word",
        "mov eax, 5 + dword",
        "mov eax, dword [rbx]",
        "add byte [rdi], 5",
        ".quad byte",
        "push offset",
        "jmp far + 4",
        "mov eax, [rbx + qword]",
    ],
)
def test_keywords_where_no_symbol_is(text: str, assembler: str | None) -> None:
    # as assembles most of these.
    assert [line for line, _, _ in problems("nop\n" + text, assembler)] == [2]


@pytest.mark.parametrize("assembler", ASSEMBLERS)
def test_names_in_att_syntax_and_in_macros(assembler: str | None) -> None:
    assert (
        problems(".att_syntax prefix\nfar: jmp far\neax: mov $far, %eax\n.quad eax", assembler)
        == []
    )
    assert [
        line
        for line, _, _ in problems(
            ".att_syntax\nfar: nop\n.intel_syntax noprefix\njmp far", assembler
        )
    ] == [4]
    macro = ".macro m a\n\\a\\()r: nop\n.endm\nm fa"
    ((_, _, message),) = problems(macro, assembler)
    assert "far is a keyword" in message
    fine = (
        '.macro load size\nmov eax, \\size ptr [rbx]\n.endm\nload dword\n.ascii "byte, '
        "word\"\nmov al, 'a'\ncall far ptr [rbx]"
    )
    assert problems(fine, assembler) == []


@pytest.mark.parametrize("assembler", ASSEMBLERS)
def test_arm64_has_names_too(assembler: str | None) -> None:
    assert [line for line, _, _ in problems("nop\nip0 = 4\nx31: nop", assembler, "arm64")] == [2, 3]
    assert problems("far: b far\neax = 4\nmov x0, #eax\nx0: b x0", assembler, "arm64") == []
