"""Numbers, symbols, matchers, registers and memory, from data to the values of a Scenario.

Every function takes any data: what the schema has refused already is passed over in silence, so
that a file gives all of its problems at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kvmscen.errors import Problem
from kvmscen.load.document import Document, List, Map
from kvmscen.load.names import shorten, unknown_register
from kvmscen.load.scalars import mistaken, resolve
from kvmscen.scenario import Expr, Match, MemoryCheck, Place, Value
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.arch.registers import Register

_EXPRESSION = re.compile(
    r"([A-Za-z_.$][\w.$]*)(?:\s*([+-])\s*(0x[0-9a-fA-F]+|0|[1-9][0-9]*))?", re.ASCII
)
MATCHER_KEYS = ("mask", "value", "in", "min", "max", "from", "step")
_KINDS = {
    frozenset(("mask", "value")): "mask",
    frozenset(("in",)): "in",
    frozenset(("min", "max")): "range",
    frozenset(("min",)): "range",
    frozenset(("max",)): "range",
    frozenset(("from", "step")): "series",
}
_UNITS = {"u8": 8, "u16": 16, "u32": 32, "u64": 64}
# A number whose width nothing tells: an unsigned one of 64 bits is taken, a negative one is not.
UNKNOWN_WIDTH = 0
NOWHERE = Place(0, 0)
EMPTY = Map()
EMPTY.marks, EMPTY.mark = {}, (0, 0)
EMPTY_LIST = List()
EMPTY_LIST.marks, EMPTY_LIST.mark = [], (0, 0)


class Seen:
    """What was noted meanwhile, and what was noted before of what was used meanwhile."""

    def __init__(self) -> None:
        self.problems: dict[Problem, None] = {}
        self.parts: list[Seen] = []


class Notes:
    """The problems of one conversion. The same one at the same place is noted once."""

    def __init__(self, doc: Document) -> None:
        self.doc = doc
        self.problems: dict[Problem, None] = {}
        # Where problems go besides, while `watching`.
        self._watchers: list[Seen] = []
        # The files beside it that were read, each once.
        self.files: dict[str, bytes] = {}
        # Where each path to them leads.
        self.paths: dict[str, str] = {}

    def beside(self) -> dict[str, tuple[str, bytes]]:
        """The files beside it that were read: by path, where that leads and the bytes there."""
        return {
            path: (real, self.files[real])
            for path, real in self.paths.items()
            if real in self.files
        }

    def add(self, place: Place, message: str) -> None:
        problem = Problem(self.doc.file, place.line, place.column, message)
        self.problems[problem] = None
        for seen in self._watchers:
            seen.problems[problem] = None

    def again(self, seen: Seen) -> None:
        """Give the problems of an earlier reading to all who are `watching` now."""
        for watcher in self._watchers:
            watcher.parts.append(seen)

    @contextmanager
    def watching(self) -> Iterator[Seen]:
        """Collect the problems noted inside the `with`."""
        seen = Seen()
        self._watchers.append(seen)
        try:
            yield seen
        finally:
            self._watchers.remove(seen)

    def written(self, place: Place, value: Any) -> str:
        """A number as it stands in the file."""
        return self.doc.written(place) if not isinstance(value, str) else shorten(value)


def as_map(value: Any) -> Map:
    """A map, or an empty one in place of what the schema refused."""
    return value if isinstance(value, Map) else EMPTY


def as_list(value: Any) -> List:
    """A list, or an empty one in place of what the schema refused."""
    return value if isinstance(value, List) else EMPTY_LIST


def as_int(value: Any, default: int = 0) -> int:
    """An integer, or `default` in place of what the schema refused."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def as_text(value: Any) -> str:
    """A text, or an empty one in place of what the schema refused."""
    return value if isinstance(value, str) else ""


def texts(value: Any) -> tuple[str, ...]:
    """One text or a list of them."""
    return (value,) if isinstance(value, str) else tuple(as_text(item) for item in as_list(value))


