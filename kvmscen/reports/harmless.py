"""The border where text is printed: a stranger's text is shown, and never obeyed.

A scenario, an executable or a guest may hold any character: escape sequences that a terminal obeys,
signs that turn the order of what is read round, lines that a CI service takes as its own commands.
Each format of a report has one function here that its whole text goes through at the end; `text` is
that of all that goes to standard output and standard error.

What the program itself puts there, colour and the annotations of GitHub, is marked by a word that
is drawn anew in each process, so that no file can hold it.
"""

from __future__ import annotations

import os
import re

# No user's text can hold it.
_KEY = os.urandom(8).hex()
_OURS = re.compile(f"\x1b{_KEY}(?:\\[([0-9;]*)m|(!))")
# Joiners are part of how some scripts, and emoji, are written; blanks of other widths do no harm.
_BLANKS = (
    "\n\t\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u202f\u205f\u3000"
)
_ALLOWED = frozenset(_BLANKS + "\u200c\u200d")
# GitHub takes a line that begins so, whatever blanks stand before it, as a command; the other ones
# wherever they stand.
_COMMAND = re.compile(r"^([^\S\n]*:):", re.MULTILINE)
_OLD_COMMAND = re.compile(r"(##[A-Za-z]*)\[")


def colour(text: str, codes: str) -> str:
    """`text` in a colour of ANSI codes, as in `31`, marked as ours."""
    return f"\x1b{_KEY}[{codes}m{text}\x1b{_KEY}[0m"


def command(line: str) -> str:
    """A line that is a workflow command of ours."""
    return f"\x1b{_KEY}!{line}"


def shown(text: str) -> str:
    """Every character that is no letter, sign, digit, blank or line end, as an escape: `\\x1b`,
    `\\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _ALLOWED else ascii(c)[1:-1] for c in text)


def text(text: str) -> str:
    """Lines for people: characters as `shown`, and no line that a CI service would obey."""
    if "\x1b" not in text:
        return _no_command(shown(text))
    lines = text.split("\n")
    return "\n".join(_line(line) if _KEY in line else _no_command(shown(line)) for line in lines)


def _line(line: str) -> str:
    """One line with marks of ours in it."""
    parts = _OURS.split(line)
    # split() gives text, codes, sign, text, codes, sign, ..., text.
    plain = [shown(part) for part in parts[::3]]
    ours = not parts[0] and parts[2:3] == ["!"]
    if not ours and (whole := "".join(plain)) != _no_command(whole):
        # Colour is dropped from a line that has to be changed across it.
        return _no_command(whole)
    return plain[0] + "".join(
        ("" if codes is None else f"\x1b[{codes}m") + after
        for codes, after in zip(parts[1::3], plain[1:], strict=True)
    )


def _no_command(text: str) -> str:
    text = _COMMAND.sub(r"\1\\x3a", text) if "::" in text else text
    return _OLD_COMMAND.sub(r"\1\\x5b", text) if "##" in text else text


def json(text: str) -> str:
    """JSON that is ASCII only: `##[` is written so that it means the same and is no command."""
    return text.replace("##", "#\\u0023")


def xml(text: str) -> str:
    """XML: characters as `shown`, and what would be a command as references, which mean the
    same.
    """
    text = shown(text)
    text = _COMMAND.sub(r"\1&#58;", text) if "::" in text else text
    return (
        _OLD_COMMAND.sub(lambda match: "&#35;" + match.group()[1:], text) if "##" in text else text
    )
