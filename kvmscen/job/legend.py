"""What a reader needs to read an event: symbols, sections and source lines by address."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from kvmscen.sent.codec import Rows

_BY_GPA = attrgetter("gpa")


class Line(NamedTuple):
    """A line of the program, by its number in its file, and where its bytes lie: `size` of them at
    `gpa`.
    """

    gpa: int
    size: int
    number: int
    text: str


class Span(NamedTuple):
    """A section, and where it lies."""

    name: str
    gpa: int
    size: int


class Legend(NamedTuple):
    """What a reader needs to read an event: the symbols, the sections, and the source lines, by
    gpa.

    `file` is the file of the source lines as the scenario names it, empty for the scenario itself.
    Of a linked program the lines are what stands between two symbols, with 0 as number and the
    first symbol's name as text; its source lines, with the name of their file as text, are in
    `debug`. `note` is what to know of the program, or empty.
    """

    symbols: Mapping[str, int]
    lines: Rows[Line]
    file: str = ""
    sections: Rows[Span] = ()
    debug: Rows[Line] = ()
    note: str = ""

    @property
    def best(self) -> frozenset[str]:
        """Of a linked program the names of functions and objects, rather than the linker's own for
        the same addresses.
        """
        return frozenset(line.text for line in self.lines if not line.number)

    def source(self, pc: int | None, advanced: bool | None) -> str | None:
        """`LINE: TEXT` or `FILE:LINE: TEXT` of the instruction at `pc`, or of the one before where
        pc has advanced already.

        Of a linked program it is `SYMBOL + OFFSET` of pc, with `(FILE:LINE)` of that instruction
        behind it where that is known. `advanced` None (it cannot be told) takes what pc points at.
        None where the program has nothing there.
        """
        line = self.row(pc, advanced)
        if line is None or pc is None:
            return None
        if line.number:
            text = f"{line.number}: {line.text}"
            return f"{self.file}:{text}" if self.file else text
        at = _row(self.debug, pc - 1 if advanced else pc)
        return offset(line.text, pc - line.gpa) + (f" ({at.text}:{at.number})" if at else "")

    def row(self, pc: int | None, advanced: bool | None) -> Line | None:
        """The line that `source` tells of."""
        return None if pc is None else _row(self.lines, pc - 1 if advanced else pc)

    def within(self, at: int, size: int) -> Sequence[Line]:
        """The source lines of a linked program that begin in a range."""
        return self.debug[_first(self.debug, at) : _first(self.debug, at + size)]


def offset(symbol: str, distance: int) -> str:
    """`symbol + 0x10`."""
    return f"{symbol} + {distance:#x}" if distance else symbol


def _first(rows: Sequence[Line], at: int) -> int:
    return bisect_left(rows, at, key=_BY_GPA)


def _row(rows: Sequence[Line], at: int) -> Line | None:
    index = bisect_right(rows, at, key=_BY_GPA) - 1
    return rows[index] if index >= 0 and at < rows[index].gpa + rows[index].size else None
