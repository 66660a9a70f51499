"""Predict what KVM would do with a machine."""

from __future__ import annotations

from kvmscen.errors import HostError
from kvmscen.model.arm64.guest import Arm64
from kvmscen.model.guest import Guest
from kvmscen.model.x86.guest import X86
from kvmscen.sent.machine import Machine
from kvmscen.sent.observation import Observation

GUESTS: dict[str, type[Guest]] = {guest.NAME: guest for guest in (Arm64, X86)}


def execute(machine: Machine, kernel: str | None = None) -> Observation:
    """The Observation that is predicted; `kernel` is the version whose KVM is meant, where versions
    differ.
    """
    if machine.arch not in GUESTS:
        raise HostError(f"the model does not run {machine.arch}")
    guest = GUESTS[machine.arch](machine)
    guest.kernel = kernel
    try:
        return guest.observe()
    finally:
        guest.close()
