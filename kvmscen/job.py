"""What goes between the engine and its prepare children: Targets there, Jobs back, each Job with the Legend to read it by."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvmscen.expectation import Expectation
from kvmscen.facts import Facts
from kvmscen.machine import Sealed
from kvmscen.measured import Wanted

Json = dict[str, Any]


@dataclass(frozen=True)
class Legend:
    """What a reader needs to read an event: the symbols and the source lines (gpa, size, file line, text), by gpa.

    `file` is the file of the source lines as the scenario names it, empty for the scenario itself; `sections` are (name,
    gpa, size).
    """

    symbols: Mapping[str, int]
    lines: tuple[tuple[int, int, int, str], ...]
    file: str = ""
    sections: tuple[tuple[str, int, int], ...] = ()

    def to_json(self) -> Json:
        lines, sections = list(map(list, self.lines)), list(map(list, self.sections))
        return {"symbols": dict(self.symbols), "lines": lines, "file": self.file, "sections": sections}

    @classmethod
    def from_json(cls, data: Json) -> Legend:
        lines = tuple((at, size, line, text) for at, size, line, text in data["lines"])
        sections = tuple((name, at, size) for name, at, size in data["sections"])
        return cls(data["symbols"], lines, data["file"], sections)

    def source(self, pc: int | None, advanced: bool | None) -> tuple[int, str] | None:
        """File line and text of the instruction at `pc`, or of the one before where pc has advanced already.

        `advanced` None (it cannot be told) takes the line that pc points at.
        """
        if pc is None:
            return None
        at = pc - 1 if advanced else pc
        index = bisect_right(self.lines, at, key=lambda line: line[0]) - 1
        if index < 0:
            return None
        start, size, line, text = self.lines[index]
        return (line, text) if at < start + size else None


@dataclass(frozen=True)
class Target:
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


@dataclass(frozen=True)
class Job:
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
            "machine": None if machine is None else list(vars(machine).values()),
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
