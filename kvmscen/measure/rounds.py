"""Times cases: every job of the files once a round, in turn, one at a time, so that what drifts in
a machine drifts for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from kvmscen import __version__
from kvmscen.engine import work
from kvmscen.engine.workers import Load, WorkerChild, Workers, unprepared
from kvmscen.errors import HostError, Problem
from kvmscen.hosts import Executor, Host
from kvmscen.hosts.process import confinement
from kvmscen.job.job import Job, Target
from kvmscen.judge.verdict import result
from kvmscen.measure.appraise import appraise, lacking, so_far
from kvmscen.results.result import Result, Run
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.observation import Observation


class Schedule(NamedTuple):
    """How to time: the samples are spread over so many rounds; `loop` is native (Python where it
    cannot be) or python.
    """

    rounds: int
    loop: str


class RoundDone(NamedTuple):
    """How far it is: `done` executions `of` all, in which round, and what runs next.

    `figures` are the medians of the rounds that it has had, in nanoseconds by kind.
    """

    done: int
    of: int
    round: int
    rounds: int
    name: str = ""
    host: str = ""
    figures: Mapping[str, Sequence[float]] = {}


class _Timed:
    """One job on its way through the rounds; `ended` where it needs no more of them."""

    def __init__(self, job: Job, ended: Result | None) -> None:
        self.job = job
        self.seen: list[Observation] = []
        self.ended = ended


def measure(  # noqa: PLR0913 as work.run
    load: Load,
    files: Sequence[str],
    hosts: Sequence[Host],
    each: bool,
    selection: work.Selection,
    plan: Schedule,
    on_problem: Callable[[Problem], None],
    on_step: Callable[[RoundDone], None],
    problems: Sequence[Problem] = (),
) -> Run:
    """Time the cases of files that have `measure`. `each`, `selection`, `problems` as in work.run;
    closes the hosts.

    `on_step` is called before each execution, and behind the last one.
    """
    confinement.check()
    started, clock = time.time(), time.monotonic()
    for host in hosts:
        host.timing = True
    faults, timed, interrupted = list(problems), list[_Timed](), False
    forks, executors = Workers(load, files), dict[str, Executor]()
    child = forks.worker()
    try:
        forks.start()
        usable, dead = work.start(hosts, each)
        for problem in (*dead.values(), *(problem for host in usable for problem in host.problems)):
            faults.append(problem)
            on_problem(problem)
        for job in _jobs(
            child, files, hosts if each else usable, each, selection, plan, faults, on_problem
        ):
            timed.append(_Timed(job, _untimed(job, dead)))
        live = [subject for subject in timed if subject.ended is None]
        of = plan.rounds * len(live)
        for number in range(plan.rounds):
            for index, subject in enumerate(live):
                if subject.ended is None:
                    on_step(_step(subject, number * len(live) + index, of, number + 1, plan.rounds))
                    _round(subject, plan.rounds, {host.name: host for host in usable}, executors)
        on_step(RoundDone(of, of, plan.rounds, plan.rounds))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        forks.close()
        child.close()
        for executor in executors.values():
            executor.close()
        for host in hosts:
            host.close()
    results = [
        subject.ended or appraise(subject.job, subject.seen)
        for subject in timed
        if subject.ended or len(subject.seen) == plan.rounds
    ]
    elapsed = time.monotonic() - clock
    return Run(
        work.new_id(), started, __version__, tuple(results), tuple(faults), elapsed, interrupted
    )


def _step(subject: _Timed, done: int, of: int, number: int, rounds: int) -> RoundDone:
    job = subject.job
    name = job.scenario if job.case == "default" else f"{job.scenario}:{job.case}"
    return RoundDone(done, of, number, rounds, name, job.host, so_far(job, subject.seen))


def _untimed(job: Job, dead: Mapping[str, Problem]) -> Result | None:
    """The result of a job that cannot be timed, None where it can."""
    if job.host in dead:
        return result(job, "ERROR", dead[job.host].message)
    return result(job, "SKIP", job.skip) if job.machine is None else None


def _jobs(  # noqa: PLR0913 as work.run
    child: WorkerChild,
    files: Sequence[str],
    hosts: Sequence[Host],
    each: bool,
    selection: work.Selection,
    plan: Schedule,
    faults: list[Problem],
    on_problem: Callable[[Problem], None],
) -> list[Job]:
    """The jobs of all files; what is wrong in files is added to `faults`."""
    targets = [encode(Target(host.name, host.facts)) for host in hosts]
    jobs: list[Job] = []
    names: set[str | None] = set()
    pid: int | None = None
    for file in files:
        try:
            if pid is None or pid != child.process_id:
                child.request(
                    targets=targets,
                    each=each,
                    assembler=selection.assembler,
                    timing=encode(plan),
                )
                pid = child.process_id
            reply = child.request(run=file, text=selection.text, cases=selection.cases)
        except HostError as error:
            reply = {"problems": [encode(unprepared(file, str(error)))]}
        wrong = [decode(Problem, problem) for problem in reply["problems"]]
        names.update(reply.get("names") or [None])
        for problem in wrong:
            on_problem(problem)
        faults += wrong
        jobs += [decode(Job, job) for job in reply.get("jobs", ())]
    for problem in work.unknown(selection.cases, names):
        faults.append(problem)
        on_problem(problem)
    return jobs


def _round(
    subject: _Timed, rounds: int, hosts: dict[str, Host], executors: dict[str, Executor]
) -> None:
    job = subject.job
    assert job.machine is not None
    try:
        if job.host not in executors:
            executors[job.host] = hosts[job.host].executor()
        subject.seen.append(executors[job.host].execute(job.machine))
    except HostError as error:
        line = job.wanted[0].line if job.wanted else job.line
        subject.ended = result(job, "ERROR", f"{job.file}:{line}: {error}")
        return
    subject.ended = lacking(job, subject.seen[-1], rounds)
