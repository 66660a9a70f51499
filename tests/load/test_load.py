"""What load makes of right files, and that it survives wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from effort import calls
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from kvmscen.errors import Problem, ScenarioError
from kvmscen.load import load, load_text
from kvmscen.load.document import Map, compose
from kvmscen.load.scalars import Float, resolve
from kvmscen.load.schema import fits, schema
from kvmscen.scenario import Case, Expr, Match, Place, Step

HERE = Path(__file__).resolve().parent
FOUNDING = (HERE / "founding.yaml").read_text()
X86 = "arch: x86_64\nasm: hlt\n"


def one(text: str) -> Case:
    cases = load_text(text, "a.yaml").cases
    assert len(cases) == 1
    return cases[0]


def steps(text: str) -> tuple[Step, ...]:
    found = one(X86 + "expect:\n" + text).expect
    assert found is not None
    return found


def number(value: Any) -> int:
    assert isinstance(value, Expr)
    assert value.symbol is None
    return value.offset


def test_founding_scenario() -> None:
    scenario = load(str(HERE / "founding.yaml"))
    assert scenario.name == "founding"
    assert [case.name for case in scenario.cases] == ["default", "nisv-to-user"]
    first, second = scenario.cases
    assert first.asm is second.asm
    assert first.asm is not None
    assert FOUNDING.splitlines()[first.asm.line - 1] == "  _start:"
    assert first.asm.column == 3
    assert [(s.name, s.at) for s in first.sections] == [(".text", 0), (".data", 0x5000)]
    assert first.expect is not None
    assert [step.kind for step in first.expect] == ["mmio", "mmio", "error"]
    assert str(first.expect[1].fields["phys_addr"]) == "counter + 8"
    assert first.expect[2].fields == {"ioctl": "KVM_RUN", "errno": "ENOSYS"}
    assert second.enable[0].cap == "KVM_CAP_ARM_NISV_TO_USER"
    assert second.summary != first.summary
    assert second.timeout == 5.0


def test_overlays() -> None:
    text = (
        X86
        + "tags: [a, b]\nrequires: {capabilities: [KVM_CAP_HLT], kvm: svm}\nlimits: {timeout: 1, "
        "exits: 5}\nexpect: [hlt]\n"
        + "regs: {rax: 1, rbx: 2}\nmode: real\ncases:\n"
        + "  one: {tags: [b, c], requires: {capabilities: [KVM_CAP_IRQCHIP], kvm: vmx}, limits: "
        "{exits: 6}, regs: {rax: 5}}\n"
        + "  two: {requires: null, expect: null, final: {}, mode: null, tags: null}\n"
    )
    default, first, second = load_text(text, "a.yaml").cases
    assert default.tags == ("a", "b")
    assert (default.timeout, default.exits) == (1.0, 5)
    assert first.tags == ("a", "b", "c")
    assert first.requires.capabilities == ("KVM_CAP_HLT", "KVM_CAP_IRQCHIP")
    assert first.requires.kvm == ("vmx",)
    assert (first.timeout, first.exits) == (5.0, 6)
    assert set(first.vcpus[0].regs) == {"rax"}
    assert first.vcpus[0].mode == "real"
    assert second.expect is None
    assert second.final is not None
    assert second.requires.capabilities == ()
    assert second.tags == ()
    assert second.vcpus[0].mode is None


def test_equal_scalars_keep_their_places() -> None:
    text = "arch: x86_64\nexpect: [mmio]\ncases:\n  a: {asm: hlt}\n  b: {asm: hlt}\n"
    first, second = load_text(text, "a.yaml").cases
    assert first.asm is not None
    assert second.asm is not None
    assert (first.asm.line, second.asm.line) == (4, 5)


def test_top_level_without_a_check_is_no_case() -> None:
    assert [c.name for c in load_text(X86 + "cases: {a: {expect: [mmio]}}\n", "a").cases] == ["a"]
    assert [
        c.name
        for c in load_text("arch: x86_64\nexpect: [mmio]\ncases: {a: {asm: hlt}}\n", "a").cases
    ] == ["a"]
    assert [
        c.name for c in load_text(X86 + "final: {}\ncases: {a: {expect: [mmio]}}\n", "a").cases
    ] == ["default", "a"]


def test_vcpus_are_laid_over_the_scenario() -> None:
    case = one(
        X86 + "expect: [mmio]\nmode: real\nregs: {rax: 1, cs: {base: 0}}\nvcpus: [{regs: {rax: 2}, "
        "mode: long}]\n"
    )
    assert case.vcpus[0].mode == "long"
    assert {k: number(v) for k, v in case.vcpus[0].regs.items()} == {"rax": 2, "cs.base": 0}


def test_numbers() -> None:
    step = steps(
        "  - mmio: {phys_addr: -1, len: 4, data: -1, is_write: true}\n    regs: {al: -1, rax: -2, "
        "cs: {base: 16}}\n"
    )[0]
    assert number(step.fields["phys_addr"]) == (1 << 64) - 1
    assert number(step.fields["data"]) == 0xFFFFFFFF
    assert number(step.fields["is_write"]) == 1
    assert {k: number(v) for k, v in step.regs.items()} == {
        "al": 0xFF,
        "rax": (1 << 64) - 2,
        "cs.base": 16,
    }
    assert step.fields["len"] == Expr(None, 4, Place(4, 32))


def test_matchers() -> None:
    step = steps(
        "  - mmio: {phys_addr: {from: a, step: 8}, data: {in: [1, b - 2]}, len: {min: 1}}\n    "
        "repeat: {min: 0, max: 4}\n"
    )[0]
    series = step.fields["phys_addr"]
    assert isinstance(series, Match)
    assert (series.kind, str(series.numbers["from"]), str(series.numbers["step"])) == (
        "series",
        "a",
        "8",
    )
    anything = step.fields["data"]
    assert isinstance(anything, Match)
    assert [str(n) for n in anything.numbers["in"]] == ["1", "b - 2"]
    assert step.repeat == (0, 4)


def test_steps() -> None:
    found = steps(
        "  - hlt\n  - hlt: {}\n    then: []\n  - timeout: 0.05\n    then: [{set_regs: {rip: go}}]\n"
        "  - io: {direction: in, port: 0x3f8, size: 1, count: 2}\n    reply: [1, 2]\n"
        "  - x86_rdmsr: {index: 0x10}\n    reply: 7\n  - x86_wrmsr: {}\n    reply: {error: 1}\n"
        "  - {repeat: 2, steps: [{mmio: {phys_addr: {from: 0, step: 4}}}]}\n"
        "  - error: {errno: EFAULT, memory_fault: {flags: private, gpa: 0x1000}}\n"
    )
    assert found[0].kind == found[1].kind == "hlt"
    assert found[0].then is None
    assert found[1].then == ()
    assert found[2].timeout == 0.05
    assert found[3].reply == {"data": (Expr(None, 1, Place(10, 13)), Expr(None, 2, Place(10, 16)))}
    assert number((found[4].reply or {})["data"]) == 7
    assert number((found[5].reply or {})["error"]) == 1
    assert (found[6].kind, found[6].repeat, found[6].steps[0].kind) == ("group", (2, 2), "mmio")
    fault: Any = found[7].fields["memory_fault"]
    assert {key: number(value) for key, value in fault.items()} == {"flags": 8, "gpa": 0x1000}


def test_memory() -> None:
    case = one(
        X86
        + 'final: {memory: {a: 5, 0x10: {u8: [1, -1]}, a + 8: {hex: "00 11"}, b: {text: hé}, c: '
        "sym}}\n"
    )
    assert case.final is not None
    checks = {str(m.at): (m.unit, m.values) for m in case.final.memory}
    assert set(checks) == {"a", "0x10", "a + 8", "b", "c"}
    assert checks["a"][0] == "u64"
    assert [number(n) for n in checks["0x10"][1]] == [1, 255]
    assert checks["a + 8"] == ("hex", b"\x00\x11")
    assert checks["b"] == ("text", "hé".encode())


def test_actions() -> None:
    case = one(
        X86 + "expect: [mmio]\nsetup:\n  - set_memslot: {slot: 1, gpa: a, size: 0x1000, flags: "
        "KVM_MEM_READONLY}\n    errno: EINVAL\n"
        "  - delete_memslot: {slot: 1}\n  - enable: {cap: KVM_CAP_HLT, args: [1], errno: EPERM}\n  "
        "- write_memory: {a: 1}\n"
    )
    slot, gone, cap, memory = case.setup
    assert (slot.args["memslot"].flags, slot.errno) == (("KVM_MEM_READONLY",), "EINVAL")
    assert gone.args == {"slot": 1}
    assert (cap.args["enable"].cap, cap.args["enable"].args, cap.errno) == (
        "KVM_CAP_HLT",
        (1,),
        "EPERM",
    )
    assert memory.args["memory"][0].unit == "u64"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("10", 10),
        ("-10", -10),
        ("+7", 7),
        ("0x1F", 31),
        ("-0x10", -16),
        ("on", "on"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("0.05", 0.05),
        (".text", ".text"),
        ("5f", "5f"),
        ("1.2.3", "1.2.3"),
        ("-", "-"),
        ("_start", "_start"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    found, wrong = resolve(text)
    assert wrong is None
    assert found == value
    assert type(found) is (Float if isinstance(value, float) else type(value))


def test_windows_lines_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (X86 + "expect: [mmio]\n").replace("\n", "\r\n").encode())
    assert load(str(path)).cases[0].arch == "x86_64"


def test_program_places(tmp_path: Path) -> None:
    asm = one("arch: x86_64\nexpect: [mmio]\nasm: |   # a comment\n\n\n     nop\n       hlt\n").asm
    assert asm is not None
    assert asm.text.split("\n")[6 - asm.line] == "nop"
    assert asm.column == 6
    asm = one("arch: x86_64\nexpect: [mmio]\nasm: |2\n      nop\n  a: hlt\n").asm
    assert asm is not None
    assert (asm.text, asm.line, asm.column) == ("    nop\na: hlt\n", 4, 3)


@pytest.mark.parametrize("name", ["no-such-file", "."])
def test_unreadable(name: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r":0:0: cannot be read: "):
        load(str(tmp_path / name))


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"# \n" * 400_000)
    with pytest.raises(ScenarioError, match="1 MiB"):
        load(str(path))


# --- what must not take long, nor end in anything but a ScenarioError -----------------------------

FLOODS = {
    "brackets": "[" * 1_000_000,
    "braces": "{a: " * 250_000,
    "dashes": "- " * 500_000,
    "questions": "? " * 500_000,
    "aliases": "a: &a [x]\n" + "".join(f"k{n}: [{', '.join(['*a'] * 100)}]\n" for n in range(2000)),
    "unknown keys": "arch: x86_64\n" + "".join(f"k{n}: 1\n" for n in range(80_000)),
    "number keys": "arch: x86_64\nasm: hlt\nfinal:\n  memory:\n"
    + "".join(f"    {n}: 1\n" for n in range(80_000)),
    "duplicate keys": "a: 1\n" * 200_000,
    "steps": X86 + "expect:\n" + "- hlt\n" * 170_000,
    "wrong steps": X86 + "expect:\n" + "- mmoi: {}\n" * 20_000,
    "slots": X86 + "expect: [mmio]\nmemslots:\n" + "- {slot: 0, gpa: 1, size: 1}\n" * 5_000,
    "cases": X86
    + "expect: [mmio]\ncases:\n"
    + "".join(f"  c{n}: {{regs: {{x0: 1}}}}\n" for n in range(5_000)),
    "long line": "arch: " + "a" * 1_000_000,
    "long key": "a" * 1_000_000 + ": 1",
    "long number": X86 + "limits: {exits: " + "9" * 1_000_000 + "}",
    "groups": X86 + "expect:\n" + "- {repeat: 100000, steps: [" * 25,
    "quotes": X86 + 'summary: "' + "\\n" * 400_000,
    "tabs": "\t" * 1_000_000,
    "newlines": "\n" * 1_000_000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_end_soon(name: str) -> None:
    def load() -> None:
        with pytest.raises(ScenarioError) as found:
            load_text(FLOODS[name], "a.yaml")
        problems.extend(found.value.problems)

    problems: list[Problem] = []
    # The dearest of them, 5,000 cases, makes 7 million.
    assert calls(load) < 20_000_000
    assert len(problems) <= 101
    assert all(len(problem.message) < 600 for problem in problems)


# libyaml has a limit of 1,000 levels of its own from 0.2.6 on: what it says first must not depend
# on which one is installed.
DEEP = {
    "lists": ("[", 0, 64),
    "lists, one a line": ("[\n", 64, 0),
    "maps": ("{a: ", 0, 256),
    "maps as keys": ("{? ", 0, 192),
    "lists and maps": ("[{a: ", 0, 160),
    "items": ("- ", 0, 128),
    "keys": ("? ", 0, 128),
}


@pytest.mark.parametrize("levels", [65, 999, 1000, 1001, 5000])
@pytest.mark.parametrize("name", DEEP)
def test_too_deep_is_told_where_it_begins(name: str, levels: int) -> None:
    level, line, column = DEEP[name]
    doc = compose(level * levels, "a.yaml")
    message = "this is nested more than 64 deep: a scenario needs no more than a dozen"
    # A map or a list as a key is told too, once.
    assert len(doc.problems) == 1 + ("?" in level)
    assert doc.problems[-1] == Problem("a.yaml", line + 1, column + 1, message)
    assert doc.broken


def test_block_maps_that_are_too_deep() -> None:
    text = "".join(" " * n + "a:\n" for n in range(1200))
    assert [(p.line, p.column) for p in compose(text, "a.yaml").problems] == [(65, 65)]


def test_too_deep_behind_other_problems() -> None:
    doc = compose("a: 1\na: 2\nb: é\nc: " + "[" * 1100, "a.yaml")
    assert [(p.line, p.column) for p in doc.problems] == [(2, 1), (4, 67)]


def test_too_deep_where_a_key_is_meant() -> None:
    """libyaml 0.2.6 finds no key in it either, when it is cut off there; 0.2.5 says that a key is
    not closed.
    """
    doc = compose("a: 1\n" + "[" * 1100, "a.yaml")
    assert doc.broken
    assert [p.line for p in doc.problems] == [2]


LINES = FOUNDING.splitlines(keepends=True)
JUNK_WORDS = """
{ } [ ] : # | > " ' ~ & * ! % @ << null hlt mmio reply then regs repeat memory cases steps timeout
error x86_64
017 12:30 -1 0x .inf
"""
JUNK_TEXTS = ("- ", "? ", "&a ", "*a", "!!str ", "\n", "\t", " ", "---\n", "\x00", "\ufeff", "é")
JUNK_MAPS = ("{from: 1}", "{in: 3}", "[1, {min: 2}]", "{u8: []}")
JUNK = st.sampled_from([*JUNK_WORDS.split(), *JUNK_TEXTS, *JUNK_MAPS])


VALIDATOR = Draft7Validator(schema())


def never_breaks(text: str) -> None:
    problems: tuple[Problem, ...] = ()
    root = compose(text, "a.yaml").root
    if isinstance(root, Map):
        assert fits()(root) == VALIDATOR.is_valid(root)
    try:
        load_text(text, "a.yaml")
    except ScenarioError as error:
        problems = error.problems
    for problem in problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert "\n" not in problem.message


@given(
    st.lists(
        st.tuples(st.integers(0, len(FOUNDING)), st.integers(0, 12), JUNK), min_size=1, max_size=4
    )
)
@settings(max_examples=400, deadline=None)
def test_mutated_text_never_breaks(edits: list[tuple[int, int, str]]) -> None:
    text = FOUNDING
    for at, length, junk in edits:
        text = text[:at] + junk + text[at + length :]
    never_breaks(text)


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(LINES) - 1), st.integers(0, len(LINES) - 1), st.integers(0, 3)
        ),
        max_size=5,
    )
)
@settings(max_examples=200, deadline=None)
def test_mutated_lines_never_break(edits: list[tuple[int, int, int]]) -> None:
    lines = list(LINES)
    for first, second, how in edits:
        a, b = first % len(lines), second % len(lines)
        if how == 0 and len(lines) > 1:
            del lines[a]
        elif how == 1:
            lines[a], lines[b] = lines[b], lines[a]
        elif how == 2:
            lines.insert(a, lines[b])
        else:
            lines[a] = "  " + lines[a]
    never_breaks("".join(lines))


WORDS = """
arch memslots slot gpa size flags errno sections .text at after align load asm vcpus mode features
regs rax x0 cs base sp enable
cap args setup set_regs write_memory set_memslot delete_memslot expect mmio io hlt error timeout
steps reply then memory repeat
vcpu phys_addr data is_write len direction count final ignore requires capabilities kernel from
before kvm when reason xfail
limits exits cases default one u8 hex text in mask value min max step counter debug hypercall
"""
KEYS = st.sampled_from(WORDS.split())
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 130),
    st.sampled_from(
        [
            0.5,
            4096,
            0x1000,
            "x86_64",
            "arm64",
            "counter",
            "counter + 8",
            "KVM_CAP_HLT",
            "ENOSYS",
            "hlt",
            "in",
            "nop",
        ]
    ),
    st.text(max_size=5),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=20,
)


@given(st.dictionaries(KEYS, TREES, max_size=8), st.sampled_from(["x86_64", "arm64", "riscv64", 5]))
@settings(max_examples=400, deadline=None)
def test_any_tree_never_breaks(tree: dict[str, Any], arch: object) -> None:
    never_breaks(yaml.safe_dump({**tree, "arch": arch, "asm": "nop"}, allow_unicode=True))
