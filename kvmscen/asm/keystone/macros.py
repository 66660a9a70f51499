"""Macros as GNU as has them: their parameters, the arguments of a use, and what becomes of a line
of the body.

Follows gas/macro.c; `.altmacro` is not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from kvmscen.asm.source import Statement
from kvmscen.asm.values import Wrong, clip

NAME = re.compile(r"[A-Za-z_.$][\w.$]*", re.ASCII)
_NO_NAME = re.compile(r"[^\s,\"();=]*", re.ASCII)
# What GNU as takes for a part of a symbol when it drops blanks: between two of these one blank
# stays.
_SYMBOL = {
    "arm64": re.compile(r"[\w.$\x80-\U0010ffff]"),
    "x86_64": re.compile(r"[\w.$\x80-\U0010ffff*%\-(\[{}]"),
}
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"?|\'(?:\\.|[^\\])\'?')


class Parameter(NamedTuple):
    """One parameter; `kind` is "", "req" or "vararg"."""

    name: str
    kind: str = ""
    default: str = ""


class Macro(NamedTuple):
    """A macro: its body's statements are as written. `foreign` is the file of one that does not
    stand in the program.
    """

    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    line: int
    foreign: str = ""


def scrub(text: str, arch: str) -> str:
    """`text` with the blanks that GNU as leaves in operands: one between two parts of symbols."""
    symbol = _SYMBOL.get(arch, _SYMBOL["arm64"])
    out: list[str] = []
    blank = at = 0
    while at < len(text):
        if text[at] in " \t":
            blank, at = 1, at + 1
            continue
        quoted = _QUOTED.match(text, at)
        piece = quoted.group() if quoted else text[at]
        if blank and out and symbol.match(out[-1][-1]) and symbol.match(piece):
            out.append(" ")
        out.append(piece)
        blank, at = 0, at + len(piece)
    return "".join(out)


def parse(rest: str, arch: str) -> tuple[str, tuple[Parameter, ...]]:
    """Name and parameters of what follows `.macro`. Raises Wrong."""
    text = scrub(rest, arch)
    match = NAME.match(text)
    if not match:
        raise Wrong(
            f".macro needs a name: .macro name, not {clip(rest)}"
            if rest
            else ".macro needs a name: .macro name"
        )
    name, at = match.group(), _comma(text, match.end())
    parameters: list[Parameter] = []
    while at < len(text):
        if parameters and parameters[-1].kind == "vararg":
            raise Wrong(
                f"a parameter follows {parameters[-1].name}:vararg, which takes all that is left: "
                f"make it the last"
            )
        match = NAME.match(text, at)
        if not match:
            raise Wrong(
                f"{clip(text[at:])} is no parameter of a macro: write .macro {name} first, "
                f"second=5, rest:vararg"
            )
        parameter, at = _parameter(text, match)
        if any(parameter.name == other.name for other in parameters):
            raise Wrong(f"the parameter {clip(parameter.name)} is there twice")
        parameters.append(parameter)
        at = _comma(text, at)
    return name, tuple(parameters)


def _parameter(text: str, match: re.Match[str]) -> tuple[Parameter, int]:
    name, at = match.group(), _white(text, match.end())
    kind = default = ""
    if text.startswith(":", at):
        qualifier = NAME.match(text, _white(text, at + 1))
        if not qualifier or qualifier.group() not in ("req", "vararg"):
            raise Wrong(f"the parameter {clip(name)} may be :req or :vararg")
        kind, at = qualifier.group(), _white(text, qualifier.end())
    if text.startswith("=", at):
        default, at = _any_string(text, at + 1)
        if kind == "req":
            raise Wrong(
                f"the parameter {clip(name)} is required, and so its default is never used: drop "
                f":req or the default"
            )
    return Parameter(name, kind, default), at


def arguments(macro: Macro, rest: str, arch: str) -> dict[str, str]:
    """The text of each parameter where the macro is used with `rest`. Raises Wrong."""
    text = scrub(rest, arch)
    given: dict[str, str] = {}
    names = {parameter.name: parameter for parameter in macro.parameters}
    left = list(macro.parameters)
    keyword = False
    at = 0
    while at < len(text):
        end = _NO_NAME.match(text, at)
        assert end is not None
        if text.startswith("=", end.end()):
            keyword = True
            name = text[at : end.end()]
            if name not in names:
                raise Wrong(f"the macro {macro.name} has no parameter {clip(name)}{_has(macro)}")
            if given.get(name):
                raise Wrong(f"the parameter {clip(name)} of the macro {macro.name} is given twice")
            given[name], at = _any_string(text, end.end() + 1)
        elif keyword:
            raise Wrong(
                f"{clip(text[at:])}: an argument without a name cannot follow one with a name"
            )
        elif not left:
            count = len(macro.parameters)
            raise Wrong(
                f"{clip(text[at:])} is one argument too many: the macro {macro.name} has "
                f"{count}{_has(macro)}"
            )
        elif left[0].kind == "vararg":
            given[left.pop(0).name], at = text[at:], len(text)
        else:
            given[left.pop(0).name], at = _any_string(text, at)
        at = _comma(text, at)
    for parameter in macro.parameters:
        if parameter.kind == "req" and not given.get(parameter.name):
            raise Wrong(f"the macro {macro.name} requires a value for {clip(parameter.name)}")
        given[parameter.name] = given.get(parameter.name) or parameter.default
    return given


def _has(macro: Macro) -> str:
    if not macro.parameters:
        return ": it takes none"
    return ": it takes " + clip(", ".join(parameter.name for parameter in macro.parameters))


def values(rest: str, each_character: bool, arch: str) -> tuple[str, list[str]]:
    """The symbol of `.irp` or `.irpc` and the values that it takes. Raises Wrong."""
    text = scrub(rest, arch)
    match = NAME.match(text)
    if not match:
        word = ".irpc r, abc" if each_character else ".irp r, x0, x1"
        raise Wrong(f"the symbol that takes the values is missing: {word}")
    at = _comma(text, match.end())
    out: list[str] = []
    if at >= len(text):
        return match.group(), [""]
    if each_character:
        return match.group(), _characters(text[at:])
    while at < len(text):
        value, at = _any_string(text, at)
        out.append(value)
        at = _comma(text, at)
    return match.group(), out


def _characters(text: str) -> list[str]:
    """Each character; blanks count inside quotes only."""
    out: list[str] = []
    quoted = text.startswith('"')
    at = int(quoted)
    while at < len(text):
        if text[at] == '"':
            quoted = not quoted
            if _white(text, at + 1) >= len(text):
                break
        out.append(text[at])
        at += 1
        if not quoted:
            at = _white(text, at)
    return out


def substitute(text: str, given: Mapping[str, str], number: int | None) -> str:
    r"""A line of a body with its parameters replaced; `number` is what `\@` stands for, None where
    it stays.
    """
    out: list[str] = []
    at = 0
    while True:
        mark = min((n for n in (text.find("\\", at), text.find("&", at)) if n >= 0), default=-1)
        if mark < 0:
            out.append(text[at:])
            return "".join(out)
        out.append(text[at:mark])
        at = mark + 1
        if text[mark] == "\\" and text.startswith("(", at):
            end = text.find(")", at)
            if end < 0:
                raise Wrong(r"\( without its )")
            out.append(text[at + 1 : end])
            at = end + 1
        elif text[mark] == "\\" and text.startswith("@", at) and number is not None:
            out.append(str(number))
            at += 1
        elif text[mark] == "\\" and text.startswith("&", at):
            out.append("\\&")
            at += 1
        else:
            name = NAME.match(text, at)
            word = name.group() if name else ""
            at += len(word)
            # &name& is a name too.
            tail = "&" if text[mark] == "&" and word and text.startswith("&", at) else ""
            at += len(tail)
            out.append(given[word] if word in given else text[mark] + word + tail)


def _white(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at


def _comma(text: str, at: int) -> int:
    at = _white(text, at)
    return _white(text, at + 1) if text.startswith(",", at) else at


def _any_string(text: str, at: int) -> tuple[str, int]:
    """One argument: a string without its quotes, or all up to a comma or a blank outside
    brackets.
    """
    at = _white(text, at)
    if text.startswith('"', at):
        return _strings(text, at)
    start = at
    open_brackets: list[str] = []
    while at < len(text) and text[at] != "," and (open_brackets or text[at] not in " \t"):
        char = text[at]
        if char in "\"'":
            end = text.find(char, at + 1)
            if end < 0:
                return text[start:], len(text)
            at = end
        elif char in "([":
            open_brackets.append(char)
        elif open_brackets and char == {"(": ")", "[": "]"}[open_brackets[-1]]:
            open_brackets.pop()
        at += 1
    return text[start:at], at


def _strings(text: str, at: int) -> tuple[str, int]:
    """Adjacent strings in double quotes; two quotes in a row are one."""
    out: list[str] = []
    while text.startswith('"', at):
        at += 1
        escaped = False
        while at < len(text):
            char = text[at]
            if char == '"' and not escaped:
                at += 1
                if not text.startswith('"', at):
                    break
            out.append(char)
            escaped = char == "\\" and not escaped
            at += 1
        else:
            raise Wrong('a string without its closing "')
    return "".join(out), at
