"""Macros, repetitions, conditions and the rarer directives: byte for byte as GNU as and ld, and
what is said of wrong ones.
"""

from __future__ import annotations

import re

import pytest
import reference
from effort import calls

from kvmscen.asm import Macro, Placement, Source, assemble
from kvmscen.errors import ScenarioError

pytest.importorskip("keystone")
PLACES = {".text": 0x1000, ".rodata": 0x5000, ".data": 0x8000, ".bss": 0xA000}

# What does not depend on the architecture.
COMMON = r"""
.macro m a
.if \a
.exitm
.endif
.byte 1
.endm
m 1
m 0
.macro n
.rept 3
.byte 2
.exitm
.byte 3
.endr
.byte 4
.endm
n
.rept 2
.byte 6
.exitm
.byte 7
.endr
.macro e
.endif
.endm
.if 1
e
.byte 9
.macro down n
.if \n
.byte \n
down "(\n - 1)"
.endif
.endm
down 4
.macro def name, val=5
\name\(): .byte \val
.macro get_\name
.byte \name - .
.endm
.endm
def foo
DEF bar,val=6
get_foo
get_bar
.macro each x:vararg
.ifnb \x
.byte 0xaa
.irp i,\x
.byte \i
.endr
.endif
.endm
each
each 1,2,3
each 4 5
.macro local
x\@: .byte x\@ - .
.endm
local
local
.macro str s
.ascii "\s|"
.endm
str hello
str "a b"
str a.b
str (a b)
str [x0 y]
.macro three a, b=7, c:req
.ascii "\a,\b,\c;&a;&b&;\\z;\(a \b);\a\()x "
.endm
three 1 2 3
three 1,,3
three c=4,a=5
three c="a b, c"
three , , 9
three b = 3 , a =  4, c= 5
.macro and a
.ascii "\a&x;\a&;x&a&y;x&zz&y;&a&&;&;&&"
.endm
and 1
.irp r, a, "b c", d
.ascii "<\r>"
.endr
.irp r
.ascii "<\r>"
.endr
.irpc r,abc d
.ascii "<\r>"
.endr
.irpc r
.ascii "<\r>"
.endr
.irp a,1,2; .irp b,3,4; .byte \a, \b; .endr; .endr
.macro one; .byte 4; .byte 5; .endm; one
one; one /* a comment */
.purgem one
.macro one
.byte 10
.endm
one
.macro .dotted x; .byte \x; .endm
.dotted 11
a = 1
.if a; .byte 1; .elseif a; .byte 2; .else; .byte 3; .endif
.if 0; .byte 4; .elseif 1; .byte 5; .elseif 1; .byte 6; .endif
.ifdef a; .byte 7; .endif
.ifndef zz; .byte 8; .endif
.ifnotdef zz; .byte 8; .endif
.ifdef later; .byte 9; .endif
later:
.ifdef later; .byte 10; .endif
.ifc a b , ab; .byte 11; .endif
.ifc a b,a   b; .byte 12; .endif
.ifnc a,b; .byte 13; .endif
.ifb; .byte 14; .endif
.ifnb x; .byte 15; .endif
.ifeqs "a","a"; .byte 16; .endif
.ifnes "a","b"; .byte 17; .endif
.ifge -1; .byte 18; .endif
.iflt -1; .byte 19; .endif
.ifeq a-1; .byte 20; .endif
.ifgt 1; .byte 21; .endif
.ifle 0; .byte 22; .endif
.ifne 0; .byte 23; .endif
.if 0
junk here
.macro zzz
.if 1
.else
.endif
.else
.byte 24
.endif
begin: .byte 1, 2, 3
.if . - begin == 3
.byte 25
.endif
.rept . - begin
.byte 26
.endr
.data
.single 1.5, 2
.double 1.5e3, -0.1, 1e-300
.float -0.5, inf, -infinity, .5, 1., +2, 0d3, 0f1.5, 3.4028235e38, 1e-40
.octa 0x112233445566778899aabbccddeeff, 1, -2, 017, 340282366920938463463374607431768211455
.sleb128 -1, 128, -129, past - start
start: .skip 100
past: .uleb128 1, 128, 0x12345, past - start, -1
.sleb128 0xffffffffffffffff, 9223372036854775808, -9223372036854775808, 0x7fffffffffffffff
.balign 16
.byte 1,2
.p2alignw 3,0x1234
.byte 1,1,1,1
.p2alignl 4,0x12345678
.byte 1,1
.balignw 8,0x1234
.byte 1,2,3,4
.balignl 8,0x12345678
.byte 1
.p2align 3,,2
.byte 1
.p2align 3,,7
.dc.b 1
.dc.w 1
.dc.l 1
.dc 2
.dcb 3,5
.dcb.b 3,5
.dcb.w 2,5
.dcb.l 1,5
.ds 3
.ds.b 3
.ds.l 2
.string16 "ab"
.string32 "a", "b"
.string8 "a"
.string64 "a"
.dc.s 1.5
.dc.d 1.5
.ds.d 1
.ds.s 1
.text 1
.byte 1
.text 0
.byte 2
.subsection 2
.byte 3
.text 1
.byte 4
.data
.byte 1
.previous
.byte 5
.pushsection .data, 1
.byte 9
.popsection
.byte 6
.pushsection .rodata, "a"
.byte 7
.pushsection .text
.byte 8
.popsection
.byte 9
.popsection
.byte 10
.section .note.GNU-stack,"",%progbits
.section .comment,"MS",%progbits,1
.asciz "nobody sees this"
.bss
.data
.lcomm c1,1
.lcomm c2,2
.lcomm c4,4
.lcomm c8,8
.lcomm c100,100
.long c1, c2, c4, c8, c100
.type foo, %function
.size foo, 1
.globl foo
.weak foo, bar
.local other
.hidden foo
.file "x"
.ident "z"
.cfi_sections .debug_frame
.warning "w"
.end
.byte 99
junk
"""

