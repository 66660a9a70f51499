# ruff: noqa: E501, PT017 (lists as text; an outcome that may be either)
"""Any text at all: a program or a ScenarioError, soon."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmscen.asm import Placement, Source, assemble
from kvmscen.asm.keystone.expressions import Parser, Unknown
from kvmscen.asm.values import Wrong
from kvmscen.errors import ScenarioError

pytest.importorskip("keystone")

_WORDS = """mov add ldr str b bl b.eq jmp jne call push pop lea rep lock cbz tbz adr adrp stp ret x0 w1 sp xzr rax eax al
[rbx] [x1] ] [ { } ( ) # #1 #a =a =5 , ; : ! " ' + - * / << a: 1: 1b 1f a b .text .data .bss .section .quad .byte .word
.space .align .org .set .equ .rept .endr .ascii .fill .code16 .code32 .att_syntax $5 %eax (%rax) offset ptr dword rip . .-a 0x
0xffffffffffffffff 99999999999 -1 // /* */ \\ \n \n \n :lo12:a .ltorg .p2align .if .macro far .macro .endm .exitm .irp .irpc .else .endif .elseif .ifdef .ifc .purgem m m \\a \\@ \\() a:req a=5
:vararg .text 1 .previous .pushsection .popsection .subsection .comm .octa .uleb128 .float .req .unreq .nops .end .error "a b" short ljmp movabs riz*1 lsl""".split(
    " "
)
_PIECES = st.lists(st.sampled_from(_WORDS) | st.text(max_size=4), max_size=40).map(" ".join)
_SETTINGS = settings(max_examples=250, deadline=2000, suppress_health_check=[HealthCheck.too_slow])


@_SETTINGS
@given(
    st.sampled_from([("arm64", 64), ("x86_64", 64), ("x86_64", 32), ("x86_64", 16)]),
    _PIECES | st.text(max_size=80),
)
def test_text(machine: tuple[str, int], text: str) -> None:
    try:
        program = assemble(*machine, Source("s", text), [], 0x1000)
    except ScenarioError as error:
        assert error.problems
    else:
        assert all(len(section.data) in (0, section.size) for section in program.sections)


_LINES = st.lists(
    st.tuples(
        st.sampled_from(
            "mov add jmp jne call push ldr str .quad .space .align .org .set .byte b cbz adr lea "
            "loop".split()
        ),
        st.lists(
            st.sampled_from(
                "x0 eax rax a b . 1 5 300 -1 [a] [x1] [rbx+a] a-b b-a .-a #a #4 =a 1<<40".split()
            ),
            max_size=3,
        ),
        st.sampled_from(["", "a: ", "b: ", "1: "]),
    ),
    max_size=12,
)


@_SETTINGS
@given(st.sampled_from([("arm64", 64), ("x86_64", 64), ("x86_64", 32), ("x86_64", 16)]), _LINES)
def test_lines_that_are_nearly_right(
    machine: tuple[str, int], lines: list[tuple[str, list[str], str]]
) -> None:
    text = "\n".join(f"{label}{word} {', '.join(operands)}" for word, operands, label in lines)
    try:
        assemble(*machine, Source("s", text), [Placement(".text", 0x1000)], 0)
    except ScenarioError as error:
        assert error.problems


@settings(max_examples=300)
@given(st.text(alphabet="0123456789+-*/%<>&|^~!()abxf.'\\ =", max_size=60))
def test_expressions(text: str) -> None:
    try:
        value = Parser(lambda token: token).parse(text).value({"a": 1, "b": 2}, 0)
    except (Wrong, Unknown):
        return
    assert -(1 << 63) <= value < 1 << 64
