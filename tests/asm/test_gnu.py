"""The second assembler: the same programs as the first makes, and errors at their lines."""

from __future__ import annotations

import pytest
import reference
import test_programs

from kvmscen.asm import Line, Macro, Placement, Program, Source, assemble
from kvmscen.asm.gnu import targets, tools
from kvmscen.errors import ScenarioError


def gnu(
    arch: str, text: str, *placements: Placement, bits: int = 64, line: int = 1, column: int = 1
) -> Program:
    reference.tools(arch)
    return assemble(arch, bits, Source("s.yaml", text, line, column), placements, 0, "gnu")


def problems(
    arch: str, text: str, *placements: Placement, bits: int = 64, line: int = 1, column: int = 1
) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        gnu(arch, text, *placements, bits=bits, line=line, column=column)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("arch", "bits", "text"),
    [
        ("arm64", 64, test_programs.ARM64_POOLS),
        ("x86_64", 64, test_programs.X64),
        ("x86_64", 16, test_programs.BOOT),
        ("x86_64", 64, test_programs.ATT),
    ],
    ids=["arm64", "x64", "boot", "att"],
)
def test_both_assemblers_make_the_same(arch: str, bits: int, text: str) -> None:
    pytest.importorskip("keystone")
    placements = [Placement(n, a) for n, a in test_programs.PLACES.items() if n in text + ".text"]
    by_keystone = assemble(arch, bits, Source("s", text), placements, 0, "keystone")
    other = gnu(arch, text, *placements, bits=bits)
    assert (by_keystone.sections, by_keystone.symbols, by_keystone.lines) == (
        other.sections,
        other.symbols,
        other.lines,
    )
    assert (by_keystone.assembler, other.assembler) == ("keystone", "gnu")


def test_placements() -> None:
    text = (
        ".skip 12\n.data\n.quad 1\n.rodata\n.byte 1\n.bss\n.skip 5\n.section mine\n.quad "
        "__data_start, __bss_size\n"
    )
    program = gnu(
        "x86_64", text.replace(".rodata", ".section .rodata"),
        Placement(".bss", 0x10E), Placement("mine", after=".bss", align=16, load=0x4000)
    )  # fmt: skip
    sections = {section.name: section for section in program.sections}
    assert {name: section.gpa for name, section in sections.items()} == {
        ".text": 0, ".data": 0xD, ".rodata": 0xC, ".bss": 0x10E, "mine": 0x120
    }  # fmt: skip
    assert (program.symbols["__bss_end"], program.symbols["__mine_load"]) == (0x113, 0x4000)
    assert sections["mine"].data == b"\x0d" + bytes(7) + b"\5" + bytes(7)
    assert (sections[".bss"].data, sections[".bss"].size, sections[".bss"].nobits) == (b"", 5, True)
    (overlap,) = problems(
        "arm64",
        "nop\n.data\n.quad 1, 2\n",
        Placement(".text", 0x1000),
        Placement(".data", 0xFF8, line=4, column=1),
    )
    assert (
        overlap
        == "s.yaml:4:1: section .text at 0x1000-0x1003 overlaps .data at 0xff8-0x1007: move one of "
        "them"
    )


def test_lines_inside_macros_and_repetitions() -> None:
    text = ".macro two reg\n  mov \\reg, #1\n  .quad 5\n.endm\n_start: nop // first\n two x3\n"
    text += " .rept 2\n  nop; b .\n .endr\n ldr x0, =5\n"
    program = gnu("arm64", text, line=7, column=5)
    assert program.lines == (
        Line(0, 4, 11, "nop"),
        Line(4, 4, 12, "mov \\reg, #1"),
        Line(8, 8, 12, ".quad 5"),
        Line(16, 4, 14, "nop"),
        Line(20, 4, 14, "b ."),
        Line(24, 4, 14, "nop"),
        Line(28, 4, 14, "b ."),
        Line(32, 4, 16, "ldr x0, =5"),
    )


