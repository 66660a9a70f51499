"""The program: its text in the scenario, or in a file beside it, and the macros that are defined
for it.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import PurePath
from typing import Any

from kvmscen.load.document import SIZE_MAX, Map
from kvmscen.load.names import shorten
from kvmscen.load.values import Notes, as_map
from kvmscen.scenario import Asm, Elf, Macro, Place

MAX_FILE = 64 << 20
_NESTING = re.compile(r"(?:^|[;:])[ \t]*\.(macro|endm)\b", re.IGNORECASE | re.MULTILINE)


def program(notes: Notes, value: Any, place: Place) -> Asm | None:
    """The program with the place of its first line."""
    if isinstance(value, Map):
        return _from_file(notes, value)
    if not isinstance(value, str):
        return None
    if not value.strip():
        notes.add(place, "the program is empty: write `asm: |` and the lines below it, indented")
        return None
    return Asm(value, *_start(notes, value, place, "`asm: |`"), place)


def macros(notes: Notes, value: Any) -> tuple[Macro, ...]:
    """The macros; names differ in more than their case, as GNU as has it."""
    held = as_map(value)
    first: dict[str, str] = {}
    macros: list[Macro] = []
    for name, text in held.items():
        if not isinstance(text, str):
            continue
        place = held.at(name)
        same = first.setdefault(name.lower(), name)
        if same != name:
            notes.add(
                held.at_key(name),
                f"`{name}` and `{same}` are one macro: case does not count, give this one another "
                f"name",
            )
        if not text.strip():
            notes.add(
                place,
                f"the macro `{name}` is empty: write the instructions that it stands for, or a "
                f"comment",
            )
        depth = 0
        for word in _NESTING.findall(text):
            depth += 1 if word.lower() == "macro" else -1
            if depth < 0:
                break
        if depth:
            notes.add(
                place,
                "`.macro` and `.endm` do not fit together here: `.endm` is put behind the text, "
                "leave it out",
            )
        macros.append(Macro(name, text, *_start(notes, text, place, f"`{name}: |`")))
    return tuple(macros)


def _start(notes: Notes, value: str, place: Place, remedy: str) -> tuple[int, int]:
    """Line and column at which a text begins in the file."""
    style = notes.doc.styles.get((place.line - 1, place.column - 1), "")
    if style == "|":
        return place.line + 1, _indentation(notes, value, place)
    if style == ">":
        notes.add(place, f"`>` joins the lines of the program: write {remedy}")
    elif "\n" in value or (style == "" and _folded(notes, value, place)):
        notes.add(place, f"a program of several lines is written as a block: write {remedy}")
    return place.line, place.column + (1 if style else 0)


def _folded(notes: Notes, value: str, place: Place) -> bool:
    line = notes.doc.lines[place.line - 1]
    return not line[place.column - 1 :].startswith(value)


def _indentation(notes: Notes, value: str, place: Place) -> int:
    raw = notes.doc.lines
    for n, line in enumerate(value.split("\n")):
        if line.strip() and place.line + n < len(raw):
            return len(raw[place.line + n].rstrip("\r")) - len(line) + 1
    return 1


def linked(notes: Notes, value: Any, place: Place) -> Elf | None:
    """The linked program in a file; its contents are read later."""
    if not isinstance(value, str) or not value:
        return None
    file = beside(notes, value, place, MAX_FILE)
    return None if file is None else Elf(value, file[1], place)


# --- files beside the scenario --------------------------------------------------------------------


def _from_file(notes: Notes, held: Map) -> Asm | None:
    name = held.get("file")
    if not isinstance(name, str) or not name:
        return None
    place = held.at("file")
    file = beside(notes, name, place, SIZE_MAX)
    if file is None:
        return None
    path, raw = file
    shown = shorten(name)
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        say = f"the byte 0x{raw[error.start]:02x} in its line {line} is not UTF-8: save it as UTF-8"
        notes.add(place, f"`{shown}` is no text: {say}")
        return None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        notes.add(
            place, f"`{shown}` is no text: there is a zero byte in its line {line}: name a source"
        )
        return None
    alone = text.replace("\r\n", "\n").find("\r")
    if alone >= 0:
        line = text.replace("\r\n", "\n").count("\n", 0, alone) + 1
        notes.add(
            place,
            f"`{shown}` has a carriage return (CR) alone in its line {line}: save it with the line "
            f"ends LF, or CRLF",
        )
        return None
    if not text.strip():
        notes.add(
            place,
            f"the program in `{shown}` is empty: write its instructions there, or name another "
            f"file",
        )
        return None
    return Asm(text.replace("\r\n", "\n"), 1, 1, place, name, path)


def beside(notes: Notes, name: str, place: Place, most: int) -> tuple[str, bytes] | None:
    """Path and bytes of a file in the scenario's folder or below it, of `most` bytes; None where
    something is wrong with it.
    """
    shown = shorten(name)
    folder = os.path.dirname(notes.doc.file)
    path = os.path.join(folder, name)
    try:
        if os.path.isabs(name) or ".." in PurePath(name).parts:
            notes.add(
                place,
                f"`{shown}` leads out of the scenario's folder: write the name of a file in it or "
                f"below it",
            )
            return None
        real, root = os.path.realpath(path), os.path.realpath(folder or ".")
        if os.path.commonpath([real, root]) != root:
            notes.add(
                place,
                f"`{shown}` is a link that leads out of the scenario's folder: put the file itself "
                f"there",
            )
            return None
        # Not a pipe that never ends, nor a link that has just been put there.
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
                notes.add(place, f"`{shown}` is {kind}: write the name of a file")
                return None
            notes.paths[path] = real
            held = notes.files.get(real)
            total = sum(map(len, notes.files.values())) + status.st_size
            if held is None and status.st_size <= most and total > MAX_FILE:
                notes.add(
                    place,
                    f"`{shown}` brings the files of this scenario to {total:,} bytes: 64 MiB in "
                    f"all is the limit",
                )
                return None
            if held is None and status.st_size <= most:
                with os.fdopen(descriptor, "rb", closefd=False) as stream:
                    held = notes.files[real] = stream.read(most + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        notes.add(place, f"`{shown}` cannot be read from the scenario's folder: {reason}")
        return None
    if held is None or len(held) > most:
        notes.add(place, f"`{shown}` has more than {most:,} bytes: that is the limit")
        return None
    return path, held
