"""Files that load well and are wrong for the later stages: each has the exact text of its errors
beside it.

To change a message: change it, run `python tests/test_bad_rest.py`, and read the diff of the .txt
files. What load itself refuses is in tests/load/test_bad.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvmscen.compile import plans
from kvmscen.errors import ScenarioError
from kvmscen.load import load

ROOT = Path(__file__).resolve().parent.parent
BAD = ROOT / "tests" / "bad"
LATER = ("layout-", "asm-", "build-")
FILES = sorted(p for p in BAD.glob("*.yaml") if p.name.startswith(LATER))
GOOD = """\
arch: x86_64
memslots: [{slot: 0, gpa: 0, size: 0x1000}]
asm: hlt
expect: [hlt]
"""


def errors_of(path: Path) -> str:
    """What `kvmscen check` says of a file."""
    scenario = load(str(path.relative_to(ROOT)))
    try:
        plans(scenario, scenario.cases)
    except ScenarioError as error:
        return f"{error}\n"
    return ""


def comparable(text: str) -> str:
    """`text` without GNU as's reasons where it is not installed for all that the files are for."""
    if shutil.which("aarch64-linux-gnu-as") and (
        shutil.which("as") or shutil.which("x86_64-linux-gnu-as")
    ):
        return text
    # Without a reason two cases may have the same line, which is told once.
    lines = re.sub(r"(this does not assemble: ).*", r"\1", text).splitlines(keepends=True)
    return "".join(dict.fromkeys(lines))


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_exact_text(path: Path) -> None:
    text = errors_of(path)
    assert text
    assert comparable(text) == comparable(path.with_suffix(".txt").read_text())


def test_each_is_told_once_and_at_a_place_that_is_there() -> None:
    for path in FILES:
        lines = path.read_text().splitlines()
        told = path.with_suffix(".txt").read_text().splitlines()
        assert len(set(told)) == len(told)
        for line in told:
            match = re.fullmatch(rf"tests/bad/{path.name}:(\d+):(\d+): (.+)", line)
            assert match, line
            row, column = int(match[1]), int(match[2])
            # The place is where a word begins.
            written = lines[row - 1]
            assert written[column - 1 : column].strip(), line
            assert column == 1 or not (
                written[column - 2].isalnum() and written[column - 1].isalnum()
            ), line
            assert not match[3].endswith("."), line
            assert not match[3][0].isupper(), line


def test_every_wrong_file_is_in_one_test() -> None:
    sys.path.insert(0, str(ROOT / "tests" / "load"))
    import test_bad

    others = {path.name for path in test_bad.FILES}
    assert not others & {path.name for path in FILES}
    assert others | {path.name for path in FILES} == {path.name for path in BAD.glob("*.yaml")}
    assert len(FILES) >= 20


@pytest.mark.parametrize("verb", ["run", "check"])
def test_all_wrong_files_beside_a_good_one(verb: str, tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(GOOD)
    command = [sys.executable, "-m", "kvmscen", verb, "tests/bad", str(good)]
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("KVMSCEN_")
    }
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600
    )
    assert done.returncode == 2
    shown = done.stdout + done.stderr
    assert "Traceback" not in shown
    assert "could not be prepared" not in shown
    if verb == "run":
        assert re.search(r"^PASS +good on ", shown, re.MULTILINE)
        assert re.search(r"\d+ wrong files in", shown)
    # Every error (notes are no errors) of every file, in full, in the order of the files. Cases
    # that are right run all the same.
    told = [
        comparable(line)
        for line in shown.splitlines()
        if re.match(r"tests/bad/\S+:\d+:\d+: (?!note: )", line)
    ]
    wanted = [
        line
        for path in sorted(BAD.glob("*.yaml"))
        for line in comparable(path.with_suffix(".txt").read_text()).splitlines()
    ]
    # Without its binutils a riscv64 program cannot be assembled at all, whatever else is wrong.
    absent = (
        []
        if shutil.which("riscv64-linux-gnu-as")
        else [line for line in told if "no GNU as for riscv64" in line]
    )
    assert [line for line in told if line not in wanted and line not in absent] == []
    assert sorted(set(wanted) - set(told)) == []


if __name__ == "__main__":
    for wrong in FILES:
        wrong.with_suffix(".txt").write_text(
            errors_of(wrong) or sys.exit(f"{wrong}: nothing is wrong with it")
        )
