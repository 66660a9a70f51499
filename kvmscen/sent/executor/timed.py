"""Runs a session's first vCPU while its exits are timed: what is done at each, and when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from kvmscen.sent.errors import IoctlError
from kvmscen.sent.executor import exclusive
from kvmscen.sent.executor.runner import write_back
from kvmscen.sent.executor.session import Session
from kvmscen.sent.header import exits
from kvmscen.sent.kvm.fds import Vcpu
from kvmscen.sent.kvm.limits import Limits
from kvmscen.sent.machine import Step
from kvmscen.sent.measure import Measure, TimedExit, Timing
from kvmscen.sent.observation import Event
from kvmscen.sent.script.interpreter import Verdict
from kvmscen.sent.timing import measuring
from kvmscen.sent.timing.watch import Watch
from kvmscen.sent.undecoded import emulation


class Timed:
    """Callbacks of the timing loop in kvmscen.sent.timing.measuring."""

    def __init__(self, session: Session, limits: Limits) -> None:
        self.session = session
        self.limits = limits

    def measure(self, measure: Measure) -> tuple[Timing, str]:
        """What was timed on the first vCPU, and why it stopped."""
        session = self.session
        ring = None if session.io_bus is None else session.io_bus.ring
        arch, devices = session.machine.arch, session.recorder.devices
        return measuring.timed(session.kvm, session.first, arch, measure, devices, ring, self)

    def answer(
        self, vcpu: Vcpu, name: str, members: Mapping[str, Any], place: TimedExit | None
    ) -> str | None:
        """What user space does at an exit; why the vCPU ends there, if it does."""
        session = self.session
        session.drain()
        row = exits.BY_NAME.get(name)
        if name == "arm_nisv" and session.machine.undecoded:
            return self._emulate(vcpu, members)
        if place is None and (row is None or row.ends or name == "arm_nisv"):
            session.recorder.add(Event(vcpu.number, "exit", name, members, session.state.pc(vcpu)))
            return "expected"
        step = None if place is None else Step(place.exit, place.where, reply=place.reply)
        reply = session.recorder.reply(Verdict(step, 0, (), None), name, members)
        if reply:
            write_back(vcpu, name, members, reply)
        return None

    def _emulate(self, vcpu: Vcpu, members: Mapping[str, Any]) -> str | None:
        session = self.session
        bus = session.bus(vcpu)
        try:
            prepared = emulation.prepare(bus, members["fault_ipa"])
        except IoctlError as error:
            return (
                session.recorder.failed(vcpu.number, error, session.state.pc(vcpu), None) or "error"
            )
        emulation.commit(bus, prepared)
        if not prepared.form.monitor:
            return None
        # What the guest does up to its store-exclusive is not timed.
        number = exclusive.run_on(session, vcpu)
        if number is None:
            return None
        return (
            self.failed(vcpu, number)
            if number
            else self.answer(vcpu, *vcpu.exit(session.machine.arch), None)
        )

    def failed(self, vcpu: Vcpu, number: int) -> str:
        """A KVM_RUN that failed ends its vCPU."""
        error = IoctlError("KVM_RUN", number)
        self.session.recorder.add(
            Event(
                vcpu.number, "error", error.errno, {"ioctl": "KVM_RUN"}, self.session.state.pc(vcpu)
            )
        )
        return "error"

    def watch(self, count: Callable[[], int], seconds: float) -> Watch:
        """Who breaks the run off when `count()` stays the same for so many seconds, or the whole
        run's time is over.
        """
        return Watch(count, self.limits, seconds)
