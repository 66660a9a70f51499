"""Run one Machine on /dev/kvm and say everything that happened."""

from __future__ import annotations

import os
import time

from kvmscen.sent.arch import of_machine
from kvmscen.sent.errors import HostError
from kvmscen.sent.executor import alarm, vectors
from kvmscen.sent.executor.building import build
from kvmscen.sent.executor.runner import Runner
from kvmscen.sent.executor.session import Session
from kvmscen.sent.kvm.fds import Kvm
from kvmscen.sent.kvm.limits import Clock, Limits
from kvmscen.sent.machine import Machine
from kvmscen.sent.measure import Timing
from kvmscen.sent.observation import Observation


class Executor:
    """One open /dev/kvm that runs Machines one after another."""

    def __init__(self, kvm: Kvm, flavour: str | None, effects: bool = False) -> None:
        self.kvm = kvm
        self.flavour = flavour
        self.effects = effects  # whether a guest may have capabilities that reach beyond its VM
        self.arch = of_machine(os.uname().machine)
        self.clock = Clock()

    def execute(self, machine: Machine) -> Observation:
        """Build the VM, run it, give everything back. Limits count as in kvmscen.sent.kvm.limits.

        Raises HostError where the time limit was over before the guest's first instruction.
        """
        if machine.arch != self.arch:
            raise HostError(f"KVM on {self.arch} does not run {machine.arch}")
        seen = self._run(machine)
        return seen if seen.exception is None else vectors.first(machine, seen, self._run)

    def _run(self, machine: Machine) -> Observation:
        session = Session(self.kvm, machine, self.flavour, self.effects)
        try:
            return _observe(session, Runner(session, Limits(self.clock, machine.timeout)))
        finally:
            session.close()


def _observe(session: Session, runner: Runner) -> Observation:
    """Build a session, run it, and read what it comes to."""
    machine, recorder = session.machine, session.recorder
    timing: Timing | None = None
    start = time.monotonic()
    alarm.begin(runner.alarm)
    try:
        stopped = build(session, machine)
        if stopped is None:
            runner.limits.begin(session.pc_of(machine.vcpus[0].id))
        if stopped is None and machine.measure is not None:
            from kvmscen.sent.executor.timed import Timed  # here, since most runs time nothing

            timing, stopped = Timed(session, runner.limits).measure(machine.measure)
        for plan in machine.vcpus if stopped is None else ():
            stopped = runner.run(session.vcpus[plan.id])
        regs, memory = session.final()
        exception = vectors.look(session, stopped)
    finally:
        alarm.end()
    elapsed = time.monotonic() - start
    detail = recorder.detail(stopped or "end") if timing is None else None
    events, notes = recorder.seen(), recorder.notes()
    return Observation(
        stopped or "end",
        events,
        regs,
        memory,
        elapsed,
        detail,
        timing=timing,
        notes=notes,
        exception=exception,
    )
