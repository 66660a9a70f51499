"""The pipeline: files to workers, jobs of other hosts to their executors, results in the order of
the files.

The main process stays light: it holds no parser, schema or assembler, and no VM. Workers, which are
forked, turn files into results; a thread for each asks it. Jobs for hosts that are reached by
frames come back from them, and threads with executors run these. The calling thread takes the
results.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from kvmscen import __version__
from kvmscen.engine import unexpected
from kvmscen.engine.executors import Executors
from kvmscen.engine.outcome import ALL, Outcome, Telling
from kvmscen.engine.shared import Ran, Shared
from kvmscen.engine.workers import Load, Orders, Pool, Workers
from kvmscen.errors import HOST, OPTIONS, HostError, Problem
from kvmscen.hosts import Host, Local
from kvmscen.hosts.process import confinement
from kvmscen.job.job import Target
from kvmscen.results.result import Result, Run
from kvmscen.sent.codec import encode

# More than this at once gain nothing.
MOST_AT_ONCE = 64
# Nothing new for so long, and the one who waits is told what runs.
_PATIENCE = 0.5


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
    load: Load,
    files: Sequence[str],
    hosts: Sequence[Host],
    each: bool,
    selection: Selection,
    workers: int,
    on_outcome: Callable[[Outcome, Progress], None],
    on_problem: Callable[[Problem], None],
    problems: Sequence[Problem] = (),
    on_wait: Callable[[Progress], None] = lambda _: None,
    telling: Telling = ALL,
    cache: str | None = None,
) -> Run:
    """Run files on hosts and judge them.

    `load` is what the workers are forked with. `each`: every case on every host; else on the first
    that fits. `on_outcome` and `on_problem` are called in the order of the files, `on_wait` now and
    then where that takes long. `problems` are those found before, `telling` is what is wanted of
    the results, `cache` the folder of what was prepared before. Raises HostError when no host can
    run here; where some of `each` can, the cases of the others are errors.
    """
    confinement.check()
    started, clock = time.time(), time.monotonic()
    workers = min(workers, MOST_AT_ONCE)
    shared = Shared(list(files), workers)
    forks = Workers(load, files, any(isinstance(host, Local) for host in hosts), cache)
    results: list[Result] = []
    found: list[Problem] = list(problems)
    interrupted = False
    try:
        forks.start()
        for item in _found(shared, forks, files, hosts, each, selection, workers, telling):
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
        _end(shared, forks, hosts)
    return Run(
        id=new_id(),
        started=started,
        version=__version__,
        results=tuple(results),
        problems=tuple(found),
        elapsed=time.monotonic() - clock,
        interrupted=interrupted,
    )


def _end(shared: Shared, forks: Workers, hosts: Sequence[Host]) -> None:
    """End all that a run has started."""
    shared.stopped.set()
    for close in shared.at_end:
        close()
    # First, so that no worker is asked for any more.
    forks.close()
    for child in shared.children:
        child.close()
    for executor in shared.executors:
        executor.close()
    for host in hosts:
        host.close()


def _found(
    shared: Shared,
    forks: Workers,
    files: Sequence[str],
    hosts: Sequence[Host],
    each: bool,
    selection: Selection,
    workers: int,
    telling: Telling,
) -> Iterator[Problem | Progress | tuple[Outcome, Progress]]:
    """What is wrong with hosts and files, and what came of cases, in the order in which it is
    told.
    """
    local = tuple(host.name for host in hosts if isinstance(host, Local))
    for host in hosts:
        if isinstance(host, Local):
            host.hello = forks.hello
    usable, shared.dead = start(hosts, each)
    yield from shared.dead.values()
    for host in usable:
        yield from host.problems
    asked = hosts if each else usable
    targets = {
        "targets": [encode(Target(host.name, host.facts)) for host in asked],
        "each": each,
        "assembler": selection.assembler,
        "here": local,
        "dead": list(shared.dead),
        "telling": encode(telling),
    }
    facts = tuple(known for host in usable if host.name in local for known in host.facts)
    orders = Orders(targets, selection.text, selection.cases, facts)
    executors = Executors(shared, asked, workers, telling)
    pool = Pool(shared, forks, orders, workers, executors.put)
    shared.at_end.append(pool.close)
    pool.start(len(files))
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


def _in_order(
    shared: Shared, files: int
) -> Iterator[Problem | Progress | tuple[Outcome, Progress]]:
    """Problems and results in the order of files and cases, each as soon as those before it are
    there.
    """
    parts: dict[int, int] = {}
    counts: dict[tuple[int, int], int] = {}
    problems: dict[tuple[int, int], list[Problem]] = {}
    results: dict[tuple[int, int, int], Outcome] = {}
    told: set[Problem] = set()
    file = part = index = 0

    def progress() -> Progress:
        within = index / counts[file, part] if counts.get((file, part)) else 0.0
        within = (part + within) / parts.get(file, 1)
        running = next(iter(list(shared.running.values())), "")
        return Progress((file + within) / files, file + int(within), files, running)

    while file < files:
        if problems.get((file, part)):
            # What several cases share is told with the first part of a file that has one of them.
            fresh = [p for p in problems.pop((file, part)) if p._replace(cases=()) not in told]
            told.update(problem._replace(cases=()) for problem in fresh)
            yield from fresh
        elif (file, part) in counts and index >= counts[file, part]:
            part, index = part + 1, 0
            if part >= parts[file]:
                file, part = file + 1, 0
                told.clear()
        elif (file, part, index) in results:
            index += 1
            yield results.pop((file, part, index - 1)), progress()
        else:
            try:
                item = shared.done.get(timeout=_PATIENCE)
            except queue.Empty:
                yield progress()
                continue
            at = (item.task.number, item.task.part)
            if isinstance(item, Ran):
                results[(*at, item.number)] = item.outcome
            else:
                problems[at], counts[at] = item.problems, item.jobs
                parts.setdefault(item.task.number, item.parts)
