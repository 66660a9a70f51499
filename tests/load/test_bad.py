"""Every wrong file in tests/bad has the exact text of its errors beside it.

To change a message: change it, run `python tests/load/test_bad.py`, and read the diff of the .txt
files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvmscen.errors import ScenarioError
from kvmscen.load import load

ROOT = Path(__file__).resolve().parent.parent.parent
# Files named layout-*, asm-* and build-* are wrong for the later stages; their tests stand with
# those.
LATER = ("layout-", "asm-", "build-")
FILES = sorted(p for p in (ROOT / "tests" / "bad").glob("*.yaml") if not p.name.startswith(LATER))


def errors_of(path: Path) -> str:
    with pytest.raises(ScenarioError) as caught:
        load(str(path.relative_to(ROOT)))
    return f"{caught.value}\n"


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_exact_text(path: Path) -> None:
    assert errors_of(path) == path.with_suffix(".txt").read_text()


def test_style() -> None:
    for path in FILES:
        for line in path.with_suffix(".txt").read_text().splitlines():
            place, message = line.split(": ", 1)
            assert place.startswith(f"tests/bad/{path.name}:"), line
            assert not message.endswith("."), line
            assert not message[0].isupper(), line
            assert (
                ": " in message or message.startswith(("write", "and ")) or " meant" in message
            ), line


def test_none_takes_long() -> None:
    # It is 413,000.
    from effort import calls  # here, since this file is a program too, beside which it is not found

    assert calls(lambda: [errors_of(path) for path in FILES]) < 2_000_000


def test_every_text_has_its_file() -> None:
    for text in (ROOT / "tests" / "bad").glob("*.txt"):
        assert text.with_suffix(".yaml").exists()


if __name__ == "__main__":
    for wrong in FILES:
        try:
            load(str(wrong.relative_to(Path.cwd())))
        except ScenarioError as error:
            wrong.with_suffix(".txt").write_text(f"{error}\n")
        else:
            sys.exit(f"{wrong}: nothing is wrong with it")
