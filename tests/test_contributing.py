"""CONTRIBUTING.md is carried out: each of its recipes is applied to a copy of this tree as it is
printed, and must work.

A comment in front of a printed block says what is done with it:

    <!-- case: new scenarios/x86_64-hello.yaml -->        the block is this file
    <!-- host: hosts/__init__.py, at the end of HOSTS --> it goes in front of the bracket that
                                                          ends HOSTS
    <!-- action: names.py, in place of ^PATTERN -->       it replaces the one line that the
                                                          pattern finds
    <!-- case: run -->                                    its commands are run, and none may fail
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
_BLOCK = re.compile(r"^<!-- (\w+): (.+?) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Part(NamedTuple):
    """One printed block: the recipe that it is of, what is done with it, and its text."""

    recipe: str
    what: str
    text: str


PARTS = [Part(*found) for found in _BLOCK.findall(TEXT)]
RECIPES = list(dict.fromkeys(part.recipe for part in PARTS))


def test_there_are_recipes() -> None:
    assert RECIPES == ["case", "exit", "action", "architecture", "host", "report"]
    assert all(
        part.what == "run"
        for part in PARTS
        if part is [p for p in PARTS if p.recipe == part.recipe][-1]
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is in git's hands, or would be."""
    to = tmp_path_factory.mktemp("contributing") / "kvmscen"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return to


def environment(tree: Path) -> dict[str, str]:
    """That of a contributor: the commands by their names, and this tree in place of what is
    installed.
    """
    tools = tree.parent / "bin"
    tools.mkdir(exist_ok=True)
    for name, argv in {
        "python": "",
        "pytest": "-m pytest -p no:cacheprovider",
        "kvmscen": "-m kvmscen",
    }.items():
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {argv} "$@"\n')
        (tools / name).chmod(0o755)
    kept = {
        key: value
        for key, value in os.environ.items()
        if key != "CI" and not key.startswith(("KVMSCEN_", "PYTEST_"))
    }
    return {
        **kept,
        "PATH": f"{tools}:{kept['PATH']}",
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def applied(tree: Path, part: Part) -> None:
    """Change the tree as a part says."""
    new = re.fullmatch(r"new (\S+)", part.what)
    if new:
        (tree / new[1]).write_text(part.text)
        return
    end = re.fullmatch(r"(\S+), at the end of (\w+)", part.what)
    if end:
        file = tree / end[1]
        text = file.read_text()
        start = re.search(rf"^{end[2]}\b.*[\[({{]$", text, re.MULTILINE)
        assert start, part.what
        closing = re.compile(r"^[\])}]", re.MULTILINE).search(text, start.end())
        assert closing, part.what
        row = (
            part.text
            if part.text[0] == " "
            else textwrap.indent(part.text.rstrip() + ",\n", "    ")
        )
        file.write_text(text[: closing.start()] + row + text[closing.start() :])
        return
    place = re.fullmatch(r"(\S+), in place of (.+)", part.what)
    assert place, f"nobody knows how to do {part.what!r}"
    file = tree / place[1]
    text, count = re.subn(rf"(?m){place[2]}\n", lambda found: part.text, file.read_text())
    assert count == 1, part.what
    file.write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe(recipe: str, tree: Path, tmp_path: Path) -> None:
    mine = tmp_path / "kvmscen"
    shutil.copytree(tree, mine)
    for part in (part for part in PARTS if part.recipe == recipe):
        if part.what != "run":
            applied(mine, part)
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", part.text],
            cwd=mine,
            env=environment(mine),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{part.text}\n{done.stdout}\n{done.stderr}"
