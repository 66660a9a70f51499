"""What libyaml says of a text that is not YAML, in words that say what would be right."""

from __future__ import annotations

import re

import yaml

from kvmscen.errors import Problem
from kvmscen.load.slips import slip

_BLOCK = re.compile(r"^(\s*)(?:- )?[^#]*?:\s*[|>][+-]?\s*(?:#.*)?$")
_BARE_STEP = re.compile(r"^\s*- +([A-Za-z_]\w*)\s*(?:#.*)?$")

_PLAIN = {
    "did not find expected ',' or ']'": "this list is not closed: write `]`, or a comma between "
    "its items",
    "did not find expected ',' or '}'": "this map is not closed: write `}`, or a comma between its "
    "keys",
    "found unexpected end of stream": "the text that opens here is not closed: write the closing "
    "quote",
    "could not find expected ':'": "a key without a value: write `key: value`",
    "did not find expected '-' indicator": "an item of a list is meant here: indent it as the "
    "others and begin with `- `",
    "found unknown escape character": "an unknown escape in double quotes: write `\\\\` for a "
    "backslash, or single quotes",
    "did not find expected alphabetic or numeric character": "`*` and `&` begin an alias or an "
    "anchor: write the text in quotes",
}


def syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    """The problem for an error of the YAML parser, at the place where the user should look."""
    problem = error.problem or "not YAML"
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    lines = text.split("\n")
    block = _block_before(lines, line)
    if block is not None and problem in (
        "did not find expected key",
        "could not find expected ':'",
    ):
        number, say = block
        return Problem(file, number + 1, len(lines[number].rstrip()), say)
    # Of a key without its colon the parser tells where it begins, and where it gave up.
    begun = (
        error.context_mark.line
        if error.context_mark is not None and problem.startswith("could not")
        else line
    )
    slipped = None if problem.startswith("found") else slip(lines, begun) or slip(lines, line)
    if slipped is not None:
        return Problem(file, slipped.line + 1, slipped.column + 1, slipped.message)
    if problem.startswith("mapping values are not allowed"):
        return Problem(file, line + 1, column + 1, _mapping(lines, line))
    if problem.startswith("found character"):
        return Problem(file, line + 1, column + 1, _character(lines, line, column))
    if problem in _PLAIN:
        # What was left open is where it opens, not where libyaml gave up.
        opening = error.context_mark
        if opening is not None and (
            "not closed" in _PLAIN[problem] or problem.startswith("could not")
        ):
            line, column = opening.line, opening.column
        return Problem(file, line + 1, column + 1, _PLAIN[problem])
    if problem == "did not find expected key":
        say = (
            "this is no `key: value` of the map around it: look at its indentation, or at a "
            "bracket or quote before it"
        )
        return Problem(file, line + 1, column + 1, say)
    return Problem(
        file, line + 1, column + 1, "this is not YAML: " + problem.replace("did not find", "no")
    )


def _block_before(lines: list[str], line: int) -> tuple[int, str] | None:
    """The block text that ends at `line` because its first line is indented deeper, and what to
    write.
    """
    if line >= len(lines):
        return None
    here = _indent(lines[line])
    for number in range(min(line, len(lines)) - 1, -1, -1):
        match = _BLOCK.match(lines[number])
        if match is None:
            if lines[number].strip() and _indent(lines[number]) < here:
                return None
            continue
        outer = len(match[1])
        inside = [text for text in lines[number + 1 : line] if text.strip()]
        if not inside or not outer < here < _indent(inside[0]):
            return None
        key = lines[number].strip().split(":")[0].removeprefix("- ")
        return (
            number,
            f"the first line of `{key}` is indented deeper than line {line + 1}: write `{key}: "
            f"|{here - outer}`",
        )
    return None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _mapping(lines: list[str], line: int) -> str:
    if line > 0:
        step = _BARE_STEP.match(lines[line - 1])
        if step and _indent(lines[line]) > _indent(lines[line - 1]):
            return f"`- {step[1]}` takes no further keys: write `- {step[1]}: {{}}`"
    if (
        line > 0
        and lines[line].lstrip()
        and _indent(lines[line]) > _indent(lines[line - 1])
        and lines[line - 1].strip()
    ):
        return (
            "this line is indented deeper than the keys it belongs to: indent it as the line "
            "above, or quote a text with `: `"
        )
    return "a second `: ` in one line: write the text in quotes, or the inner map in braces"


def _character(lines: list[str], line: int, column: int) -> str:
    text = lines[line] if line < len(lines) else ""
    if column < len(text) and text[column] == "\t":
        return "a tab: YAML is indented with spaces"
    if column < len(text):
        return f"a text may not begin with '{text[column]}': write it in quotes"
    return "a character that can begin nothing here: write the text in quotes"
