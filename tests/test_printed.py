"""What a stranger's scenario gets printed, by the program as it is started: nothing of it is an
order to who reads it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "tests" / "cases" / "security"
# As actions/runner reads a log: blanks before `::` do not count, `##[` counts anywhere.
COMMAND = re.compile(rb"(?m)^[ \t]*::|##[A-Za-z]*\[")
SIGNS = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\u2028", "\x85")
FORMATS = ("text", "json", "junit", "ktap")


def kvmscen(
    *arguments: object, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """One run of the program."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("KVMSCEN_", "GITHUB"))
    }
    kept |= {"PYTHONPATH": str(ROOT), "COLUMNS": "80", **environment}
    command = [sys.executable, "-m", "kvmscen", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=kept, capture_output=True, stdin=subprocess.DEVNULL, timeout=600
    )


def obeyed(printed: bytes) -> list[bytes]:
    """Commands and signs in it."""
    return COMMAND.findall(printed) + [sign.encode() for sign in SIGNS if sign.encode() in printed]


def told(*paths: object, cwd: Path) -> bytes:
    """All that the verbs and the reports say of files."""
    reports = [part for name in FORMATS for part in ("--report", f"{name}={cwd / name}")]
    said = b""
    for verb in (("run", *paths, "--on", "model", *reports), ("check", *paths), ("show", paths[0])):
        done = kvmscen(*verb, cwd=cwd)
        assert b"Traceback" not in done.stderr
        said += done.stdout + done.stderr
    json.loads((cwd / "json").read_bytes())
    ElementTree.fromstring((cwd / "junit").read_bytes())
    return said + b"".join((cwd / name).read_bytes() for name in FORMATS)


@pytest.mark.parametrize("name", ["esc01", "gha01"])
def test_no_text_of_a_scenario_is_obeyed(name: str, tmp_path: Path) -> None:
    said = told(CASES / f"{name}.yaml", cwd=tmp_path)
    assert obeyed(said) == []
    assert {"esc01": b"\\x1b[2J", "gha01": b":\\x3aset-output"}[name] in said


def test_only_our_own_annotations_are_commands() -> None:
    done = kvmscen("run", CASES / "gha01.yaml", "--on", "model", GITHUB_ACTIONS="true")
    commands = [
        line for line in done.stdout.decode().splitlines() if line.lstrip().startswith("::")
    ]
    assert len(commands) == 1
    assert commands[0].startswith("::error file=")
    assert b":\\x3aset-output" in done.stdout


LABELLED = """\
summary: "## [x] ##[error]x"
arch: x86_64
memslots: [{{slot: 0, gpa: 0x0, size: 0x10000}}]
asm: |
  _start:  # ##[group]\u202e ::error::x
      {instruction}
expect: [hlt]
final: {{memory: {{0x100: {{text: "::x"}}}}}}
"""
NAMES = (
    b"::error file=a::b.yaml",
    b"a\n::error::b.yaml",
    b"\x1b[31mred.yaml",
    b"\xff\xfe.yaml",
    "\u202eltr ##[x].yaml".encode(),
    b"ok 1 - x # SKIP.yaml",
)


def test_no_name_of_a_file_is_obeyed(tmp_path: Path) -> None:
    files = []
    for name in NAMES:
        for place, instruction in ((tmp_path, "hlt"), (tmp_path / "bad", "no such")):
            place.mkdir(exist_ok=True)
            (place / os.fsdecode(name)).write_text(LABELLED.format(instruction=instruction))
            files.append(f"./{os.path.relpath(place / os.fsdecode(name), tmp_path)}")
    assert obeyed(told(*files, cwd=tmp_path)) == []
    for file in files:
        done = kvmscen("show", file, cwd=tmp_path)
        assert obeyed(done.stdout + done.stderr) == []


def test_no_argument_is_obeyed(tmp_path: Path) -> None:
    for arguments in (
        ("run", "x", "--on", "\x1b[31m\n::error::x"),
        ("run", "x", "\n::error::x\x1b[2J"),
        ("run", "--no\x1b[2J", "x\n::error::"),
        ("\n::error::x",),
        ("show", "\n::x"),
        ("host", "prepare", "qemu:\n::x\x1b["),
        ("host", "remove", "qemu:\n::x\x1b["),
        ("run", "x", "--report", "\n::x\x1b["),
        ("measure", "x", "--against", "\n::x\x1b["),
        ("run", str(CASES / "gha01.yaml"), "--case", "\n::x\x1b["),
    ):
        done = kvmscen(*arguments, cwd=tmp_path)
        assert done.returncode != 0
        assert obeyed(done.stdout) + obeyed(done.stderr) == [], arguments