def test_a_macro_beside_the_program() -> None:
    reference.tools("arm64")
    macro = Macro("access", "mov x0, #1\n  nop\n", "s.yaml", 3, 11)
    source = Source("start.s", "_start: nop\naccess\nb .\n", macros=(macro,))
    program = assemble("arm64", 64, source, [], 0, "gnu")
    assert [(line.line, line.text) for line in program.lines] == [
        (1, "nop"),
        (2, "mov x0, #1"),
        (2, "nop"),
        (3, "b ."),
    ]
    other = assemble("arm64", 64, source, [], 0, "keystone")
    assert (program.sections, program.lines) == (other.sections, other.lines)
    wrong = Source(
        "start.s", "nop\naccess\n", macros=(Macro("access", "nop\n  bad x0\n", "s.yaml", 3, 11),)
    )
    with pytest.raises(ScenarioError) as caught:
        assemble("arm64", 64, wrong, [], 0, "gnu")
    assert str(caught.value) == (
        "s.yaml:4:13: unknown mnemonic `bad` -- `bad x0` (GNU as) (in a macro, used in line 2)"
    )


def test_an_error_in_a_macro_is_told_where_it_is_used() -> None:
    text = ".macro a r\nbad \\r\n.endm\n.macro b\na x1\n.endm\nb\n.irp i, 1\nworse\n.endr\n"
    assert problems("arm64", text) == [
        "s.yaml:7:1: unknown mnemonic `bad` -- `bad x1` (GNU as) (line 2 in a macro)",
        "s.yaml:9:1: unknown mnemonic `worse` -- `worse` (GNU as)",
    ]


def test_what_keystone_lacks() -> None:
    text = "ldadd x0, x1, [x2]\npaciza x3\naese v0.16b, v1.16b\nptrue p0.b\nirg x0, x1\n"
    program = gnu("arm64", text)
    assert program.sections[0].data.hex(" ", 4) == "410020f8 e323c1da 2048284e e0e31825 2010df9a"
    assert (
        gnu("x86_64", "endbr64\nserialize\nvmrun\nsysretq\n").sections[0].data.hex()
        == "f30f1efa0f01e80f01d8480f07"
    )


def test_a_label_is_an_arm64_immediate() -> None:
    text = (
        "_start: mov x0, #cell\nadd x1, x1, #cell + 8\nldr x2, [x3, #__data_size]\nmov x4, "
        "cell\n.data\n.skip 8\ncell: .quad 0\n"
    )
    program = gnu("arm64", text, Placement(".data", 0x500))
    plain = gnu("arm64", "mov x0, #0x508\nadd x1, x1, #0x510\nldr x2, [x3, #16]\nmov x4, 0x508\n")
    assert program.sections[0].data == plain.sections[0].data
    assert program.lines[0].text == "mov x0, #cell"


def test_common_symbols_are_room_in_bss() -> None:
    pytest.importorskip("keystone")
    text = (
        ".global _start:\n_start: nop\n.comm a, 5\n.comm b, 64\n.comm c, 3, 32\n.lcomm d, "
        "20\n.bss\nx: .skip 3\n"
    )
    one, other = assemble("arm64", 64, Source("s", text), [], 0, "keystone"), gnu("arm64", text)
    assert (one.sections, one.symbols) == (other.sections, other.symbols)
    assert {name: one.symbols[name] for name in "xdabc"} == {
        "x": 0x20,
        "d": 0x28,
        "a": 0x3C,
        "b": 0x50,
        "c": 0xA0,
    }


def test_16_bit_code_may_become_64_bit_code_anywhere() -> None:
    text = "cli\n.code64\nmov rax, [rbx]\n.data\n.quad _start\n_start: .byte 0\n"
    program = gnu("x86_64", text, Placement(".data", 1 << 40), bits=16)
    assert [section.data.hex() for section in program.sections] == [
        "fa488b03",
        "080000000001000000",
    ]


RISCV64 = """
  _start:
      la   s0, counter      # a comment
      call sub
      beqz a0, 1f
      .balign 8
  1:  j    1b
      lui  a1, %hi(counter)
      lw   a2, %lo(counter)(a1); nop
  sub:
      ret
      .4byte sub - _start
      .data
  counter: .quad sub, 1
  length = . - counter
"""


