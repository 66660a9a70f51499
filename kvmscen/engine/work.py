"""The pipeline: files to prepare children, jobs to hosts, observations to verdicts, results in the
order of the files.

The main process stays light: it holds no parser, schema or assembler. P prepare children turn files
into jobs, J threads run them, each with its own executor of each host, and the calling thread takes
the results.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from kvmscen import __version__
from kvmscen.engine import unexpected
from kvmscen.engine.room import SEEN_MOST
from kvmscen.engine.shared import Due, Outcome, Ran, Read, Shared
from kvmscen.errors import HOST, OPTIONS, HostError, Problem
from kvmscen.hosts import Executor, Host
from kvmscen.hosts.process import confinement
from kvmscen.hosts.process.child import Child, ChildError
from kvmscen.hosts.process.preparing import PrepareChild
from kvmscen.hosts.replay import NotRecorded
from kvmscen.job.job import Job, Target, elsewhere
from kvmscen.judge.verdict import judge, result
from kvmscen.results.result import Result, Run
from kvmscen.sent.codec import decode, encode

Json = dict[str, Any]
# More threads than this gain nothing: each has children of its own.
MOST_AT_ONCE = 64
# A file that takes longer to parse and assemble than this has brought its prepare child to a
# standstill.
PREPARE_SECONDS = 30.0
# Nothing new for so long, and the one who waits is told what runs.
_PATIENCE = 0.5
# One prepare child for so many files: starting another costs more than it saves on fewer.
FILES_A_CHILD = 24
# So many files are sent to a prepare child at once: a round trip for each takes 0.05 ms of CPU
# more.
AHEAD = 8


class Selection(NamedTuple):
    """Which cases run: `text` in file, name, summary or tags; `cases` the exact names (empty: all).

    `assembler`, where it is given, assembles the programs whatever the scenarios say.
    """

    text: str | None = None
    cases: tuple[str, ...] = ()
    assembler: str | None = None


class Progress(NamedTuple):
    """How far a run is: `share` from 0 to 1, which never falls; of how many files all is told; the
    case that has run longest.
    """

    share: float
    files: int
    of: int
    running: str = ""


def run(
    files: Sequence[str],
    hosts: Sequence[Host],
    each: bool,
    selection: Selection,
    workers: int,
    on_outcome: Callable[[Outcome, Progress], None],
    on_problem: Callable[[Problem], None],
    problems: Sequence[Problem] = (),
    on_wait: Callable[[Progress], None] = lambda _: None,
) -> Run:
    """Run files on hosts and judge them.

    `each`: every case on every host; else on the first that fits. `on_outcome` and `on_problem` are
    called in the order of the files, `on_wait` now and then where that takes long. `problems` are
    those found before. Raises HostError when no host can run here; where some of `each` can, the
    cases of the others are errors.
    """
    confinement.check()
    started, clock = time.time(), time.monotonic()
    shared = Shared()
    results: list[Result] = []
    found: list[Problem] = list(problems)
    interrupted = False
    try:
        for item in _found(shared, files, hosts, each, selection, min(workers, MOST_AT_ONCE)):
            if isinstance(item, Problem):
                found.append(item)
                on_problem(item)
            elif isinstance(item, Progress):
                on_wait(item)
            else:
                results.append(item[0].result)
                on_outcome(*item)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        shared.stopped.set()
        for child in shared.children:
            child.close()
        for executor in shared.executors:
            executor.close()
        for host in hosts:
            host.close()
    return Run(
        id=new_id(),
        started=started,
        version=__version__,
        results=tuple(results),
        problems=tuple(found),
        elapsed=time.monotonic() - clock,
        interrupted=interrupted,
    )


def _found(
    shared: Shared,
    files: Sequence[str],
    hosts: Sequence[Host],
    each: bool,
    selection: Selection,
    workers: int,
) -> Iterator[Problem | Progress | tuple[Outcome, Progress]]:
    """What is wrong with hosts and files, and what came of cases, in the order in which it is
    told.
    """
    shared.children += [
        prepare_child(files)
        for _ in range(max(1, min(os.cpu_count() or 1, -(-len(files) // FILES_A_CHILD))))
    ]
    for child in shared.children:
        child.spawn()
    usable, shared.dead = start(hosts, each)
    yield from shared.dead.values()
    for host in usable:
        yield from host.problems
    _spread(
        shared, files, tuple(shared.children), hosts if each else usable, each, selection, workers
    )
    yield from _in_order(shared, len(files))
    yield from unknown(selection.cases, shared.names)


def broken(problems: Sequence[Problem]) -> Run:
    """A run in which nothing could run, for its reports: the last of `problems` is the host's."""
    return Run(new_id(), time.time(), __version__, (), tuple(problems), broken=True)


