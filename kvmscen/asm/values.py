"""What goes into the assembler and what comes out: frozen values without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# The assemblers, as scenarios and the command line name them.
KEYSTONE, GNU = "keystone", "gnu"
# In their place where the program comes linked.
ELF = "elf"


class Macro(NamedTuple):
    """A macro that stands beside the program: `.macro NAME`, its text, `.endm`, and where that text
    begins in its file.
    """

    name: str
    text: str
    file: str
    line: int = 1
    column: int = 1

    @property
    def as_gnu(self) -> str:
        """The definition as GNU as reads it, behind a line marker that makes its errors name this
        file and line.
        """
        return f'# {self.line - 1} "{self.file}"\n.macro {self.name}\n{self.text.rstrip()}\n.endm\n'


class Source(NamedTuple):
    """Text of a program and where it stands in its file, and the macros that are defined before it.

    `line` is the 1-based file line of the text's first line, `column` the 1-based file column of
    the text's first column: the indentation that YAML removed, plus 1.
    """

    file: str
    text: str
    line: int = 1
    column: int = 1
    macros: tuple[Macro, ...] = ()


class Executable(NamedTuple):
    """A linked ELF file: its bytes, its name for messages, and the place in `file` where it is
    asked for.
    """

    raw: bytes
    name: str
    file: str
    line: int
    column: int


class Placement(NamedTuple):
    """Where an output section goes, in ld's words. `file` (empty: the program's), `line` and
    `column` are for errors.
    """

    name: str
    at: int | None = None
    after: str | None = None
    align: int | None = None
    load: int | None = None
    line: int = 0
    column: int = 0
    file: str = ""


class Section(NamedTuple):
    """An output section at its addresses. `data` is empty where `nobits`; `size` counts in bytes
    always.
    """

    name: str
    gpa: int
    load: int
    data: bytes
    size: int
    nobits: bool


class Line(NamedTuple):
    """One source statement that yields bytes: its address and size, its file line, its text without
    comments.
    """

    gpa: int
    size: int
    line: int
    text: str


class Program(NamedTuple):
    """An assembled program. `lines` are sorted by address; `assembler` is KEYSTONE, GNU or ELF.

    Of a linked one `lines` have no number, and the name of a symbol in place of the text; `debug`
    are its source lines, with the name of the source file. `entry` is where it begins, None for
    `_start`.
    """

    sections: tuple[Section, ...]
    symbols: Mapping[str, int]
    lines: tuple[Line, ...]
    assembler: str = KEYSTONE
    entry: int | None = None
    debug: tuple[Line, ...] = ()


class Wrong(Exception):
    """Something wrong with one statement. Never leaves this package: it becomes a Problem at the
    statement's place.
    """


class Unencoded(Wrong):
    """A statement that the front end or Keystone does not know; GNU as might."""


class Unexplained(Unencoded):
    """An instruction that Keystone does not make, and gives no reason."""


def clip(text: str) -> str:
    """`text` as a message can quote it: one line, not too long."""
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."