def test_riscv64() -> None:
    program = gnu("riscv64", RISCV64, Placement(".data", 0x5000))
    assert {name: value for name, value in program.symbols.items() if name[:2] != "__"} == {
        "_start": 0,
        "sub": 0x24,
        "counter": 0x5000,
        "length": 16,
    }
    assert [(line.gpa, line.size, line.text) for line in program.lines] == [
        (0x0, 8, "la   s0, counter"),
        (0x8, 8, "call sub"),
        (0x10, 2, "beqz a0, 1f"),
        (0x18, 2, "j    1b"),
        (0x1A, 4, "lui  a1, %hi(counter)"),
        (0x1E, 4, "lw   a2, %lo(counter)(a1)"),
        (0x22, 2, "nop"),
        (0x24, 2, "ret"),
        (0x26, 4, ".4byte sub - _start"),
        (0x5000, 16, ".quad sub, 1"),
    ]
    text, data = program.sections
    assert text.data[:8].hex() == "1754000013040400"  # auipc s0, 5; addi s0, s0, 0
    assert text.data[0x26:0x2A] == (0x24).to_bytes(4, "little")
    assert data.data == (0x24).to_bytes(8, "little") + (1).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("arch", "text", "message"),
    [
        ("arm64", "nop\nfrobnicate x1", "s.yaml:2:1: unknown mnemonic `frobnicate` -- `frobnicate "
                                        "x1` (GNU as)"),
        ("arm64", "nop; add x0, x1, #5000", "s.yaml:1:6: immediate out of range: add x0, x1, #5000 "
                                            "(GNU as)"),
        ("arm64", "count: nop\nldr x0, =coutn", "s.yaml:2:1: undefined symbol coutn; did you mean "
                                                "count?"),
        ("arm64", ".data\n.quad 1, gone", "s.yaml:2:1: undefined symbol gone"),
        ("arm64", ".data\n.byte 300", "s.yaml:2:1: value 0x12c truncated to 0x2c: .byte 300"),
        ("arm64", "a: nop\na: nop", "s.yaml:2:1: symbol `a` is already defined"),
        ("arm64", "nop\n  .incbin \"/etc/passwd\"", "s.yaml:2:3: .incbin is not allowed"),
        ("arm64", ".macro m a\n .inc\\a \"/etc/passwd\"\n.endm\nm bin", "reads another file"),
        ("arm64", ".macro m a\n .inc\\a \"/etc/passwd\"\n.endm\nm lude", "reads another file"),
        ("arm64", ".rept 100000000\nnop\n.endr", "s.yaml:1:1: .rept repeats at most 65536 times"),
        ("arm64", "nop\n.macro m\nm\n.endm\nm", "s.yaml:5:1: macros nested too deeply"),
        ("arm64", ".rept 3\nnop", "(GNU as)"),
        ("arm64", "nop\n.space 0x1000001", "s.yaml:2:1: section .text has 0x1000005 bytes; it may "
                                           "have 16 MiB"),
        ("arm64", "nop\n.space 1 << 36", "s.yaml:2:1: "),
        ("arm64", "b x\n.section far\nx: nop", "1:1: b x: the target 0x10000000 is 0x10000000 "
                                               "bytes away"),
        ("arm64", "tbz x0, #1, x\n.section far\nx: nop", "s.yaml:1:1: tbz x0, #1, x: far is out of "
                                                         "reach"),
        ("arm64", ".bss\n.byte 1", "s.yaml:2:1: attempt to store non-zero value in section `.bss`"),
        ("riscv64", "nop\naddi a0, a0, 5000", "s.yaml:2:1: illegal operands `addi a0,a0,5000` (GNU "
                                              "as)"),
        ("riscv64", "nop\nbeqz a0, gone", "s.yaml:2:1: undefined symbol gone"),
        ("riscv64", "nop\nj x\n.section far\nx: nop", "s.yaml:2:1: j x: x is out of reach"),
        ("x86_64", "mov ecx, __text_size", ": GNU as would load from __text_size: write offset "
                                           "__text_size"),
        ("x86_64", "nop\nmov ecx, N + 1\n.set N, 3", "2:1: mov ecx, N + 1: GNU as would load from "
                                                     "N, which is set further down"),
        ("x86_64", ".set N, 3\nmov ecx, N\nmov ecx, offset __text_size\njmp "
                   "__text_end\n.att_syntax\nmov __text_end, %eax", None),
        ("x86_64", "mov al, 0x1234", "s.yaml:1:1: "),
        ("x86_64", "call x\n.section far\nx: nop", None),
        ("x86_64", "mov eax, offset x\n.data\n.skip 8\nx: .quad 0", "1:1: mov eax, offset x: .data "
                                                                    "is out of reach"),
    ],
)  # fmt: skip
def test_message(arch: str, text: str, message: str | None) -> None:
    places = [Placement("far", 0x10000000)] if "far" in text else [Placement(".data", 1 << 33)]
    places = places if "far" in text or ".data" in text else []
    if message is None:
        assert gnu(arch, text, *places).sections
        return
    assert any(
        found.startswith(message) or (message in found) for found in problems(arch, text, *places)
    ), message


