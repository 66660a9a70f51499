"""load: a scenario file to a Scenario, or a ScenarioError with everything that is wrong in it.

compose (document.py) gives positioned data, check (check.py) holds it against the JSON Schema that editors use too, and the
conversion (cases.py and what it calls) makes the values and checks what a schema cannot say. What needs the layout or the
assembler is build's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kvmscen.arch import ARCHES
from kvmscen.errors import Problem, ScenarioError
from kvmscen.load import names
from kvmscen.load.blame import Blocks
from kvmscen.load.cases import scenario
from kvmscen.load.document import SIZE_MAX, Document, List, Map, compose, decode
from kvmscen.load.schema import fits
from kvmscen.load.values import Notes
from kvmscen.scenario import Scenario

__all__ = ["load", "load_cases", "load_text"]

PROBLEMS_MAX = 100


def load(path: str) -> Scenario:
    """The scenario in a file. Raises ScenarioError if anything is wrong in it; a file that cannot be read is one too."""
    return _whole(*_read(_text(path), path))


def load_cases(path: str) -> Scenario:
    """The cases of a file that are right, and what is wrong in the others. Raises ScenarioError where none is right."""
    found, problems, root = _read(_text(path), path)
    if not problems:
        return found
    wrong = Blocks(root).wrong(problems)
    bad = {name for names in wrong.values() for name in names or ()}
    good = tuple(case for case in found.cases if case.name not in bad)
    if not good or None in wrong.values():
        return _whole(found, problems, root)
    return Scenario(found.file, good, wrong)


def _text(path: str) -> str:
    try:
        with Path(path).open("rb") as stream:
            raw = stream.read(SIZE_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ScenarioError([Problem(path, 0, 0, f"cannot be read: {reason}")]) from None
    text = decode(raw, path)
    if isinstance(text, Problem):
        raise ScenarioError([text])
    return text


def load_text(text: str, file: str) -> Scenario:
    """The scenario in a text; `file` is what places name. Raises ScenarioError with all problems of the text."""
    return _whole(*_read(text, file))


def _whole(found: Scenario, problems: list[Problem], _: Map) -> Scenario:
    if problems:
        raise ScenarioError(_few(problems), found.cases)
    return found


def _read(text: str, file: str) -> tuple[Scenario, list[Problem], Map]:
    """All that could be read, and what is wrong. Raises ScenarioError where nothing could."""
    doc = compose(text, file)
    problems = list(doc.problems)
    if doc.broken or not isinstance(doc.root, Map):
        raise ScenarioError(problems or [_no_map(doc)])
    silent = {(line + 1, column + 1) for line, column in doc.poisoned}
    if not fits()(doc.root):
        from kvmscen.load.check import check  # here, since importing jsonschema takes longer than the rest of load

        _later(problems, check(doc), silent)
    notes = Notes(doc)
    found = scenario(notes, doc.root)
    _later(problems, notes.problems, silent)
    return found, problems, doc.root


def _later(problems: list[Problem], more: Iterable[Problem], silent: set[tuple[int, int]]) -> None:
    """Add what a later stage found, but for the places where an earlier one has something to say already."""
    taken = {(p.line, p.column) for p in problems} | silent
    problems.extend(p for p in more if (p.line, p.column) not in taken)


def _few(problems: list[Problem]) -> list[Problem]:
    """The problems, or the first of them with how many more there are."""
    if len(problems) <= PROBLEMS_MAX:
        return problems
    first = sorted(problems)[:PROBLEMS_MAX]
    last = first[-1]
    return [
        *first,
        Problem(last.file, last.line, last.column + 1, f"and {len(problems) - PROBLEMS_MAX:,} more problems below"),
    ]


def _no_map(doc: Document) -> Problem:
    keys = names.either(f"arch: {arch}" for arch in ARCHES)
    if doc.empty:
        return Problem(doc.file, 1, 1, f"the file is empty: a scenario begins with {keys}, and has `asm` and `expect`")
    what = "a list" if isinstance(doc.root, List) else "a single value"
    return Problem(doc.file, doc.place.line, doc.place.column, f"a scenario is a map that has {keys}: this is {what}")
