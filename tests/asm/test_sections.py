"""Names and flags of sections: both assemblers take the same ones, to the same bytes, and refuse
the same ones at their line.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmscen.asm import Placement, Source, assemble
from kvmscen.asm.gnu import targets
from kvmscen.errors import ScenarioError
from kvmscen.load import load_text

PLAIN = (".x-1", "x-1", ".text-2", '".x-1"', "$a", "$a-b", ".x-", "_", ".data.rel.ro-local", '"x"')
NOT_PLAIN = (
    *("-x", "1a", ".é", "a+b", "a!", "a=b", "a/b", "a@b", "a~", "%a", "x:y", "[a]", "/DISCARD/"),
    *('".x y"', '"a,b"', '"*COM*"', '""', '"a;b"'),
)


def both(arch: str, text: str, *placements: Placement) -> list[object]:
    """What each makes of a program: its sections and symbols, or what is wrong with it. One where
    GNU as is not installed.
    """
    pytest.importorskip("keystone")
    out: list[object] = []
    for assembler in ("keystone", "gnu") if targets.find(arch) else ("keystone",):
        try:
            program = assemble(arch, 64, Source("s", text), placements, 0x1000, assembler)
        except ScenarioError as error:
            out.append(
                [(problem.line, problem.column, problem.message) for problem in error.problems]
            )
        else:
            out.append((program.sections, program.symbols))
    return out


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
@pytest.mark.parametrize("directive", [".section", ".pushsection"])
@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_name(arch: str, directive: str, name: str) -> None:
    bare = name.strip('"')
    text = f'_start: nop\n{directive} {name}, "aw"\n.quad 5, _start\n'
    first, *others = both(arch, text, Placement(bare, 0x3000))
    assert all(first == other for other in others)
    assert isinstance(first, tuple), first
    assert (
        next(section.data.hex() for section in first[0] if section.gpa == 0x3000)
        == "05000000000000000010000000000000"
    )


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_a_name_that_is_not_plain(name: str) -> None:
    # The number stands in an instruction before, which is not the line to blame.
    text = f'_start: nop\nmov $0x1a, %eax\n.section {name}, "aw"\n.quad 5\n'
    first, *others = both("x86_64", f".att_syntax\n{text}")
    bare = name.strip('"')
    say = (
        f"`{bare}` is no name of a section: write letters, digits, `_`, `.`, `$` and `-`, no "
        f"digit or `-` first"
    )
    assert [first, *others] == (1 + len(others)) * [[(4, 1, say)]]


def test_the_name_of_a_section_of_our_own() -> None:
    first, *others = both("arm64", 'nop\n.section .kvm.lines, "a"\n.byte 1\n')
    assert [first, *others] == (1 + len(others)) * [
        [(2, 1, "`.kvm.lines` is a section of kvmscen's own: write another name")]
    ]


@pytest.mark.parametrize(
    "flags", ["", ', "a"', ', "aw"', ', "ax"', ', ""', ', "w"', ', "", @progbits']
)
@pytest.mark.parametrize(
    "name",
    [
        ".x",
        ".x-1",
        ".textx",
        ".text.a",
        ".datax",
        ".data1",
        ".rodata1",
        ".init",
        ".initx",
        ".debug_x",
    ],
)
def test_flags_say_whether_the_guest_has_it(name: str, flags: str) -> None:
    first, *others = both("x86_64", f"_start: nop\n.section {name}{flags}\n.quad 5\n")
    assert all(first == other for other in others)
    assert isinstance(first, tuple), first
    usual = name in (".text.a", ".data1", ".rodata1", ".init")
    there = name != ".debug_x" and (usual or not flags or "a" in flags.split(", @")[0])
    assert [section.name for section in first[0]] == [".text", *([name] if there else [])]


NAMES: tuple[str, ...] = (
    ".x",
    ".text",
    ".data",
    ".bss.a",
    ".tbss",
    ".tdata",
    ".init_array",
    ".note.a",
    ".noinit",
)
NAMES += (".got", ".rela.x", ".comment", ".persistent", ".x-1", ".rodata.str")
OPERANDS: tuple[str, ...] = (
    "",
    ', "aw"',
    ', "aw", @nobits',
    ', "aw", @progbits',
    ', "awT", @nobits',
    ', "a", @note',
)
OPERANDS += (
    ', "aMS", @progbits, 1',
    ', "aw", @init_array',
    ', "ae"',
    ', "aw", @nosuch',
    ', "aw", x',
)


@pytest.mark.parametrize("name", NAMES)
def test_types_and_flags_are_those_of_gnu_as(name: str) -> None:
    """Without a choice of assembler: what Keystone's front end leaves to GNU as goes there."""
    if not targets.find("x86_64"):
        pytest.skip("GNU as for x86_64 is not installed")
    for operands in OPERANDS:
        body = ".skip 8" if "nobits" in operands or "bss" in name else ".quad 5"
        text = f"_start: nop\n.section {name}{operands}\n{body}\n"
        made = [_made(text, assembler) for assembler in (None, "gnu")]
        assert made[0] == made[1], text


