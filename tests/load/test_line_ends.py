"""Line ends of other systems, and signs that nobody sees: each is refused at its place, or shifts
no line of what is told.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kvmscen.compile import plans
from kvmscen.errors import ScenarioError
from kvmscen.load import load

WRONG = """\
arch: x86_64
memslots: [{slot: 0, gpa: 0, size: 0x1000}]
asm: |
  _start: nop
  hltt
expect: [hlt]
"""
BESIDE = (
    "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x1000}]\nasm: {file: "
    "start.s}\nassembler: ASSEMBLER\nexpect: [hlt]\n"
)
CASES = Path(__file__).resolve().parent.parent / "cases" / "security"


def places(path: Path) -> list[tuple[str, int, int]]:
    """File, line and column of all that `check` tells."""
    with pytest.raises(ScenarioError) as told:
        plans(scenario := load(str(path)), scenario.cases)
    return [
        (Path(problem.file).name, problem.line, problem.column) for problem in told.value.problems
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "column"),
    [
        ("\n", "\r", 1, 13),  # an old Mac's
        ("\n", "\r\r\n", 1, 13),
        ("\n", "\n\r", 2, 1),
        ("nop", "nop # \x85", 4, 17),
        ("nop", "nop # \u2028", 4, 17),
        ("nop", "nop # \u2029", 4, 17),
        ("memslots", "# \x85\nmemslots", 2, 3),
        ("expect", "summary: 'a\u2028b'\nexpect", 6, 12),
        ("nop", "nop\x0c", 4, 14),
        ("nop", "nop\x0b", 4, 14),
        ("nop", "nop # \x1c", 4, 17),
        ("nop", "nop # \ufeff", 4, 17),
        ("memslots", "\ufeffmemslots", 2, 1),
        # These shift nothing.
        ("\n", "\r\n", 5, 3),
        ("nop\n", "nop\r\n", 5, 3),
        ("arch", "\ufeffarch", 5, 3),
        ("nop", "nop\xa0", 5, 3),
        ("expect", 'summary: "a\\x85\\L\\P\\rb"\nexpect', 5, 3),
    ],
)
def test_in_a_scenario(old: str, new: str, line: int, column: int, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(WRONG.replace(old, new).encode())
    assert (path.name, line, column) in places(path)
    assert {found[1] for found in places(path)} <= {line, 4}


@pytest.mark.parametrize("assembler", ["keystone", "gnu"])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("_start: nop # \x85 \u2028 \u2029\nhltt\n", 2),
        ('_start: nop\n.ascii "\x85\u2028"\nhltt\n', 3),
        ("_start: nop\n\x0c\nhltt\n", 3),
        ("_start: nop\x0c\nhltt\n", 2),
        ("_start: nop # \x1c\x1d\x1e\nhltt\n", 2),
        ("_start: nop\r\nhltt\r\n", 2),
        ("\ufeff_start: nop\nhltt\n", 2),
    ],
)
def test_in_a_source_beside_it(assembler: str, text: str, line: int, tmp_path: Path) -> None:
    if assembler == "gnu" and shutil.which("as") is None:
        pytest.skip("GNU as is not installed")
    (tmp_path / "start.s").write_bytes(text.encode())
    path = tmp_path / "a.yaml"
    path.write_text(BESIDE.replace("ASSEMBLER", assembler))
    assert places(path) == [("start.s", line, 1)]


@pytest.mark.parametrize(
    "text", ["_start: nop\rhltt\n", "_start: nop\r\r\nhltt\r\r\n", "nop\n\rhltt"]
)
def test_a_carriage_return_alone_in_a_source_is_told_with_its_line(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "start.s").write_bytes(text.encode())
    path = tmp_path / "a.yaml"
    path.write_text(BESIDE.replace("ASSEMBLER", "keystone"))
    with pytest.raises(
        ScenarioError,
        match=r"a\.yaml:3:13: `start\.s` has a carriage return \(CR\) alone in its line [12]: ",
    ):
        load(str(path))


def test_the_inputs_that_were_found() -> None:
    assert places(CASES / "cr01.yaml") == [("cr01.yaml", 1, 13)]
    assert places(CASES / "cr02.yaml") == [("cr02.yaml", 2, 1)]
