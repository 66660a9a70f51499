"""The workers of a run as the main process has them: forked, asked, replaced when they break.

A thread a worker: it takes tasks, asks for them some ahead, and passes on what comes of each.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kvmscen.disk import scratch
from kvmscen.disk.packs import Writer
from kvmscen.engine import unexpected
from kvmscen.engine.keys import Keys, told_of
from kvmscen.engine.keys import raw as read_raw
from kvmscen.engine.outcome import Outcome
from kvmscen.engine.room import TOO_MUCH
from kvmscen.engine.shared import SLICE, Due, Ran, Read, Shared, Task
from kvmscen.errors import HostError, Problem
from kvmscen.hosts.process import confinement, crash
from kvmscen.hosts.process.child import ChildError
from kvmscen.hosts.process.children import GRACE
from kvmscen.hosts.process.forks import ForkedChild, ForkServer
from kvmscen.job.job import Job
from kvmscen.results.result import Result
from kvmscen.sent.codec import decode
from kvmscen.sent.facts import Facts

Json = dict[str, Any]
# A file that takes longer to parse and assemble than this has brought its worker to a standstill.
PREPARE_SECONDS = 30.0
# So many tasks a worker is asked for at once: a round trip for each takes 0.05 ms of CPU more.
AHEAD = 8
# What loading takes of CPU (seconds) where a file has its plain time: twice what it takes on a
# machine of 2020. On a processor that QEMU emulates it takes 4 to 6, and a file of 500 programs for
# GNU as 130 in place of 4.
_LOADING, _SLOWEST = 0.3, 30.0
NO_THREAD = (
    "no thread can be started here: raise the limit on processes (ulimit -u) or on memory "
    "(ulimit -v)"
)


# From the files, whether /dev/kvm is run, and the folder of the cache: what a worker does, and what
# to say of this machine.
Load = Callable[[Sequence[str], bool, str | None], tuple[Callable[[], None], Json]]


class Workers:
    """The process that forks workers for these files and no others; `local`: they run this
    machine's /dev/kvm. `cache`: the folder of what was prepared before, None: it is not used.
    """

    def __init__(
        self, load: Load, files: Sequence[str], local: bool = False, cache: str | None = None
    ) -> None:
        files = list(files)
        self.cache = cache
        self._server = ForkServer(lambda: load(files, local, cache))

    def start(self) -> None:
        """Begin; main may have no thread yet. Raises HostError."""
        try:
            self._server.start()
        except OSError as error:
            raise HostError(
                f"no process can be started here: {os.strerror(error.errno or 0)}"
            ) from None

    def hello(self) -> Json:
        """What this machine's /dev/kvm is, as an agent says it."""
        return self._server.hello()

    def worker(self) -> WorkerChild:
        """A worker, not started yet."""
        return WorkerChild(self._server)

    def close(self) -> None:
        """End the process that forks. The workers are ended by `WorkerChild.close`."""
        self._server.close()


class WorkerChild(ForkedChild):
    """One worker. One that is killed leaves what it was at: the folder of an assembler."""

    def __init__(self, server: ForkServer) -> None:
        super().__init__("the worker", server)
        self.heard = confinement.heard
        # What comes of a file is held against limits of its own, and there are more lines in a
        # program than exits in a run.
        self.doubted = False

    def preparing(self) -> float:
        """How long a file may take: in proportion to what this machine needed to load the
        program.
        """
        spent = float(self.server.hello().get("spent") or 0.0)
        return PREPARE_SECONDS * min(max(spent / _LOADING, 1.0), _SLOWEST)

    def kill(self) -> None:
        """End the process and what it started, and remove what it has left."""
        ended = self.process_id
        super().kill()
        scratch.sweep(ended)

    def request(self, **members: Any) -> Any:
        """One request, answered in one part. Raises ChildError, or HostError when it broke."""
        reply = self.ask(json.dumps(members)[1:-1], self.preparing())
        if "broke" in reply:
            raise HostError(f"preparing broke: {reply['broke']}")
        return reply