def unknown(asked: Sequence[str], there: Collection[str | None]) -> list[Problem]:
    """The cases that are asked for by name and are in no file; none where a file could not be read,
    which is told itself.
    """
    import difflib  # here, since who mistypes nothing need not wait for it

    out: list[Problem] = []
    known = sorted(name for name in there if name is not None)
    for name in asked if None not in there else ():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = (
                f"did you mean {close[0]}?"
                if close
                else f"there are {', '.join(known[:8])}" + ", ..." * (len(known) > 8)
            )
            out.append(Problem(OPTIONS, 0, 0, f"no file here has a case {name}: {hint}"))
    return out


def new_id() -> str:
    """Names one run of the program."""
    import uuid  # here, since nothing of a run waits for it by then

    return str(uuid.uuid4())


def start(hosts: Sequence[Host], each: bool) -> tuple[list[Host], dict[str, Problem]]:
    """Start hosts side by side and wait for their facts: those that can run here, and by name what
    keeps the others.

    Without `each` nobody asked for the others, and they are not told. Raises HostError where none
    can.
    """
    reasons: dict[str, str] = {}
    for step in ("start", "wait"):
        for host in hosts:
            try:
                if host.name not in reasons:
                    getattr(host, step)()
            except HostError as error:
                reasons[host.name] = str(error)
            except OSError as error:
                # A full disk, or a cache that may be read only.
                reasons[host.name] = f"host {host.name} cannot run here: {unexpected.told(error)}"
    usable = [host for host in hosts if host.name not in reasons]
    if not usable:
        raise HostError("; ".join(reasons.values()))
    return usable, {
        name: Problem(HOST, 0, 0, reason, ours=True) for name, reason in reasons.items() if each
    }


def prepare_child(files: Sequence[str]) -> Child:
    """A prepare child for these files and no others, not started yet."""
    return PrepareChild(files)


def ask_prepare(child: Child, **request: Any) -> Any:
    """One request to a prepare child; raises ChildError, or HostError when it broke."""
    body = json.dumps(request)[1:-1]
    reply = child.ask(body, PREPARE_SECONDS)
    if "broke" in reply:
        raise HostError(f"preparing broke: {reply['broke']}")
    return reply


def _spread(
    shared: Shared,
    files: Sequence[str],
    children: Sequence[Child],
    hosts: Sequence[Host],
    each: bool,
    selection: Selection,
    workers: int,
) -> None:
    targets = [encode(Target(host.name, host.facts)) for host in hosts]
    for numbered in enumerate(files):
        shared.files.put(numbered)
    told = {"targets": targets, "each": each, "assembler": selection.assembler}
    threads(_prepare_all, [(shared, child, told, selection) for child in children])
    threads(_execute_all, [(shared, {host.name: host for host in hosts})] * workers)


def threads(target: Callable[..., None], each: Sequence[tuple[Any, ...]]) -> None:
    """A thread for each of these arguments, or as many as there can be: they share their work.
    Raises HostError without any.
    """
    for number, arguments in enumerate(each):
        try:
            threading.Thread(target=target, args=arguments, daemon=True).start()
        except RuntimeError:
            if number == 0:
                raise HostError(
                    "no thread can be started here: raise the limit on processes (ulimit -u) or on "
                    "memory (ulimit -v)"
                ) from None
            return


def _prepare_all(
    shared: Shared, child: Child, targets: dict[str, Any], selection: Selection
) -> None:
    """A thread: files to jobs, through one prepare child."""
    told: object = None
    left: list[tuple[int, str]] = []
    while not shared.stopped.is_set() and (left := left + take(shared.files, AHEAD - len(left))):
        try:
            if told != child.process_id:
                ask_prepare(child, **targets)
                told = child.process_id
            requests = (
                {"run": file, "text": selection.text, "cases": selection.cases} for _, file in left
            )
            for reply in child.ask_ahead(
                [json.dumps(request)[1:-1] for request in requests], PREPARE_SECONDS
            ):
                _prepared(shared, *left[0], reply)
                del left[0]
        except Exception as error:
            # The first file without a reply did it: it is told, and the others get a new child. A
            # thread that died of what is our own mistake would leave its files without a result and
            # the run waiting for them.
            child.kill()
            number, file = left.pop(0)
            shared.done.put(Read(number, [unprepared(file, why(error))], 0))


