"""What a thread does with a job for a host that is reached by frames, or that replays."""

from __future__ import annotations

from collections.abc import Mapping

from kvmscen.engine.room import TOO_MUCH
from kvmscen.engine.shared import Shared
from kvmscen.engine.workers import why
from kvmscen.errors import HostError
from kvmscen.hosts import Executor, Host
from kvmscen.hosts.replay import NotRecorded
from kvmscen.job.job import Job, elsewhere
from kvmscen.judge.verdict import judge, result
from kvmscen.results.result import Result


def execute(
    shared: Shared, hosts: Mapping[str, Host], executors: dict[str, Executor], job: Job
) -> Result:
    """Run a job and judge it. `executors` are those that the thread has of its own; a new one is
    added.
    """
    found = _executed(shared, hosts, executors, job)
    if found.observation is not None and not shared.room.keep(found.observation):
        return result(job, "ERROR", TOO_MUCH)
    return found


def _executed(
    shared: Shared, hosts: Mapping[str, Host], executors: dict[str, Executor], job: Job
) -> Result:
    dead = shared.dead
    if job.host in dead:
        archs = hosts[job.host].archs
        if archs is not None and job.arch not in archs:
            # It would not have run there either.
            return result(job, "SKIP", elsewhere(job.arch, archs))
        return result(job, "ERROR", dead[job.host].message)
    if job.skip is not None or job.machine is None:
        return result(job, "SKIP", job.skip)
    try:
        if job.host not in executors:
            executors[job.host] = hosts[job.host].executor()
            shared.executors.append(executors[job.host])
        return judge(job, executors[job.host].execute(job.machine))
    except NotRecorded as error:
        return result(job, "SKIP", str(error))
    except HostError as error:
        return result(job, "ERROR", str(error))
    except Exception as error:
        # A thread that dies would leave its case without a result and the run waiting for it.
        return result(job, "ERROR", why(error))
