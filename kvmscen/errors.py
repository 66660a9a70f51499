"""What can go wrong, as a tree.

KvmscenError ├── UsageError       the command line asks for something that cannot be (exit status 2)
├── ScenarioError    a scenario file is wrong: one or more problems, each at its place (exit status
2) ├── HostError        a host cannot run here, or broke while it ran (exit status 3) └── IoctlError
an ioctl of KVM failed; the executor turns it into an `error` event

A mismatch between expected and observed is not an exception: it is a Result.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from kvmscen.sent.errors import HostError as HostError
from kvmscen.sent.errors import IoctlError as IoctlError
from kvmscen.sent.errors import KvmscenError as KvmscenError

HOST, OPTIONS = "(host)", "(options)"


class Problem(NamedTuple):
    """One thing wrong in a file. `line` and `column` count from 1; both are 0 where the file as a
    whole is meant.

    `ours`: kvmscen broke over the file; that is no word on whether the file is right. `cases` are
    the cases of the file that it keeps from running (empty: all of them). A `file` in round
    brackets is none, but stands for a host or for the options.
    """

    file: str
    line: int
    column: int
    message: str
    ours: bool = False
    cases: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.file in (HOST, OPTIONS):
            return f"kvmscen: {self.message}"
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


def once(problems: Iterable[Problem]) -> list[Problem]:
    """Problems in the order of their places, each once, whichever cases it keeps from running."""
    first: dict[Problem, Problem] = {}
    for problem in problems:
        first.setdefault(problem._replace(cases=()), problem)
    return sorted(first.values())


class UsageError(KvmscenError):
    """The command line asks for something that cannot be."""


class ScenarioError(KvmscenError):
    """A scenario file is wrong. `problems` holds everything found, in the order of the file.

    `readable` are the cases that could be read all the same, for whoever looks for more in them.
    """

    def __init__(self, problems: Iterable[Problem], readable: Iterable[Any] = ()) -> None:
        self.problems = tuple(sorted(problems))
        self.readable = tuple(readable)
        super().__init__("\n".join(map(str, self.problems)))