def _made(text: str, assembler: str | None) -> object:
    try:
        program = assemble("x86_64", 64, Source("s", text), (), 0x1000, assembler)
    except ScenarioError:
        return "refused"
    return program.sections, program.symbols


@pytest.mark.parametrize(
    ("written", "say"),
    [
        (', "ae"', 'only GNU as knows flags other than a, w and x: .x, "ae"'),
        (', "aw", @note', 'only GNU as knows the type note: .x, "aw", @note'),
        (', "a"\n.byte 1\n.section .x, "aw"', "section .x is written with other flags or another "),
    ],
)
def test_what_is_left_to_gnu_as_is_told(written: str, say: str) -> None:
    source = Source("s", f"_start: nop\n.section .x{written}\n.byte 1\n")
    pytest.importorskip("keystone")
    with pytest.raises(ScenarioError) as caught:
        assemble("x86_64", 64, source, (), 0x1000, "keystone")
    (problem,) = caught.value.problems
    assert say in problem.message


@pytest.mark.parametrize("use", [".quad there", ".quad n", "lea rax, [rip + there]", "mov eax, m"])
def test_an_address_that_is_not_in_the_guest_is_refused(use: str) -> None:
    """It was 0 or an offset, without a word."""
    section = '.section .about, ""\n.byte 0\nthere: .quad 5\nm: .set n, there\n'
    first, *others = both("x86_64", f"_start: nop\n{use}\n{section}")
    say = "this is an address in section .about, which is not in the guest"
    assert [first, *others] == (1 + len(others)) * [[(2, 1, say)]]


def test_labels_that_are_not_in_the_guest_are_no_symbols() -> None:
    text = '_start: nop\n.section .about, ""\n.byte 0\nthere: .quad there, _start\n.set n, there\n'
    first, *others = both("x86_64", text)
    assert all(first == other for other in others)
    assert isinstance(first, tuple), first
    assert not {"there", "n"} & first[1].keys()


def test_two_sections_of_one_symbol() -> None:
    """`.x-1` and `.x_1` would both have `__x_1_start`: neither does, and who asks is told."""
    text = '_start: nop\n.section .x-1, "a"\n.byte 1\n.section .x_1, "a"\n.byte 2\n'
    first, *others = both("x86_64", text)
    assert all(first == other for other in others)
    assert isinstance(first, tuple), first
    assert "__x_1_start" not in first[1]
    assert "__text_start" in first[1]
    for told in both("x86_64", f"{text}.quad __x_1_start\n"):
        assert isinstance(told, list), told
        ((line, _, message),) = told
        assert (line, "__x_1_start" in message) == (6, True)


def test_a_scenario_places_it(tmp_path: Path) -> None:
    scenario = load_text(
        "arch: x86_64\nsections: {.x-1: 0x5000, .data: {after: .x-1}}\nasm: hlt\nexpect: [hlt]\n",
        str(tmp_path / "s.yaml"),
    )
    assert [section.name for section in scenario.cases[0].sections] == [".x-1", ".data"]
