"""Slips of layout, told by the lines as they are written: a bar, a dash, a space or an indentation
that is not as meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from kvmscen.load import names

# Keys whose value is a list: what stands below them begins with a dash.
_LISTS = ("memslots", "enable", "setup", "expect", "ignore", "when", "then", "steps", "vcpus")
_TOP = (
    *"summary arch tags memslots sections asm elf macros mode features mmu regs vcpus".split(),
    *"""
        enable undecoded setup expect final ignore requires when measure limits assembler cases
    """.split(),
)
# What begins an item of a list; any other key stands beside one of these.
_FIRST = {row.name for row in names.offered()} | {
    "error",
    "timeout",
    "steps",
    "repeat",
    "emulate",
    *names.ACTIONS,
}
_WORDS = {
    *_TOP,
    *_FIRST,
    *names.BESIDE,
    "slot",
    "gpa",
    "size",
    "flags",
    "errno",
    "file",
    "cap",
    "args",
    "reason",
    "xfail",
}

_TEXTS = ("summary", "reason")

_KEY = re.compile(r"\s*([A-Za-z_.$][\w.$]*)\s*:(?:\s|$)")
_ITEM = re.compile(r"( *)-( +)(.*)")
_NO_SPACE = re.compile(r"(\s*(?:- +)?)([A-Za-z_]\w*):(?=[^\s:])(.*)")
_EQUALS = re.compile(r"([A-Za-z_.$][\w.$]*)\s*=\s*(\S.{0,40})")
_NO_COLON = re.compile(r"(\s*)([A-Za-z_]\w*)(?:\s+([^:]*?))?\s*$")
_NO_GAP = re.compile(r"(\s*)-([A-Za-z_]\w*)(?:\s*:.*)?$")
_NO_BAR = re.compile(r"( *)(asm)(?:\s*:)?\s*\|?\s*(?:#.*)?$")
_BAR = re.compile(r"\s*(?:- +)?[^#]*?:\s+[|>][-+0-9]*\s*(?:#.*)?$")


class Slip(NamedTuple):
    """Line and column from 0, and what to say."""

    line: int
    column: int
    message: str


def slip(lines: Sequence[str], line: int) -> Slip | None:
    """The slip that makes YAML fail at a line, or just above it; None where none is known."""
    at = _last(lines, min(line, len(lines) - 1))
    if at is None:
        return None
    return _no_bar(lines, at) or _no_space(lines, at) or _item(lines, at) or _unlike(lines, at)


def bar(column: int, line: int, key: str = "asm") -> Slip:
    """A program that is not written as a YAML block (`asm: |`)."""
    return Slip(
        line,
        column,
        f"the program is a block of text: write `{key}: |` here, and leave the lines below it as "
        f"they are",
    )


def spaced(key: str, known: Sequence[str] = ()) -> str | None:
    """What to say of `port:0x10` or `port = 0x10`, which YAML reads as one word; None where it is
    no such thing.
    """
    equals = _EQUALS.fullmatch(key)
    if equals and equals[1] in (known or _WORDS):
        return f"write `{equals[1]}: {equals[2]}`, with a colon"
    name, colon, rest = key.partition(":")
    if not colon or not rest or rest[0] in " :" or name not in (known or _WORDS):
        return None
    shown = f"{name}: {rest}" if len(rest) < 40 and rest[0] not in "{[" else f"{name}: {rest[0]}"
    return f"write `{shown}`, with a space behind the colon"


def dashed(text: str) -> str | None:
    """What to say of `-hlt`, which YAML reads as one word; None where it is no such thing."""
    match = _NO_GAP.match(text)
    return (
        f"write `- {match[2]}`, with a space behind the dash"
        if match and match[2] in _WORDS
        else None
    )


def _last(lines: Sequence[str], line: int) -> int | None:
    """The line itself, or the nearest line before it that is not empty or a comment."""
    return next((n for n in range(line, -1, -1) if _says(lines[n])), None)


def _says(text: str) -> bool:
    return bool(text.strip()) and not text.lstrip().startswith("#")


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip(" "))


def _above(lines: Sequence[str], line: int) -> list[int]:
    """The lines before one, nearest first, that say something."""
    return [n for n in range(line - 1, -1, -1) if _says(lines[n])]


def _no_bar(lines: Sequence[str], line: int) -> Slip | None:
    deepest = 1 << 30
    for n in [line, *_above(lines, line)]:
        here = _indent(lines[n])
        if here >= deepest:
            continue
        deepest = here
        match = _NO_BAR.match(lines[n])
        if match and not _BAR.match(lines[n]):
            return bar(match.end(2) + 1, n)
        if n != line and not here:
            return None
    return None


def _no_space(lines: Sequence[str], line: int) -> Slip | None:
    # What is no key goes on into the next line: the slip may be the line before.
    for n in [line, *_above(lines, line)[:1]]:
        dash = dashed(lines[n])
        if dash:
            return Slip(n, _indent(lines[n]), dash)
        match = _NO_SPACE.match(lines[n])
        if match and match[2] in _WORDS and (said := spaced(f"{match[2]}:{match[3]}")):
            return Slip(n, len(match[1]), said)
    bare = _NO_COLON.match(lines[line])
    if bare and bare[2] in _TOP:
        value = f" {bare[3]}" if bare[3] and len(bare[3]) < 40 else ""
        return Slip(
            line, len(bare[1]), f"there is no colon behind `{bare[2]}`: write `{bare[2]}:{value}`"
        )
    return None


def _item(lines: Sequence[str], line: int) -> Slip | None:
    """An item without its dash, or a key that is not indented as the others of its item."""
    text, here = lines[line], _indent(lines[line])
    if text.lstrip().startswith("- "):
        before = next((n for n in _above(lines, line) if _indent(lines[n]) <= here), None)
        if (
            before is not None
            and _indent(lines[before]) == here
            and not lines[before].lstrip().startswith("-")
        ):
            return _dash(lines, before) if _listed(lines, before) else None
        return None
    for n in _above(lines, line):
        item = _ITEM.match(lines[n])
        if item and len(item[1]) <= here:
            return _beside(lines, line, n)
        if _indent(lines[n]) < here and _listed(lines, line):
            return _dash(lines, next(m for m in range(n + 1, line + 1) if _says(lines[m])))
        if _indent(lines[n]) < here:
            return None
    return None


def _unlike(lines: Sequence[str], line: int) -> Slip | None:
    """A key or an item that is not indented as the one before it."""
    here = _indent(lines[line])
    if _ITEM.match(lines[line]):
        return _unlike_items(lines, line, here)
    key = _KEY.match(lines[line])
    above = _above(lines, line)
    if key is None or not above:
        return None
    first = above[-1]
    if here < _indent(lines[first]) and (top := _KEY.match(lines[first])):
        return Slip(first, 0, _alike(top[1], _indent(lines[first]), here, key[1], line))
    before = _KEY.match(lines[above[0]])
    # A text may go on in the next line; what may be one is not told here.
    if (
        before is None
        or before[1] in _TEXTS
        or here <= _indent(lines[above[0]])
        or not lines[above[0]][before.end() :].strip()
    ):
        return None
    right = _indent(lines[above[0]])
    return Slip(line, here, _alike(key[1], here, right, before[1], above[0]))


def _alike(key: str, here: int, right: int, other: str, line: int) -> str:
    return (
        f"`{key}` is indented by {here}: indent it by {right} spaces, as `{other}` in line "
        f"{line + 1}"
    )


def _unlike_items(lines: Sequence[str], line: int, here: int) -> Slip | None:
    for n in _above(lines, line):
        item = _ITEM.match(lines[n])
        if item is None and _indent(lines[n]) < here:
            return None
        if item and len(item[1]) != here and abs(len(item[1]) - here) < 4:
            right = len(item[1])
            return Slip(
                line,
                here,
                f"this item is indented by {here}: indent it by {right} spaces, as the one in line "
                f"{n + 1}",
            )
    return None


def _beside(lines: Sequence[str], line: int, item_line: int) -> Slip | None:
    item = _ITEM.match(lines[item_line])
    assert item is not None
    here, right = _indent(lines[line]), len(item[1]) + 1 + len(item[2])
    key, first = _KEY.match(lines[line]), _KEY.match(item[3])
    begins = key is None or key[1] in _FIRST
    if here == len(item[1]) and begins:
        return _dash(lines, line)
    if key is None or here == right:
        return None
    if first is None:
        word = item[3].split("#")[0].strip()
        return (
            Slip(line, here, f"`- {word}` takes no further keys: write `- {word}: {{}}`")
            if word in _WORDS
            else None
        )
    return Slip(line, here, _alike(key[1], here, right, first[1], item_line))


def _listed(lines: Sequence[str], line: int) -> bool:
    """Whether a line stands right below a key whose value is a list."""
    here = _indent(lines[line])
    above = next((n for n in _above(lines, line) if _indent(lines[n]) < here), None)
    key = _KEY.match(lines[above].replace("- ", "  ", 1)) if above is not None else None
    return (
        key is not None
        and key[1] in _LISTS
        and above is not None
        and not lines[above].split(":", 1)[1].split("#")[0].strip()
    )


def _dash(lines: Sequence[str], line: int) -> Slip:
    text = lines[line].strip()
    shown = text if len(text) <= 50 else text[:47] + "..."
    return Slip(
        line, _indent(lines[line]), f"an item of a list begins with `- `: write `- {shown}`"
    )