def expression(notes: Notes, value: Any, place: Place, bits: int = 64) -> Expr:
    """A number within `bits`, negative ones in two's complement, or a symbol with its offset."""
    if isinstance(value, bool):
        return Expr(None, int(value), place)
    if isinstance(value, int):
        return Expr(None, _fitted(notes, value, place, bits), place)
    if not isinstance(value, str):
        return Expr(None, 0, place)
    match = _EXPRESSION.fullmatch(value)
    if match is None:
        notes.add(place, _no_expression(value))
        return Expr(None, 0, place)
    symbol, sign, digits = match.groups()
    offset = 0 if digits is None else int(digits, 0)
    return Expr(symbol, -offset if sign == "-" else offset, place)


def _no_expression(value: str) -> str:
    number, wrong = resolve(value)
    if isinstance(number, int) and not wrong:
        return f'"{value}" is a text: write the number without quotes'
    right = mistaken(value)
    if right:
        return f"`{shorten(value)}` is no number: {right}"
    return (
        f"`{shorten(value)}` is no number and no symbol: write `symbol`, `symbol + n` or "
        f"`symbol - n` with a plain n"
    )


def _fitted(notes: Notes, value: int, place: Place, bits: int) -> int:
    if value < 0 and bits == UNKNOWN_WIDTH:
        notes.add(
            place,
            f"the width of `{notes.written(place, value)}` is not known: write the exit's `len` or "
            f"`size` too",
        )
        return 0
    width = bits or 64
    if value >> width if value >= 0 else -value > 1 << (width - 1):
        shown = notes.written(place, value)
        most = hex((1 << width) - 1) if value > 0 else f"-{1 << (width - 1):#x}"
        notes.add(
            place,
            f"`{shown}` does not fit in {width} bits: write {most} or "
            f"{'less' if value > 0 else 'more'}",
        )
        return 0
    return value if value >= 0 else value + (1 << width)


def check(notes: Notes, value: Any, place: Place, bits: int, repeats: bool) -> Value:
    """A number, a symbol or a matcher; `repeats`: `{from, step}` means something here."""
    if isinstance(value, Map):
        return _matcher(notes, value, place, bits, repeats)
    return expression(notes, value, place, bits)


def _matcher(notes: Notes, value: Map, place: Place, bits: int, repeats: bool) -> Match:
    known = [key for key in value if key in MATCHER_KEYS]
    kind = _KINDS.get(frozenset(known))
    if kind is None:
        if len(known) == len(value):
            notes.add(
                place,
                "this is no matcher: write `{mask, value}`, `{in: [...]}`, `{min, max}` or `{from, "
                "step}`",
            )
        kind = "in"
    if kind == "series" and not repeats:
        notes.add(place, "`{from, step}` counts repetitions: write it in a step with `repeat`")
    numbers: dict[str, Any] = {}
    for key in known:
        item, at = value[key], value.at(key)
        if key == "in":
            items = as_list(item)
            numbers[key] = tuple(
                expression(notes, number, items.at(n), bits) for n, number in enumerate(items)
            )
        elif key == "step":
            numbers[key] = Expr(None, as_int(item), at)
        else:
            numbers[key] = expression(notes, item, at, bits)
    low, high = numbers.get("min"), numbers.get("max")
    if low and high and low.symbol is None and high.symbol is None and low.offset > high.offset:
        notes.add(value.at("min"), "`min` is above `max`: nothing fits, exchange them")
    return Match(kind, numbers, place)


def checks(notes: Notes, value: Any, place: Place, bits: int, repeats: bool, most: int) -> Value:
    """As `check`, or a list of at most so many of them."""
    if not isinstance(value, List):
        return check(notes, value, place, bits, repeats)
    if len(value) > most:
        notes.add(place, f"a list of {len(value)} is too long: there are {most} elements at most")
    return tuple(check(notes, item, value.at(n), bits, repeats) for n, item in enumerate(value))


# --- registers ------------------------------------------------------------------------------------


def registers(
    notes: Notes, value: Any, arch: str, check_them: bool, repeats: bool = False
) -> dict[str, Value]:
    """Registers by name; x86's maps of segments and tables become `cs.base`. `check_them`: matchers
    are allowed.
    """
    held = as_map(value)
    module = ARCHES[arch]
    table: dict[str, Register] = module.REGISTERS
    out: dict[str, Value] = {}
    for key, item in held.items():
        place = held.at(key)
        nested = isinstance(item, Map) and not (set(item) & set(MATCHER_KEYS) and key in table)
        if nested and any(name.startswith(key + ".") for name in table):
            for part, number in item.items():
                _register(
                    notes,
                    out,
                    table,
                    f"{key}.{part}",
                    number,
                    item.at(part),
                    check_them and repeats,
                    check_them,
                )
        elif key in table:
            _register(notes, out, table, key, item, place, repeats, check_them)
        elif _any_arch(key) and not any(name.startswith(key + ".") for name in table):
            notes.add(held.at_key(key), unknown_register(key, arch))
    return out


