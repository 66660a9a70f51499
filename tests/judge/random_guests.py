"""What a real Recorder keeps of a random guest that follows a story more or less, and at times
lies: for the property test.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from random_stories import ADDRESSES, DATA, ERRNOS, PORTS, Choose, one_step, steps, story

from kvmscen.errors import IoctlError
from kvmscen.job.expectation import Deed, Expected, Story, parts
from kvmscen.judge.walk import Course
from kvmscen.sent.machine import Action, Bytes, Machine, Memslot, Step, Vcpu
from kvmscen.sent.observation import Event, Observation
from kvmscen.sent.script.recorder import Recorder

# --- a guest that does what a story says, or something like it ------------------------------------

Raw = tuple[
    int, str, str, dict[str, Any], int, int
]  # vcpu, kind, name, fields, rax, a byte of memory


def value_of(choose: Choose, wanted: Any, nth: int, otherwise: Sequence[int]) -> int:
    """A value that fits a matcher, mostly."""
    if wanted is None or choose.random() < 0.02:
        return choose.choice(otherwise)
    if isinstance(wanted, int):
        return wanted
    if "from" in wanted:
        return int((wanted["from"] + wanted["step"] * nth) % (1 << wanted.get("bits", 64)))
    if "mask" in wanted:
        return int(wanted["value"])
    if "in" in wanted:
        return int(choose.choice(wanted["in"]))
    return int(wanted.get("min", wanted.get("max", 0)))


def values_of(choose: Choose, wanted: Sequence[Any], nth: int, size: int, more: int) -> list[int]:
    """The elements that a list wants, so many more or fewer, of so many bytes."""
    values = [value_of(choose, matcher, nth, DATA) % (1 << 8 * size) for matcher in [*wanted, None]]
    return values[: len(wanted) + more]


def raw(choose: Choose, step: Expected, nth: int) -> Raw:  # noqa: C901 one branch a kind of what is drawn
    fields: dict[str, Any] = {}
    want = step.fields.get
    if step.kind == "io":
        fields = {
            "direction": want("direction"),
            "size": 1,
            "port": value_of(choose, want("port"), nth, PORTS),
            "count": 1,
        }
        wanted = want("data")
        if step.reply is not None and isinstance(step.reply["data"], list):
            wanted = [0, 0]
        if isinstance(wanted, list):
            fields["data"] = values_of(choose, wanted, nth, 1, choose.choice([0] * 8 + [-1, 1]))
            fields["count"] = len(fields["data"])
            if fields["count"] == 1:
                fields["data"] = fields["data"][0]
        else:
            fields["data"] = value_of(choose, wanted, nth, DATA) & 0xFF
        if not fields["direction"]:
            del fields["data"]
    elif step.kind == "mmio":
        length = value_of(choose, want("len"), nth, (1, 4))
        length = length if length in (1, 2, 4, 8) else 8
        fields = {
            "phys_addr": value_of(choose, want("phys_addr"), nth, ADDRESSES),
            "is_write": bool(want("is_write")),
        }
        fields["len"] = length
        fields["data"] = value_of(choose, want("data"), nth, DATA) % (1 << 8 * length)
        if not fields["is_write"]:
            del fields["data"]
    elif step.kind == "system_event":
        fields = {"type": value_of(choose, want("type"), nth, (1, 2)), "ndata": 2, "flags": 0}
        fields["data"] = values_of(
            choose, want("data") or [0], nth, 8, choose.choice([0, 0, 0, 1, -1])
        )
    elif step.kind == "x86_rdmsr":
        fields = {
            "error": 0,
            "reason": 4,
            "index": value_of(choose, want("index"), nth, (0x10, 0x11)),
            "data": 0,
        }
    elif step.kind == "error":
        name = want("errno") if want("errno") in ("ENOSYS", "EFAULT") else "ENOSYS"
        told: dict[str, Any] = {"ioctl": "KVM_RUN"}
        if name == "EFAULT" and choose.random() < 0.7:
            fault = (want("memory_fault") or {}).get("gpa")
            told["memory_fault"] = {
                "gpa": value_of(choose, fault, nth, ADDRESSES),
                "flags": 0,
                "size": 0x1000,
            }
        return step.vcpu, "error", str(name), told, choose.choice(DATA), choose.choice(DATA)
    elif step.kind == "timeout":
        return step.vcpu, "timeout", "", {"timeout": choose.choice([0.5, 0.5, 0.5, 0.2])}, 0, 0
    rax = value_of(choose, step.regs.get("rax"), nth, DATA)
    byte = (
        value_of(choose, step.memory[0].values[0], nth, DATA)
        if step.memory
        else choose.choice(DATA)
    )
    return step.vcpu, "exit", step.kind, fields, rax, byte & 0xFF


def followed(choose: Choose, listed: Sequence[Expected], around: int) -> Iterator[Raw]:
    for step in listed:
        for nth in range(choose.randint(*step.repeat)):
            if step.kind == "group":
                yield from followed(choose, step.steps, nth)
            else:
                yield raw(choose, step, around if step.repeat == (1, 1) else nth)


def guest(choose: Choose, told: Story) -> list[Raw]:
    """The events of a guest, in order."""
    listed = told.steps if told.steps is not None else steps(choose, 1, 1, False)
    events = list(followed(choose, listed, 0))
    for _ in range(choose.choice([0, 0, 0, 0, 1, 1, 2])):
        how, at = choose.randrange(4), choose.randrange(len(events) + 1)
        if how == 0 and at < len(events):
            del events[at]
        elif how == 1 and at < len(events):
            events.insert(at, events[at])
        elif how == 2 and at + 1 < len(events):
            events[at], events[at + 1] = events[at + 1], events[at]
        else:
            vcpu = choose.choice(events)[0] if events else 0
            events.insert(at, raw(choose, one_step(choose, vcpu, (1, 1), False), 0))
    return events


# --- the host -------------------------------------------------------------------------------------


def machine(told: Story) -> Machine:
    """What the host is told of a story."""
    course = Course(told)
    count = max([1, *(vcpu + 1 for vcpu in course.vcpus)])
    scripts = [
        None if told.steps is None else tuple(map(script_step, course.steps(n)))
        for n in range(count)
    ]
    vcpus = tuple(Vcpu(n, "long", {}, (), script) for n, script in enumerate(scripts))
    slots = tuple(
        Memslot(n, n << 16, 0x1000, 0, told.built[f"memslots/{n}"].errno) for n in range(2)
    )
    ignore = tuple(Step(step.kind, where=step.fields) for step in told.ignore)
    return Machine(
        "x86_64",
        slots,
        (),
        (Bytes.at(0x5000, b"", 64),),
        vcpus,
        (),
        None,
        actions(told.setup),
        ignore,
        exits=200,
    )


def actions(written: Sequence[Deed]) -> tuple[Action, ...]:
    return tuple(Action("write_memory", {}, 0, deed.errno) for deed in parts(written))


def script_step(step: Expected) -> Step:
    return Step(
        step.kind if step.kind != "group" else "group",
        {key: step.fields[key] for key in step.where},
        step.repeat,
        step.reply,
        None if step.then is None else actions(step.then),
        tuple(step.regs),
        tuple((at, len(values)) for at, _, values in step.memory),
        step.timeout,
        tuple(map(script_step, step.steps)),
    )


class Host:
    """Goes through a run as the executor does, with the guest's events and the ends of its ioctls
    made up.
    """

    def __init__(self, choose: Choose, told: Story) -> None:
        self.choose = choose
        self.machine = machine(told)
        self.recorder = Recorder(self.machine)
        self.rax = self.byte = 0
        self.errno: str | None = None
        self.slips = choose.choice([0, 0, 0.02, 0.02, 0.1])

    def act(self, *_: object) -> None:
        """One ioctl: it ends as written, mostly."""
        errno = self.errno
        if self.choose.random() < self.slips:
            errno = self.choose.choice([None, "EEXIST", "EINVAL"])
        if errno is not None:
            raise IoctlError("KVM_SET_USER_MEMORY_REGION", ERRNOS[errno])

    def perform(self, action: Action) -> None:
        self.errno = action.errno
        self.act()

    def observe(self, step: Step) -> tuple[dict[str, int], dict[int, bytes]]:
        return dict.fromkeys(step.observe_regs, self.rax), {
            at: bytes([self.byte]) * size for at, size in step.observe_memory
        }

    def build(self) -> str | None:
        for n, slot in enumerate(self.machine.memslots):
            self.errno = slot.errno
            if stop := self.recorder.attempt(
                0, "set_memslot", self.act, None, slot.errno, f"memslots/{n}"
            ):
                return stop
        self.recorder.prepare(0, self.machine.setup)
        return self.recorder.perform(0, lambda: 4, self.perform)

    def run(self, events: Sequence[Raw]) -> str:  # noqa: C901 one branch a kind of what is drawn
        """Why it stopped."""
        if stop := self.build():
            return stop
        going = {vcpu.id for vcpu in self.machine.vcpus}
        stopped = "end"
        for vcpu in list(going):
            if self.recorder.scripts[vcpu].over():
                going.discard(vcpu)
        for vcpu, kind, name, fields, rax, byte in events:
            if vcpu not in going:
                continue
            self.rax, self.byte = rax, byte
            script = self.recorder.scripts[vcpu]
            if kind == "timeout" and script.timeout() is None:
                continue
            verdict = self.recorder.take(vcpu, kind, name, fields, 8, self.observe)
            stop = verdict.stop
            if kind == "timeout" and fields["timeout"] < 0.5:
                stop = "timeout"
            if stop in (None, "end") and self.recorder.due[vcpu]:
                stop = self.recorder.perform(vcpu, lambda: 8, self.perform) or stop
            if stop is not None:
                going.discard(vcpu)
                stopped = stop
                if stop not in ("end", "expected"):
                    return stop
        for vcpu in sorted(going):
            # The guest does nothing more: the timeouts of its steps are over first, and at last the
            # run's own.
            stop = None
            while stop is None:
                wait = self.recorder.scripts[vcpu].timeout()
                stop = self.recorder.take(
                    vcpu, "timeout", "", {"timeout": wait or 5.0}, 8, self.observe
                ).stop
                if wait is None:
                    return "timeout"
                stop = self.recorder.perform(vcpu, lambda: 8, self.perform) or stop
            stopped = stop
            if stop not in ("end", "expected"):
                return stop
        return stopped


def tampered(choose: Choose, seen: Observation) -> Observation:
    """The observation of a host that lies, or of a damaged recording."""
    events = list(seen.events)
    if not events:
        return seen
    at = choose.randrange(len(events))
    event = events[at]
    ways: list[Event | None] = [
        None,
        event._replace(at=None),
        event._replace(reply=None),
        event._replace(reply={"data": 5}),
        event._replace(done=event.done + choose.choice([-1, 1]) if event.done else 1),
        event._replace(op=None),
        event._replace(ignored=not event.ignored),
        event._replace(vcpu=1 - event.vcpu),
    ]
    if event.at is not None:
        index, nth = event.at[-1]
        ways += [
            event._replace(at=(*event.at[:-1], other))
            for other in ((index, nth + 1), (index + 1, nth), (index, nth - 1))
        ]
    other = choose.choice(ways)
    events[at : at + 1] = [] if other is None else [other]
    return seen._replace(events=tuple(events))


def observed(
    choose: Choose,
    told: Story,
    events: Sequence[Raw],
    final: tuple[int, int],
    slips: float | None = None,
) -> Observation:
    """What a host sees of a guest that does this, with rax and a byte of memory at the end."""
    host = Host(choose, told)
    if slips is not None:
        host.slips = slips
    stopped = host.run(events)
    memory = {0x100: bytes([final[1] & 0xFF])} if told.memory else {}
    return Observation(stopped, host.recorder.seen(), {"rax": final[0]}, memory, 0.1)


def ending(choose: Choose, told: Story) -> tuple[int, int]:
    rax = value_of(choose, told.regs.get("rax"), 0, DATA)
    return rax, value_of(choose, told.memory[0].values[0], 0, DATA) if told.memory else 0


def case(seed: int) -> tuple[Story, Observation]:
    """One story, and one observation of it."""
    choose = random.Random(seed)
    told = story(choose)
    seen = observed(choose, told, guest(choose, told), ending(choose, told))
    return told, tampered(choose, seen) if choose.random() < 0.1 else seen


# --- as plain data, for the oracle ----------------------------------------------------------------


def plain(told: Story, seen: Observation) -> tuple[dict[str, Any], dict[str, Any]]:
    """The story and the run as plain data; equal events are not folded."""

    def step(expected: Expected) -> dict[str, Any]:
        return {
            "exit": expected.kind,
            "line": expected.line,
            "vcpu": expected.vcpu,
            "members": dict(expected.fields),
            "bold": list(expected.where),
            "repeat": list(expected.repeat),
            "regs": dict(expected.regs),
            "memory": [list(check) for check in expected.memory],
            "timeout": expected.timeout,
            "reply": None if expected.reply is None else dict(expected.reply),
            "then": None
            if expected.then is None
            else [deed.errno for deed in parts(expected.then)],
            "deeds": [deed.text for deed in expected.then or ()],
            "steps": list(map(step, expected.steps)),
        }

    def event(single: Event) -> dict[str, Any]:
        return {
            "vcpu": single.vcpu,
            "kind": single.kind,
            "name": single.name,
            "members": dict(single.fields),
            "regs": dict(single.regs or {}),
            "memory": dict(single.memory or {}),
            "reply": None if single.reply is None else dict(single.reply),
            "op": single.op,
            "step": None if single.at is None else [list(level) for level in single.at],
            "ignored": single.ignored,
            "done": single.done,
        }

    story_ = {
        "steps": None if told.steps is None else list(map(step, told.steps)),
        "ignore": list(map(step, told.ignore)),
        "final_regs": dict(told.regs),
        "final_memory": [list(check) for check in told.memory],
        "built": {op: deed.errno for op, deed in told.built.items()},
        "setup": [deed.errno for deed in parts(told.setup)],
    }
    events = [event(single.single(nth)) for single in seen.events for nth in range(single.times)]
    return story_, {
        "stopped": seen.stopped,
        "events": events,
        "regs": dict(seen.regs),
        "memory": dict(seen.memory),
    }
