"""YAML text to positioned data, from parse events with an own stack.

The composer of libyaml recurses and dies of 100,000 `[`; its events do not, and are no slower.
Anchors, aliases, tags and duplicate keys are refused here, by name; what is left is maps with text
keys, lists and scalars, each with its position.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from kvmscen.errors import Problem
from kvmscen.load.hints import syntax
from kvmscen.load.names import shorten
from kvmscen.load.scalars import Float, resolve
from kvmscen.scenario import Place

SIZE_MAX = 1 << 20
DEPTH_MAX = 64
VALUES_MAX = 50_000
_TOO_DEEP = f"this is nested more than {DEPTH_MAX} deep: a scenario needs no more than a dozen"
# libyaml has a limit of its own from 0.2.6 on, of 1,000 levels. It reads ahead, so that it may
# speak before ours does.
_LIBRARYS_LIMIT = "exceeded maximum nesting depth"
START = Place(1, 1)
PROBLEMS_MAX = 50
# libyaml's Python fallback is twenty times slower, but reads the same.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LINE_END = re.compile("\r(?!\n)|[\x85\u2028\u2029\ufeff]")


class Map(dict[str, Any]):
    """A map in the order of the file. `marks`: key to (line, column) of the key and of its value,
    from 0.
    """

    __slots__ = ("mark", "marks")
    mark: tuple[int, int]
    marks: dict[str, tuple[int, int, int, int]]

    def at(self, key: str) -> Place:
        """Where the value of a key stands."""
        _, _, line, column = self.marks[key]
        return Place(line + 1, column + 1)

    def at_key(self, key: str) -> Place:
        """Where a key itself stands."""
        line, column, _, _ = self.marks[key]
        return Place(line + 1, column + 1)

    @property
    def place(self) -> Place:
        return Place(self.mark[0] + 1, self.mark[1] + 1)


class List(list[Any]):
    """A list; `marks` are the positions of its items, from 0."""

    __slots__ = ("mark", "marks")
    mark: tuple[int, int]
    marks: list[tuple[int, int]]

    def at(self, index: int) -> Place:
        """Where an item stands."""
        line, column = self.marks[index]
        return Place(line + 1, column + 1)

    @property
    def place(self) -> Place:
        return Place(self.mark[0] + 1, self.mark[1] + 1)


class Document:
    """One file as data.

    `styles` has the style character of each scalar that is not plain, by position from 0; `raw` is
    the scalar read last; `poisoned` are the places of what was refused without a problem of its
    own; `repeated` are by the place of a map the keys that are in it once more, and where.
    """

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.root: Any = None
        self.place: Place = START
        self.problems: list[Problem] = []
        self.styles: dict[tuple[int, int], str] = {}
        self.raw = ""
        self.empty = True
        self.broken = False
        self.poisoned: set[tuple[int, int]] = set()
        self.repeated: dict[tuple[int, int], list[tuple[str, tuple[int, int]]]] = {}

    def add(self, mark: tuple[int, int], message: str) -> None:
        """Note a problem at a position counted from 0."""
        self.problems.append(Problem(self.file, mark[0] + 1, mark[1] + 1, message))

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the text, from 0."""
        return self.text.split("\n")

    def written(self, place: Place) -> str:
        """A plain scalar as it stands in the file, for messages."""
        line = self.lines[place.line - 1][place.column - 1 :]
        match = re.match(r"[^\s,\[\]{}#]+", line)
        return match[0] if match else line.strip()


def decode(raw: bytes, file: str) -> str | Problem:
    """The text of a file, or why it is none that can be read."""
    if len(raw) > SIZE_MAX:
        return Problem(file, 1, 1, f"the file has {len(raw):,} bytes: a scenario has 1 MiB at most")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        line = before.count(b"\n") + 1
        return Problem(
            file,
            line,
            column,
            f"the byte 0x{raw[error.start]:02x} is not UTF-8: save the file as UTF-8",
        )
    return text.removeprefix("\ufeff")


def line_end(text: str) -> tuple[tuple[int, int], str] | None:
    """The first line end that is neither LF nor CRLF, or byte order mark, as (line, column) from 0
    and what to do about it.

    YAML ends a line there, editors and assemblers do not all: what is told at a line would be told
    at another one.
    """
    match = _LINE_END.search(text)
    if match is None:
        return None
    mark = (
        text.count("\n", 0, match.start()),
        match.start() - (text.rfind("\n", 0, match.start()) + 1),
    )
    if match[0] == "\r":
        return (
            mark,
            "a line ends with a carriage return (CR) alone: save the file with the line ends LF, "
            "or CRLF",
        )
    if match[0] == "\ufeff":
        return (
            mark,
            "here stands a byte order mark (U+FEFF), which nobody sees: take it out, it belongs at "
            "the start of a file only",
        )
    code = f"{ord(match[0]):04x}"
    return (
        mark,
        f"the line end U+{code.upper()} is none that everybody sees: write a new line, or "
        f'"\\u{code}" in quotes',
    )


