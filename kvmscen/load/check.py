"""A document against the JSON Schema, and each of its complaints as a plain message at its place.

Editors load the same schema from `schema/`; what it cannot say (exactly one exit key, what exists
on which architecture) is checked in the conversion. This module is imported only for a document
that does not fit: jsonschema takes 45 ms to import.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError

from kvmscen.errors import Problem
from kvmscen.load import names, other_names
from kvmscen.load.document import Document, List, Map
from kvmscen.load.examples import otherwise
from kvmscen.load.names import shorten
from kvmscen.load.scalars import Float, mistaken
from kvmscen.load.schema import schema
from kvmscen.load.slips import bar, spaced
from kvmscen.load.unknown_names import (
    after_program,
    meant,
    unknown_action,
    unknown_exit,
    unknown_member,
    unknown_top,
)
from kvmscen.scenario import Place
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.header import exits

ERRORS_MAX = 100
UNKNOWN_MAX = 20
_TYPES = {
    "integer": "a number",
    "number": "a number",
    "string": "a text",
    "object": "a map",
    "array": "a list",
    "boolean": "true or false",
    "null": "nothing",
}
# By the `$comment` of a map in the schema: what a key of it is that is none.
_NO_EXIT = {"ignored": "no exit", "measured": "no exit and no key of `measure`"}
_NO_NAME = {
    "section name": "name of a section: write letters, digits, `_`, `.`, `$` and `-`, no digit or "
    "`-` first",
    "measure name": "name of what is timed: write letters, digits, `_`, `.`, `+` and `-`",
    "macro name": "name of a macro: write letters, digits, `_`, `.` and `$`",
    "case name": "name of a case: write letters, digits, `_`, `.`, `+` and `-`",
    "address": "address: write a number, `symbol` or `symbol + n`",
}
_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


@lru_cache(maxsize=1)
def _validator() -> Draft7Validator:
    return Draft7Validator(schema())


def check(doc: Document) -> list[Problem]:
    """Everything in a document that the schema forbids."""
    arch = doc.root.get("arch")
    teller = _Teller(doc, arch if isinstance(arch, str) and arch in ARCHES else None)
    for error in islice(_validator().iter_errors(doc.root), ERRORS_MAX):
        teller.tell(error)
    return teller.problems


def article(value: Any, doc: Document, place: Place) -> str:
    """What kind of value was written, with its article: `a list`."""
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"`{shorten(value)}`"
    return f"`{doc.written(place)}`"


class _Teller:
    """Turns errors of jsonschema into problems."""

    def __init__(self, doc: Document, arch: str | None) -> None:
        self.doc = doc
        self.arch = arch
        self.problems: list[Problem] = []

    def add(self, place: Place, message: str) -> None:
        problem = Problem(self.doc.file, place.line, place.column, message)
        if problem not in self.problems:
            self.problems.append(problem)

    def place(self, error: ValidationError) -> Place:
        place, node = self.doc.place, self.doc.root
        for key in error.absolute_path:
            place, node = node.at(key), node[key]
        return place

    def tell(self, error: ValidationError) -> None:
        kind = str(error.validator)
        path = list(error.absolute_path)
        if path and path[-1] == "asm" and self.is_block(error):
            # The lines of a program were read as a map.
            place = self.parent(error).at_key("asm")
            slip = bar(place.column + len("asm"), place.line)
            self.add(Place(slip.line, slip.column), slip.message)
        elif kind == "type" and error.instance is None and self.shallow(error):
            pass  # told at the members, which stand beside their exit
        elif kind == "anyOf":
            for inner in _branch(error):
                self.tell(inner)
        elif kind == "additionalProperties":
            self.unknown(error)
        else:
            place = self.place(error)
            self.add(place, getattr(self, "_" + kind.lower())(error, place))

    def parent(self, error: ValidationError) -> Any:
        """The map or list that holds the value which is wrong."""
        node = self.doc.root
        for key in list(error.absolute_path)[:-1]:
            node = node[key]
        return node

    def is_block(self, error: ValidationError) -> bool:
        """Whether a map is written in lines of its own, and is not one that names a file."""
        held: Any = error.instance
        if not isinstance(held, Map) or "file" in held:
            return False
        return self.doc.lines[held.mark[0]][held.mark[1] : held.mark[1] + 1] != "{"

    def shallow(self, error: ValidationError) -> bool:
        """Whether an exit is empty since its members are indented no deeper than its name."""
        comment = error.schema.get("$comment", "") if isinstance(error.schema, dict) else ""
        held = self.parent(error)
        return (
            comment.startswith("exit ")
            and isinstance(held, Map)
            and any(self.member_of(key, held) for key in held)
        )

    def member_of(self, key: str, held: Map) -> str | None:
        """The empty exit of a step that has this key as a member."""
        if key in names.BESIDE:
            return None
        archs = ARCHES if self.arch is None else (self.arch,)
        empty = [name for name in held if held[name] is None and name in exits.BY_NAME]
        return next(
            (name for name in empty for arch in archs if key in names.members(name, arch)), None
        )

    # --- keys -------------------------------------------------------------------------------------

    def unknown(self, error: ValidationError) -> None:
        held, schema = error.instance, error.schema
        assert isinstance(held, Map)
        assert isinstance(schema, dict)
        known = schema.get("properties", {})
        patterned = schema.get("patternProperties", {})
        extra = [key for key in held if key not in known and not _fits(key, patterned)]
        for key in extra[:UNKNOWN_MAX]:
            self.add(held.at_key(key), self.unknown_key(key, schema, error))
        if len(extra) > UNKNOWN_MAX:
            self.add(
                held.at_key(extra[UNKNOWN_MAX]),
                f"and {len(extra) - UNKNOWN_MAX:,} more unknown keys in this map",
            )

    def unknown_key(self, key: str, schema: dict[str, Any], error: ValidationError) -> str:
        comment = schema.get("$comment", "")
        shown = shorten(key)
        known = list(schema.get("properties", {}))
        if key == "<<":
            return "merge keys are not supported: write the keys out"
        joined = spaced(key, known)
        if joined:
            return joined
        if (
            comment == "top"
            and after_program(self.doc, key, error.instance)
            and not names.closest(key, known)
        ):
            return (
                f"`{shown}` is not a key of a scenario: if it is a label of the program, "
                f"indent it as the lines above"
            )
        if comment in ("top", "case"):
            return unknown_top(key, shown, known, comment)
        if comment == "step":
            held: Any = error.instance
            name = self.member_of(key, held)
            if name is not None:
                return f"`{key}` is a member of `{name}`: indent it deeper than `{name}:`"
            return unknown_exit(key, "no exit and no key of a step", (*known, *names.BESIDE))
        if comment in _NO_EXIT:
            return unknown_exit(key, _NO_EXIT[comment], known)
        if comment.startswith("exit "):
            return unknown_member(key, comment.removeprefix("exit "), self.arch, known)
        if comment == "action":
            return unknown_action(key)
        if comment == "registers":
            return names.unknown_register(key, self.arch)
        if comment in _NO_NAME:
            return f"`{shown}` is no {_NO_NAME[comment]}"
        return f"`{shown}` is not a key here: {meant(key, known)}"

    def _required(self, error: ValidationError, place: Place) -> str:
        schema = error.schema
        assert isinstance(schema, dict)
        held: Any = error.instance
        missing = [key for key in schema["required"] if key not in held]
        if missing == ["arch"] and schema.get("$comment") == "top":
            return (
                f"the key `arch` is missing: write "
                f"{names.either('arch: ' + arch for arch in ARCHES)}"
            )
        needed = [f"`{key}`" for key in schema["required"]]
        listed = needed[0] if len(needed) == 1 else ", ".join(needed[:-1]) + " and " + needed[-1]
        keys = names.either(missing).replace(" or ", " and ")
        is_missing = f"the key {keys} is" if len(missing) == 1 else f"the keys {keys} are"
        return f"{is_missing} missing: {schema.get('title', 'this map')} needs {listed}"

    # --- values -----------------------------------------------------------------------------------

    def _type(self, error: ValidationError, place: Place) -> str:
        schema = error.schema
        assert isinstance(schema, dict)
        value: Any = error.instance
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        comment = schema.get("$comment", "")
        if comment.startswith("exit ") and value is None:
            name = comment.removeprefix("exit ")
            return f"nothing is written after `{name}:`: write `{name}: {{}}`"
        key = error.absolute_path[-1] if error.absolute_path else ""
        if key == "asm":
            return _program(value)
        what = schema.get("title") or " or ".join(dict.fromkeys(_TYPES[name] for name in types))
        if value is None:
            return f"nothing is written here: {what} is meant"
        if "quotes" in what and isinstance(value, (int, float)):
            return self._quotes(value, place)
        if "boolean" in types and str(value).lower() in _BOOLEANS:
            return f"`{value}` is a text in YAML 1.2: write {_BOOLEANS[value.lower()]}"
        if isinstance(value, str) and ("integer" in types or "number" in types):
            return f"{what} is meant here, not {_text_for_number(value)}"
        if isinstance(value, Float) and "integer" in types and not float(value) % 1:
            return f"{what} is meant here, not `{value.text}`: write {int(value)}"
        how = otherwise(value, types, what, self.arch)
        return f"{what} is meant here, not {article(value, self.doc, place)}{how}"

    def _quotes(self, value: int | float, place: Place) -> str:
        written = self.doc.written(place)
        kind = "a float" if isinstance(value, float) else "a number"
        return f'`{written}` is {kind}: write it in quotes, "{written}"'

    def _enum(self, error: ValidationError, place: Place) -> str:
        schema = error.schema
        assert isinstance(schema, dict)
        value = error.instance
        title = schema.get("title", "one of the values that are known here")
        choices = schema["enum"]
        if not isinstance(value, str):
            return f"{title} is meant here, not {article(value, self.doc, place)}"
        if title == "an exit":
            return unknown_exit(value, "no exit", choices)
        if title == "an action that stands alone":
            if value in names.ACTIONS:
                return f"`{value}` does not stand alone: write `{value}: ...`"
            return unknown_action(value)
        if title == "an architecture" and (told := other_names.arch(value)):
            return told
        return f"`{shorten(value)}` is not {title}: {meant(value, choices)}"

    def _minimum(self, error: ValidationError, place: Place) -> str:
        return (
            f"{article(error.instance, self.doc, place)} is too small: write "
            f"{error.validator_value} or more"
        )

    def _maximum(self, error: ValidationError, place: Place) -> str:
        return (
            f"{article(error.instance, self.doc, place)} is too large: "
            f"{error.validator_value:,} is the limit"
        )

    def _exclusiveminimum(self, error: ValidationError, place: Place) -> str:
        return (
            f"{article(error.instance, self.doc, place)} is too small: write more than "
            f"{error.validator_value}"
        )

    def _pattern(self, error: ValidationError, place: Place) -> str:
        assert isinstance(error.schema, dict)
        what = error.schema.get("title", "another text")
        verb = "are" if what.startswith("pairs") else "is"
        return f"{what} {verb} meant here, not {article(error.instance, self.doc, place)}"

    def _empty(self, error: ValidationError, place: Place) -> str:
        assert isinstance(error.schema, dict)
        what = error.schema.get("title") or (
            "a text" if isinstance(error.instance, str) else "at least one item"
        )
        return f"this is empty: write {what}, or leave the key out"

    _minitems = _minlength = _minproperties = _empty

    def _maxitems(self, error: ValidationError, place: Place) -> str:
        items: Any = error.instance
        return f"{len(items)} items are too many: {error.validator_value} is the limit"


def _branch(error: ValidationError) -> Iterable[ValidationError]:
    """The errors of the alternative that was meant: the first whose type is that of what was
    written.
    """
    branches: dict[Any, list[ValidationError]] = {}
    for inner in error.context:
        branches.setdefault(inner.schema_path[0], []).append(inner)
    for errors in branches.values():
        if not any(_mistyped(e) for e in errors):
            return errors
    return next(iter(branches.values()))


def _mistyped(error: ValidationError) -> bool:
    if error.path:
        return False
    if error.validator == "anyOf":
        return all(_mistyped(e) for e in error.context if not e.path)
    return error.validator == "type" or (
        error.validator == "enum" and not isinstance(error.instance, str)
    )


def _fits(key: str, patterned: dict[str, Any]) -> bool:
    return any(re.search(pattern, key) for pattern in patterned)


def _program(value: Any) -> str:
    if isinstance(value, List):
        return "the program's text is meant here: write `asm: |` and the lines below it, indented"
    return "the program's text is missing: write `asm: |` and the lines below it, indented"


def _text_for_number(text: str) -> str:
    right = mistaken(text)
    return f"`{shorten(text)}`: {right}" if right else f"`{shorten(text)}`"