def take(files: queue.SimpleQueue[tuple[int, str]], most: int) -> list[tuple[int, str]]:
    """The next files, as many as `most` where there are as many."""
    taken: list[tuple[int, str]] = []
    try:
        while len(taken) < most:
            taken.append(files.get_nowait())
    except queue.Empty:
        pass
    return taken


def _prepared(shared: Shared, number: int, file: str, reply: Json) -> None:
    if "broke" in reply:
        shared.done.put(Read(number, [unprepared(file, f"preparing broke: {reply['broke']}")], 0))
    else:
        jobs = [decode(Job, job) for job in reply["jobs"]]
        shared.names.update(reply["names"] or [None])
        shared.done.put(Read(number, problems_of(reply), len(jobs)))
        for index, job in enumerate(jobs):
            shared.jobs.put(Due(number, index, job))
        shared.room.wait(sum(map(_size, jobs)), shared.stopped)


def problems_of(reply: Json) -> list[Problem]:
    """The problems in the reply of a prepare child."""
    return [decode(Problem, problem) for problem in reply.get("problems", ())]


def _size(job: Job) -> int:
    return len(job.machine.text) if job.machine is not None else 0


def why(error: Exception) -> str:
    """What to say of an exception that ended one job."""
    if isinstance(error, ChildError):
        # The last line of a traceback, or what a loader of libraries said.
        return str(error) + "".join(f" ({line})" for line in error.tail.splitlines()[-1:])
    return str(error) if isinstance(error, HostError) else unexpected.told(error)


def unprepared(file: str, because: str) -> Problem:
    """The problem of a file that broke its prepare child."""
    return Problem(file, 0, 0, f"this file could not be prepared: {because}", ours=True)


def _execute_all(shared: Shared, hosts: dict[str, Host]) -> None:
    """A thread: jobs to results, with its own executor of each host."""
    executors: dict[str, Executor] = {}
    while (due := shared.jobs.get()) is not None and not shared.stopped.is_set():
        job = due.job
        shared.running[threading.get_ident()] = f"{job.scenario}:{job.case} on {job.host}"
        found = _execute(shared, hosts, executors, job)
        del shared.running[threading.get_ident()]
        shared.room.taken(_size(job))
        if found.observation is not None and not shared.room.keep(found.observation):
            say = (
                f"what the cases of this run saw takes more than {SEEN_MOST >> 30} GiB: run "
                f"fewer at once, or look at less"
            )
            found = result(job, "ERROR", say)
        facts = next((known for known in hosts[job.host].facts if known.arch == job.arch), None)
        shared.done.put(Ran(due.file, due.number, Outcome(job, found, facts)))


def _execute(
    shared: Shared, hosts: dict[str, Host], executors: dict[str, Executor], job: Job
) -> Result:
    if job.host in shared.dead:
        archs = hosts[job.host].archs
        if archs is not None and job.arch not in archs:
            # It would not have run there either.
            return result(job, "SKIP", elsewhere(job.arch, archs))
        return result(job, "ERROR", shared.dead[job.host].message)
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


def _in_order(
    shared: Shared, files: int
) -> Iterator[Problem | Progress | tuple[Outcome, Progress]]:
    """Problems and results in the order of files and cases, each as soon as those before it are
    there.
    """
    counts: dict[int, int] = {}
    problems: dict[int, list[Problem]] = {}
    results: dict[tuple[int, int], Outcome] = {}
    file = index = 0

    def progress() -> Progress:
        within = index / counts[file] if counts.get(file) else 0.0
        running = next(iter(list(shared.running.values())), "")
        return Progress((file + within) / files, file + int(within), files, running)

    while file < files:
        if problems.get(file):
            yield from problems.pop(file)
        elif file in counts and index >= counts[file]:
            file, index = file + 1, 0
        elif (file, index) in results:
            index += 1
            yield results.pop((file, index - 1)), progress()
        else:
            try:
                item = shared.done.get(timeout=_PATIENCE)
            except queue.Empty:
                yield progress()
                continue
            if isinstance(item, Ran):
                results[item.file, item.number] = item.outcome
            else:
                problems[item.file], counts[item.file] = item.problems, item.jobs
