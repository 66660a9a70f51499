"""What goes between the engine and its prepare children: Targets there, Jobs back, each Job with the Legend to read it by."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kvmscen.expectation import Expectation
from kvmscen.facts import Facts
from kvmscen.machine import Sealed
from kvmscen.measured import Wanted

Json = dict[str, Any]


class Legend(NamedTuple):
    """What a reader needs to read an event: the symbols and the source lines (gpa, size, file line, text), by gpa.

    `file` is the file of the source lines as the scenario names it, empty for the scenario itself; `sections` are (name,
    gpa, size). Of a linked program the lines are what stands between two symbols, with 0 as number and the first symbol's name as
    text; its source lines, with the name of their file as text, are in `debug`. `note` is what to know of the program, or empty.
    """

    symbols: Mapping[str, int]
    lines: tuple[tuple[int, int, int, str], ...]
    file: str = ""
    sections: tuple[tuple[str, int, int], ...] = ()
    debug: tuple[tuple[int, int, int, str], ...] = ()
    note: str = ""

    def to_json(self) -> Json:
        lines, sections, debug = (list(map(list, rows)) for rows in (self.lines, self.sections, self.debug))
        return {
            "symbols": dict(self.symbols),
            "lines": lines,
            "file": self.file,
            "sections": sections,
            "debug": debug,
            "note": self.note,
        }

    @classmethod
    def from_json(cls, data: Json) -> Legend:
        lines, debug = (tuple((at, size, line, text) for at, size, line, text in data[key]) for key in ("lines", "debug"))
        sections = tuple((name, at, size) for name, at, size in data["sections"])
        return cls(data["symbols"], lines, data["file"], sections, debug, data["note"])

    @property
    def best(self) -> frozenset[str]:
        """Of a linked program the names of functions and objects, rather than the linker's own for the same addresses."""
        return frozenset(text for _, _, line, text in self.lines if not line)

    def source(self, pc: int | None, advanced: bool | None) -> str | None:
        """`LINE: TEXT` or `FILE:LINE: TEXT` of the instruction at `pc`, or of the one before where pc has advanced already.

        Of a linked program it is `SYMBOL + OFFSET` of pc, with `(FILE:LINE)` of that instruction behind it where that is known.
        `advanced` None (it cannot be told) takes what pc points at. None where the program has nothing there.
        """
        found = self.row(pc, advanced)
        if found is None or pc is None:
            return None
        start, _, line, text = found
        if line:
            return f"{self.file}:{line}: {text}" if self.file else f"{line}: {text}"
        at = _row(self.debug, pc - 1 if advanced else pc)
        return offset(text, pc - start) + (f" ({at[3]}:{at[2]})" if at else "")

    def row(self, pc: int | None, advanced: bool | None) -> tuple[int, int, int, str] | None:
        """The line that `source` tells of."""
        return None if pc is None else _row(self.lines, pc - 1 if advanced else pc)

    def within(self, at: int, size: int) -> Sequence[tuple[int, int, int, str]]:
        """The source lines of a linked program that begin in a range."""
        return self.debug[_first(self.debug, at) : _first(self.debug, at + size)]


def offset(symbol: str, distance: int) -> str:
    """`symbol + 0x10`."""
    return f"{symbol} + {distance:#x}" if distance else symbol


def _first(rows: Sequence[tuple[int, int, int, str]], at: int) -> int:
    return bisect_left(rows, at, key=lambda row: row[0])


def _row(rows: Sequence[tuple[int, int, int, str]], at: int) -> tuple[int, int, int, str] | None:
    index = bisect_right(rows, at, key=lambda row: row[0]) - 1
    return rows[index] if index >= 0 and at < rows[index][0] + rows[index][1] else None


class Target(NamedTuple):
    """A host as the prepare child sees it: its name, and its facts for each architecture that it runs."""

    name: str
    facts: tuple[Facts, ...]

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "facts": [facts.to_json() for facts in self.facts],
        }

    @classmethod
    def from_json(cls, data: Json) -> Target:
        return cls(data["name"], tuple(map(Facts.from_json, data["facts"])))

    def of(self, arch: str) -> Facts | None:
        """The facts for an architecture; None where the host does not run it."""
        return next((facts for facts in self.facts if facts.arch == arch), None)


class Job(NamedTuple):
    """One case for one host. `skip` is why it will not run there; else `machine` and `expectation` are set.

    `host` is the text given to --on. `legend` names addresses and source lines in reports. `wanted` is what is timed: then
    there is no expectation.
    """

    file: str
    scenario: str
    case: str
    line: int
    summary: str
    arch: str
    host: str
    kernel: str | None
    flavour: str | None
    predicted: bool
    skip: str | None
    machine: Sealed | None
    expectation: Expectation | None
    legend: Legend | None
    wanted: tuple[Wanted, ...] = ()

    def to_json(self) -> Json:
        machine = self.machine
        return {
            "file": self.file,
            "scenario": self.scenario,
            "case": self.case,
            "line": self.line,
            "summary": self.summary,
            "arch": self.arch,
            "host": self.host,
            "kernel": self.kernel,
            "flavour": self.flavour,
            "predicted": self.predicted,
            "skip": self.skip,
            "machine": None if machine is None else list(machine),
            "expectation": None if self.expectation is None else self.expectation.to_json(),
            "legend": None if self.legend is None else self.legend.to_json(),
            "wanted": [one.to_json() for one in self.wanted],
        }

    @classmethod
    def from_json(cls, data: Json) -> Job:
        machine, expectation, legend = data["machine"], data["expectation"], data["legend"]
        return cls(
            data["file"],
            data["scenario"],
            data["case"],
            data["line"],
            data["summary"],
            data["arch"],
            data["host"],
            data["kernel"],
            data["flavour"],
            data["predicted"],
            data["skip"],
            None if machine is None else Sealed(*machine),
            None if expectation is None else Expectation.from_json(expectation),
            None if legend is None else Legend.from_json(legend),
            tuple(map(Wanted.from_json, data["wanted"])),
        )
