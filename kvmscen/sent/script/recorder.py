"""What every host does with an event: record it, fold repeats, hold it against the vCPU's script,
watch the limit of exits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Callable, NamedTuple

from kvmscen.sent.errors import IoctlError
from kvmscen.sent.machine import Action, Machine, Step, seconds
from kvmscen.sent.observation import Event, follows, weight
from kvmscen.sent.script.interpreter import (
    EXTRA_LIMIT,
    Devices,
    Position,
    Script,
    Verdict,
    reply_of,
)

# What the events of one run may take as JSON, in bytes, about: their number is limited, and each
# may hold registers, memory, a reply or the elements of a string instruction.
WEIGHT_MOST = 64 << 20
ZERO_EXTENDED = (
    "this KVM extends the reply to a load that sign-extends with zeros (it does so before 7.2); "
    "undecoded: emulate has put the sign into the registers"
)


class Due(NamedTuple):
    """An action that is to be performed, its name as in Event.op, and the number of the event
    behind which it comes.
    """

    action: Action
    op: str
    event: int | None


class Recorder:
    """The events of one run, in one global sequence, with the scripts that they are held
    against.
    """

    def __init__(self, machine: Machine) -> None:
        self.devices = Devices(machine.devices)
        self.scripts = {vcpu.id: Script(vcpu.script, machine.ignore) for vcpu in machine.vcpus}
        self.events: list[Event] = []
        self.due: dict[int, list[Due]] = {vcpu.id: [] for vcpu in machine.vcpus}
        self.limit = machine.exits
        self.timeout = machine.timeout
        self.total = 0
        self.weight = 0
        self.exclusive: set[int] = set()  # the vCPUs that are behind an emulated load-exclusive
        self.corrected = 0  # replies to sign-extending loads that KVM had extended with zeros
        self.unaligned: dict[
            tuple[int, str], int
        ] = {}  # accesses that silicon faults on: pc and what is wrong, how often
        self._reason: str | None = None

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
        """Record one event and return the script's verdict; `observe` reads registers and memory
        that the step asks for.

        The step's actions are `due` then. The verdict's stop is `exits` when the limit is reached.
        """
        verdict = self.scripts[vcpu].take(kind, name, fields)
        regs: Mapping[str, int] | None = None
        memory: Mapping[int, bytes] | None = None
        step = verdict.step
        if step is not None and (step.observe_regs or step.observe_memory):
            regs, memory = observe(step)
        reply = step.reply if step is not None else None
        at = verdict.at
        # By place: names take half as long again, and there is one an exit.
        event = Event(
            vcpu,
            kind,
            name,
            fields,
            pc,
            regs or None,
            memory or None,
            reply,
            1,
            op,
            at,
            verdict.ignored,
        )
        number = self.add(event)
        if verdict.then and at is not None:
            step_name = op_of(at)
            self.due[vcpu] += [
                Due(action, f"{step_name}/then/{n}", number)
                for n, action in enumerate(verdict.then)
            ]
        if verdict.stop is None and (self.total >= self.limit or self.weight > WEIGHT_MOST):
            return verdict._replace(stop="exits")
        return verdict

    def detail(self, stopped: str) -> str | None:
        """Why the run stopped, in words, where the guest did not end it."""
        if stopped == "extra":
            return f"{EXTRA_LIMIT} exits that no step expected"
        if stopped == "exits":
            if self.total >= self.limit:
                return f"the limit of {self.limit} exits was reached (limits: {{exits: ...}})"
            what = "what is kept of the exits (members, regs, memory, replies)"
            return f"{what} is more than {WEIGHT_MOST >> 20} MiB: look at less, or at fewer exits"
        if stopped == "timeout":
            limit = seconds(self.timeout)
            return f"the time limit of {limit} s was reached (limits: {{timeout: ...}})"
        return self._reason if stopped == "error" else None

    def reply(self, verdict: Verdict, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What user space writes back at this exit; a write into a section outside the slots is
        kept there.
        """
        if name == "mmio" and fields["is_write"]:
            self.devices.write(
                fields["phys_addr"], fields["data"].to_bytes(8, "little")[: fields["len"]]
            )
        return reply_of(verdict.step, name, fields, self.devices)

    def failed(
        self,
        vcpu: int,
        error: IoctlError,
        pc: int | None,
        wanted: str | None,
        op: str | None = None,
    ) -> str | None:
        """Record a failing ioctl (`op` as in Event: what it was of); None if it was wanted, else
        why the run stops.
        """
        fields = (
            {"ioctl": error.ioctl, "reason": error.reason}
            if error.reason
            else {"ioctl": error.ioctl}
        )
        if error.errno == wanted:
            self.add(Event(vcpu, "error", error.errno, fields, pc, op=op))
            return None
        if error.reason:
            self._reason = f"{error.ioctl} failed with {error.errno}: {error.reason}"
        return (
            self.take(vcpu, "error", error.errno, fields, pc, lambda step: ({}, {}), op).stop
            or "error"
        )

    def attempt(
        self,
        vcpu: int,
        name: str,
        act: Callable[[], None],
        pc: int | None,
        wanted: str | None,
        op: str,
    ) -> str | None:
        """Do one ioctl that is written; None if it ended as `wanted` (an errno, None: it succeeds),
        else why the run stops.
        """
        try:
            act()
        except IoctlError as error:
            return self.failed(vcpu, error, pc, wanted, op)
        if wanted is None:
            return None
        # What comes behind it would be of another machine than the one that is written.
        self.add(Event(vcpu, "succeeded", name, {}, pc, op=op))
        self._reason = f"{name} succeeded, and is written to fail with {wanted}"
        return "error"

    def prepare(self, vcpu: int, actions: Sequence[Action]) -> None:
        """Queue the actions of `setup`."""
        self.due[vcpu] += [Due(action, f"setup/{n}", None) for n, action in enumerate(actions)]

    def perform(
        self, vcpu: int, pc: Callable[[], int | None], act: Callable[[Action], None]
    ) -> str | None:
        """Do the actions that are due; None, or why the run stops."""
        due = self.due[vcpu]
        while due:
            action, op, number = due.pop(0)
            if stop := self.attempt(
                vcpu, action.name, partial(act, action), pc(), action.errno, op
            ):
                return stop
            if number is not None:
                event = self.events[number]
                self.events[number] = event._replace(done=event.done + 1)
        return None

    def add(self, event: Event) -> int:
        """Record an event; its number in `events`, until the next one comes. One equal to those
        before it is folded into them.
        """
        self.total += 1
        self._fold()
        self.weight += weight(event)
        self.events.append(event)
        return len(self.events) - 1

    def seen(self) -> tuple[Event, ...]:
        """All events, once the run is over."""
        for due in self.due.values():
            due.clear()
        self._fold()
        return tuple(self.events)

    def amend(self, vcpu: int, name: str, more: Mapping[str, Any]) -> None:
        """Add members to the last exit of this name: what became of it shows only afterwards."""
        at = next(
            n
            for n in range(len(self.events) - 1, -1, -1)
            if (self.events[n].vcpu, self.events[n].name) == (vcpu, name)
        )
        event = self.events[at]
        last = event.single(event.times - 1)
        self.events[at] = last._replace(fields={**last.fields, **more})
        if event.times > 1:
            self.events.insert(at, event._replace(times=event.times - 1))

    def last(self, vcpu: int, name: str) -> Event | None:
        """The last exit of a vCPU where it is one of this name."""
        events = (
            event for event in reversed(self.events) if event.vcpu == vcpu and event.kind == "exit"
        )
        event = next(events, None)
        return event if event is not None and event.name == name else None

    def latest(self, vcpu: int, name: str) -> Event | None:
        """The last exit of this name of a vCPU, whatever came behind it."""
        return next(
            (
                e
                for e in reversed(self.events)
                if e.vcpu == vcpu and e.kind == "exit" and e.name == name
            ),
            None,
        )

    def misaligned(self, pc: int, wrong: str) -> None:
        """An access that left the guest, though a CPU of silicon takes an alignment fault before;
        `wrong` says why it does.
        """
        self.unaligned[pc, wrong] = self.unaligned.get((pc, wrong), 0) + 1

    def notes(self) -> tuple[str, ...]:
        """Messages about KVM behaviour that the host corrected, and about accesses that silicon
        would have faulted on.
        """
        strings = []
        if self.corrected:
            strings.append(
                f"{ZERO_EXTENDED} ({self.corrected:,} "
                f"{'reply' if self.corrected == 1 else 'replies'})"
            )
        if self.unaligned:
            (pc, wrong), _ = next(iter(self.unaligned.items()))
            count = sum(self.unaligned.values())
            many = f"{count:,} {'access' if count == 1 else 'accesses'} of the kind"
            strings.append(f"at pc {pc:#x}: {wrong}, QEMU does not check and answers it ({many})")
        return tuple(strings)

    def _fold(self) -> None:
        """Fold the last event into an equal one before it; not while actions are due, which know it
        by its number.
        """
        if len(self.events) < 2 or any(self.due.values()):
            return
        before, last = self.events[-2:]
        if follows(before, last):
            self.events[-2] = before._replace(times=before.times + 1)
            del self.events[-1]
            self.weight -= weight(last)


def op_of(at: Position) -> str:
    """How Event.op names the step at a position: `steps/2/0`."""
    return "/".join(["steps", *(str(index) for index, _ in at)])