def test_a_program_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "SECONDS", 1)
    text = (
        "nop\n"
        + "".join(f".macro m{n}\n.rept 100\nm{n + 1}\n.endr\n.endm\n" for n in range(8))
        + ".macro m8\n.endm\nm0\n"
    )
    (problem,) = problems("arm64", text)
    assert problem == "s.yaml:2:1: assembling this takes more than 1 s of CPU time (GNU as)"


def test_a_program_that_keystone_lacks_goes_to_gnu() -> None:
    pytest.importorskip("keystone")
    reference.tools("arm64")
    program = assemble("arm64", 64, Source("s", "_start: nop\npaciza x3\n.float 1.5\n"), [], 0x1000)
    assert program.assembler == "gnu"
    assert program.sections[0].data.hex() == "1f2003d5e323c1da0000c03f"
    assert assemble("arm64", 64, Source("s", "nop"), [], 0).assembler == "keystone"
    with pytest.raises(ScenarioError, match="this does not assemble: paciza x3"):
        assemble("arm64", 64, Source("s", "paciza x3"), [], 0, "keystone")
    # What is wrong besides is not for another assembler.
    with pytest.raises(ScenarioError) as caught:
        assemble("arm64", 64, Source("s", "paciza x3\nb gone\n"), [], 0)
    assert [problem.line for problem in caught.value.problems] == [1, 2]
    # What both refuse has the first one's words; what only GNU as refuses has its own.
    with pytest.raises(ScenarioError) as caught:
        assemble("arm64", 64, Source("s", "paciza x3\nfrobnicate x1\n.struct what\n"), [], 0)
    assert [str(problem) for problem in caught.value.problems] == [
        "s:2:1: this does not assemble: frobnicate x1: unknown mnemonic `frobnicate` (GNU as)",
        "s:3:1: .struct is not supported: give each member its offset with .set",
    ]


def test_without_gnu_as_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("keystone")
    monkeypatch.setattr(targets, "find", lambda arch: None)
    with pytest.raises(ScenarioError) as caught:
        assemble("arm64", 64, Source("s", "nop\npaciza x3\n"), [], 0)
    assert (
        "s:2:1: this does not assemble: paciza x3; where it is right, GNU as may know it: apt "
        "install binutils" in str(caught.value)
    )
    with pytest.raises(
        ScenarioError, match="no GNU as for arm64 is installed here: apt install binutils"
    ):
        assemble("arm64", 64, Source("s", "nop"), [], 0, "gnu")


def test_without_keystone_it_is_gnu(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    reference.tools("arm64")
    monkeypatch.setitem(sys.modules, "keystone", None)
    assert assemble("arm64", 64, Source("s", "nop"), [], 0).assembler == "gnu"


def test_a_relocation_without_a_symbol_is_refused_at_its_line() -> None:
    # Symbol 0 has no section: SHN_UNDEF is no number to the reader of ELF files.
    told = problems("arm64", "_start: nop\nb.eq _s==tart\n")
    assert [line.partition(" ")[0] for line in told] == ["s.yaml:2:1:"]
