"""Time limits on a machine that is busy with other things, and on one that does not get to the
guest at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kvm_machines import machine, mmio, story

from kvmscen.errors import HostError
from kvmscen.sent.agent.main import facts
from kvmscen.sent.executor.executor import Executor
from kvmscen.sent.kvm import limits
from kvmscen.sent.kvm.fds import Kvm, Vcpu
from kvmscen.sent.kvm.limits import Clock, entries
from kvmscen.sent.machine import Step
from kvmscen.sent.observation import Observation

pytestmark = pytest.mark.kvm


@pytest.fixture
def executor() -> Iterator[Executor]:
    kvm = Kvm()
    yield Executor(kvm, facts(kvm).flavour)
    kvm.close()


@pytest.fixture
def crowd() -> Iterator[None]:
    """This process on one CPU, with three others that never pause."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    others = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(3)
    ]
    try:
        time.sleep(0.5)
        yield
    finally:
        os.sched_setaffinity(0, before)
        for other in others:
            other.kill()
            other.wait()


@pytest.mark.usefixtures("crowd")
@pytest.mark.parametrize(
    ("script", "limit"),
    [((Step("hlt"),), {"timeout": 0.4}), ((Step("timeout", timeout=0.4),), {})],
    ids=["whole", "step"],
)
def test_time_on_the_run_queue_does_not_count(
    executor: Executor, script: tuple[Step, ...], limit: dict[str, Any]
) -> None:
    before = time.thread_time()
    seen = executor.execute(machine("jmp .", script, **limit))
    # A guest that spins has all of its time on the CPU, however long that took.
    assert time.thread_time() - before > 0.35
    assert story(seen) == [("timeout", 0.4)]


def test_the_clock_leaves_out_what_its_thread_waited(crowd: None) -> None:
    clock = Clock()
    began, cpu, wall = clock.now(), time.thread_time(), time.monotonic()
    while time.monotonic() - wall < 1.0:
        pass
    passed, used = clock.now() - began, time.thread_time() - cpu
    clock.close()
    assert used - 0.01 <= passed < time.monotonic() - wall
    # What it waits for now is counted when it has waited.
    assert passed - used < 0.2


def test_the_clock_is_the_walls_where_the_kernel_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*arguments: Any) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "open", refused)
    clock = Clock()
    before = time.monotonic()
    assert before <= clock.now() <= time.monotonic()
    clock.close()


class Held(Vcpu):
    """A vCPU of real KVM that KVM_RUN does not enter, `times` times."""

    times = 10**9

    def run(self) -> int:
        if self.times:
            self.times -= 1
            self.immediate_exit = 1
            time.sleep(0.001)
        return super().run()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> type[Held]:
    monkeypatch.setattr("kvmscen.sent.kvm.fds.Vcpu", Held)
    return Held


@pytest.mark.parametrize(
    "script", [(Step("hlt"),), (Step("timeout", timeout=0.05),)], ids=["whole", "step"]
)
def test_a_guest_that_was_never_entered_is_inconclusive(
    executor: Executor, held: type[Held], script: tuple[Step, ...]
) -> None:
    with pytest.raises(HostError) as caught:
        executor.execute(machine("jmp .", script, timeout=0.2))
    assert str(caught.value) == (
        "inconclusive: the time limit of 0.2 s was over before the guest's first instruction: the "
        "machine could not get to it"
    )


def test_a_guest_that_is_entered_late_has_its_time(
    executor: Executor, held: type[Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "times", 150)  # of 1 ms, or more
    seen = executor.execute(machine("mov [rbx], al; hlt", (mmio(0x5000), Step("hlt")), timeout=0.1))
    assert (story(seen), seen.stopped) == ([("w", 0x5000, 1, 0), ("hlt",)], "expected")


@pytest.mark.parametrize("seconds", [1e-6, 0.001, 0.1])
def test_a_guest_that_stays_where_it_is_runs(executor: Executor, seconds: float) -> None:
    for script, limit in (((Step("hlt"),), seconds), ((Step("timeout", timeout=seconds),), 5.0)):
        seen = executor.execute(machine("jmp .", script, timeout=limit))
        assert (story(seen), seen.events[0].pc) == ([("timeout", seconds)], 0)


def test_kvm_counts_how_often_a_guest_is_left(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Counted(Vcpu):
        def run(self) -> int:
            count = entries(self)
            assert count is not None
            seen.append(count)
            return super().run()

    monkeypatch.setattr("kvmscen.sent.kvm.fds.Vcpu", Counted)
    executor.execute(
        machine("mov [rbx], al; mov [rbx], al; hlt", (mmio(0x5000), mmio(0x5000), Step("hlt")))
    )
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert len(set(seen)) == 3


def test_a_kernel_that_counts_nothing(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.14: the time on the CPU shows that a guest ran."""
    monkeypatch.setattr(limits, "entries", lambda vcpu: None)
    seen: Observation = executor.execute(machine("jmp .", (Step("hlt"),), timeout=0.2))
    assert story(seen) == [("timeout", 0.2)]