def compose(text: str, file: str) -> Document:
    """The data of a text with all problems of its form; `broken` where the rest of it could not be
    read.
    """
    doc = Document(file, text)
    bad = _FORBIDDEN.search(text)
    if bad:
        before = text[: bad.start()]
        mark = (before.count("\n"), bad.start() - (before.rfind("\n") + 1))
        doc.add(
            mark,
            f"the character U+{ord(bad[0]):04X} is not allowed in YAML: write "
            f'"\\x{ord(bad[0]):02x}" in quotes',
        )
        doc.broken = True
        return doc
    other = line_end(text)
    if other is not None:
        doc.add(*other)
        doc.broken = True
        return doc
    try:
        _build(doc, yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        if error.problem == _LIBRARYS_LIMIT and error.problem_mark is not None:
            return _too_deep(text, file, error.problem_mark)
        doc.problems.append(syntax(error, text, file))
        doc.broken = True
    except yaml.YAMLError as error:
        doc.add((0, 0), "this is not YAML: " + str(error).split("\n")[0].rstrip("."))
        doc.broken = True
    return doc


def _too_deep(text: str, file: str, mark: yaml.Mark) -> Document:
    """The problems of a text that has too many levels for libyaml itself, which says so at `mark`,
    before it gives the events.

    Up to there it has all the levels that libyaml takes, more than ours: read alone, that gives the
    events.
    """
    doc = Document(file, text[: mark.index])
    try:
        _build(doc, yaml.parse(doc.text, Loader=_LOADER))
    except yaml.YAMLError:
        pass
    doc.text = text
    if not doc.broken:
        doc.add((mark.line, mark.column), _TOO_DEEP)
        doc.broken = True
    return doc


def _mark(event: Event) -> tuple[int, int]:
    mark: Any = event.start_mark
    return (mark.line, mark.column)


class _Frame:
    """A container being filled; `key` is the map's pending key, `drop` whether its value is to be
    thrown away.

    `mute`: this is inside something that is thrown away.
    """

    __slots__ = ("drop", "held", "key", "key_mark", "mute")

    def __init__(self, held: Map | List, mute: bool) -> None:
        self.held = held
        self.mute = mute
        self.key: str | None = None
        self.key_mark = (0, 0)
        self.drop = False


def _build(doc: Document, events: Iterator[Event]) -> None:
    stack: list[_Frame] = []
    documents = 0
    aliases: set[str] = set()
    for count, event in enumerate(events):
        kind = type(event)
        if kind is ScalarEvent or kind is AliasEvent:
            mark = _mark(event)
            _put(doc, stack, _scalar(doc, event, mark, aliases), mark)
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            mark = _mark(event)
            _refuse_marks(doc, event, mark)
            if len(stack) >= DEPTH_MAX:
                doc.add(mark, _TOO_DEEP)
                doc.broken = True
                return
            held: Map | List = Map() if kind is MappingStartEvent else List()
            held.mark = mark
            held.marks = {} if kind is MappingStartEvent else []
            _put(doc, stack, held, mark)
            stack.append(_Frame(held, bool(stack) and (stack[-1].mute or stack[-1].drop)))
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            stack.pop()
        elif kind is DocumentStartEvent:
            documents += 1
            if documents > 1:
                doc.add(
                    _mark(event),
                    "a second document starts here: a file holds one scenario, its variants are "
                    "`cases`",
                )
                return
        if len(doc.problems) >= PROBLEMS_MAX or count > VALUES_MAX:
            why = (
                "too many problems"
                if count <= VALUES_MAX
                else f"a scenario has {VALUES_MAX:,} values at most"
            )
            doc.add(_mark(event), f"{why}: the rest of the file was not read")
            doc.broken = True
            return


def _refuse_marks(doc: Document, event: Any, mark: tuple[int, int]) -> None:
    if event.anchor is not None:
        doc.add(
            mark,
            f"the anchor `&{shorten(event.anchor)}` is not supported: write the value out where it "
            f"is needed",
        )
    if event.tag is not None and event.tag != "!":
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        doc.add(mark, f"the tag `{shorten(tag)}` is not supported: write the value without it")


def _scalar(doc: Document, event: Any, mark: tuple[int, int], aliases: set[str]) -> Any:
    if type(event) is AliasEvent:
        name = event.anchor or ""
        if name not in aliases:
            doc.add(mark, f"the alias `*{shorten(name)}` is not supported: write the value out")
        aliases.add(name)
        doc.poisoned.add(mark)
        return None
    if event.anchor is not None or event.tag is not None:
        _refuse_marks(doc, event, mark)
    doc.raw = event.value
    if event.style:
        doc.styles[mark] = event.style
        return event.value
    value, wrong = resolve(event.value)
    if wrong:
        doc.add(mark, wrong)
    return value


def _put(doc: Document, stack: list[_Frame], value: Any, mark: tuple[int, int]) -> None:
    if not stack:
        doc.root, doc.empty = value, value is None
        doc.place = Place(mark[0] + 1, mark[1] + 1)
        return
    frame = stack[-1]
    held = frame.held
    if type(held) is List:
        held.append(value)
        held.marks.append(mark)
        return
    assert isinstance(held, Map)
    if frame.key is None:
        _put_key(doc, frame, held, value, mark)
        return
    if not frame.drop:
        held[frame.key] = value
        held.marks[frame.key] = (*frame.key_mark, *mark)
    frame.key, frame.drop = None, False


def _put_key(doc: Document, frame: _Frame, held: Map, value: Any, mark: tuple[int, int]) -> None:
    if isinstance(value, (Map, List)):
        if not frame.mute:
            doc.add(mark, "a key is a name or a number: this one is a map or a list")
        frame.key, frame.drop = "", True
        return
    # Keys stay as they are written: `on` is a name, and `0x5000` an address for whoever reads that
    # map.
    if isinstance(value, str):
        key = value
    elif isinstance(value, Float):
        key = value.text
    else:
        key = doc.raw
    frame.key, frame.key_mark = key, mark
    if key in held:
        line = held.marks[key][0] + 1
        doc.add(
            mark,
            f"the key `{shorten(key)}` is there twice: the first one is in line {line}, keep one "
            f"of them",
        )
        doc.repeated.setdefault(held.mark, []).append((key, mark))
        frame.drop = True
