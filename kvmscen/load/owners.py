"""Whose a problem is: which cases of a file it keeps from running, by the place where it stands."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from kvmscen.errors import Problem
from kvmscen.load.cases import DEFAULT, FileCases
from kvmscen.load.document import Document, Map
from kvmscen.load.values import Seen

Mark = tuple[int, int]


class Owners:
    """The extents of the keys at the top level, and of the cases, in one document."""

    def __init__(self, doc: Document, cases_found: FileCases) -> None:
        self._found = cases_found
        # (where it begins, key of the top level or None, name of a case or None); what stands
        # before the first is everybody's.
        begins: list[tuple[Mark, str | None, str | None]] = []
        root = doc.root
        for key in root:
            begins.append((root.marks[key][:2], None if key == "cases" else key, None))
        cases = root.get("cases")
        if isinstance(cases, Map):
            begins += [
                (cases.marks[name][:2], None, f"{DEFAULT} " if name == DEFAULT else name)
                for name in cases
            ]
            begins += [(mark, None, name) for name, mark in doc.repeated.get(cases.mark, ())]
        begins += [(mark, key, None) for key, mark in doc.repeated.get(root.mark, ())]
        self._begins = sorted(begins, key=lambda begin: begin[0])
        self._marks = [begin[0] for begin in self._begins]

    def at(self, mark: Mark) -> frozenset[str]:
        """The cases that what stands at a place, counted from 0, is part of."""
        index = bisect_right(self._marks, mark) - 1
        _, key, name = self._begins[index] if index >= 0 else (mark, None, None)
        if name is not None:
            return frozenset((name,))
        if key is None:
            return frozenset(self._found.uses)
        return frozenset(name for name, used in self._found.uses.items() if key in used)

    def noted(self) -> dict[Problem, frozenset[str]]:
        """The cases that each problem of a value hits. Cases share values, so they are gone through
        by value.
        """
        users: dict[int, tuple[Seen, set[str]]] = {}
        for name, seen in self._found.hits.items():
            for part in (seen, *seen.parts):
                users.setdefault(id(part), (part, set()))[1].add(name)
        hits: dict[Problem, list[frozenset[str]]] = {}
        for part, names in users.values():
            hit = frozenset(names)
            for problem in part.problems:
                hits.setdefault(problem, []).append(hit)
        return {problem: frozenset().union(*several) for problem, several in hits.items()}

    def of(self, marks: Iterable[Mark]) -> frozenset[str]:
        """The cases that any of these places is part of."""
        return frozenset().union(*map(self.at, marks))