ARM64 = r"""
.macro access op, reg=x0, more:vararg
\op \reg, \more
.endm
access ldr, more=[x1]
access str, x2, [x1, #8]
access ldp, x3, x4, [x1], #16
access add, x5, x6, #(1 + 2)
.macro push a, b
stp \a, \b, [sp, #-16]!
.endm
push x0 x1
push x2, x3
.macro nop
mov x9, #9
.endm
nop
.purgem nop
nop
count .req x7
n .req count
mov count, #1
add x1, n, COUNT
ldr count, [n, #8]
.unreq n
.text 1
ldr x0, =0x1234567890
.text
ldr x0, =0x1234567890
.ltorg
.cpu cortex-a72
.arch armv8-a
.arch_extension crc
start:
nop
b start
.even
.irpc n,0123
mov x\n, #\n
.endr
"""

X86 = r"""
.macro access op, args:vararg
\op \args
.endm
access mov, eax, [rbx + 8]
access out, dx, al
access hlt
.macro two a, b
add \a, \b
.endm
two eax ebx
two eax, -1
two "dword ptr [rbx]", 5
.macro save regs:vararg
.irp r, \regs
push \r
.endr
.endm
save rax, rbx, r12
.macro nop
.byte 0xcc
.endm
nop
.purgem nop
nop
.nops 1
.nops 7
.nops 11
.nops 30
.nops 20, 2
.nops 20, 9
.code16
.nops 20
.code32
.nops 20
.code64
start:
nop
call start
.if . - start > 1
.byte 1
.endif
.slong 1
.text 1
jmp start
.text
jmp start
"""


# Which blanks part arguments does depend on it.
ARGUMENTS = r"""
.macro m a, b, c
.ascii "\a|\b|\c "
.endm
m 1 + 2, 3
m x0 -1
m 1 - 2
m x * 2
m {a b} c
m ~a
m [x0, 8] b
m (1 2) , 3
m(1)
"""


@pytest.mark.parametrize(
    ("arch", "bits", "text"),
    [
        ("arm64", 64, COMMON),
        ("x86_64", 64, COMMON),
        ("x86_64", 16, COMMON),
        ("arm64", 64, ARM64),
        ("x86_64", 64, X86),
        ("arm64", 64, ARGUMENTS + "m #1 #2\n"),
        ("x86_64", 64, ARGUMENTS + "m %a %b\n"),
    ],
)  # fmt: skip
def test_as_gnu(arch: str, bits: int, text: str) -> None:
    wanted = reference.link(arch, bits, text, PLACES)
    program = assemble(
        arch,
        bits,
        Source("p.s", text),
        [Placement(n, a) for n, a in PLACES.items() if n in text + ".text"],
        0,
        "keystone",
    )
    for section in program.sections:
        if not section.nobits:
            assert section.data.hex(" ", 4) == wanted[section.name].hex(" ", 4), section.name
    assert {section.name for section in program.sections} <= set(PLACES)


def problems(text: str, *macros: Macro, arch: str = "arm64") -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        assemble(arch, 64, Source("s.yaml", text, 10, 3, macros), [], 0, "keystone")
    # GNU as's reason is there only where it is installed.
    return [
        re.sub(r": unknown mnemonic `\w+` \(GNU as\)", "", str(problem))
        for problem in caught.value.problems
    ]


