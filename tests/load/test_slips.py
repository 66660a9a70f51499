"""Files with a slip of the hand: each is told at a line that it has, and none breaks what reads
it.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kvmscen.errors import ScenarioError
from kvmscen.load import load_text
from kvmscen.load.scalars import mistaken

ROOT = Path(__file__).resolve().parent.parent.parent
TEXTS = [
    path.read_text()
    for path in sorted((ROOT / "scenarios").glob("*.yaml"))
    if path.stat().st_size < 4000
]
SIGNS = "{}[]:,-|>#&*!%@`\"'= \t0oO"


def slipped(text: str, at: random.Random) -> str:
    """The text with one to three lines changed as people do it by mistake."""
    lines = text.split("\n")
    for _ in range(at.choice((1, 1, 1, 2, 3))):
        n = at.randrange(len(lines))
        line = lines[n]
        place = at.randrange(len(line) + 1)
        changes = (
            " " + line,
            line[1:],
            line.replace("- ", "", 1),
            line.replace("- ", "-", 1),
            line.replace(": ", ":", 1),
            line.replace(":", "", 1),
            line.replace("|", "", 1),
            line.replace("0x", at.choice(("0xo", "", "x", "0x5g", "$")), 1),
            line[:place] + at.choice(SIGNS) + line[place + 1 :],
        )
        lines[n] = at.choice(changes)
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(4))
def test_each_is_told_at_a_line_that_is_there(seed: int) -> None:
    at = random.Random(seed)
    told = 0
    for _ in range(400):
        text = slipped(at.choice(TEXTS), at)
        try:
            load_text(text, "f.yaml")
        except ScenarioError as error:
            told += 1
            for problem in error.problems:
                assert 1 <= problem.line <= text.count("\n") + 1, text
                assert problem.column >= 1, text
                assert "\n" not in problem.message
    assert told > 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0x5o00", "`o` is no hex digit: write 0x5000"),
        ("0xl000", "`l` is no hex digit: write 0x1000"),
        ("0x5g", "`g` is no hex digit: write 0 to 9 and a to f behind 0x"),
        ("5000h", "a hex number begins with 0x: write 0x5000"),
        ("0x10H", "a hex number begins with 0x: write 0x10"),
        ("0FFh", "a hex number begins with 0x: write 0x0FF"),
        ("$5000", "write 0x5000"),
        ("#16", "write 16"),
        ("&HFF", "write 0xFF"),
        ("0x1000UL", "write 0x1000"),
        ("4096u", "write 4096"),
        ("4 * 1024", "nothing is reckoned here: write 0x1000"),
        ("1 << 12", "nothing is reckoned here: write 0x1000"),
        ("1010b", "a binary number is written in hex: write 0xa"),
        ("0x 1000", "write 0x1000 without the space"),
        ('"0x1000"', "write 0x1000 without quotes"),
        ("64K", "write 0x10000"),
        ("Ox1000", "it begins with the letter `O`: write 0x1000"),
        ("x3f8", "a hex number begins with 0x: write 0x3f8"),
        ("0x", "there is no digit behind 0x: write 0x0 or another number"),
        ("counter", None),
        ("counter + 8", None),
        ("x1", None),
        ("1 << 9999", None),
        ("h" * 1000, None),
    ],
)
def test_numbers_of_other_languages(text: str, said: str | None) -> None:
    assert mistaken(text) == said
