"""tests/cases/security: files that want what is not theirs. What each gets does not depend on the
file that it asks for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CASES = ROOT / "tests" / "cases" / "security"
WITHOUT = Path(__file__).parent / "without.py"
TOKEN = "tell-nobody-4711"
FOREIGN = "this program reads another file"
UNSURE = "this program does not assemble, or reads another file"
NO_NAME = "is no name of a section"
needs_as = pytest.mark.skipif(shutil.which("as") is None, reason="needs GNU as")

# What a file is told, on this kernel; those in OPENED ask for a file of the host through GNU as.
OPENED = {
    "as02-incbin-macro": FOREIGN,
    "as03-incbin-proc": FOREIGN,
    "as04-incbin-missing": FOREIGN,
    "as05-oracle": FOREIGN,
    "open-include": FOREIGN,
    "open-altmacro": FOREIGN,
    "open-irp": FOREIGN,
    "open-irpc": FOREIGN,
    "open-nested": FOREIGN,
    "open-mri": "MRI",
    "open-count": FOREIGN,
    "open-stderr": FOREIGN,
    "open-stdin": FOREIGN,
    "open-environ": FOREIGN,
    "open-self": FOREIGN,
    "open-log": "unknown pseudo-op",
}
NAMED = {
    "sec01": NO_NAME,
    "name-include": NO_NAME,
    "name-output": NO_NAME,
    "name-glob": NO_NAME,
    "name-by-macro": NO_NAME,
    "name-symbol": "is no name of a symbol",
    "name-line": NO_NAME,
    "file-out": "leads out of the scenario's folder",
    "file-above": "leads out of the scenario's folder",
    "file-link": "leads out of the scenario's folder",
}
# What the secret is: a line that as would complain of, lines that it takes, another length, nothing
# at all.
SECRETS = {
    "text": f"{TOKEN}\n",
    "taken": ".set hit, 1\n" * 100,
    "long": f"secretword 1 {TOKEN}\n" * 50,
    "none": None,
}


def told(secret: str | None, root: Path, *before: str) -> dict[str, list[str]]:
    """What kvmscen says of each case, beside or above which a secret lies."""
    for name in {**OPENED, **NAMED}:
        here = root / name / "here"
        here.mkdir(parents=True)
        if secret is not None:
            (root / name / "secret").write_text(secret)
        (here / "link").symlink_to("../secret")
        text = (CASES / f"{name}.yaml").read_text()
        for asked in ("/SECRET", "/etc/hostname"):
            text = text.replace(asked, str(root / name / "secret"))
        (here / f"{name}.yaml").write_text(text)
    command = [*before, sys.executable, "-m", "kvmscen", "check", str(root)]
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("KVMSCEN_")
    }
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 2, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert bool(before) == done.stderr.startswith("kvmscen: this kernel has no Landlock")
    said: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        place, _, message = line.removeprefix(f"{root}/").partition(": ")
        name, _, at = place.partition(".yaml:")
        said.setdefault(name.partition("/")[0], []).append(f"{at}: {message}")
    for name in {**OPENED, **NAMED}:
        assert {entry.name for entry in (root / name / "here").iterdir()} == {
            "link",
            f"{name}.yaml",
        }
        assert secret is None or (root / name / "secret").read_text() == secret
        assert (root / name / "secret").exists() == (secret is not None)
    shutil.rmtree(root)
    return said


@needs_as
def test_a_file_of_the_host_is_neither_read_nor_told_of(tmp_path: Path) -> None:
    every = [told(secret, tmp_path / "x") for secret in SECRETS.values()]
    for name, words in {**OPENED, **NAMED}.items():
        assert words in every[0][name][0]
        assert not every[0][name][0].startswith("0:"), "it is told at its line"
        if name != "file-link":
            assert [said[name] for said in every] == [every[0][name]] * len(every), name


@needs_as
def test_without_landlock_it_is_not_told_of_either(tmp_path: Path) -> None:
    before = (sys.executable, str(WITHOUT), "landlock")
    every = [told(secret, tmp_path / "x", *before) for secret in SECRETS.values()]
    for name in OPENED:
        assert UNSURE in every[0][name][0], every[0][name]
        assert [said[name] for said in every] == [every[0][name]] * len(every), name


def test_every_case_that_asks_for_a_file_is_tried() -> None:
    asking = ("open-", "name-", "file-", "as02-", "as03-", "as04-", "as05-", "sec01")
    there = {path.stem for path in CASES.glob("*.yaml") if path.stem.startswith(asking)}
    assert there == set({**OPENED, **NAMED})
