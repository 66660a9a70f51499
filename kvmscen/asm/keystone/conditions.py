"""`.if` and its like: which statements of a program count. Follows gas/cond.c."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from kvmscen.asm.keystone.macros import scrub
from kvmscen.asm.source import Statement, string_bytes
from kvmscen.asm.values import Wrong, clip

_SYMBOL = re.compile(r'"?([A-Za-z_.$][\w.$]*)"?\s*\Z', re.ASCII)
_NUMBERS: dict[str, Callable[[int], bool]] = {
    ".if": lambda value: value != 0,
    ".elseif": lambda value: value != 0,
    ".ifne": lambda value: value != 0,
    ".ifeq": lambda value: value == 0,
    ".ifge": lambda value: value >= 0,
    ".ifgt": lambda value: value > 0,
    ".ifle": lambda value: value <= 0,
    ".iflt": lambda value: value < 0,
}
_OTHERS = (".ifdef", ".ifndef", ".ifnotdef", ".ifb", ".ifnb", ".ifc", ".ifnc", ".ifeqs", ".ifnes")
WORDS = frozenset([*_NUMBERS, *_OTHERS, ".else", ".endif"])


class Known(Protocol):
    """What `.if` and its like need of the front end."""

    def absolute(self, text: str, what: str) -> int:
        """A value that must be known at once. Raises Wrong."""

    def is_defined(self, name: str) -> bool:
        """Whether the program has defined a symbol."""


class _Condition:
    """One `.if`. `off`: its statements do not count now; `dead`: nor those of any branch that
    follows.
    """

    def __init__(self, statement: Statement, depth: int, off: bool, dead: bool) -> None:
        self.statement = statement
        self.depth = depth
        self.off = off
        self.dead = dead
        self.otherwise = 0


class Conditions:
    """The conditions that are open. `depth` is how many expansions are open at a statement."""

    def __init__(self, known: Known, arch: str) -> None:
        self._known = known
        self._arch = arch
        self._open: list[_Condition] = []

    @property
    def off(self) -> bool:
        """Whether statements are skipped, inside a branch that is not taken."""
        return bool(self._open) and self._open[-1].off

    def take(self, statement: Statement, depth: int) -> None:
        """Handle a directive of WORDS. Raises Wrong."""
        word = statement.word
        if word not in (".else", ".elseif", ".endif"):
            hidden = self.off
            self._open.append(_Condition(statement, depth, True, True))
            if not hidden:
                holds = self._holds(statement)
                self._open[-1] = _Condition(statement, depth, not holds, holds)
            return
        if not self._open:
            raise Wrong(f"{word} without its .if")
        last = self._open[-1]
        if word == ".endif":
            self._open.pop()
            return
        if last.otherwise:
            raise Wrong(
                f"{word} behind the .else of line {last.otherwise}: the .if is in line "
                f"{last.statement.line}"
            )
        last.off = True
        if word == ".else":
            last.otherwise = statement.line
            last.off = last.dead
        elif not last.dead:
            last.off = not self._holds(statement)
            last.dead = not last.off

    def leave(self, depth: int, early: bool) -> Statement | None:
        """At the end of an expansion: the statement of an `.if` that was not closed in it; not told
        where it ended `early`.
        """
        left: Statement | None = None
        while self._open and self._open[-1].depth >= depth:
            left = self._open.pop().statement
        return None if early else left

    def _holds(self, statement: Statement) -> bool:
        word, rest = statement.word, statement.rest
        if word in _NUMBERS:
            if not rest:
                raise Wrong(f"{word} needs a value: {word} name == 1")
            return _NUMBERS[word](self._known.absolute(rest, f"the condition of {word}"))
        if word in (".ifdef", ".ifndef", ".ifnotdef"):
            name = _SYMBOL.match(rest)
            if not name:
                raise Wrong(
                    f"{word} takes the name of one symbol, not {clip(rest)}"
                    if rest
                    else f"{word} needs a symbol"
                )
            return self._known.is_defined(name.group(1)) == (word == ".ifdef")
        if word in (".ifb", ".ifnb"):
            return (not rest.strip()) == (word == ".ifb")
        if word in (".ifc", ".ifnc"):
            return _same(scrub(rest, self._arch), word) == (word == ".ifc")
        return _same_strings(rest, word) == (word == ".ifeqs")


def _same(text: str, word: str) -> bool:
    first, at = _text(text, ",")
    if not text.startswith(",", at):
        raise Wrong(f"{word} compares two texts: {word} x0, x1")
    second, end = _text(text[at + 1 :].lstrip(), "")
    if text[at + 1 :].lstrip()[end:].strip():
        raise Wrong(f"{word} compares two texts, and there is more: {clip(text)}")
    return first == second


def _text(text: str, end: str) -> tuple[str, int]:
    """A text up to `end`, or in single quotes, in which two are one; and where it stops."""
    if not text.startswith("'"):
        at = text.find(end) if end else len(text)
        at = len(text) if at < 0 else at
        return text[:at].rstrip(), at
    at = 1
    while at < len(text):
        if text[at] == "'":
            if not text.startswith("'", at + 1):
                break
            at += 1
        at += 1
    # GNU as keeps the quotes.
    at = min(at + 1, len(text))
    return text[:at].replace("''", "'"), at + len(text[at:]) - len(text[at:].lstrip())


def _same_strings(text: str, word: str) -> bool:
    match = re.match(r'\s*("(?:[^"\\]|\\.)*")\s*,\s*("(?:[^"\\]|\\.)*")\s*\Z', text)
    if not match:
        raise Wrong(f'{word} compares two strings: {word} "a", "b"')
    return string_bytes(match.group(1)) == string_bytes(match.group(2))
