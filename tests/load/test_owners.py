"""A case that is wrong keeps no other from running: whose a problem is."""

from __future__ import annotations

from itertools import product

import pytest

from kvmscen.load import read_text

TOP = """\
arch: x86_64
memslots: [{slot: 0, gpa: 0x0, size: 0x1000}]
asm: hlt
expect: [hlt]
"""
# What may be wrong in a case, of each stage: form, schema, values, "not yet".
WRONG = {
    "an unknown key": "expct: [hlt]",
    "a wrong type": "limits: 5",
    "an unknown exit": "expect: [hltt]",
    "not yet": "setup: [create_irqchip]",
    "a slot": "memslots: [{slot: 0, gpa: 1, size: 0x1000}]",
    "a key twice": "summary: a\n    summary: b",
    "an anchor": "summary: &a b",
    "a tag": "summary: !x b",
    "an octal": "regs: {rax: 017}",
    "a register": "regs: {x0: 1}",
    "no program": "asm: null",
    "no story": "expect: null",
    "an arch": "arch: mips",
    "no arch": "arch: null",
    "a program": 'asm: "nop\\nhlt"',
}


def file_of(**cases: str) -> str:
    return TOP + "cases:\n" + "".join(f"  {name}:\n    {text}\n" for name, text in cases.items())


@pytest.mark.parametrize("what", WRONG)
def test_the_others_are_there(what: str) -> None:
    found = read_text(file_of(before="summary: x", bad=WRONG[what], after="tags: [x]"), "a.yaml")
    assert [case.name for case in found.scenario.cases] == ["default", "before", "after"]
    assert found.names == ("default", "before", "bad", "after")
    assert found.problems
    assert {problem.cases for problem in found.problems} == {("bad",)}


@pytest.mark.parametrize(
    ("one", "other"), [pair for pair in product(list(WRONG)[:8], repeat=2) if pair[0] < pair[1]]
)
def test_each_case_has_its_own(one: str, other: str) -> None:
    found = read_text(file_of(a=WRONG[one], good="summary: x", b=WRONG[other]), "a.yaml")
    assert [case.name for case in found.scenario.cases] == ["default", "good"]
    assert {problem.cases for problem in found.problems} == {("a",), ("b",)}


@pytest.mark.parametrize(
    ("key", "wrong", "own"),
    [
        ("expect", "expect: [hltt]", "expect: [hlt]"),
        (
            "memslots",
            "memslots: [{slot: 0, gpa: 1, size: 0x1000}]",
            "memslots: [{slot: 0, gpa: 0, size: 0x1000}]",
        ),
        ("asm", 'asm: "nop\\nhlt"', "asm: nop"),
        ("asm", 'asm: "nop\\nhlt"', "elf: a.elf"),
        ("arch", "arch: mips", "arch: x86_64"),
        ("regs", "regs: {rax: 017}", "regs: {rax: 1}"),
        ("limits", "limits: 5", "limits: {timeout: 1}"),
    ],
)
def test_what_the_top_has_wrong_hits_those_that_have_it(key: str, wrong: str, own: str) -> None:
    lines = [line for line in TOP.splitlines() if not line.startswith(key)] + [wrong]
    text = "\n".join(lines) + "\ncases:\n  has-it: {summary: x}\n  has-not:\n    " + own + "\n"
    found = read_text(text, "a.yaml")
    right = [case.name for case in found.scenario.cases]
    # The file of `elf` is not there, which is its own.
    assert right == ([] if own.startswith("elf") else ["has-not"])
    assert any(problem.cases == ("default", "has-it") for problem in found.problems)


def test_what_is_added_is_had_too() -> None:
    found = read_text(
        TOP + "requires: {kernel: x}\ncases:\n  a: {requires: {kernel: '6.1'}}\n  b: {requires: "
        "null}\n",
        "a.yaml",
    )
    assert [case.name for case in found.scenario.cases] == ["b"]


def test_a_wrong_top_that_is_no_case_hits_no_other() -> None:
    text = (
        "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x1000}]\nexpect: [hltt]\ncases:\n  "
        "a: {asm: hlt, expect: [hlt]}\n"
    )
    found = read_text(text, "a.yaml")
    assert [case.name for case in found.scenario.cases] == ["a"]
    assert [(problem.line, problem.cases) for problem in found.problems] == [(3, ())]


def test_an_alias_is_told_once_and_hits_each_that_has_it() -> None:
    found = read_text(file_of(a="summary: *x", good="summary: x", b="summary: *x"), "a.yaml")
    assert [case.name for case in found.scenario.cases] == ["default", "good"]


def test_a_case_that_is_there_twice() -> None:
    text = TOP + "cases:\n  a: {summary: x}\n  good: {summary: x}\n  a: {summary: y}\n"
    found = read_text(text, "a.yaml")
    assert [case.name for case in found.scenario.cases] == ["default", "good"]


def test_a_case_called_default_hides_nothing() -> None:
    found = read_text(file_of(default="summary: x", good="summary: x"), "a.yaml")
    assert [case.name for case in found.scenario.cases] == ["default", "good"]


@pytest.mark.parametrize(
    "text", ["cases: 5\n", "cases: [a]\n", "nokey\n", "a: [\n", "a: 1\na: 2\n"]
)
def test_what_is_everybodys(text: str) -> None:
    found = read_text(TOP + text, "a.yaml")
    assert found.scenario.cases == ()
    assert found.problems


def test_cases_on_one_line() -> None:
    found = read_text(
        TOP + "cases: {a: {expect: [hlt]}, b: {expect: [hlx]}, c: {expect: [hlt]}}\n", "a.yaml"
    )
    assert [case.name for case in found.scenario.cases] == ["default", "a", "c"]
    assert [problem.cases for problem in found.problems] == [("b",)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("arch: x86_64", "arch: x86"),
        ("asm: hlt", "asm: hlt\ntagz: [a]"),
        ("cases:\n", "cases: !x\n"),
    ],
)
def test_what_all_cases_need(old: str, new: str) -> None:
    assert read_text(file_of(a="summary: x").replace(old, new), "a.yaml").scenario.cases == ()
