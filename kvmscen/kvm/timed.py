"""A run in which exits are timed: what the executor does at each, and when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from kvmscen.errors import IoctlError
from kvmscen.kvm import emulation, exits, measuring
from kvmscen.kvm.executor import Run, write_back
from kvmscen.kvm.fds import Vcpu
from kvmscen.kvm.script import Verdict
from kvmscen.kvm.watch import Watch
from kvmscen.machine import Step
from kvmscen.measure import Measure, Place, Timing
from kvmscen.observation import Event


class Timed:
    """The hands of kvmscen.kvm.measuring."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def measure(self, measure: Measure) -> tuple[Timing, str]:
        """What was timed on the first vCPU, and why it stopped."""
        run = self.run
        vcpu = run.vcpus[run.machine.vcpus[0].id]
        ring = None if run.quiet is None else run.quiet.ring
        return measuring.timed(run.kvm, vcpu, run.machine.arch, measure, run.recorder.devices, ring, self)

    def answer(self, vcpu: Vcpu, name: str, members: Mapping[str, Any], place: Place | None) -> str | None:
        """What user space does at an exit; why the vCPU ends there, if it does."""
        run = self.run
        run.drain()
        row = exits.BY_NAME.get(name)
        if name == "arm_nisv" and run.machine.undecoded:
            return self._emulate(vcpu, members)
        if place is None and (row is None or row.ends or name == "arm_nisv"):
            run.recorder.add(Event(vcpu.number, "exit", name, members, run.state.pc(vcpu)))
            return "expected"
        step = None if place is None else Step(place.exit, place.where, reply=place.reply)
        reply = run.recorder.reply(Verdict(step, 0, (), None), name, members)
        if reply:
            write_back(vcpu, name, members, reply)
        return None

    def _emulate(self, vcpu: Vcpu, members: Mapping[str, Any]) -> str | None:
        run = self.run
        bus = run.bus(vcpu)
        try:
            prepared = emulation.prepare(bus, members["fault_ipa"])
        except IoctlError as error:
            return run.recorder.failed(vcpu.number, error, run.state.pc(vcpu), None) or "error"
        emulation.commit(bus, prepared)
        if not prepared.form.monitor:
            return None
        # What the guest does up to its store-exclusive is not timed.
        number = run.step(vcpu)
        if number is None:
            return None
        return self.failed(vcpu, number) if number else self.answer(vcpu, *vcpu.exit(run.machine.arch), None)

    def failed(self, vcpu: Vcpu, number: int) -> str:
        """A KVM_RUN that failed ends its vCPU."""
        error = IoctlError("KVM_RUN", number)
        self.run.recorder.add(Event(vcpu.number, "error", error.errno, {"ioctl": "KVM_RUN"}, self.run.state.pc(vcpu)))
        return "error"

    def watch(self, count: Callable[[], int], seconds: float) -> Watch:
        """Who breaks the run off when `count()` stays the same for so many seconds, or the whole run's time is over."""
        return Watch(count, self.run.limits, seconds)