class Orders(NamedTuple):
    """What all workers of a run are told first, as JSON, which cases they take, and the facts of
    the hosts that they run.
    """

    targets: Json
    text: str | None
    cases: tuple[str, ...]
    facts: tuple[Facts, ...]

    def request(self, task: Task) -> Json:
        """The request for a task."""
        asked = {"run": task.file, "text": self.text, "cases": self.cases, "job": task.job}
        asked["digest"] = task.digest
        return {**asked, "first": task.part * SLICE, "most": SLICE}

    def body(self, task: Task) -> str:
        """The same as the text that a worker is sent."""
        return json.dumps(self.request(task))[1:-1]


class Head(NamedTuple):
    """A job as its worker has told of it, and how long it may take (None: it runs nowhere, or on
    another host).
    """

    job: Job
    seconds: float | None

    @property
    def name(self) -> str:
        """What runs, for people."""
        return f"{self.job.scenario}:{self.job.case} on {self.job.host}"


class Thread:
    """A thread that has one worker do tasks. `due` takes the jobs that another host runs."""

    def __init__(
        self, shared: Shared, worker: WorkerChild, orders: Orders, pool: Pool, cpu: int | None
    ) -> None:
        self.shared = shared
        self.worker = worker
        self.orders = orders
        self.pool = pool
        self.cpu = cpu
        self._left: list[Task] = []
        # The jobs of the tasks that were begun.
        self._heads: dict[tuple[int, int], list[Head]] = {}
        self._told: int | None = None

    def run(self) -> None:
        """Until nothing is left."""
        while not self.shared.stopped.is_set():
            self._left += self.shared.tasks.take(len(self._left), AHEAD)
            if not self._left:
                break
            try:
                self._ask()
            except Exception as error:
                # What was under way did it, and the others get a new worker. A thread that died of
                # what is our own mistake would leave its tasks without a result and the run
                # waiting for them.
                self.worker.kill()
                self._broke(why(error))
        self.shared.running.pop(threading.get_ident(), None)

    def _ask(self) -> None:
        worker = self.worker
        if self._told is None or self._told != worker.process_id:
            worker.request(**self.orders.targets, cpu=self.cpu)
            self._told = worker.process_id
        bodies = [self.orders.body(task) for task in self._left]
        for _, part in worker.ask_parts(bodies, lambda *_: self._seconds()):
            self._part(part)

    def _seconds(self) -> float:
        """How long the next part may take."""
        task = self._left[0]
        heads = self._heads.get(_key(task))
        if heads is None or task.job >= len(heads) or (limit := heads[task.job].seconds) is None:
            return self.worker.preparing()
        self.shared.running[threading.get_ident()] = heads[task.job].name
        return limit + GRACE

    def _part(self, part: Json) -> None:
        task = self._left[0]
        if "broke" in part:
            del self._left[0]
            self._unfinished(task, f"preparing broke: {part['broke']}")
            return
        if "cases" in part:
            self._read(task, part)
        elif "outcome" in part:
            self._done(task, decode(Result, part["outcome"]), part.get("observed"))
        elif "due" in part:
            self.pool.put(Due(task, task.job, decode(Job, part["due"])))
            self._left[0] = task._replace(job=task.job + 1)
        if not part.get("more"):
            self._heads.pop(_key(task), None)
            del self._left[0]

    def _read(self, task: Task, part: Json) -> None:
        task = self._left[0] = task._replace(digest=part["digest"])
        if _key(task) in self._heads:
            return  # it was begun by a worker that broke
        heads = [_head(job) for job in part["jobs"]]
        self._heads[_key(task)] = heads
        self.shared.names.update(part["names"] or [None])
        if "keep" in part:
            self.pool.keep(self.orders.request(task), part["keep"])
        parts = -(-part["cases"] // SLICE) or 1
        problems = [decode(Problem, problem) for problem in part["problems"]]
        if task.part == 0 and parts > 1:
            self.shared.tasks.put([task._replace(part=n, job=0) for n in range(1, parts)])
        self.shared.done.put(Read(task, problems, len(heads), parts))
        if task.part == 0 and parts > 1:
            self.pool.start(parts - 1)

    def _done(self, task: Task, came: Result, observed: str | None) -> None:
        found = came
        if came.observation is not None and not self.shared.room.keep(came.observation):
            found = came._replace(
                status="ERROR", reason=TOO_MUCH, observation=None, sources=(), rows=(), memory={}
            )
        known = next((known for known in self.orders.facts if known.arch == found.arch), None)
        self.shared.done.put(Ran(task, task.job, Outcome(found, observed, known)))
        self._left[0] = task._replace(job=task.job + 1)

    def _broke(self, because: str) -> None:
        """The job, or the file, that was under way did not end."""
        task = self._left[0]
        heads = self._heads.get(_key(task))
        if heads is None or task.job >= len(heads):
            del self._left[0]
            self._unfinished(task, because)
        else:
            self._done(task, _error(heads[task.job].job, because), None)

    def _unfinished(self, task: Task, because: str) -> None:
        """A part of a file of which nothing more comes."""
        heads = self._heads.pop(_key(task), None)
        if heads is None:
            problem = unprepared(task.file, because)
            self.shared.done.put(Read(task, [problem], 0))
            return
        for number in range(task.job, len(heads)):
            found = _error(heads[number].job, because)
            self.shared.done.put(Ran(task, number, Outcome(found)))


class Pool:
    """The threads of a run, each with its worker; and whoever takes jobs for other hosts."""

    def __init__(
        self,
        shared: Shared,
        workers: Workers,
        orders: Orders,
        most: int,
        put: Callable[[Due], None],
    ) -> None:
        self.shared = shared
        self.workers = workers
        self.orders = orders
        self.most = most
        self.put = put
        self._kept = None if workers.cache is None else Writer(workers.cache)
        self._keys: Keys | None = None
        self._lock = threading.Lock()
        self._started = 0
        # Each its own, where there is one for each.
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._cpus = cpus if len(cpus) == most > 1 else []

    def start(self, count: int) -> None:
        """Start so many, at most as many as may be."""
        for _ in range(min(count, self.most)):
            self.grow()

    def keep(self, request: Json, entry: str) -> None:
        """Keep what a worker prepared for the next run: under the key of the file as it is now,
        which the worker has no say in.
        """
        raw = read_raw(request["run"])
        if self._kept is None or raw is None:
            return
        with self._lock:
            if self._keys is None:
                told = told_of(self.orders.targets)
                self._keys = Keys(self.workers.hello().get("base", ""), told)
            self._kept.put(self._keys.key(request, raw), base64.b64decode(entry))

    def close(self) -> None:
        """Write what was kept."""
        if self._kept is not None:
            with self._lock:
                self._kept.close()

    def grow(self) -> None:
        """One more where one more may be. Raises HostError where none can be started at all."""
        with self._lock:
            if self._started >= self.most:
                return
            self._started += 1
            number = self._started
            worker = self.workers.worker()
            self.shared.children.append(worker)
        try:
            cpu = self._cpus[number - 1] if self._cpus else None
            thread = Thread(self.shared, worker, self.orders, self, cpu)
            threading.Thread(target=thread.run, daemon=True).start()
        except RuntimeError:
            if number == 1:
                raise HostError(NO_THREAD) from None


def threads(target: Callable[..., None], each: Sequence[tuple[Any, ...]]) -> None:
    """A thread for each of these arguments, or as many as there can be: they share their work.
    Raises HostError without any.
    """
    for number, arguments in enumerate(each):
        try:
            threading.Thread(target=target, args=arguments, daemon=True).start()
        except RuntimeError:
            if number == 0:
                raise HostError(NO_THREAD) from None
            return


def _key(task: Task) -> tuple[int, int]:
    return task.number, task.part


def _head(told: Json) -> Head:
    seconds = told.pop("timeout", None)
    return Head(decode(Job, {**_BARE, **told}), seconds)


# What a worker leaves out of a job that it tells of.
_BARE: Json = {"machine": None, "expectation": None, "legend": None, "skip": None}


def _error(job: Job, because: str) -> Result:
    from kvmscen.judge.verdict import result  # here, since most runs have none

    return result(job, "ERROR", because)


def why(error: Exception) -> str:
    """What to say of an exception that ended one job."""
    if isinstance(error, ChildError):
        # The last line of a traceback, or what a loader of libraries said.
        last = [] if crash.where(error.tail) else error.tail.splitlines()[-1:]
        return str(error) + "".join(f" ({line})" for line in last)
    return str(error) if isinstance(error, HostError) else unexpected.told(error)


def unprepared(file: str, because: str) -> Problem:
    """The problem of a file that broke its worker."""
    return Problem(file, 0, 0, f"this file could not be prepared: {because}", ours=True)
