"""Runs the vCPUs of a session along their scripts: KVM_RUN, what each exit is answered, and the
time limits.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from functools import partial
from typing import Any

from kvmscen.sent.errors import IoctlError
from kvmscen.sent.executor import exclusive
from kvmscen.sent.executor.building import perform
from kvmscen.sent.executor.session import Session
from kvmscen.sent.header import exits, kvm_run
from kvmscen.sent.kvm.fds import Vcpu
from kvmscen.sent.kvm.limits import Limits
from kvmscen.sent.machine import Step
from kvmscen.sent.script.interpreter import Verdict
from kvmscen.sent.undecoded import emulation, unaligned

_EINTR = 4
_FAULTS = ("EFAULT", "EHWPOISON")
_MEMORY_FAULT = 39
# A signal that comes between the last bytecode and the system call is lost, so the timer fires
# again and again.
_AGAIN = 0.02


class Runner:
    """The vCPUs of one session on their way. `alarm` is what SIGALRM does while they run."""

    def __init__(self, session: Session, limits: Limits) -> None:
        self.session = session
        self.recorder = session.recorder
        self.state = session.state
        self.arch = session.machine.arch
        self.emulates = session.machine.undecoded is not None
        self.limits = limits
        self.expired = False
        self.signed: emulation.Signed | None = (
            None  # a load at the last exit whose sign KVM may lose
        )

    def alarm(self) -> None:
        """The timer has fired: KVM_RUN returns at once."""
        self.expired = True
        for vcpu in self.session.vcpus.values():
            vcpu.immediate_exit = 1

    def run(self, vcpu: Vcpu) -> str:
        """Enter the vCPU until its script, an ending exit or a limit stops it; why, as in
        kvmscen.sent.observation.STOPPED.
        """
        self.arm(None)
        if self.recorder.scripts[vcpu.number].over():
            return "end"
        while True:
            verdict, completes = self._enter(vcpu)
            due, stop = self.recorder.due[vcpu.number], verdict.stop
            signed, self.signed = self.signed, None
            while completes and (due or stop is not None or signed) and stop != "exits":
                more = self._complete(vcpu)
                if more is None:
                    break
                verdict, completes = more
                stop = stop or verdict.stop
            if signed is not None and stop != "exits":
                emulation.extend(self.recorder, self.session.bus(vcpu), signed)
            if due and stop in (None, "end"):
                stop = perform(self.session, vcpu.number) or stop
            if stop is not None:
                return stop

    def arm(self, seconds: float | None) -> None:
        """Start the timer: for a step, or (None) for what is left of the whole run."""
        self.limits.wait(seconds)
        self._set_timer()

    def _set_timer(self) -> None:
        self.expired = False
        signal.setitimer(signal.ITIMER_REAL, max(self.limits.left(), 1e-6), _AGAIN)

    def _enter(self, vcpu: Vcpu) -> tuple[Verdict, bool]:
        """KVM_RUN until something happened: the verdict on it, and whether an instruction is left
        to complete.
        """
        wait = self.recorder.scripts[vcpu.number].timeout()
        if wait is not None:
            self.arm(wait)
        while True:
            if self.expired:
                vcpu.immediate_exit = 0
                if self.limits.left() > 0 or self.limits.lend(vcpu, partial(self.state.pc, vcpu)):
                    # The wall's time is over, but not that in which this thread could run.
                    self._set_timer()
                    continue
                late = self.limits.late()
                # Where the run's own limit came first, the step's time is what had passed of it.
                seconds = self.session.machine.timeout if wait is None else self.limits.passed()
                self.arm(None)
                verdict = self._take(vcpu, "timeout", "", {"timeout": seconds})
                return (verdict._replace(stop="timeout") if late else verdict), False
            vcpu.immediate_exit = 0
            number = (
                exclusive.run_on(self.session, vcpu)
                if vcpu.number in self.recorder.exclusive
                else None
            )
            if number is None:
                number = vcpu.run()
            if number != _EINTR:
                break
        self.limits.ran = True
        if wait is not None:
            self.arm(None)
        return self._returned(vcpu, number)

    def _complete(self, vcpu: Vcpu) -> tuple[Verdict, bool] | None:
        """Complete the pending exit without entering the guest; an exit that this yields is the
        next event.
        """
        vcpu.immediate_exit = 1
        number = vcpu.run()
        vcpu.immediate_exit = 0
        return None if number == _EINTR else self._returned(vcpu, number)

    def _returned(self, vcpu: Vcpu, number: int) -> tuple[Verdict, bool]:
        if number:
            error = IoctlError("KVM_RUN", number)
            fields: dict[str, Any] = {"ioctl": "KVM_RUN"}
            if error.errno in _FAULTS and vcpu.exit_reason == _MEMORY_FAULT:
                fields["memory_fault"] = vcpu.exit(self.arch)[1]
            self._aligned(vcpu, error.errno, fields)
            return self._take(vcpu, "error", error.errno, fields), False
        if self.session.io_bus is not None:
            self.session.drain()
        name, members = vcpu.exit(self.arch)
        if self.arch == "arm64":
            self._aligned(vcpu, name, members)
        if self.emulates and name == "arm_nisv":
            take = partial(self._take, vcpu, "exit", name)
            return emulation.carry_out(self.recorder, self.session.bus(vcpu), members, take), False
        verdict = self._take(vcpu, "exit", name, members)
        reply = self.recorder.reply(verdict, name, members)
        row = exits.BY_NAME.get(name)
        if reply:
            write_back(vcpu, name, members, reply)
        if self.emulates and name == "mmio":
            self.signed = emulation.negative(self.session.bus(vcpu), members, reply)
        return verdict, row is not None and row.completes

    def _aligned(self, vcpu: Vcpu, name: str, members: Mapping[str, Any]) -> None:
        if self.arch == "arm64":
            unaligned.look(self.recorder, self.session.bus(vcpu), name, members)

    def _take(self, vcpu: Vcpu, kind: str, name: str, fields: Mapping[str, Any]) -> Verdict:
        observe = partial(self._observe, vcpu)
        return self.recorder.take(vcpu.number, kind, name, fields, self.state.pc(vcpu), observe)

    def _observe(self, vcpu: Vcpu, step: Step) -> tuple[Mapping[str, int], Mapping[int, bytes]]:
        regs = self.state.read(vcpu, step.observe_regs)
        return regs, self.session.memory(step.observe_memory)


def write_back(vcpu: Vcpu, name: str, members: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
    """Put the reply where KVM takes it from at the next KVM_RUN."""
    if name == "io":
        if "data" in reply and members["direction"] == 0:
            offset = int.from_bytes(vcpu.bytes_at(exits.UNION + 8, 8), "little")
            data = reply["data"]
            values = data if isinstance(data, list) else [data]
            size, count = members["size"], members["count"]
            # As with mmio, an access takes as many bytes of the reply as it is wide.
            raw = b"".join(v.to_bytes(16, "little")[:size] for v in values[:count])
            vcpu.put(offset, raw.ljust(size * count, b"\0"))
        return
    for field in exits.BY_NAME[name].fields:
        if field.name in reply:
            vcpu.put(exits.UNION + field.offset, kvm_run.encode(field, reply[field.name]))
