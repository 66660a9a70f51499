"""What every host does with an event: record it, fold repeats, hold it against the vCPU's script, watch the limit of exits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Callable

from kvmscen.arch.arm64_emulate import Monitors
from kvmscen.errors import IoctlError
from kvmscen.kvm.script import EXTRA_LIMIT, Devices, Script, Verdict, reply_of
from kvmscen.machine import Action, Machine, Step, seconds
from kvmscen.observation import Event

ZERO_EXTENDED = (
    "this KVM extends the reply to a load that sign-extends with zeros (it does so before 7.2); undecoded: emulate has put the "
    "sign into the registers"
)


class Recorder:
    """The events of one run, in one global sequence, with the scripts that they are held against."""

    def __init__(self, machine: Machine) -> None:
        self.devices = Devices(machine.devices)
        self.scripts = {vcpu.id: Script(vcpu.script, machine.ignore) for vcpu in machine.vcpus}
        self.events: list[Event] = []
        self.limit = machine.exits
        self.timeout = machine.timeout
        self.total = 0
        self.monitors = Monitors()
        self.exclusive: set[int] = set()  # the vCPUs that are behind an emulated load-exclusive
        self.corrected = 0  # replies to sign-extending loads that KVM had extended with zeros
        self._reason: str | None = None
        self._performed: Counter[int] = Counter()

    def take(
        self,
        vcpu: int,
        kind: str,
        name: str,
        fields: Mapping[str, Any],
        pc: int | None,
        observe: Callable[[Step], tuple[Mapping[str, int], Mapping[int, bytes]]],
        op: str | None = None,
    ) -> Verdict:
        """Record one event and return the script's verdict; `observe` reads registers and memory that the step asks for.

        The verdict's stop is `exits` when the limit is reached.
        """
        verdict = self.scripts[vcpu].take(kind, name, fields)
        regs: Mapping[str, int] | None = None
        memory: Mapping[int, bytes] | None = None
        step = verdict.step
        if step is not None and (step.observe_regs or step.observe_memory):
            regs, memory = observe(step)
        reply = step.reply if step is not None else None
        self.add(Event(vcpu, kind, name, fields, pc, regs or None, memory or None, reply, op=op))
        if verdict.stop is None and self.total >= self.limit:
            return verdict._replace(stop="exits")
        return verdict

    def detail(self, stopped: str) -> str | None:
        """Why the run stopped, in words, where the guest did not end it."""
        return {
            "extra": f"{EXTRA_LIMIT} exits that no step expected",
            "exits": f"the limit of {self.limit} exits was reached (limits: {{exits: ...}})",
            "error": self._reason,
            "timeout": f"the time limit of {seconds(self.timeout)} s was reached (limits: {{timeout: ...}})",
        }.get(stopped)

    def reply(self, verdict: Verdict, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What user space writes back at this exit; a write into a section outside the slots is kept there."""
        if name == "mmio" and fields["is_write"]:
            self.devices.write(fields["phys_addr"], fields["data"].to_bytes(8, "little")[: fields["len"]])
        return reply_of(verdict.step, name, fields, self.devices)

    def failed(self, vcpu: int, error: IoctlError, pc: int | None, wanted: str | None, op: str | None = None) -> str | None:
        """Record a failing ioctl (`op` as in Event: what it was of); None if it was wanted, else why the run stops."""
        fields = {"ioctl": error.ioctl, "reason": error.reason} if error.reason else {"ioctl": error.ioctl}
        if error.errno == wanted:
            self.add(Event(vcpu, "error", error.errno, fields, pc, op=op))
            return None
        if error.reason:
            self._reason = f"{error.ioctl} failed with {error.errno}: {error.reason}"
        return self.take(vcpu, "error", error.errno, fields, pc, lambda step: ({}, {}), op).stop or "error"

    def perform(self, vcpu: int, action: Action, pc: int | None, act: Callable[[Action], None]) -> str | None:
        """Do one host action; None, or why the run stops."""
        number = self._performed[vcpu]
        self._performed[vcpu] += 1
        try:
            act(action)
        except IoctlError as error:
            return self.failed(vcpu, error, pc, action.errno, f"actions/{number}")
        return None

    def add(self, event: Event) -> None:
        """Record an event; an event equal to the one before it is folded into it."""
        self.total += 1
        self._add(event)

    def amend(self, vcpu: int, name: str, more: Mapping[str, Any]) -> None:
        """Add members to the last exit of this name: what became of it shows only afterwards."""
        at = next(n for n in range(len(self.events) - 1, -1, -1) if (self.events[n].vcpu, self.events[n].name) == (vcpu, name))
        later, event = self.events[at + 1 :], self.events[at]
        del self.events[at + (event.count > 1) :]
        if event.count > 1:
            self.events[at] = replace(event, count=event.count - 1)
        for one in (replace(event, count=1, fields={**event.fields, **more}), *later):
            self._add(one)

    def last(self, vcpu: int, name: str) -> Event | None:
        """The last exit of a vCPU where it is one of this name."""
        events = (event for event in reversed(self.events) if event.vcpu == vcpu and event.kind == "exit")
        event = next(events, None)
        return event if event is not None and event.name == name else None

    def notes(self) -> tuple[str, ...]:
        """What the host put right, in words."""
        return (
            (f"{ZERO_EXTENDED} ({self.corrected:,} {'reply' if self.corrected == 1 else 'replies'})",) if self.corrected else ()
        )

    def _add(self, event: Event) -> None:
        last = self.events[-1] if self.events else None
        # Mostly pc tells them apart; the whole comparison makes a copy.
        if last is not None and last.pc == event.pc and replace(last, count=1) == event:
            self.events[-1] = replace(last, count=last.count + 1)
        else:
            self.events.append(event)
