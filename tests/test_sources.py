"""A program in a file beside its scenario, from the command line: errors, reports, listings,
recordings, from any folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "asm"))
import reference  # noqa: E402  (beside the assembler's tests)

from kvmscen.asm import Placement, Source, assemble  # noqa: E402

pytest.importorskip("keystone")
SCENARIOS = ROOT / "scenarios"


def kvmscen(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("KVMSCEN_")
    }
    command = [sys.executable, "-m", "kvmscen", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(ROOT)},
        timeout=600,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for name in ("arm64-start.yaml", "start.s"):
        shutil.copy(SCENARIOS / name, tmp_path)
    return tmp_path


def test_the_founding_program_is_that_of_gnu_as() -> None:
    text = (SCENARIOS / "start.s").read_text()
    assert ".global _start:" in text
    places = {".text": 0, ".data": 0x5000}
    # GNU as refuses one line of it: a colon behind .global.
    with pytest.raises(
        AssertionError,
        match=r"a\.s:1: Error: junk at end of line, first unrecognized character is `:'",
    ):
        reference.link("arm64", 64, text, places)
    wanted = reference.link("arm64", 64, text.replace(".global _start:", ".global _start"), places)
    program = assemble(
        "arm64",
        64,
        Source("start.s", text),
        [Placement(name, at) for name, at in places.items()],
        0,
    )
    assert {section.name: section.data for section in program.sections} == wanted


def test_it_runs_is_recorded_and_replayed_from_anywhere(copied: Path, tmp_path: Path) -> None:
    file = str(copied / "arm64-start.yaml")
    recorded = kvmscen(
        "run", file, "--on", "model", "--record", str(tmp_path / "kept"), cwd=Path("/")
    )
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    replayed = kvmscen("run", "arm64-start.yaml", "--on", f"replay:{tmp_path}/kept", cwd=copied)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    # Another program is another machine.
    (copied / "start.s").write_text((copied / "start.s").read_text().replace("#8", "#0"))
    changed = kvmscen("run", "arm64-start.yaml", "--on", f"replay:{tmp_path}/kept", cwd=copied)
    assert changed.returncode == 3
    assert "ERROR" in changed.stdout


def test_reports_name_its_lines(copied: Path) -> None:
    (copied / "start.s").write_text((copied / "start.s").read_text().replace("#8]", "#0]"))
    done = kvmscen("run", "arm64-start.yaml", "--on", "model", cwd=copied)
    assert done.returncode == 1
    assert "at start.s:7: str xzr, [x2, #0]" in done.stdout
    again = re.search(r"again: kvmscen (.*)", done.stdout)
    assert again
    assert kvmscen(*again[1].split(), cwd=copied).returncode == 1


def test_show_names_its_lines(copied: Path) -> None:
    shown = kvmscen("show", str(copied / "arm64-start.yaml"), cwd=Path("/")).stdout
    assert re.search(r"0x4 +5f0000f9 +start\.s:6 +str xzr, \[x2\]", shown)
    told = json.loads(
        kvmscen("show", "--json", str(copied / "arm64-start.yaml"), cwd=Path("/")).stdout
    )
    rows = told["cases"][0]["listing"]
    assert {row["file"] for row in rows} == {"start.s"}
    assert rows[1]["line"] == 6


def test_errors_name_its_lines(copied: Path) -> None:
    (copied / "start.s").write_text("nop\n  frobnicate x0\n")
    done = kvmscen("run", "arm64-start.yaml", "--report", "json", cwd=copied)
    assert done.returncode == 2
    assert "start.s:2:3: this does not assemble: frobnicate x0" in done.stderr
    (error,) = json.loads(done.stdout)["errors"]
    assert (error["file"], error["line"], error["column"]) == ("start.s", 2, 3)
