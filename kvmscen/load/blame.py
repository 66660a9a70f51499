"""Which cases of a file a problem is of, so that the others can run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kvmscen.errors import Problem
from kvmscen.load.document import Map

DEFAULT = "default"
# What each case needs, whatever it has of its own.
_ALL = ("arch", "cases")


class Blocks:
    """Where the keys of the top level and the cases begin in a file."""

    def __init__(self, root: Map) -> None:
        self.cases: Map = root["cases"] if isinstance(root.get("cases"), Map) else Map()
        self._top = sorted((_at(root, key), key) for key in root)
        self._named = sorted((_at(self.cases, name), name) for name in self.cases)

    def wrong(self, problems: Iterable[Problem]) -> dict[Problem, tuple[str, ...] | None]:
        """Each problem with the cases that it is of; None: all of them."""
        return {problem: self._of((problem.line, problem.column)) for problem in problems}

    def _of(self, place: tuple[int, int]) -> tuple[str, ...] | None:
        key = _last(self._top, place)
        if key == "cases":
            name = _last(self._named, place)
            return None if name is None else (name,)
        if key is None or key in _ALL:
            return None
        # Those that have no such key of their own take the scenario's.
        return (DEFAULT, *(name for name, own in self.cases.items() if not isinstance(own, Map) or key not in own))


def _at(held: Map, key: str) -> tuple[int, int]:
    place = held.at_key(key)
    return place.line, place.column


def _last(begun: list[tuple[tuple[int, int], Any]], place: tuple[int, int]) -> Any:
    """The last of them that begins at a place or before it."""
    return next((key for at, key in reversed(begun) if at <= place), None)
