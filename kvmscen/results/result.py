"""What was judged: one Result a case and host, and the Run that holds them all. Reports are made
from these alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kvmscen.errors import Problem
from kvmscen.results.measured import Measured
from kvmscen.sent.observation import Observation

# ERROR: we or the host broke. XFAIL: exactly the known wrong outcome was seen. XPASS: the known
# wrong outcome is gone.
STATUSES = ("PASS", "FAIL", "ERROR", "SKIP", "XFAIL", "XPASS")


class StoryRow(NamedTuple):
    """One line of expected beside observed.

    `mark`: ` ` the same, `!` both there and different, `-` expected and missing, `+` observed and
    not expected, `~` observed and ignored. `line` is the file line of the step (0: none).
    `expected` and `observed` are in the scenario's own notation, empty where there is none.
    `differs` names what differs (`data`, `regs.x2`). `source` is the guest's source line at the
    exit's pc as `LINE: TEXT` or `FILE:LINE: TEXT`, of a linked program as `SYMBOL + OFFSET
    (FILE:LINE)`, or empty. `note` says which reply was not given, or which action not done.
    """

    mark: str
    line: int
    expected: str
    observed: str
    differs: tuple[str, ...] = ()
    source: str = ""
    note: str = ""


class Mismatch(NamedTuple):
    """One difference. `step` counts the written steps from 1 (0: `final` or behind the last
    step).
    """

    step: int
    line: int
    expected: str | None
    observed: str | None


class AccessTally(NamedTuple):
    """How often a guest accessed one place in one way: `kind` read or write, `len` bytes;
    `emulated`: carried out for it.

    `section` and `symbol` are None for what lies in none.
    """

    section: str | None
    symbol: str | None
    kind: str
    len: int
    emulated: bool
    times: int


class Result(NamedTuple):
    """How one case went on one host.

    `host` is exactly the text given to --on. `reason` says why for SKIP, ERROR, XFAIL and XPASS.
    `rows` is the whole story side by side, where something differs. `hint` is there where the
    outcome has a known cause. `elapsed` in seconds. `memory` is the final memory that was asked
    for, as `{gpa: {unit: values}}`. `measured` are the figures where exits were timed, by the
    `verb` measure. `accesses` are those that left the guest, `notes` are on the program. `sources`
    says where in the program each of the first thousand events comes from, as `source` of a
    StoryRow. `flavour` is that of KVM (pvm, svm, vmx, vhe, nvhe), None where it cannot be told.
    """

    file: str
    scenario: str
    case: str
    line: int
    summary: str
    arch: str
    host: str
    kernel: str | None
    predicted: bool
    status: str
    reason: str | None = None
    elapsed: float = 0.0
    mismatches: tuple[Mismatch, ...] = ()
    rows: tuple[StoryRow, ...] = ()
    hint: str | None = None
    machine: str | None = None
    observation: Observation | None = None
    memory: Mapping[int, Mapping[str, object]] = {}
    measured: tuple[Measured, ...] = ()
    verb: str = "run"
    options: tuple[str, ...] = ()
    accesses: tuple[AccessTally, ...] = ()
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    flavour: str | None = None

    @property
    def name(self) -> str:
        """`scenario` or `scenario:case`, as tables and reports show it."""
        return self.scenario if self.case == "default" else f"{self.scenario}:{self.case}"


def wrong_cases(problems: Iterable[Problem]) -> tuple[list[Problem], dict[str, list[Problem]]]:
    """The problems of a file as a whole, and those of single cases by the name of the case."""
    whole: list[Problem] = []
    cases: dict[str, list[Problem]] = {}
    for problem in problems:
        for name in problem.cases:
            cases.setdefault(name, []).append(problem)
        if not problem.cases:
            whole.append(problem)
    return whole, cases


class Run(NamedTuple):
    """One run of the program. `started` is seconds since the epoch; `problems` are those of the
    files that were wrong.

    `interrupted`: the user stopped it, so what did not run is not there. `broken`: a host that was
    asked for cannot run here.
    """

    id: str
    started: float
    version: str
    results: tuple[Result, ...]
    problems: tuple[Problem, ...] = ()
    elapsed: float = 0.0
    interrupted: bool = False
    broken: bool = False

    @property
    def summary(self) -> dict[str, int]:
        """How many results have each status."""
        counts = Counter(result.status for result in self.results)
        return {status: counts[status] for status in STATUSES}

    @property
    def by_file(self) -> dict[str, tuple[list[Problem], list[Result]]]:
        """The problems and results of each file, files in order."""
        files: dict[str, tuple[list[Problem], list[Result]]] = {}
        for problem in self.problems:
            files.setdefault(problem.file, ([], []))[0].append(problem)
        for result in self.results:
            files.setdefault(result.file, ([], []))[1].append(result)
        return files

    @property
    def exit_status(self) -> int:
        """0 all that ran passed, 1 a mismatch, 2 a wrong file, 3 a host or harness error, 4 nothing
        ran; 3 over 2 over 1.
        """
        counts = self.summary
        if counts["ERROR"] or self.broken or any(problem.ours for problem in self.problems):
            return 3
        if self.problems:
            return 2
        if counts["FAIL"] or counts["XPASS"]:
            return 1
        return 0 if counts["PASS"] or counts["XFAIL"] else 4
