"""The hosts by the name on the command line: one file each, one line here.

A host has a `name` (exactly the text given to --on), and after `wait` its `facts`; `executor()`
makes one Executor a worker thread, whose one verb is `execute(machine) -> Observation`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple, Protocol, runtime_checkable

from kvmscen.errors import HostError, Problem, UsageError
from kvmscen.sent.facts import Facts
from kvmscen.sent.machine import Sealed
from kvmscen.sent.observation import Observation


class Executor(Protocol):
    """Runs Machines one after another. Raises HostError for what is the host's fault."""

    def execute(self, machine: Sealed) -> Observation:
        """Run one Machine."""

    def close(self) -> None:
        """End the executor at once; an `execute` under way in another thread fails."""


class Host(Protocol):
    """Where guests run. `problems`, after `wait`: what of it is damaged, though the rest can be
    used.

    `archs`: the architectures that it would run if it could run at all; None where that is known
    only by `facts`.
    """

    name: str
    archs: tuple[str, ...] | None
    facts: tuple[Facts, ...]
    problems: tuple[Problem, ...]
    # Whether exits will be timed there: set before `start`.
    timing: bool

    def start(self) -> None:
        """Begin starting; returns at once."""

    def wait(self) -> None:
        """Until `facts` are there; raises HostError with the reason when the host cannot run
        here.
        """

    def executor(self) -> Executor:
        """A new Executor, for one thread."""

    def close(self) -> None:
        """Free what belongs to the host and to no executor."""


@runtime_checkable
class Local(Protocol):
    """A host whose guests the workers of the engine run themselves. `hello`: what says what this
    machine is, as an agent would, where they do.
    """

    hello: Callable[[], dict[str, Any]] | None


class HostKind(NamedTuple):
    """One kind of host: how it is written, where its class is (empty: not yet), and what it does,
    for people.
    """

    usage: str
    place: str
    note: str


HOSTS: dict[str, HostKind] = {
    "kvm": HostKind("kvm", "kvmscen.hosts.kvm:KvmHost", "this machine's /dev/kvm"),
    "model": HostKind(
        "model[@KERNEL]",
        "kvmscen.hosts.model:ModelHost",
        "predicts the exits, without KVM; of that kernel where it is named",
    ),
    "replay": HostKind(
        "replay:FILE",
        "kvmscen.hosts.replay:ReplayHost",
        "gives back what run --record kept; FILE may be a folder",
    ),
    "qemu": HostKind(
        "qemu:ARCH[@KERNEL]",
        "kvmscen.hosts.qemu.host:QemuHost",
        "real KVM of any architecture, inside a Linux that QEMU boots",
    ),
    "ssh": HostKind(
        "ssh:USER@HOST[:PORT]",
        "kvmscen.hosts.ssh:SshHost",
        "real KVM of another machine, which needs python3 only",
    ),
}


def defaults(tell: Callable[[str], None]) -> list[Host]:
    """What runs a case when no --on is given: the first of these that can and that fits its
    architecture.

    `tell` is called where it cannot be known what is prepared.
    """
    try:
        there = prepared()
    except HostError as error:
        tell(f"prepared hosts are left out: {error}")
        there = []
    return [host("kvm"), *there, host("model")]


def prepared() -> list[Host]:
    """The qemu hosts that are prepared: of each architecture the newest. Raises HostError where
    that cannot be known.
    """
    from kvmscen.hosts.qemu import store  # here, since most machines have none

    if not os.path.lexists(store.home() / "machines") and os.access(store.home().parent, os.X_OK):
        return []
    from kvmscen.hosts.qemu import host

    return list(host.prepared())


def usages() -> str:
    """The hosts that there are, as they are written."""
    return ", ".join(row.usage for row in HOSTS.values() if row.place)


def host(name: str) -> Host:
    """The host that a text given to --on means. Raises UsageError for a name that is none,
    HostError for one that cannot be.
    """
    kind = name.partition(":")[0].partition("@")[0]
    row = HOSTS.get(kind)
    if row is None:
        raise UsageError(f"there is no host {name!r}; hosts are {usages()}")
    if not row.place:
        raise HostError(f"host {name}: not yet: {kind} hosts are not built")
    module, _, made = row.place.partition(":")
    opened: Host = getattr(import_module(module), made)(name)
    return opened
