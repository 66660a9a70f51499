"""The guest that pays for what has to come from the disk when a machine was restored."""

from __future__ import annotations

import pytest

from kvmscen.hosts.qemu import first_guest
from kvmscen.hosts.qemu.boards import BOARDS
from kvmscen.model.predict import execute
from kvmscen.sent.agent.main import facts
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.executor.executor import Executor
from kvmscen.sent.kvm.fds import Kvm
from kvmscen.sent.machine import Machine

SEEN = [("exit", "mmio"), ("timeout", "")]


def test_there_is_one_for_each_machine() -> None:
    for board in BOARDS.values():
        made = first_guest.machine(board.arch)
        assert decode(Machine, encode(made)) == made


def test_it_goes_the_way_of_every_guest_on_the_model() -> None:
    seen = execute(first_guest.machine("arm64"))
    assert [(event.kind, event.name) for event in seen.events] == SEEN
    assert (seen.stopped, seen.regs["x0"]) == ("end", 1)


@pytest.mark.kvm
def test_it_goes_the_way_of_every_guest_on_kvm() -> None:
    kvm = Kvm()
    seen = Executor(kvm, facts(kvm).flavour).execute(first_guest.machine("x86_64"))
    kvm.close()
    assert [(event.kind, event.name) for event in seen.events] == SEEN
    assert (seen.stopped, seen.regs["rax"] & 0xFFFF) == ("end", 1)
