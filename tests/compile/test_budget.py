"""What the cases of one file may take together."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmscen.compile import budget, plans
from kvmscen.errors import ScenarioError
from kvmscen.load import load

HEAD = "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x4000000}]\nexpect: [hlt]\n"


def test_programs_add_up(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        HEAD
        + "asm: |\n  hlt\n  .fill 0xe00000, 1, 1\ncases:\n"
        + "".join(f"  c{n}: {{summary: x}}\n" for n in range(12))
    )
    scenario = load(str(file))
    with pytest.raises(ScenarioError) as told:
        plans(scenario, scenario.cases)
    # 28 MiB each, as hex: the seventh is too much, and is told alone.
    (problem,) = told.value.problems
    assert (problem.line, problem.column) == (13, 3)
    assert "take more than 192 MiB: write several files" in problem.message


def test_lines_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MOST", 200_000)
    file = tmp_path / "a.yaml"
    file.write_text(
        HEAD
        + "asm: |\n"
        + "  hlt\n" * 1000
        + "cases:\n"
        + "".join(f"  c{n}: {{summary: x}}\n" for n in range(9))
    )
    scenario = load(str(file))
    with pytest.raises(ScenarioError, match="write several files"):
        plans(scenario, scenario.cases)


def test_files_beside_it_add_up(tmp_path: Path) -> None:
    for n in range(3):
        with (tmp_path / f"{n}.elf").open("wb") as out:
            out.truncate(30 << 20)
    (tmp_path / "a.yaml").write_text(
        HEAD + "cases:\n" + "".join(f"  c{n}: {{elf: {n % 3}.elf}}\n" for n in range(6))
    )
    with pytest.raises(ScenarioError) as told:
        load(str(tmp_path / "a.yaml"))
    assert [(p.line, p.message.partition(":")[0]) for p in told.value.problems] == [
        (7, "`2.elf` brings the files of this scenario to 94,371,840 bytes"),
        (10, "`2.elf` brings the files of this scenario to 94,371,840 bytes"),
    ]