def test_an_error_in_a_macro_is_told_where_it_is_used() -> None:
    text = (
        ".macro a r\nnop\nbad \\r\n.endm\n.macro b\na x1\n.endm\nnop; a x0\nb\n.irp i, 1, "
        "2\nworse \\i\n.endr"
    )
    assert problems(text) == [
        "s.yaml:17:8: this does not assemble: bad x0 (line 12 in macro a)",
        "s.yaml:18:3: this does not assemble: bad x1 (line 12 in macro a, from line 15 in macro b)",
        "s.yaml:20:3: this does not assemble: worse 1",
        "s.yaml:20:3: this does not assemble: worse 2",
    ]


def test_lines_are_those_where_a_macro_is_used() -> None:
    text = ".macro m\nmov x0, #1\nnop\n.endm\n\nm\nb ."
    program = assemble("arm64", 64, Source("s", text, 7), [], 0, "keystone")
    assert [(line.gpa, line.line, line.text) for line in program.lines] == [
        (0, 12, "mov x0, #1"),
        (4, 12, "nop"),
        (8, 13, "b ."),
    ]


def test_a_macro_beside_the_program() -> None:
    macro = Macro("access", "stp xzr, xzr, [x2]\nnop", "s.yaml", 4, 20)
    program = assemble(
        "arm64", 64, Source("p.s", "nop\naccess", macros=(macro,)), [], 0, "keystone"
    )
    assert [(line.line, line.text) for line in program.lines] == [
        (1, "nop"),
        (2, "stp xzr, xzr, [x2]"),
        (2, "nop"),
    ]
    wanted = reference.link("arm64", 64, macro.as_gnu + "nop\naccess", {".text": 0})
    assert program.sections[0].data == wanted[".text"]
    wrong = Macro("access", "nop\n  bad x0", "s.yaml", 4, 20)
    assert problems("nop\naccess", wrong) == [
        "s.yaml:5:22: this does not assemble: bad x0 (in macro access, used in line 11)"
    ]
    assert problems(".macro access\n.endm", macro) == [
        "s.yaml:10:3: the macro access is already defined in line 4; .purgem access forgets it"
    ]
    assert (
        "there is no" in problems("ldr x0, [access]")[0]
        or "does not assemble" in problems("access")[0]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".macro m\nm\nm\n.endm\nm", "14:3: the macro m is nested more than 100 deep: does it use "
                                     "itself without end?"),
        (".macro m a\nm \\a\\a\n.endm\nm xxxxxxxx", "grows without end"),
        (".macro m a, b\n.endm\nm 1 2 3", "3 is one argument too many: the macro m has 2: it takes "
                                          "a, b"),
        (".macro m\n.endm\nm 1", "1 is one argument too many: the macro m has 0: it takes none"),
        (".macro m a, b\n.endm\nm b=1 2", "an argument without a name cannot follow one with a "
                                          "name"),
        (".macro m a, b\n.endm\nm q=1", "the macro m has no parameter q: it takes a, b"),
        (".macro m a\n.endm\nm a=1, a=2", "the parameter a of the macro m is given twice"),
        (".macro m a:req\n.endm\nm", "the macro m requires a value for a"),
        (".macro m a:req=5\n.endm", "its default is never used"),
        (".macro m a:opt\n.endm", "may be :req or :vararg"),
        (".macro m a:vararg, b\n.endm", "which takes all that is left"),
        (".macro m a a\n.endm", "the parameter a is there twice"),
        (".macro m (a)\n.endm", "is no parameter of a macro"),
        (".macro\n.endm", ".macro needs a name"),
        (".macro 1x\n.endm", ".macro needs a name"),
        (".macro m\n.endm\n.macro M\n.endm", "the macro M is already defined in line 10"),
        (".macro m\nnop", ".macro without its .endm"),
        (".irp a, 1\nnop", ".irp without its .endr"),
        (".irp 1\n.endr", "the symbol that takes the values is missing"),
        (".rept -1\n.endr", "the count of .rept is negative (-1)"),
        (".rept x\nnop\n.endr\nx:", "the count of .rept must be a number that is known here"),
        (".endm", ".endm without its .macro"),
        (".endr", ".endr without its .rept"),
        (".exitm", ".exitm stands in no macro"),
        (".purgem m", "there is no macro m to purge"),
        (".altmacro", ".altmacro is not supported"),
        (".macro m\n.byte \\(1\n.endm\nm", "\\( without its ) (line 11 in macro m)"),
        (".macro m\n.if 1\n.endm\nm", "13:3: .if without its .endif (line 11 in macro m)"),
        (".if 1\nnop", "10:3: .if without its .endif"),
        (".else", ".else without its .if"),
        (".elseif 1", ".elseif without its .if"),
        (".endif", ".endif without its .if"),
        (".if 1\n.else\n.else\n.endif", "12:3: .else behind the .else of line 11: the .if is in "
                                        "line 10"),
        (".if 1\n.else\n.elseif 1\n.endif", "12:3: .elseif behind the .else of line 11"),
        (".if\n.endif", ".if needs a value"),
        (".if x\n.endif\nx:", "the condition of .if must be a number that is known here, not x"),
        (".if 1 2\n.endif", "unexpected '2'"),
        (".ifdef a b\n.endif", ".ifdef takes the name of one symbol"),
        (".ifdef\n.endif", ".ifdef needs a symbol"),
        (".ifc a\n.endif", ".ifc compares two texts"),
        (".ifeqs a, b\n.endif", ".ifeqs compares two strings"),
        (".error \"the message\"", "10:3: the message"),
        (".error", ".error is reached"),
        (".err", ".err is reached"),
        (".abort", ".abort ends the program here"),
        (".struct 0", ".struct is not supported: give each member its offset with .set"),
        (".float nan", "its bits are not the same everywhere"),
        (".float 1e400", "1e400 is too large for .float"),
        (".float x", "x is no floating-point number"),
        (".octa x\nx:", "must be a number that is known here"),
        (".octa 1 << 200 << 200, 0x" + "f" * 40, "does not fit in 16 bytes"),
        (".comm x", ".comm takes a name and a size"),
        (".comm x, -1", ".comm takes a size, and a power of two as alignment"),
        (".comm x, 1 << 40", "16 MiB"),
        (".lcomm x, 1\nx:", "symbol x is already defined in line 10"),
        (".byte 1\n.p2alignw 2, 5", "the 3 bytes to fill are no multiple of 2"),
        (".popsection", ".popsection without its .pushsection"),
        (".pushsection a\n" * 101, ".pushsection is nested more than 100 deep"),
        (".text 10000", "a subsection is a number from 0 to 8192, not 10000"),
        (".section a, 1", ".section takes no number"),
        (".globl a b", ".globl takes names of symbols: .globl _start, not a b"),
        ("x .req y", "y is no register: x .req x0"),
        (".macro m\n" + "nop\n" * 700 + ".endm\n" + "m\n" * 100, "more than 65536 statements"),
        (".macro m\n.if 0\n" + "nop\n" * 7000 + ".endif\n.endm\n" + "m\n" * 200, "more than 65536 "
                                                                                 "statements"),
        (".irp a, " + "1," * 1000 + "\n" + "nop\n" * 1000 + ".endr", "more than 65536 statements"),
        (".rept 300\n.rept 300\nnop\n.endr\n.endr", "more than 65536 statements"),
    ],
)  # fmt: skip
def test_message(text: str, message: str) -> None:
    said: list[str] = []
    # The dearest, 1.4 million lines that are passed over, makes 11 million.
    assert calls(lambda: said.extend(problems(text))) < 30_000_000
    assert message in "\n".join(said)


