"""Jobs for hosts that are reached by frames, or that replay: threads, each with its own executor of
each host.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from kvmscen.engine.outcome import Telling, outcome
from kvmscen.engine.room import TOO_MUCH
from kvmscen.engine.shared import Due, Ran, Shared
from kvmscen.engine.workers import NO_THREAD, why
from kvmscen.errors import HostError
from kvmscen.hosts import Executor, Host
from kvmscen.hosts.replay import NotRecorded
from kvmscen.job.job import Job, elsewhere
from kvmscen.judge.verdict import judge, result
from kvmscen.results.result import Result


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

    def put(self, due: Due) -> None:
        """A job to run; returns once there is room for more. Raises HostError where no thread can
        be started.
        """
        with self._lock:
            if self._started < self._threads:
                try:
                    threading.Thread(target=self._run, daemon=True).start()
                    self._started += 1
                except RuntimeError:
                    if not self._started:
                        raise HostError(NO_THREAD) from None
        self.shared.jobs.put(due)
        self.shared.room.wait(_size(due.job), self.shared.stopped)

    def _run(self) -> None:
        shared, executors = self.shared, dict[str, Executor]()
        while (due := shared.jobs.get()) is not None and not shared.stopped.is_set():
            job = due.job
            shared.running[threading.get_ident()] = f"{job.scenario}:{job.case} on {job.host}"
            found = self._execute(executors, job)
            del shared.running[threading.get_ident()]
            shared.room.taken(_size(job))
            if found.observation is not None and not shared.room.keep(found.observation):
                found = result(job, "ERROR", TOO_MUCH)
            facts = next((k for k in self.hosts[job.host].facts if k.arch == job.arch), None)
            came = outcome(job, found, self.telling)._replace(facts=facts)
            shared.done.put(Ran(due.task, due.number, came))

    def _execute(self, executors: dict[str, Executor], job: Job) -> Result:
        dead = self.shared.dead
        if job.host in dead:
            archs = self.hosts[job.host].archs
            if archs is not None and job.arch not in archs:
                # It would not have run there either.
                return result(job, "SKIP", elsewhere(job.arch, archs))
            return result(job, "ERROR", dead[job.host].message)
        if job.skip is not None or job.machine is None:
            return result(job, "SKIP", job.skip)
        try:
            if job.host not in executors:
                executors[job.host] = self.hosts[job.host].executor()
                self.shared.executors.append(executors[job.host])
            return judge(job, executors[job.host].execute(job.machine))
        except NotRecorded as error:
            return result(job, "SKIP", str(error))
        except HostError as error:
            return result(job, "ERROR", str(error))
        except Exception as error:
            # A thread that dies would leave its case without a result and the run waiting for it.
            return result(job, "ERROR", why(error))


def _size(job: Job) -> int:
    return len(job.machine.text) if job.machine is not None else 0
