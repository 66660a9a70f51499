"""The hosts by the name on the command line: one file each, one line here.

A host has a `name` (exactly the text given to --on), a `kind`, `predicted`, and after `start` its `facts`; `executor()` makes
one Executor a worker thread, whose one verb is `execute(machine) -> Observation`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvmscen.errors import HostError, UsageError
from kvmscen.machine import Facts, Observation, Sealed


class Executor(Protocol):
    """Runs Machines one after another. Raises HostError for what is the host's fault."""

    def execute(self, machine: Sealed) -> Observation:
        """Run one Machine."""

    def close(self) -> None:
        """End it at once; an `execute` under way in another thread fails."""


class Host(Protocol):
    """Where guests run."""

    name: str
    kind: str
    predicted: bool
    facts: tuple[Facts, ...]

    def start(self) -> None:
        """Begin starting; returns at once."""

    def wait(self) -> None:
        """Until `facts` are there; raises HostError with the reason when the host cannot run here."""

    def executor(self) -> Executor:
        """A new Executor, for one thread."""

    def close(self) -> None:
        """Give back what no executor has."""


def _kvm(name: str) -> Host:
    from kvmscen.hosts.kvm import KvmHost

    return KvmHost(name)


def _model(name: str) -> Host:
    from kvmscen.hosts.model import ModelHost

    return ModelHost(name)


def _replay(name: str) -> Host:
    from kvmscen.hosts.replay import ReplayHost

    return ReplayHost(name)


def _later(name: str) -> Host:
    raise HostError(f"host {name}: not yet: {name.partition(':')[0]} hosts are not built")


HOSTS: dict[str, Callable[[str], Host]] = {"kvm": _kvm, "model": _model, "replay": _replay, "qemu": _later, "ssh": _later}
# What runs a scenario when no --on is given: the first of these that can and that fits its architecture.
DEFAULT = ("kvm", "model")


def host(name: str) -> Host:
    """The host that a text given to --on means. Raises UsageError for a name that is none."""
    kind = name.partition(":")[0].partition("@")[0]
    if kind not in HOSTS:
        known = "kvm, model, model@KERNEL, replay:FILE"
        raise UsageError(f"there is no host {name!r}; hosts are {known}")
    return HOSTS[kind](name)
