"""What as and ld complain of, as problems at the statements they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kvmscen.asm.layout import Misplaced
from kvmscen.asm.source import Statement
from kvmscen.asm.values import Source, clip
from kvmscen.errors import Problem, ScenarioError

SOURCE, OBJECT = "program.s", "program.o"
FOREIGN = (
    "this program reads another file: .include and .incbin are not allowed, since a "
    "scenario may not read files of the host"
)
UNSURE = (
    "this program does not assemble, or reads another file, which is not allowed: directives are "
    "put together here, and where "
    "Landlock does not keep GNU as from other files, no more is said, since it might tell of one"
)
# What as says of a file that it tried to open: whether that is there, and why it cannot be read, is
# nobody's business.
_OPENED = re.compile(
    r"(?:can't open|file not found|can't read from|unable to include|seek to end of \.incbin)\b"
)
_LINE = re.compile(
    r"(?P<file>[^:]+)(?::(?P<line>\d+))?:\s+(?P<kind>Error|Warning|Fatal error|Info|Internal "
    r"error)\b[^:]*: (?P<text>.*)"
)
_USED = re.compile(r"[^:]+:(\d+):\s+Info: macro invoked from here")
_FATAL = re.compile(r"(?:Fatal|Internal) error\b[^:]*: (.*)")
_MEMORY = re.compile(
    r"out of memory|memory exhausted|virtual memory|cannot allocate", re.IGNORECASE
)
_LINKED = re.compile(r"\((?P<section>[^()]+)\+0x(?P<offset>[0-9a-f]+)\): (?P<text>.*)")
_LARGE_WORDS = (
    ".rept .irp .irpc .macro .fill .space .skip .zero .org .align .balign .p2align .nops .dcb .ds"
)
_LARGE = frozenset(_LARGE_WORDS.split())
_FITS = re.compile(r"relocation truncated to fit: \w+ against (?:symbol )?`([^']*)'")
# Warnings that do not mean other bytes than those that are written.
_HARMLESS = re.compile(
    r"repeat count is zero|end of file not at end|no instruction mnemonic suffix|translating "
    r"to|deprecated|obsolete|"
    r"using default for|stand-alone|skipping prefixes|redundant|unpredictable|section "
    r"attributes|zero assumed for missing|"
    r"indirect (?:call|jmp|ljmp|lcall) without|interpreting as|is "
    r"ineffectual|writeback|write-back|transfer register",
)


class Complaint(NamedTuple):
    """One message. `line` is that of as's text from 1, 0 where it names none; `used` that of the
    use of the macro it is in.
    """

    line: int
    text: str
    foreign: bool = False
    used: int = 0


def of_assembler(messages: str) -> Iterator[Complaint]:
    """The errors of as, and those warnings after which bytes would be others than those that are
    written.
    """
    last: Complaint | None = None
    for message in messages.splitlines():
        if match := _USED.match(message):
            # The outermost use stands last.
            last = None if last is None else last._replace(used=int(match.group(1)))
            continue
        if last is not None:
            yield last
        last = next(_complaints(message), None)
    if last is not None:
        yield last


def _complaints(message: str) -> Iterator[Complaint]:
    match = _LINE.match(message)
    if match:
        kind, text = match.group("kind"), match.group("text")
        if kind != "Info" and not (kind == "Warning" and _HARMLESS.search(text)):
            inside = match.group("file") == SOURCE
            yield Complaint(
                int(match.group("line") or 0) * inside,
                _memory(text),
                not inside or bool(_OPENED.match(text)),
            )
    elif fatal := _FATAL.match(message):
        yield Complaint(0, _memory(fatal.group(1)), bool(_OPENED.match(fatal.group(1))))
    elif _MEMORY.search(message):
        yield Complaint(0, _memory(message))


def _memory(text: str) -> str:
    return "needs more memory than it may have (1 GiB)" if _MEMORY.search(text) else text


def of_linker(messages: str) -> Iterator[tuple[str, int, str]]:
    """(section, offset, text) of what ld complains of; without a section what has no place."""
    for message in messages.splitlines():
        if match := _LINKED.search(message):
            yield match.group("section"), int(match.group("offset"), 16), match.group("text")
        elif (
            ": error: " in message
            or "cannot" in message
            or "failed" in message
            or "overlap" in message
        ):
            yield "", 0, message.rpartition(": ")[2]


def unfit(text: str) -> str | None:
    """The symbol that a message of ld says is out of reach, None where it says something else."""
    match = _FITS.search(text)
    return match.group(1) if match else None


def quoted(text: str) -> str:
    """as's words with one kind of quotes, as a message shows them."""
    return shorten(re.sub(r"`([^`']*)'", lambda match: f"`{clip(match.group(1))}`", text))


def shorten(text: str) -> str:
    """`text` in one line that is not too long."""
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:197] + "..."


class Report:
    """The problems of one program so far, each at its statement."""

    def __init__(self, source: Source, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self._source = source
        self._problems: list[Problem] = []

    def add(self, index: int | None, message: str) -> None:
        """A problem at the statement of an index, or at the program as a whole."""
        self._problems.append(Problem(*self.spot(index), message))

    def spot(self, index: int | None) -> tuple[str, int, int]:
        """File, line and column of the statement of an index, or of the program as a whole."""
        place = (
            self._source
            if index is None or index >= len(self.statements)
            else self.statements[index]
        )
        spot = place.spot if isinstance(place, Statement) else None
        return spot or (self._source.file, place.line, place.column)

    def misplaced(self, wrong: Misplaced) -> None:
        """Add the problem of a section that cannot be where it is placed."""
        place = wrong.placement or self._source
        self._problems.append(
            Problem(place.file or self._source.file, place.line, place.column, wrong.message)
        )

    def only(self, index: int | None, message: str) -> None:
        """Add a problem in place of all others, which only follow from it."""
        self._problems.clear()
        self.add(index, message)

    def stop(self) -> None:
        """Raise ScenarioError where there are problems."""
        if self._problems:
            raise ScenarioError(dict.fromkeys(self._problems))

    def large(self) -> int | None:
        """The first statement that may make much of little: where to look when a tool could not go
        on.
        """
        return next(
            (n for n, statement in enumerate(self.statements) if statement.word in _LARGE), None
        )
