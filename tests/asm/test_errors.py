"""Wrong programs: what is said, where, and that nothing but ScenarioError is raised."""

from __future__ import annotations

import pytest
from effort import calls

from kvmscen.asm import Placement, Source, assemble
from kvmscen.errors import ScenarioError

pytest.importorskip("keystone")


def problems(
    arch: str, text: str, *placements: Placement, bits: int = 64, line: int = 1, column: int = 1
) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        assemble(arch, bits, Source("s.yaml", text, line, column), placements, 0, "keystone")
    return [str(problem) for problem in caught.value.problems]


def test_all_problems_at_their_places() -> None:
    text = (
        "_start:\n  nop\n  ldr x0, =coutner\n  mov x1, #1; frobnicate x1\n  b counter + "
        "1\ncounter: .byte 300\n"
    )
    assert problems("arm64", text, line=10, column=5) == [
        "s.yaml:12:7: undefined symbol coutner; did you mean counter?",
        "s.yaml:13:19: `;` begins no comment, it separates statements: write `// frobnicate x1` if "
        "a comment is meant "
        "(this does not assemble: frobnicate x1)",
        "s.yaml:14:7: the target 0x15 is not aligned to 4 bytes (b counter + 1 at 0x10)",
        "s.yaml:15:14: the value 0x12c does not fit in 1 byte (-128 to 0xff)",
    ]


@pytest.mark.parametrize(
    ("arch", "text", "message"),
    [
        ("arm64", "a: nop\na: nop", "2:1: symbol a is already defined in line 1"),
        ("arm64", ".set a, 1\na: nop", "2:1: symbol a is already defined in line 1"),
        ("arm64", "b a\n.skip 0x8000000\na:", "16 MiB"),
        ("arm64", "tbz x0, #1, a\n.skip 0x8000\na: nop", "it reaches 32 KiB"),
        ("arm64", "tbz w0, #40, a\na: nop", "there is no bit 40 in w0"),
        ("arm64", "b 1f", "there is no label 1: after this line"),
        ("arm64", "b 1b", "there is no label 1: before this line"),
        ("arm64", "mov x0, #a\n.skip 0x1234\n.byte 0\na: nop", None),
        ("arm64", ".skip 0x12348\na: nop\nmov x0, #a", "write ldr xN, =a"),
        ("arm64", "mov x0, x1 # comment", "a comment begins with `//` on arm64, not with `#`"),
        ("arm64", "mov x0", "this does not assemble: mov x0"),
        ("arm64", ".macro a", ".macro without its .endm"),
        ("arm64", '.incbin "/etc/passwd"', ".incbin is not allowed"),
        ("arm64", ".frob 1", "unknown directive .frob"),
        ("arm64", ".bss\n.byte 1", "section .bss holds zeros only"),
        ("arm64", ".set a, a + 1", "symbol a is defined by itself"),
        ("arm64", ".set a, b + 1\n.set b, a + 1\nnop", "it depends on itself"),
        ("arm64", ".space 1 << 40", "16 MiB"),
        ("arm64", ".quad 1 << 99999999", None),
        ("arm64", ".quad 1 / 0", "division by zero"),
        ("arm64", ".quad 0x1ffffffffffffffff", "does not fit in 64 bits"),
        ("arm64", ".quad " + "(" * 5000 + "1" + ")" * 5000, "too"),
        ("arm64", ".quad 08", "08 is not a number"),
        ("arm64", ".p2align 64", "a power of two from 0 to 24"),
        ("arm64", '"', "does not assemble"),
        ("arm64", "[", "does not assemble"),
        ("arm64", '.ascii "abc', "closing"),
        ("arm64", ".rept 3\nnop", ".rept without its .endr"),
        ("arm64", ".rept 1000000\nnop\n.endr", "more than 65536 statements"),
        ("arm64", ".org 8\nnop\n.org 4", ".org cannot go back"),
        ("arm64", "a: .skip a - b\nb:", None),
        (
            "x86_64",
            "mov eax, counter\ncounter: .long 1",
            "write [counter] for its contents or offset counter",
        ),
        ("x86_64", "mov eax, qword [rbx]", "write qword ptr [rbx]"),
        ("x86_64", "inc [rbx]", "its size is not known"),
        ("x86_64", "mov al, 0x1234", "the number 0x1234 does not fit here"),
        ("x86_64", "jmp short a\n.skip 200\na:", "it reaches 127"),
        ("x86_64", "loop a\n.skip 200\na:", "it reaches 127"),
        ("x86_64", "mov eax, 5 // five", "a comment begins with `#` on x86_64, not with `//`"),
        ("x86_64", "nop ; comment", "`;` begins no comment"),
        ("x86_64", "mov eax, [ebx*3]", "the scale is 1, 2, 4 or 8"),
        ("x86_64", "lea rax, [missing + 4]", "undefined symbol missing"),
        ("x86_64", "mov ah, r8b", "ah, bh, ch and dh"),
        ("x86_64", "movzx rax, ah", "ah, bh, ch and dh"),
        ("x86_64", "scasd [rbp]", "write scasd without operands"),
        ("x86_64", "xlatb [rbx]", "write xlatb without operands"),
        ("x86_64", "mov eax, [rsp*2]", "rsp cannot be an index"),
        ("x86_64", "inc rip", "rip cannot stand alone"),
        ("arm64", "mov w0, #0x100000000", "does not fit in w0"),
        ("arm64", ".set big, 1 << 32\nmov w0, #big", "does not fit in w0"),
        ("x86_64", "mov eax, 10h", "write 0x10"),
    ],
)
def test_message(arch: str, text: str, message: str | None) -> None:
    if message is None:
        try:
            assemble(arch, 64, Source("s", text), [], 0)
        except ScenarioError:
            pass
        return
    assert message in "\n".join(problems(arch, text))


