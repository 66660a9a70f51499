"""Text to statements: labels, comments, `;` separators, strings and character constants as GNU as
reads them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from kvmscen.asm.values import Wrong

# Comments run to the end of the line; `#` on arm64 (and `/` on x86) begins one only at the start of
# a line.
_TOKEN = re.compile(r"""["'#/;]""")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_CHAR = re.compile(r"'(?:\\.|[^\\])'?")
_LABEL = re.compile(r"\s*([A-Za-z_.$][\w.$]*|\d+)\s*:(?!:)", re.ASCII)
_WORDS = re.compile(r"\s*(\S+)\s*(.*)", re.DOTALL)


class Statement(NamedTuple):
    """One statement. `column` and `line` are those of its first character in the file.

    `label` is set on a label, else `word` is the first word in lower case and `rest` what follows
    it. `separated` is whether a `;` stands before it on its line. What a macro yields stands where
    the macro is used; `within` says from which line of which macro it comes, `spot` is the place
    where errors are told if that is another one.
    """

    line: int
    column: int
    text: str
    label: str = ""
    word: str = ""
    rest: str = ""
    separated: bool = False
    within: str = ""
    spot: tuple[str, int, int] | None = None


class Reader:
    """Splits text whose first line is `line` of its file, at `column`, into `statements`."""

    def __init__(self, text: str, arch: str, line: int = 1, column: int = 1) -> None:
        self._arch = arch
        self._in_comment = False
        self.statements: list[Statement] = []
        for number, text_line in enumerate(text.split("\n")):
            self._read_line(text_line, line + number, column)

    def _read_line(self, line: str, number: int, column: int) -> None:
        start = 0
        if (
            self._in_comment
            or '"' in line
            or "'" in line
            or "/" in line
            or ";" in line
            or "#" in line
        ):
            line, cuts = self._scan(line)
            for cut in cuts:
                self._add(line[start:cut], number, column + start, start > 0)
                start = cut + 1
        self._add(line[start:], number, column + start, start > 0)

    def _scan(self, line: str) -> tuple[str, list[int]]:
        """The line with its comments blanked, and where its separators are."""
        cuts: list[int] = []
        at = 0
        if self._in_comment:
            end = line.find("*/")
            if end < 0:
                return "", cuts
            self._in_comment = False
            line = " " * (end + 2) + line[end + 2 :]
            at = end + 2
        while match := _TOKEN.search(line, at):
            at = match.start()
            mark = line[at]
            if mark == ";":
                cuts.append(at)
                at += 1
            elif mark == '"':
                string = _STRING.match(line, at)
                at = string.end() if string else len(line)
            elif mark == "'":
                char = _CHAR.match(line, at)
                at = char.end() if char else at + 1
            elif line.startswith("/*", at):
                end = line.find("*/", at + 2)
                if end < 0:
                    self._in_comment = True
                    return line[:at], cuts
                line = line[:at] + " " * (end + 2 - at) + line[end + 2 :]
            elif self._is_comment(line, at, mark):
                return line[:at], cuts
            else:
                at += 1
        return line, cuts

    def _is_comment(self, line: str, at: int, mark: str) -> bool:
        if not line[:at].strip():
            return mark == "#" or self._arch == "x86_64" or line.startswith("//", at)
        if self._arch == "arm64":
            return line.startswith("//", at)
        return mark == "#"

    def _add(self, text: str, line: int, column: int, separated: bool) -> None:
        at = 0
        while label := _LABEL.match(text, at):
            name = label.group(1)
            self.statements.append(Statement(line, column + label.start(1), name + ":", label=name))
            at = label.end()
        rest = text[at:].strip()
        if rest:
            first = at + len(text[at:]) - len(text[at:].lstrip())
            words = _WORDS.match(rest)
            assert words is not None
            word, operands = words.groups()
            self.statements.append(
                Statement(line, column + first, rest, "", word.lower(), operands, separated)
            )


def split_operands(text: str, openers: str = "([{", closers: str = ")]}") -> list[str]:
    """`text` cut at its commas, those inside brackets, strings and character constants left
    alone.
    """
    if not text:
        return []
    parts: list[str] = []
    depth = start = at = 0
    while at < len(text):
        char = text[at]
        if char == '"':
            string = _STRING.match(text, at)
            if not string:
                raise Wrong('a string without its closing "')
            at = string.end()
            continue
        if char == "'":
            constant = _CHAR.match(text, at)
            at = constant.end() if constant else at + 1
            continue
        if char in openers:
            depth += 1
        elif char in closers:
            depth -= 1
        elif char == "," and depth <= 0:
            parts.append(text[start:at].strip())
            start = at + 1
        at += 1
    parts.append(text[start:].strip())
    return parts


_ESCAPES = {"b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "\\": 92, '"': 34, "'": 39}
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]+)|(.))", re.DOTALL)


def string_bytes(text: str) -> bytes:
    """The bytes of one or more adjacent string constants, in UTF-8."""
    result = b""
    at = 0
    while at < len(text):
        string = _STRING.match(text, at)
        if not string:
            raise Wrong(f"a string in double quotes is needed here, not {text[at : at + 30]!r}")
        result += _ESCAPE.sub(_escape, string.group()[1:-1].encode("utf-8", "surrogatepass"))
        at = string.end()
        while at < len(text) and text[at].isspace():
            at += 1
    return result


def _escape(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, char = match.groups()
    if octal:
        return bytes([int(octal, 8) & 0xFF])
    if hexadecimal:
        return bytes([int(hexadecimal[-2:], 16)])
    code = _ESCAPES.get(char.decode("latin-1"))
    if code is None:
        raise Wrong(f"unknown escape \\{char.decode('latin-1')} in a string")
    return bytes([code])


def char_value(text: str) -> int:
    """The value of a character constant such as `'a'`, `'a` or `'\\n'`."""
    body = text[1:-1] if len(text) > 2 and text.endswith("'") and text != "'\\'" else text[1:]
    if body.startswith("\\") and len(body) == 2:
        code = 0 if body[1] == "0" else _ESCAPES.get(body[1])
        if code is None:
            raise Wrong(f"unknown escape {body} in a character constant")
        return code
    return ord(body[0])
