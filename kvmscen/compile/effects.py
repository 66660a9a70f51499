"""Capabilities of a case that reach beyond the VM: it runs only where the user has allowed that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kvmscen.scenario import Action, Case, Enable, Step
from kvmscen.sent.header.caps import CAPABILITIES
from kvmscen.sent.header.reach import beyond

# Where a real KVM of somebody's runs the guest. What QEMU boots for it is made for it, and the
# others run no KVM.
_HOSTS = ("kvm", "ssh")


def forbidden(case: Case, kind: str) -> str | None:
    """Why a case may not run on a host of this kind without --allow-host-effects; None where it
    may.
    """
    for enable in _enabled(case) if kind in _HOSTS else ():
        if reach := beyond(CAPABILITIES[enable.cap]):
            return f"line {enable.place.line}: {reach}: --allow-host-effects lets it run"
    return None


def _enabled(case: Case) -> Iterator[Enable]:
    yield from case.enable
    yield from _of(case.setup)
    for story in (case.expect, case.ignore, *(overlay.over(case).expect for overlay in case.when)):
        yield from _in(story or ())


def _in(steps: Iterable[Step]) -> Iterator[Enable]:
    for step in steps:
        yield from _of(step.then or ())
        yield from _in(step.steps)


def _of(actions: Iterable[Action]) -> Iterator[Enable]:
    return (action.args["enable"] for action in actions if action.name == "enable")
