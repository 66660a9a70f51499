"""What a host saw of one Machine: Events and the Observation that holds them; frozen, to JSON and back, as a Machine is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvmscen.measure import Timing

Json = dict[str, Any]

# Why a run stopped. `end`: the story was over (the last step was reached, or the script's vCPU ended where it should).
# `expected`: an exit that ends its vCPU; `error`: a failing ioctl.
STOPPED = ("end", "expected", "error", "timeout", "exits", "extra", "crash")

# Members of exits (of KVM_EXIT_DEBUG and the MSR exits) whose names an event needs for itself.
_RENAMED = {"pc": "arch_pc", "error": "msr_error"}


@dataclass(frozen=True)
class Event:
    """One thing that happened on a vCPU.

    `kind` is `exit` (then `name` is the exit's and `fields` its members), `error` (`name` the errno's, `fields` has `ioctl`
    and maybe `memory_fault` or `reason`) or `timeout` (`fields` has `timeout`, seconds). `pc` is raw, as KVM returns it.
    `regs` and `memory` (gpa to bytes) are there where the step asked for them, `reply` where the step gave one. `count` equal
    events in a row are one. `op` is there where an ioctl of a slot, capability or action failed: `enable/N`, `memslots/N`,
    `vcpus/N` or `actions/N`, N from 0, actions in the order in which they were performed on this vCPU.
    """

    vcpu: int
    kind: str
    name: str
    fields: Mapping[str, Any]
    pc: int | None
    regs: Mapping[str, int] | None = None
    memory: Mapping[int, bytes] | None = None
    reply: Mapping[str, Any] | None = None
    count: int = 1
    op: str | None = None

    def to_json(self) -> Json:
        out: Json = {"vcpu": self.vcpu}
        if self.kind == "timeout":
            out["timeout"] = self.fields["timeout"]
        else:
            out[self.kind] = self.name
            renamed = _RENAMED if self.kind == "exit" else {}
            out.update((renamed.get(key, key), value) for key, value in self.fields.items())
        out["pc"] = self.pc
        if self.regs is not None:
            out["regs"] = dict(self.regs)
        if self.memory is not None:
            out["memory"] = {str(gpa): raw.hex() for gpa, raw in self.memory.items()}
        if self.reply is not None:
            out["reply"] = dict(self.reply)
        if self.count != 1:
            out["count_of_equal"] = self.count
        if self.op is not None:
            out["op"] = self.op
        return out

    @classmethod
    def from_json(cls, data: Json) -> Event:
        rest = dict(data)
        vcpu, pc = rest.pop("vcpu"), rest.pop("pc")
        regs, memory = rest.pop("regs", None), rest.pop("memory", None)
        reply, count, op = rest.pop("reply", None), rest.pop("count_of_equal", 1), rest.pop("op", None)
        if "exit" in rest or "error" in rest:
            kind = "exit" if "exit" in rest else "error"
            name = rest.pop(kind)
            for member, key in _RENAMED.items():
                if key in rest:
                    rest[member] = rest.pop(key)
        else:
            kind, name = "timeout", ""
        if memory is not None:
            memory = {int(gpa): bytes.fromhex(raw) for gpa, raw in memory.items()}
        return cls(vcpu, kind, name, rest, pc, regs, memory, reply, count, op)


@dataclass(frozen=True)
class Observation:
    """Everything that happened: events in order, why it stopped (one of STOPPED), final state, time taken in seconds.

    `regs` holds all general registers of vCPU 0 and those asked for; `memory` maps gpa to bytes. `detail` says more where
    the run did not end by itself; `unpredicted` is why a model has no prediction; `timing` is there where exits were timed.
    `notes` say what the host put right.
    """

    stopped: str
    events: tuple[Event, ...]
    regs: Mapping[str, int]
    memory: Mapping[int, bytes]
    elapsed: float
    detail: str | None = None
    unpredicted: str | None = None
    timing: Timing | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> Json:
        out: Json = {
            "stopped": self.stopped,
            "events": [e.to_json() for e in self.events],
            "regs": dict(self.regs),
            "memory": {str(gpa): raw.hex() for gpa, raw in self.memory.items()},
            "elapsed": self.elapsed,
        }
        if self.detail is not None:
            out["detail"] = self.detail
        if self.unpredicted is not None:
            out["unpredicted"] = self.unpredicted
        if self.timing is not None:
            out["timing"] = self.timing.to_json()
        if self.notes:
            out["notes"] = list(self.notes)
        return out

    @classmethod
    def from_json(cls, data: Json) -> Observation:
        timing = data.get("timing")
        return cls(
            data["stopped"],
            tuple(Event.from_json(e) for e in data["events"]),
            data["regs"],
            {int(gpa): bytes.fromhex(raw) for gpa, raw in data["memory"].items()},
            data["elapsed"],
            data.get("detail"),
            data.get("unpredicted"),
            None if timing is None else Timing.from_json(timing),
            tuple(data.get("notes", ())),
        )
