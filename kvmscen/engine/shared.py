"""What the threads of a run share, and the messages that pass between them."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from kvmscen.engine.outcome import Outcome
from kvmscen.engine.room import Room
from kvmscen.errors import Problem
from kvmscen.hosts import Executor
from kvmscen.hosts.process.child import Child
from kvmscen.job.job import Job

# Cases of one file that a worker takes at once: a longer file is for all workers.
SLICE = 64


class Task(NamedTuple):
    """Cases of a file that a worker has to do: those of part `part`, from its job `job` on.

    `number` is the file's, from 0; `part` n begins at case n * SLICE. `digest` is of the bytes that
    the file had when it was begun, empty before.
    """

    number: int
    file: str
    part: int = 0
    job: int = 0
    digest: str = ""


class Read(NamedTuple):
    """A part of a file that was prepared: to how many jobs it comes; `parts` there are."""

    task: Task
    problems: list[Problem]
    jobs: int
    parts: int = 1


class Due(NamedTuple):
    """A job that is to be run on a host that is reached by frames; its place in its part."""

    task: Task
    number: int
    job: Job


class Ran(NamedTuple):
    """A job that was run."""

    task: Task
    number: int
    outcome: Outcome


class Tasks:
    """What is left to be taken by the workers, the first first."""

    def __init__(self, files: list[str], workers: int) -> None:
        self._left = deque(Task(number, file) for number, file in enumerate(files))
        self._workers = workers
        self._lock = threading.Lock()

    def take(self, held: int, most: int) -> list[Task]:
        """So many that a worker that holds some has up to `most`, and that all workers end at about
        the same time.
        """
        with self._lock:
            fair = max(1, len(self._left) // (2 * self._workers))
            count = min(most - held, fair - held if held else fair, len(self._left))
            return [self._left.popleft() for _ in range(max(count, 0))]

    def put(self, tasks: list[Task]) -> None:
        """More to do, before all else."""
        with self._lock:
            self._left.extendleft(reversed(tasks))


class Shared:
    """What the threads share."""

    def __init__(self, files: list[str], workers: int) -> None:
        self.tasks = Tasks(files, workers)
        self.jobs: queue.SimpleQueue[Due | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[Read | Ran] = queue.SimpleQueue()
        self.children: list[Child] = []
        self.executors: list[Executor] = []
        self.room = Room()
        # What is called at the end, however it comes.
        self.at_end: list[Callable[[], None]] = []
        # The names of the cases that there are, None: of a file it is not known.
        self.names: set[str | None] = set()
        self.stopped = threading.Event()
        # What each thread runs now, the oldest first.
        self.running: dict[int, str] = {}
        # The hosts that were asked for and cannot run here.
        self.dead: dict[str, Problem] = {}
