"""What the threads of a run share, and the messages that pass between them."""

from __future__ import annotations

import queue
import threading
from typing import NamedTuple

from kvmscen.engine.room import Room
from kvmscen.errors import Problem
from kvmscen.hosts import Executor
from kvmscen.hosts.process.child import Child
from kvmscen.job.job import Job
from kvmscen.results.result import Result
from kvmscen.sent.facts import Facts


class Outcome(NamedTuple):
    """A result with the job that it is of, and the facts of its host (None where no host fits)."""

    job: Job
    result: Result
    facts: Facts | None


class Due(NamedTuple):
    """A job that is to be run: the number of its file, and its own in that file."""

    file: int
    number: int
    job: Job


class Read(NamedTuple):
    """A file that was prepared: how many jobs it comes to."""

    file: int
    problems: list[Problem]
    jobs: int


class Ran(NamedTuple):
    """A job that was run."""

    file: int
    number: int
    outcome: Outcome


class Shared:
    """What the threads share."""

    def __init__(self) -> None:
        self.files: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self.jobs: queue.SimpleQueue[Due | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[Read | Ran] = queue.SimpleQueue()
        self.children: list[Child] = []
        self.executors: list[Executor] = []
        self.room = Room()
        # The names of the cases that there are, None: of a file it is not known.
        self.names: set[str | None] = set()
        self.stopped = threading.Event()
        # What each thread runs now, the oldest first.
        self.running: dict[int, str] = {}
        # The hosts that were asked for and cannot run here.
        self.dead: dict[str, Problem] = {}