def _any_arch(name: str) -> bool:
    # Whether the schema, which knows no architecture, has let this register pass.
    return any(
        name in m.REGISTERS or any(r.startswith(name + ".") for r in m.REGISTERS)
        for m in ARCHES.values()
    )


def _register(  # noqa: PLR0913 what is read, and where it goes
    notes: Notes,
    out: dict[str, Value],
    table: dict[str, Register],
    name: str,
    value: Any,
    place: Place,
    repeats: bool,
    check_them: bool,
) -> None:
    if name not in table:
        return
    if check_them:
        out[name] = check(notes, value, place, table[name].bits, repeats)
    else:
        out[name] = expression(notes, value, place, table[name].bits)


# --- memory ---------------------------------------------------------------------------------------


def memory(
    notes: Notes, value: Any, check_them: bool, repeats: bool = False
) -> tuple[MemoryCheck, ...]:
    """What memory holds, or is given, by address; a bare number is a u64."""
    held = as_map(value)
    return tuple(
        _memory(
            notes, _address(notes, key, held.at_key(key)), item, held.at(key), check_them, repeats
        )
        for key, item in held.items()
    )


def _address(notes: Notes, key: str, place: Place) -> Expr:
    number, wrong = resolve(key)
    if wrong:
        return Expr(None, 0, place)
    if isinstance(number, int) and not isinstance(number, bool):
        if number < 0:
            notes.add(place, f"`{key}` is no address: write a number that is not negative")
            return Expr(None, 0, place)
        return expression(notes, number, place)
    return expression(notes, key, place)


def _memory(
    notes: Notes, at: Expr, value: Any, place: Place, check_them: bool, repeats: bool
) -> MemoryCheck:
    units = (
        [key for key in value if key in (*_UNITS, "hex", "text")] if isinstance(value, Map) else []
    )
    if isinstance(value, Map) and not units and (not value or not set(value) <= set(MATCHER_KEYS)):
        if not value:
            notes.add(
                place,
                "this is empty: write a number, or one of `u8`, `u16`, `u32`, `u64`, `hex` and "
                "`text`",
            )
        return MemoryCheck(at, "u64", (), at.place)
    if not units:
        return MemoryCheck(
            at, "u64", (_number(notes, value, place, 64, check_them, repeats),), at.place
        )
    if len(value) > 1:
        notes.add(
            place,
            "one form of memory is meant here: write `u8`, `u16`, `u32`, `u64`, `hex` or `text` "
            "alone",
        )
    unit = units[0]
    item, where = value[unit], value.at(unit)
    if unit == "text":
        return MemoryCheck(at, unit, as_text(item).encode(), at.place)
    if unit == "hex":
        digits = "".join(as_text(item).split())
        ok = re.fullmatch(r"(?:[0-9a-fA-F]{2})+", digits)
        return MemoryCheck(at, unit, bytes.fromhex(digits) if ok else b"", at.place)
    bits = _UNITS[unit]
    if not isinstance(item, List):
        return MemoryCheck(
            at, unit, (_number(notes, item, where, bits, check_them, repeats),), at.place
        )
    if not item:
        notes.add(where, f"`{unit}` is empty: write at least one number")
    numbers = (
        _number(notes, number, item.at(n), bits, check_them, repeats)
        for n, number in enumerate(item)
    )
    return MemoryCheck(at, unit, tuple(numbers), at.place)


def _number(
    notes: Notes, value: Any, place: Place, bits: int, check_them: bool, repeats: bool
) -> Value:
    if check_them:
        return check(notes, value, place, bits, repeats)
    if isinstance(value, Map):
        notes.add(place, "a matcher cannot be written to memory: write a number or a symbol")
    return expression(notes, value, place, bits)