def test_distances_are_known_where_gnu_as_gives_up() -> None:
    text = (
        "a: nop\nb a\n.balign 8\n.skip 4\n.if . - a == 12\n.long 1\n.endif\n.rept b - a - "
        "8\n.byte 2\n.endr\n"
    )
    with pytest.raises(ScenarioError):
        assemble("arm64", 64, Source("s", text), [], 0, "keystone")
    text = text.replace("b a\n", "b: b a\n").replace("b - a - 8", "b - a - 2")
    assert assemble("arm64", 64, Source("s", text), [], 0, "keystone").sections[0].data[
        12:
    ] == bytes([1, 0, 0, 0, 2, 2])
    wrong = "a: jmp c\nb:\n.if b - a == 2\n.endif\nc:"
    assert (
        "must be a number that is known here, not b - a == 2" in problems(wrong, arch="x86_64")[0]
    )


def test_nops_are_limited() -> None:
    assert ".nops takes a size up to" in problems(".nops 1 << 40", arch="x86_64")[0]


def test_the_founding_line_is_understood() -> None:
    # GNU as refuses the colon; what it means is plain.
    program = assemble("arm64", 64, Source("s", ".global _start:\n_start: nop"), [], 0, "keystone")
    assert program.sections[0].data == bytes.fromhex("1f2003d5")
    assert ".global takes names" in problems(".global _start: x")[0]


def test_an_instruction_may_be_a_macro() -> None:
    text = ".macro nop\nmov x0, #1\n.endm\nnop\nNOP"
    assert (
        assemble("arm64", 64, Source("s", text), [], 0, "keystone").sections[0].data
        == bytes.fromhex("200080d2") * 2
    )
