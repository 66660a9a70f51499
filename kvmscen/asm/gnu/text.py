"""A program as GNU as reads it: one statement a line, with marks around each that tell which bytes
are its own.

The marks are records in a section of their own, made by directives before and behind the statement,
also inside macros. as's debug information would know instructions only, and its listing no
sections.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kvmscen.asm.sections import MARKS, NAMING, OPERANDS, named, no_name
from kvmscen.asm.source import Reader, Statement
from kvmscen.asm.values import Source, Wrong

_END = 1 << 31
# A local label of this number is at the edges of every statement; no program has it.
_EDGE = 1987654321
_LAST_SUBSECTION = 8192
_ASSIGN = re.compile(r"[A-Za-z_.$][\w.$]*\s*==?(?!=)", re.ASCII)
_DATA_WORDS = """
    .byte .2byte .4byte .8byte .hword .short .int .long .quad .word .value .octa .xword .dword .half
    .float .single .double
    .float16 .tfloat .bfloat16 .ascii .asciz .string .string8 .string16 .string32 .string64 .base64
    .space .zero .skip .fill .org
    .inst .insn .uleb128 .sleb128 .nops .nop .dc .dc.a .dc.b .dc.d .dc.l .dc.s .dc.w .dc.x .dcb
    .dcb.b .dcb.d .dcb.l .dcb.s
    .dcb.w .dcb.x .ds .ds.b .ds.d .ds.l .ds.p .ds.s .ds.w .ds.x
"""
DATA = frozenset(_DATA_WORDS.split())
# What would tell as other lines than ours, and has no bytes.
_IGNORED = frozenset(
    [".file", ".line", ".ln", ".linefile", ".appfile", ".app-file", ".appline", ".loc", ".ident"]
)
_REFUSED = {
    ".incbin": "is not allowed: a scenario may not read files of the host",
    ".include": "is not allowed: a scenario may not read files of the host",
    ".mri": "is not supported",
}
_MAX_REPEAT = 65536


class Text(NamedTuple):
    """What as reads: `lines`, and for each the index of its statement, None where it has none."""

    lines: Sequence[str]
    owners: Sequence[int | None]

    def statement(self, line: int) -> int | None:
        """The index of the statement that stands in a line of as's, from 1."""
        return self.owners[line - 1] if 0 < line <= len(self.owners) else None


def statements(source: Source, arch: str) -> list[Statement]:
    """The statements of a program, behind those of the macros that stand beside it."""
    out: list[Statement] = []
    for macro in source.macros:
        place = (macro.file, macro.line, macro.column)
        read = Reader(macro.text, arch, macro.line, macro.column).statements
        body = [
            statement._replace(spot=(macro.file, statement.line, statement.column))
            for statement in read
        ]
        head = Statement(
            macro.line, macro.column, f".macro {macro.name}", "", ".macro", macro.name, spot=place
        )
        out += [head, *body, Statement(macro.line, macro.column, ".endm", "", ".endm", spot=place)]
    return out + Reader(source.text, arch, source.line, source.column).statements


def check(statement: Statement) -> None:
    """Raise Wrong where as must not see a statement."""
    word = statement.word
    if word in _REFUSED:
        raise Wrong(f"{word} {_REFUSED[word]}")
    name = named(statement.rest) if word in NAMING and "\\" not in statement.rest else None
    if name is not None and (why := no_name(name)) is not None:
        raise Wrong(why)
    count = (
        statement.rest
        if word == ".rept" and statement.rest.isascii() and statement.rest.isdigit()
        else "0"
    )
    if len(count) > 9 or int(count) > _MAX_REPEAT:
        raise Wrong(f"{word} repeats at most {_MAX_REPEAT} times")


def composed(statements: Sequence[Statement]) -> list[int]:
    """The statements that may become any directive once macros are expanded."""
    loose = any(statement.word == ".altmacro" for statement in statements)
    return [
        n
        for n, s in enumerate(statements)
        if "\\" in s.word or (loose and s.word in (".altmacro", ".macro", ".irp", ".irpc"))
    ]


def render(prologue: str, statements: Sequence[Statement], changed: Mapping[int, str]) -> Text:
    """The text for as, with marks; `changed` are statements to be written otherwise."""
    lines, owners = [prologue], [None]  # type: list[str], list[int | None]
    for index, statement in enumerate(statements):
        if statement.word in _IGNORED:
            continue
        text = changed.get(index) or _written(statement)
        if not _is_marked(statement):
            lines.append(text)
            owners.append(index)
            continue
        lines += [_mark(index), text, _mark(index | _END)]
        owners += [index, index, index]
    return Text(lines, owners)


def _written(statement: Statement) -> str:
    """The statement in the notation of GNU as."""
    if statement.word in (".global", ".globl") and statement.rest.endswith(":"):
        # Seen in programs; it can mean one thing only.
        return statement.text[:-1]
    parts = [part.strip() for part in statement.rest.split(",")]
    if statement.word in (".comm", ".common") and 2 <= len(parts) <= 3:
        # Nobody else wants the symbol: it is room at the end of .bss, aligned as a linker would.
        size = parts[1]
        align = (
            parts[2]
            if len(parts) == 3
            else f"(1 - (({size}) > 1) - 2*(({size}) > 3) - 4*(({size}) > 7) - 8*(({size}) > 15))"
        )
        return (
            f".pushsection .bss, {_LAST_SUBSECTION}; .balign {align}; {parts[0]}: .skip "
            f"{size}; .popsection"
        )
    return statement.text


def _is_marked(statement: Statement) -> bool:
    word = statement.word
    if statement.label or not word:
        return False
    if word[0] == ".":
        return word in DATA and not _ASSIGN.match(statement.text)
    return word != "local" and not _ASSIGN.match(statement.text)


def _mark(number: int) -> str:
    return f"{_EDGE}: .pushsection {MARKS}; .4byte {number}; .8byte {_EDGE}b; .popsection"


def entered(statements: Sequence[Statement]) -> dict[str, str | None]:
    """The sections that are named by directives, with their flags, None where none are written."""
    names: dict[str, str | None] = {}
    for statement in statements:
        if statement.word == ".end":
            break
        if statement.word in (".text", ".data", ".bss"):
            names.setdefault(statement.word, None)
        if statement.word in NAMING and (match := OPERANDS.match(statement.rest)):
            names.setdefault(match.group(1), match.group(3))
    return names


def is_mark(message: str) -> bool:
    """Whether a message is about the marks, not about the program."""
    return str(_EDGE) in message or MARKS in message or message.startswith(".popsection without")


def ranges(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(statement, first address, address behind it, outermost) of the records in the section of
    marks.

    Of statements in each other the innermost has the bytes; the outermost is the use of a macro, or
    the same.
    """
    # What is open: statement, start, whether something inside it has bytes.
    opened: list[list[int]] = []
    for number, at in struct.iter_unpack("<IQ", data[: len(data) // 12 * 12]):
        if not number & _END:
            opened.append([number, at, 0])
            continue
        number &= _END - 1
        # What `.exitm` left open ends here too.
        while opened and opened[-1][0] != number:
            opened.pop()
        if not opened:
            continue
        _, start, filled = opened.pop()
        if not filled and at > start:
            yield number, start, at, opened[0][0] if opened else number
        if opened and (filled or at > start):
            opened[-1][2] = 1
