"""Values to JSON data and back: `decode(kind, encode(value)) == value`, also with JSON text in
between.

A value is a NamedTuple, and its annotations say how its members cross a border:

* a NamedTuple is an object; a member that equals its default is left out of it, and comes back as
  the default;
* `tuple[X, ...]` and `tuple[X, Y]` are lists, `Rows[X]` a list of lists: the members of each X, by
  their order in X;
* `bytes` are hex; the keys of a `Mapping[int, X]` are decimal;
* `X | None` is null or X; everything else is JSON data already, and is passed on as it is.

The annotations of a class are read once, when its first value comes by.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from operator import itemgetter
from typing import Any, Callable, TypeVar

T = TypeVar("T")
# In an annotation: a tuple of NamedTuples that come in hundreds, whose members need no names of
# their own in JSON.
Rows = tuple[T, ...]
Turn = Callable[[Any], Any]
# In place of the default of a member that has none.
_REQUIRED = object()


def encode(value: Any) -> dict[str, Any]:
    """The JSON data of a NamedTuple. What it holds as JSON data is not copied."""
    kind: Any = type(value)
    return _encoder(kind)(value)  # type: ignore[no-any-return]


def decode(kind: type[T], data: Any) -> T:
    """The NamedTuple of this class in JSON data.

    Raises LookupError, TypeError, ValueError, AttributeError or OverflowError where the data is no
    such value. The kinds of numbers and texts are not looked at: for what comes from strangers see
    kvmscen.hosts.process.shapes.
    """
    of: Any = kind
    return _decoder(of)(data)  # type: ignore[no-any-return]


class _Kind:
    """How values of one annotation are turned, either way; None: they are JSON data already."""

    def __init__(self, encode: Turn | None = None, decode: Turn | None = None) -> None:
        self.encode = encode
        self.decode = decode

    def __or__(self, other: _Kind | None) -> _Kind:
        if self.encode is None and (other is None or other.encode is None):
            return self
        if other is not None or self.encode is None or self.decode is None:
            raise TypeError(
                "of several kinds that may stand in a place JSON data does not tell which it is"
            )
        there, back = self.encode, self.decode
        return _Kind(
            lambda value: None if value is None else there(value),
            lambda value: None if value is None else back(value),
        )

    def __getitem__(self, of: Any) -> _Kind:
        return self


class _TupleKind(_Kind):
    def __getitem__(self, of: Any) -> _Kind:
        if of[-1] is Ellipsis:
            there, back = of[0].encode, of[0].decode
            if there is None:
                return _Kind(list, _items)
            return _Kind(
                lambda many: [there(value) for value in many],
                lambda many: tuple([back(value) for value in _items(many)]),
            )
        if any(kind.encode is not None for kind in of):
            raise TypeError("a tuple of several kinds with values in it is a NamedTuple")
        count = len(of)

        def fixed(data: Any) -> tuple[Any, ...]:
            if len(data) != count:
                raise ValueError(f"{len(data)} members where there are {count}")
            return _items(data)

        return _Kind(list, fixed)


class _MappingKind(_Kind):
    def __getitem__(self, of: Any) -> _Kind:
        key, (there, back) = of[0], (of[1].encode, of[1].decode)
        if key is _NUMBER:
            there, back = there or _same, back or _same
            return _Kind(
                lambda some: {str(number): there(value) for number, value in some.items()},
                lambda some: {int(number): back(value) for number, value in some.items()},
            )
        if there is None:
            return _PLAIN
        return _Kind(
            lambda some: {name: there(value) for name, value in some.items()},
            lambda some: {name: back(value) for name, value in some.items()},
        )


class _RowsKind(_Kind):
    def __getitem__(self, of: Any) -> _Kind:
        make = of.row._make
        if any(kind.encode is not None for kind in _kinds(of.row).values()):
            raise TypeError(
                f"the members of {of.row.__name__}, which stand in a row, are not all JSON data"
            )
        return _Kind(
            lambda rows: list(map(list, rows)), lambda rows: tuple(map(make, _items(rows)))
        )


class _ValueKind(_Kind):
    """A NamedTuple, which is read when the first one comes by: it may hold others of its own
    kind.
    """

    def __init__(self, row: Any) -> None:
        super().__init__(_late(_encoder, row), _late(_decoder, row))
        self.row = row


def _late(find: Callable[[Any], Turn], row: Any) -> Turn:
    turn_of_row: Turn | None = None

    def turn(value: Any) -> Any:
        nonlocal turn_of_row
        if turn_of_row is None:
            turn_of_row = find(row)
        return turn_of_row(value)

    return turn


def _items(data: Any) -> tuple[Any, ...]:
    if type(data) is not list:
        raise TypeError("no list")
    return tuple(data)


def _same(data: Any) -> Any:
    return data


_PLAIN, _NUMBER = _Kind(), _Kind()
_TUPLE, _MAPPING = _TupleKind(), _MappingKind()
_KNOWN = {
    "tuple": _TUPLE,
    "Mapping": _MAPPING,
    "dict": _MAPPING,
    "Rows": _RowsKind(),
    "bytes": _Kind(bytes.hex, bytes.fromhex),
    "int": _NUMBER,
}


class _Names(dict[str, Any]):
    """The names in the annotations of a module: `X | None` cannot be evaluated by Python 3.9
    itself.
    """

    def __init__(self, module: str) -> None:
        super().__init__(_KNOWN)
        self._module = vars(sys.modules[module])

    def __missing__(self, name: str) -> _Kind:
        meant = self._module.get(name)
        kind = _ValueKind(meant) if hasattr(meant, "_fields") else _PLAIN
        self[name] = kind
        return kind


def _kinds(value: Any) -> Mapping[str, _Kind]:
    """How each member of a NamedTuple is turned."""
    names = _Names(value.__module__)
    notes = (
        (name, getattr(note, "__forward_arg__", note))
        for name, note in value.__annotations__.items()
    )
    return {name: eval(note, {}, names) for name, note in notes}


@cache
def _encoder(value: Any) -> Turn:
    members = [
        (name, value._field_defaults.get(name, _REQUIRED), kind.encode)
        for name, kind in _kinds(value).items()
    ]

    def encode(instance: Any) -> dict[str, Any]:
        out = {}
        for (name, default, turn), member in zip(members, instance):
            if member is not default and member != default:
                out[name] = member if turn is None else turn(member)
        return out

    return encode


@cache
def _decoder(value: Any) -> Turn:
    kinds, defaults = _kinds(value), value._field_defaults
    required = [name for name in kinds if name not in defaults]
    turned = [
        (place, turn)
        for place, name in enumerate(required)
        if (turn := kinds[name].decode) is not None
    ]
    # None: its place is known.
    places: dict[str, Any] = dict.fromkeys(required)
    places.update(
        (name, (len(required) + place, kinds[name].decode)) for place, name in enumerate(defaults)
    )
    first, template, count = _members(required), tuple(defaults.values()), len(required)

    def decode(data: Any) -> Any:
        try:
            members = [*first(data), *template]
        except KeyError as error:
            raise LookupError(f"{value.__name__} has no {error.args[0]}") from None
        for place, turn in turned:
            members[place] = turn(members[place])
        if len(data) > count:
            for name, member in data.items():
                if (where := places[name]) is not None:
                    place, turn_or_none = where
                    members[place] = member if turn_or_none is None else turn_or_none(member)
        return tuple.__new__(value, members)

    return decode


def _members(names: list[str]) -> Turn:
    """The members of these names, as a tuple. LookupError: one is not there."""
    if len(names) > 1:
        return itemgetter(*names)
    return (lambda data: (data[names[0]],)) if names else lambda data: ()
