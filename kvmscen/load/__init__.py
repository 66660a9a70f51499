"""load: a scenario file to a Scenario, or a ScenarioError with everything that is wrong in it.

compose (document.py) gives positioned data, check (check.py) holds it against the JSON Schema that
editors use too, and the conversion (cases.py and what it calls) makes the values and checks what a
schema cannot say. What needs the layout or the assembler is build's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from kvmscen.errors import Problem, ScenarioError
from kvmscen.load import names
from kvmscen.load.cases import scenario
from kvmscen.load.document import SIZE_MAX, Document, List, Map, compose, decode
from kvmscen.load.owners import Owners
from kvmscen.load.schema import fits
from kvmscen.load.values import Notes
from kvmscen.scenario import Case, Scenario
from kvmscen.sent.arch import ARCHES

__all__ = ["Loaded", "load", "load_text", "read", "read_bytes", "read_text"]

PROBLEMS_MAX = 100


class Loaded(NamedTuple):
    """A file as far as it could be read.

    `scenario` has the cases that nothing is wrong with, `wrong` the others that could be read all
    the same; `problems` say what is wrong, each with the cases that it keeps from running. `names`
    are those of all cases, as far as they are known. `beside` are the files that were read for it:
    by path, where that leads and the bytes there.
    """

    scenario: Scenario
    problems: tuple[Problem, ...] = ()
    wrong: tuple[Case, ...] = ()
    names: tuple[str, ...] = ()
    beside: Mapping[str, tuple[str, bytes]] = {}


def load(path: str) -> Scenario:
    """The scenario in a file. Raises ScenarioError; a file that cannot be read is one too."""
    return _all_right(read(path))


def load_text(text: str, file: str) -> Scenario:
    """The scenario in a text; `file` is what places name. Raises ScenarioError with all problems of
    the text.
    """
    return _all_right(read_text(text, file))


def _all_right(loaded: Loaded) -> Scenario:
    if loaded.problems:
        raise ScenarioError(loaded.problems, (*loaded.scenario.cases, *loaded.wrong))
    return loaded.scenario


def read(path: str) -> Loaded:
    """The cases of a file that are right, and the problems of the others; a file that cannot be
    read has one problem.
    """
    try:
        with Path(path).open("rb") as stream:
            raw = stream.read(SIZE_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Loaded(Scenario(path, ()), (Problem(path, 0, 0, f"cannot be read: {reason}"),))
    return read_bytes(raw, path)


def read_bytes(raw: bytes, file: str) -> Loaded:
    """As `read`, of the bytes of a file; `file` is what places name."""
    text = decode(raw, file)
    if isinstance(text, Problem):
        return Loaded(Scenario(file, ()), (text,))
    return read_text(text, file)


def read_text(text: str, file: str) -> Loaded:
    """As `read`, of a text; `file` is what places name."""
    doc = compose(text, file)
    problems = list(doc.problems)
    if doc.broken or not isinstance(doc.root, Map):
        return Loaded(Scenario(file, ()), tuple(problems or [_no_map(doc)]))
    silent = {(line + 1, column + 1) for line, column in doc.poisoned}
    if not fits()(doc.root):
        # Here, since importing jsonschema takes longer than the rest of load.
        from kvmscen.load.check import check

        _later(problems, check(doc), silent)
    written = len(problems)
    notes = Notes(doc)
    loaded = scenario(notes, doc.root)
    _later(problems, notes.problems, silent)
    names = tuple(loaded.uses)
    if not problems:
        cases = tuple(loaded.cases.values())
        return Loaded(Scenario(file, cases), (), (), names, notes.beside())
    owners = Owners(doc, loaded)
    noted, nobody = owners.noted(), frozenset[str]()
    hits = {
        problem: owners.at((problem.line - 1, problem.column - 1)) for problem in problems[:written]
    }
    hits |= {problem: noted.get(problem, nobody) for problem in problems[written:]}
    bad = frozenset().union(*set(hits.values()), owners.of(doc.poisoned))
    good = tuple(case for name, case in loaded.cases.items() if name not in bad)
    wrong = tuple(case for name, case in loaded.cases.items() if name in bad)
    # What hits none is wrong all the same, and what hits all is the file's.
    some = {
        hit: tuple(name for name in names if name in hit) if len(hit) < len(names) else ()
        for hit in set(hits.values())
    }
    shown = _few([problem._replace(cases=some[hit]) for problem, hit in hits.items()])
    return Loaded(Scenario(file, good), tuple(sorted(shown)), wrong, names)


def _later(problems: list[Problem], more: Iterable[Problem], silent: set[tuple[int, int]]) -> None:
    """Add what a later stage found, but for the places where an earlier one has something to say
    already.
    """
    spoken_of = {(p.line, p.column) for p in problems} | silent
    problems.extend(p for p in more if (p.line, p.column) not in spoken_of)


def _few(problems: list[Problem]) -> list[Problem]:
    """The problems, or the first of them with how many more there are."""
    if len(problems) <= PROBLEMS_MAX:
        return problems
    first = sorted(problems)[:PROBLEMS_MAX]
    last = first[-1]
    return [
        *first,
        Problem(
            last.file,
            last.line,
            last.column + 1,
            f"and {len(problems) - PROBLEMS_MAX:,} more problems below",
        ),
    ]


def _no_map(doc: Document) -> Problem:
    keys = names.either(f"arch: {arch}" for arch in ARCHES)
    if doc.empty:
        return Problem(
            doc.file,
            1,
            1,
            f"the file is empty: a scenario begins with {keys}, and has `asm` and `expect`",
        )
    what = "a list" if isinstance(doc.root, List) else "a single value"
    return Problem(
        doc.file,
        doc.place.line,
        doc.place.column,
        f"a scenario is a map that has {keys}: this is {what}",
    )
