"""A case that is wrong keeps the file's other cases from nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmscen.errors import ScenarioError
from kvmscen.load import load, load_cases

TOP = """\
arch: x86_64
memslots: [{slot: 0, gpa: 0, size: 0x1000}]
regs: {rax: 1}
asm: |
  _start: hlt
expect: [hlt]
cases:
  good: {regs: {rbx: 1}}
  later: {setup: [create_irqchip: {}]}
  broken:
    expect:
      - hlx
  good2: {expect: [hlt]}
tags: [a]
"""


def cases(tmp_path: Path, text: str) -> tuple[list[str], dict[int, tuple[str, ...] | None]]:
    """The cases that are right, and of each problem its line and cases."""
    file = tmp_path / "a.yaml"
    file.write_text(text)
    found = load_cases(str(file))
    return [case.name for case in found.cases], {problem.line: names for problem, names in found.problems.items()}


def test_each_problem_is_of_its_case(tmp_path: Path) -> None:
    good, wrong = cases(tmp_path, TOP)
    assert good == ["default", "good", "good2"]
    assert wrong == {9: ("later",), 12: ("broken",)}
    with pytest.raises(ScenarioError) as caught:
        load(str(tmp_path / "a.yaml"))
    assert [problem.line for problem in caught.value.problems] == [9, 12]


def test_a_key_of_the_top_level_is_of_those_that_have_none_of_their_own(tmp_path: Path) -> None:
    good, wrong = cases(tmp_path, TOP.replace("rax: 1", "rax: 0x5o00"))
    assert good == ["good"]
    assert wrong[3] == ("default", "later", "broken", "good2")


@pytest.mark.parametrize(("old", "new"), [("arch: x86_64", "arch: x86"), ("tags: [a]", "tagz: [a]"), ("cases:\n", "cases: !x\n")])
def test_what_all_cases_need(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(ScenarioError):
        cases(tmp_path, TOP.replace(old, new))


def test_cases_on_one_line(tmp_path: Path) -> None:
    text = TOP[: TOP.index("cases:")] + "cases: {a: {expect: [hlt]}, b: {expect: [hlx]}, c: {expect: [hlt]}}\n"
    good, wrong = cases(tmp_path, text)
    assert good == ["default", "a", "c"]
    assert list(wrong.values()) == [("b",)]
