"""Hosts whose guests run in child processes: each worker's executor is a child that answers
Machines with Observations.
"""

from __future__ import annotations

import threading
from typing import Any

from kvmscen.errors import HostError, Problem
from kvmscen.hosts.process import crash, shapes
from kvmscen.hosts.process.child import Child, ChildError
from kvmscen.sent.codec import decode
from kvmscen.sent.facts import Facts
from kvmscen.sent.machine import Sealed
from kvmscen.sent.observation import Observation

Json = dict[str, Any]
# How much longer than the scenario's own time limit its host may take before it counts as hung.
GRACE = 5.0


# So many starts in a row that fail, and a host has gone: nobody waits for the rest of its cases to
# find out one by one.
_STARTS = 2


class Starts:
    """What the children of one host share while they start: how many may at once, and how many
    failed since one did not.
    """

    def __init__(self, at_once: int = 64) -> None:
        self.gate = threading.Semaphore(at_once)
        self.failed = 0
        self.why = ""


class ChildExecutor:
    """`execute` by a child that answers Machines with Observations. A child that breaks is replaced
    for the next Machine.
    """

    def __init__(self, child: Child, host: ChildHost) -> None:
        self.child = child
        self.host = host

    def execute(self, machine: Sealed) -> Observation:
        """Run one Machine; raises HostError with the tail of what the child printed."""
        try:
            if self.child.process_id is None or not self.child.hello:
                self.begin()
            reply = self.child.ask('"machine":' + machine.text, machine.timeout + self.host.grace())
        except ChildError as error:
            raise HostError(self.host.explain(error)) from None
        if "broke" in reply:
            raise HostError(str(reply["broke"]))
        try:
            return shapes.check(decode(Observation, reply["observation"]))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            raise HostError(f"{self.child.name} sent a reply that is no observation") from None

    def begin(self) -> None:
        """Start the child and see that it is where the first one was."""
        starts = self.host.starts
        with starts.gate:
            if starts.failed >= _STARTS:
                raise HostError(f"host {self.host.name} has gone: {starts.why}")
            try:
                self.child.wait_hello(self.host.seconds)
                self.host.first(self.child)
                starts.failed = 0
            except ChildError as error:
                starts.failed += 1
                starts.why = self.host.explain(error)
                raise
        if _same(self.host.known(self.child.hello)) != _same(self.host.facts):
            self.child.kill()
            raise HostError(
                f"host {self.host.name} is another machine, or another kernel, than it was when "
                f"the run began"
            )

    def close(self) -> None:
        """Kill the child for good."""
        self.child.close()


def _same(facts: tuple[Facts, ...]) -> list[tuple[str, str | None, int]]:
    """What does not change while a machine is up."""
    return [(known.arch, known.kernel, known.page_size) for known in facts]


class ChildHost:
    """A host whose executors are children; the first one tells the facts."""

    kind = ""
    # How long a child may take until it has said hello.
    seconds = 30.0
    archs: tuple[str, ...] | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.facts: tuple[Facts, ...] = ()
        self.problems: tuple[Problem, ...] = ()
        self.timing = False
        self.starts = Starts()
        self._first: Child | None = None

    def child(self) -> Child:
        """One child, not started yet."""
        raise NotImplementedError

    def first(self, child: Child) -> None:
        """What a child is asked before its first Machine; raises ChildError."""

    def grace(self) -> float:
        """Seconds that an answer may take longer than the scenario's time limit."""
        return GRACE

    def explain(self, error: ChildError) -> str:
        """What a user can do something with: the error and the last that the child printed."""
        last = [] if crash.where(error.tail) else error.tail.splitlines()[-1:]
        return str(error) + "".join(f" ({line})" for line in last)

    def known(self, hello: Json) -> tuple[Facts, ...]:
        """The facts of a child's hello; raises HostError where it cannot run guests, or tells no
        facts.
        """
        if "unusable" in hello:
            raise HostError(f"host {self.name} cannot run here: {hello['unusable']}")
        try:
            return tuple(
                shapes.facts(decode(Facts, facts))._replace(kind=self.kind)
                for facts in hello["facts"]
            )
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            raise HostError(
                f"host {self.name} does not say what it is: its hello has no facts"
            ) from None

    def take(self, hello: Json) -> None:
        """The facts of a hello; raises HostError as `known` does."""
        self.facts = self.known(hello)

    def start(self) -> None:
        """Spawn the first child."""
        self._first = self.child()
        self._first.spawn()

    def wait(self) -> None:
        """Take the facts from the first child's hello."""
        if self._first is None:
            self.start()
        assert self._first is not None
        try:
            self.take(self._first.wait_hello(self.seconds))
        except ChildError as error:
            raise HostError(f"host {self.name} cannot run here: {self.explain(error)}") from None

    def executor(self) -> ChildExecutor:
        """The first child, or a new one."""
        child, self._first = self._first, None
        return ChildExecutor(child if child is not None else self.child(), self)

    def prove(self) -> None:
        """See that a child starts, or goes on from its snapshot, and answers. Raises HostError."""
        executor = self.executor()
        try:
            executor.begin()
        except ChildError as error:
            raise HostError(self.explain(error)) from None
        finally:
            executor.close()

    def close(self) -> None:
        """End a first child that no executor took."""
        if self._first is not None:
            self._first.close()
