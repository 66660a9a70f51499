"""A recorded run, gone along the script as it is now: what is expected may have changed since, what
the host did may not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kvmscen.errors import HostError
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.arch.registers import Registers
from kvmscen.sent.machine import Action, Capability, Machine, Memslot, Step
from kvmscen.sent.observation import Event, Observation, follows
from kvmscen.sent.script.interpreter import EXTRA_LIMIT, Script, Verdict
from kvmscen.sent.script.recorder import op_of

_AGAIN = "record it again"


def retraced(machine: Machine, seen: Observation) -> Observation:
    """The Observation with each event at the step that it takes now. Raises HostError where the
    host would have done otherwise.

    It would have, where another reply was due at an event, where it looked at other registers or
    memory, or where it stopped because a story was over that goes on now.
    """
    if machine.measure is not None:
        return seen
    for regs in (seen.regs, *(event.regs for event in seen.events)):
        if regs is not None and not _agree(machine.arch, regs):
            raise HostError(f"the recording tells of one register two values: {_AGAIN}")
    trace = _Trace(machine, seen.stopped)
    events = tuple(
        trace.take(event.single(nth)) for event in seen.events for nth in range(event.times)
    )
    if (seen.stopped in ("end", "expected") and trace.goes_on()) or (
        seen.stopped == "error" and trace.goes_on_behind_error
    ):
        raise HostError(f"this case was recorded up to the end of a shorter story: {_AGAIN}")
    if seen.stopped == "extra" and trace.extras < EXTRA_LIMIT:
        raise HostError(
            f"this case was recorded up to the exits that no step took then, and steps take them "
            f"now: {_AGAIN}"
        )
    if seen.regs and not set(machine.observe_regs) <= set(seen.regs):
        raise HostError(f"the recording lacks registers that `final` names now: {_AGAIN}")
    if not _covers(seen.memory, machine.observe_memory):
        raise HostError(f"the recording lacks memory that `final` names now: {_AGAIN}")
    return seen._replace(events=tuple(_folded(events)))


class _Trace:
    def __init__(self, machine: Machine, stopped: str) -> None:
        self.machine = machine
        self.stopped = stopped
        self.scripts = {vcpu.id: Script(vcpu.script, machine.ignore) for vcpu in machine.vcpus}
        # How an Event.op named a step then, and how it does now.
        self.names: dict[tuple[int, str], str] = {}
        self.now: dict[tuple[int, str], Step] = {}
        # vCPUs that stopped, and of these the ones whose exit leaves nothing to complete: nothing
        # more can come of them.
        self.ended: set[int] = set()
        self.left: set[int] = set()
        # Whether the last event ended the run, or failed and does not end it.
        self.failed = self.goes_on_behind_error = False

    def goes_on(self) -> bool:
        """Whether a vCPU would be entered again behind the last event."""
        return any(
            vcpu not in self.ended and not script.over() for vcpu, script in self.scripts.items()
        )

    @property
    def extras(self) -> int:
        return sum(script.extras for script in self.scripts.values())

    def take(self, event: Event) -> Event:
        event = event._replace(op=self._op(event))
        script = self.scripts.get(event.vcpu)
        if script is None:
            raise HostError(
                f"the recording has an event of vCPU {event.vcpu}, which the case has not: {_AGAIN}"
            )
        if event.kind == "succeeded" or (event.op is not None and self._errno(event) == event.name):
            return event
        # Behind the last step there is at most what completing its exit yielded.
        if script.over() and (
            event.at is not None
            or (event.op is None and (self.stopped != "end" or not script.steps))
        ):
            raise HostError(f"this case was recorded with a longer story: {_AGAIN}")
        if event.vcpu in self.left or self.failed:
            raise HostError(
                f"this case was recorded with a `then` at an exit that ends its vCPU now: {_AGAIN}"
            )
        verdict = script.take(event.kind, event.name, event.fields)
        if verdict.stop in ("expected", "error") and event.name != "arm_nisv":
            self.left.add(event.vcpu)
        self.failed = verdict.stop == "error"
        self.goes_on_behind_error = (
            event.kind == "error" and event.op is None and verdict.stop is None
        )
        self._same(event, verdict)
        if verdict.stop is not None:
            self.ended.add(event.vcpu)
        if event.at is not None and verdict.at is not None and verdict.step is not None:
            self.names[event.vcpu, op_of(event.at)] = op_of(verdict.at)
            self.now[event.vcpu, op_of(verdict.at)] = verdict.step
        return event._replace(at=verdict.at, ignored=verdict.ignored)

    def _same(self, event: Event, verdict: Verdict) -> None:
        step = verdict.step
        if (None if step is None else step.reply) != event.reply:
            raise HostError(f"this case was recorded with its replies at other exits: {_AGAIN}")
        if event.kind == "timeout" and (verdict.at is None) != (event.at is None):
            raise HostError(f"this case was recorded with its timeouts at other places: {_AGAIN}")
        if verdict.at != event.at and event.done != (0 if step is None else len(step.then or ())):
            raise HostError(f"this case was recorded with its actions at other exits: {_AGAIN}")
        if step is None:
            return
        if not set(step.observe_regs) <= set(event.regs or {}) or not _covers(
            event.memory or {}, step.observe_memory
        ):
            raise HostError(
                f"the recording lacks registers or memory that a step names now: {_AGAIN}"
            )

    def _op(self, event: Event) -> str | None:
        name, then, number = (event.op or "").rpartition("/then/")
        return event.op if not then else f"{self.names.get((event.vcpu, name), name)}/then/{number}"

    def _errno(self, event: Event) -> str | None:
        """The errno that is written at what an event's ioctl is of."""
        name, _, number = (event.op or "").rpartition("/")
        step = self.now.get((event.vcpu, name[: -len("/then")]))
        machine = self.machine
        written: Mapping[str, Sequence[Action | Capability | Memslot]]
        written = {"enable": machine.enable, "memslots": machine.memslots, "setup": machine.setup}
        own = written.get(name, () if step is None else step.then or ())
        return own[int(number)].errno if number.isdecimal() and int(number) < len(own) else None


def _agree(arch: str, regs: Mapping[str, int]) -> bool:
    """Whether registers are as wide as they are, and the views of one, as eax of rax, say the
    same.
    """
    table: Registers = ARCHES[arch].REGISTERS if arch in ARCHES else {}
    whole: dict[str, int] = {}
    known: dict[str, int] = {}
    for name, value in regs.items():
        row = table.get(name)
        if row is None:
            continue
        if not 0 <= value < 1 << row.bits:
            return False
        of, mask = row.of or name, ((1 << row.bits) - 1) << row.shift
        if (whole.get(of, 0) ^ value << row.shift) & mask & known.get(of, 0):
            return False
        whole[of] = whole.get(of, 0) | value << row.shift
        known[of] = known.get(of, 0) | mask
    return True


def _covers(memory: Mapping[int, bytes], ranges: Iterable[tuple[int, int]]) -> bool:
    """Whether these ranges were looked at; one where there was no memory was kept as nothing."""
    return all(
        gpa in memory and (not memory[gpa] or len(memory[gpa]) >= size) for gpa, size in ranges
    )


def _folded(events: Iterable[Event]) -> list[Event]:
    out: list[Event] = []
    for event in events:
        if out and follows(out[-1], event):
            out[-1] = out[-1]._replace(times=out[-1].times + 1)
        else:
            out.append(event)
    return out
