"""What a worker does: a process that reads files, assembles them, runs their cases on this
machine's /dev/kvm and judges them.

It is forked (kvmscen.hosts.process.forks), confines itself before it reads a stranger's bytes, and
answers the requests of kvmscen.compile.prepare.Preparer. To `{"run": ...}` it answers in parts, so
that whoever asks knows what it was at when it ends:

    {"names", "problems", "cases", "digest", "jobs"}    what the file comes to; with "keep" where
                                                        that is new
    {"outcome": {...}}                                  a job of it, in order,
    {"due": JOB}                                        or one for another host

All but the last have `"more": true`.
"""

from __future__ import annotations

import base64
import os

# What a worker would import at some time in its life.
import tokenize  # noqa: F401
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import kvmscen.author.observed
import kvmscen.compile.show  # noqa: F401
from kvmscen.compile.prepare import Made, Prepared, Preparer, leave, rules, told
from kvmscen.disk import scratch
from kvmscen.disk.packs import Packs
from kvmscen.engine import unexpected
from kvmscen.engine.keys import Keys, digest, told_of
from kvmscen.engine.keys import raw as read_raw
from kvmscen.engine.outcome import Outcome, Telling, outcome
from kvmscen.judge.verdict import judge, result
from kvmscen.results.result import Result
from kvmscen.sent.agent.main import facts, opened
from kvmscen.sent.agent.serve import Answer, serve
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.errors import HostError
from kvmscen.sent.executor.executor import Executor
from kvmscen.sent.facts import Facts
from kvmscen.sent.kvm.fds import Kvm
from kvmscen.sent.sandbox import effects_allowed, policies
from kvmscen.worker import kept

Json = dict[str, Any]


class Here:
    """This machine's /dev/kvm, as the process that forks the workers has opened it; `kvm` is None
    where it cannot be used, or is not asked for.
    """

    def __init__(self, wanted: bool) -> None:
        self.kvm: Kvm | None = None
        self.facts: Facts | None = None
        self.hello: Json = {}
        if wanted:
            found = opened()
            if isinstance(found, str):
                self.hello = {"unusable": found}
            else:
                self.kvm, self.facts = found, facts(found)
                self.hello = {"facts": [encode(self.facts)]}


class Worker:
    """Answers requests, one at a time."""

    def __init__(self, here: Here, packs: Packs | None = None, base: str = "") -> None:
        self.packs = packs
        self.base = base
        self.keys: Keys | None = None
        self.preparer = Preparer()
        self.executor: Executor | None = None
        if here.kvm is not None and here.facts is not None:
            self.executor = Executor(here.kvm, here.facts.flavour, effects_allowed())
        self.here: set[str] = set()
        self.dead: set[str] = set()
        self.telling = Telling()

    def handle(self, request: Json) -> Answer:
        """The answer, or its parts."""
        if "targets" in request:
            self.keys = Keys(self.base, told_of(request)) if self.packs is not None else None
            self.here, self.dead = set(request.get("here", ())), set(request.get("dead", ()))
            self.telling = decode(Telling, request.get("telling", {}))
            if (cpu := request.get("cpu")) is not None:
                # Two processes that make VMs at once wait less for each other on CPUs of their own.
                os.sched_setaffinity(0, {cpu})
        if "run" in request and "first" in request:
            return self._run(request)
        return self.preparer.handle(request)

    def _run(self, request: Json) -> Iterator[Json]:
        raw = read_raw(request["run"])
        if request.get("digest") not in (None, "", digest(raw)):
            # What is green must be one file, not parts of two.
            raise HostError("the file has changed while it was run: run it again")
        prepared, entry = self._prepared(request, raw)
        head = {
            "digest": digest(raw),
            "names": prepared.names,
            "problems": told(prepared.problems),
            "cases": prepared.cases,
            "jobs": [_head(made, made.job.host in self.here) for made in prepared.jobs],
        }
        if entry is not None:
            head["keep"] = base64.b64encode(entry).decode()
        left = prepared.jobs[request.get("job", 0) :]
        yield _part(head, bool(left))
        for number, made in enumerate(left, 1):
            if made.job.host in self.dead or (
                made.machine is not None and made.job.host not in self.here
            ):
                part = {"due": encode(made.sealed())}
            else:
                part = _told(self._outcome(made))
            yield _part(part, number < len(left))

    def _prepared(self, request: Json, raw: bytes | None) -> tuple[Prepared, bytes | None]:
        """What a file comes to, from the cache or anew; and what to keep of it, None: nothing."""
        if self.packs is None or self.keys is None or raw is None:
            return self.preparer.prepare(request, raw), None
        entry = self.packs.get(self.keys.key(request, raw))
        if entry is not None:
            try:
                prepared = kept.unpack(entry)
            except Exception:
                prepared = None  # of another kind than it is written here: it is made anew
            if prepared is not None:
                return prepared, None
        prepared = self.preparer.prepare(request, raw)
        return prepared, kept.pack(prepared)

    def _outcome(self, made: Made) -> Outcome:
        if made.machine is None:
            return outcome(made.job, result(made.job, "SKIP", made.job.skip), self.telling)
        if self.telling.whole:
            made = made._replace(job=made.sealed())
        return outcome(made.job, self._judged(made), self.telling)

    def _judged(self, made: Made) -> Result:
        assert self.executor is not None
        assert made.machine is not None
        try:
            seen = self.executor.execute(made.machine)
        except HostError as error:
            return result(made.job, "ERROR", str(error))
        except Exception as error:
            traceback.print_exc()
            return result(made.job, "ERROR", f"{type(error).__name__}: {error}")
        try:
            found = judge(made.job, seen)
            if found.status == "FAIL" and made.job.machine is None:
                # A hint looks at the Machine, which is sealed for those few alone.
                found = judge(made.sealed(), seen)
            return found
        except Exception as error:
            return result(made.job, "ERROR", unexpected.told(error))


def _part(part: Json, more: bool) -> Json:
    return {**part, "more": True} if more else part


def _head(made: Made, here: bool) -> Json:
    """A job without what only a host and the judge need; with its time where it runs here."""
    bare = encode(made.job._replace(machine=None, expectation=None, legend=None, wanted=()))
    if made.machine is not None and here:
        bare["timeout"] = made.machine.timeout
    return bare


def _told(came: Outcome) -> Json:
    out: Json = {"outcome": encode(came.result)}
    if came.observed is not None:
        out["observed"] = came.observed
    return out


def loaded(files: Sequence[str], local: bool, cache: str | None) -> tuple[Callable[[], None], Json]:
    """As `load` of this room, once all is imported."""
    here = Here(local)
    packs, base = (None, "") if cache is None else (Packs(cache), kept.base())

    def work() -> None:
        worker = Worker(here, packs, base)
        policy = policies.PREPARE if here.kvm is None else policies.WORKER
        held = policies.confine(policy, rules(files, scratch.settle()))
        serve({"sandbox": encode(held)}, worker.handle, leave=leave)
        scratch.remove_own()

    return work, {**here.hello, "base": base}
