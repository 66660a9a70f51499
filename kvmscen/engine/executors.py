"""Jobs for hosts that are reached by frames, or that replay: threads, each with its own executor of
each host.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from kvmscen.engine.outcome import Telling, outcome
from kvmscen.engine.shared import Due, Ran, Shared
from kvmscen.engine.workers import NO_THREAD
from kvmscen.errors import HostError
from kvmscen.hosts import Executor, Host
from kvmscen.job.job import Job
from kvmscen.results.result import Result

Execute = Callable[[Shared, Mapping[str, Host], dict[str, Executor], Job], Result]


class Executors:
    """The threads, which are started when the first job comes."""

    def __init__(
        self, shared: Shared, hosts: Sequence[Host], threads: int, telling: Telling
    ) -> None:
        self.shared = shared
        self.hosts = {host.name: host for host in hosts}
        self.telling = telling
        self._threads = threads
        self._lock = threading.Lock()
        self._started = 0
        self._execute: Execute | None = None

    def put(self, due: Due) -> None:
        """A job to run; returns once there is room for more. Raises HostError where no thread can
        be started.
        """
        with self._lock:
            if self._execute is None:
                from kvmscen.engine.executing import execute  # here, since many runs need none

                self._execute = execute
            if self._started < self._threads:
                try:
                    threading.Thread(target=self._run, args=(self._execute,), daemon=True).start()
                    self._started += 1
                except RuntimeError:
                    if not self._started:
                        raise HostError(NO_THREAD) from None
        self.shared.jobs.put(due)
        self.shared.room.wait(_size(due.job), self.shared.stopped)

    def _run(self, execute: Execute) -> None:
        shared, executors = self.shared, dict[str, Executor]()
        while (due := shared.jobs.get()) is not None and not shared.stopped.is_set():
            job = due.job
            shared.running[threading.get_ident()] = f"{job.scenario}:{job.case} on {job.host}"
            found = execute(shared, self.hosts, executors, job)
            del shared.running[threading.get_ident()]
            shared.room.taken(_size(job))
            facts = next((k for k in self.hosts[job.host].facts if k.arch == job.arch), None)
            came = outcome(job, found, self.telling)._replace(facts=facts)
            shared.done.put(Ran(due.task, due.number, came))


def _size(job: Job) -> int:
    return len(job.machine.text) if job.machine is not None else 0