def test_placements() -> None:
    text = "nop\n.data\n.quad 1, 2\n"
    assert problems("arm64", text, Placement(".foo", 0x1000, line=3, column=9)) == [
        "s.yaml:3:9: section .foo has nothing in it: the program has .text, .data"
    ]
    (overlap,) = problems(
        "arm64", text, Placement(".text", 0x1000), Placement(".data", 0xFF8, line=4, column=1)
    )
    assert (
        overlap
        == "s.yaml:4:1: section .text at 0x1000-0x1003 overlaps .data at 0xff8-0x1007: move one of "
        "them"
    )
    assert "aligned to 4" in problems("arm64", text, Placement(".text", 0x1002))[0]
    assert (
        "which follows it"
        in problems(
            "arm64", text, Placement(".text", after=".data"), Placement(".data", after=".text")
        )[0]
    )
    assert "the program has" in problems("arm64", text, Placement(".text", after=".bss"))[0]


def test_a_standard_section_may_be_placed_and_stay_empty() -> None:
    program = assemble(
        "arm64", 64, Source("s", "nop"), [Placement(".text", 0), Placement(".data", 0x5000)], 0
    )
    assert (program.symbols["__data_start"], program.symbols["__data_size"]) == (0x5000, 0)


def test_sections_follow_each_other_round_those_that_are_placed() -> None:
    text = (
        ".skip 12\n.data\n.quad 1\n.rodata\n.byte 1\n.bss\n.skip 5\n.section mine\n.quad "
        "__data_start, __bss_size\n"
    )
    program = assemble(
        "x86_64",
        64,
        Source("s", text),
        [Placement(".bss", 0x10E), Placement("mine", after=".bss", align=16, load=0x4000)],
        0x100,
    )
    assert {section.name: section.gpa for section in program.sections} == {
        ".text": 0x100, ".rodata": 0x10C, ".data": 0x113, ".bss": 0x10E, "mine": 0x120
    }  # fmt: skip
    assert program.symbols["__bss_end"] == 0x113
    assert program.symbols["__mine_load"] == 0x4000
    assert next(
        section for section in program.sections if section.name == "mine"
    ).data == b"\x13\1" + bytes(6) + b"\5" + bytes(7)


def test_lines_name_their_source() -> None:
    program = assemble(
        "arm64", 64, Source("s", "_start: nop // first\n\n  mov x0, #1 ; b .\n", 7, 5), [], 0x1000
    )
    assert [(line.gpa, line.size, line.line, line.text) for line in program.lines] == [
        (0x1000, 4, 7, "nop"),
        (0x1004, 4, 9, "mov x0, #1"),
        (0x1008, 4, 9, "b ."),
    ]


def test_without_keystone(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from kvmscen.asm.keystone import encoder

    encoder.encode.cache_clear()
    monkeypatch.setattr(encoder, "_local", type(encoder._local)())
    monkeypatch.setitem(sys.modules, "keystone", None)
    for arch, text in (("arm64", "mov x0, #1\nmov x0, #2"), ("x86_64", "mov eax, 1")):
        (problem,) = problems(arch, text)
        assert "keystone-engine is not installed here" in problem


def test_large_programs_are_quick() -> None:
    text = "".join(f"a{n}: jmp a{(n * 7919) % 5000}\n" for n in range(5000))
    # It is 0.8 and 3 million.
    assert calls(lambda: assemble("x86_64", 64, Source("s", text), [], 0)) < 3_000_000
    said: list[str] = []
    assert calls(lambda: said.extend(problems("arm64", "nop\n" * 70000))) < 10_000_000
    assert "statements" in said[0]
