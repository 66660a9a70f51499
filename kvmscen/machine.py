"""What a host is told: the Machine and its parts.

Frozen values that go to JSON and back; `from_json(x.to_json()) == x`. Nothing here knows YAML, symbols or expectations.
Addresses are guest physical addresses in bytes, sizes are bytes, times are seconds, bytes are hex in JSON.

A *matcher* is plain JSON data: a number, or one of `{"mask": m, "value": v}`, `{"in": [..]}`, `{"min": a, "max": b}` and, in a
repeat, `{"from": a, "step": n}`; see kvmscen.kvm.script.matches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from kvmscen.measure import Measure

Json = dict[str, Any]
Matcher = Any
# Bytes of host memory behind the slots of one run, and of memory that is looked at in it.
SLOTS_MOST = 256 << 20
OBSERVED_MOST = 16 << 20
# KVM_MEM_MAX_NR_PAGES: a slot of more pages is refused, whatever lies behind it.
SLOT_PAGES_MOST = (1 << 31) - 1
_NOT_IN_DIGEST = ("ignore", "observe_regs", "observe_memory", "timeout", "exits")


class Memslot(NamedTuple):
    """One KVM_SET_USER_MEMORY_REGION (KVM API 4.35). With `errno` it must fail so, and the run goes on."""

    slot: int
    gpa: int
    size: int
    flags: int = 0
    errno: str | None = None

    def to_json(self) -> Json:
        out: Json = {"slot": self.slot, "gpa": self.gpa, "size": self.size, "flags": self.flags}
        if self.errno is not None:
            out["errno"] = self.errno
        return out

    @classmethod
    def from_json(cls, data: Json) -> Memslot:
        return cls(data["slot"], data["gpa"], data["size"], data["flags"], data.get("errno"))


class Bytes(NamedTuple):
    """Bytes at a guest physical address; `size` may exceed len(data), the rest is zero."""

    gpa: int
    data: bytes
    size: int

    @classmethod
    def at(cls, gpa: int, data: bytes, size: int = 0) -> Bytes:
        """All of `data`, and zeros behind it up to `size`."""
        return cls(gpa, data, max(size, len(data)))

    def to_json(self) -> Json:
        return {"gpa": self.gpa, "data": self.data.hex(), "size": self.size}

    @classmethod
    def from_json(cls, data: Json) -> Bytes:
        return cls(data["gpa"], bytes.fromhex(data["data"]), data["size"])


class Capability(NamedTuple):
    """One KVM_ENABLE_CAP (KVM API 4.37): name and number of the capability, and its args."""

    name: str
    number: int
    args: tuple[int, ...] = ()
    on_vcpu: bool = False
    errno: str | None = None

    def to_json(self) -> Json:
        out: Json = {"name": self.name, "number": self.number, "args": list(self.args), "on_vcpu": self.on_vcpu}
        if self.errno is not None:
            out["errno"] = self.errno
        return out

    @classmethod
    def from_json(cls, data: Json) -> Capability:
        return cls(data["name"], data["number"], tuple(data["args"]), data["on_vcpu"], data.get("errno"))


class Action(NamedTuple):
    """One host action, named after its ioctl.

    `args` by name: set_regs `{register: value}`; write_memory `{"gpa": n, "data": hex}`; set_memslot the members of Memslot;
    delete_memslot `{"slot": n}`; enable the members of Capability; register_coalesced_mmio and its counterpart
    `{"addr", "size", "pio"}`; emulate none; ioeventfd `{"addr", "len", "datamatch", "flags"}`; set_guest_debug `{"control"}`
    and lists of debug registers. With `errno` it must fail so.
    """

    name: str
    args: Mapping[str, Any]
    vcpu: int = 0
    errno: str | None = None

    def to_json(self) -> Json:
        out: Json = {"name": self.name, "args": dict(self.args), "vcpu": self.vcpu}
        if self.errno is not None:
            out["errno"] = self.errno
        return out

    @classmethod
    def from_json(cls, data: Json) -> Action:
        return cls(data["name"], data["args"], data["vcpu"], data.get("errno"))


class Step(NamedTuple):
    """Where the script expects an exit: enough to reply and to act, nothing of what the exit should hold.

    `exit` is an exit name, `error`, `timeout`, or `group` (then only `steps` and `repeat` count). `where` maps the telling
    fields to matchers (for `error`: ioctl and errno). `repeat` is (min, max). `reply` are the members user space writes
    back. `then` None: the vCPU ends here if the exit is an ending one. `observe_*`: what to record at the exit.
    """

    exit: str
    where: Mapping[str, Matcher] = {}
    repeat: tuple[int, int] = (1, 1)
    reply: Mapping[str, Any] | None = None
    then: tuple[Action, ...] | None = None
    observe_regs: tuple[str, ...] = ()
    observe_memory: tuple[tuple[int, int], ...] = ()
    timeout: float = 0.0
    steps: tuple[Step, ...] = ()

    def to_json(self) -> Json:
        out: Json = {"exit": self.exit}
        if self.where:
            out["where"] = dict(self.where)
        if self.repeat != (1, 1):
            out["repeat"] = list(self.repeat)
        if self.reply is not None:
            out["reply"] = dict(self.reply)
        if self.then is not None:
            out["then"] = [a.to_json() for a in self.then]
        if self.observe_regs:
            out["observe_regs"] = list(self.observe_regs)
        if self.observe_memory:
            out["observe_memory"] = [list(m) for m in self.observe_memory]
        if self.timeout:
            out["timeout"] = self.timeout
        if self.steps:
            out["steps"] = [s.to_json() for s in self.steps]
        return out

    @classmethod
    def from_json(cls, data: Json) -> Step:
        then = data.get("then")
        low, high = data.get("repeat", (1, 1))
        return cls(
            data["exit"],
            data.get("where", {}),
            (low, high),
            data.get("reply"),
            None if then is None else tuple(Action.from_json(a) for a in then),
            tuple(data.get("observe_regs", ())),
            tuple((at, size) for at, size in data.get("observe_memory", ())),
            data.get("timeout", 0.0),
            tuple(cls.from_json(s) for s in data.get("steps", ())),
        )


class Vcpu(NamedTuple):
    """One vCPU: `mode` by the architecture's own names, `features` lower-case KVM_ARM_VCPU_ names, `regs` by name.

    `script` None: it runs until it ends or a limit does, and every exit is recorded. `cpuid`: whether it gets the host's.
    """

    id: int
    mode: str
    regs: Mapping[str, int]
    features: tuple[str, ...] = ()
    script: tuple[Step, ...] | None = None

    def to_json(self) -> Json:
        script = None if self.script is None else [s.to_json() for s in self.script]
        return {
            "id": self.id,
            "mode": self.mode,
            "regs": dict(self.regs),
            "features": list(self.features),
            "script": script,
        }

    @classmethod
    def from_json(cls, data: Json) -> Vcpu:
        script = data["script"]
        return cls(
            data["id"],
            data["mode"],
            data["regs"],
            tuple(data["features"]),
            None if script is None else tuple(Step.from_json(s) for s in script),
        )


class Tables(NamedTuple):
    """The engine's own x86 slot: GDT and identity page tables at `at`; `spans` are (gpa, size) to map above 4 GiB."""

    at: int
    size: int
    slot: int
    spans: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> Json:
        return {"at": self.at, "size": self.size, "slot": self.slot, "spans": [list(s) for s in self.spans]}

    @classmethod
    def from_json(cls, data: Json) -> Tables:
        return cls(data["at"], data["size"], data["slot"], tuple((a, n) for a, n in data["spans"]))


class Machine(NamedTuple):
    """Everything a host needs to know to run one case.

    `image` goes into the slots before the first entry; `devices` are the sections outside every slot, which hold their
    bytes; `ignore` are exits (name and telling matchers) that are answered and recorded but take no step; `observe_regs`
    and `observe_memory` (gpa, size) are read at the end beside the general registers. `limits` in seconds and exits. With
    `measure` exits are timed, and no script is followed.
    `undecoded` is `emulate` where each arm_nisv is carried out for the guest.
    """

    arch: str
    memslots: tuple[Memslot, ...]
    image: tuple[Bytes, ...]
    devices: tuple[Bytes, ...]
    vcpus: tuple[Vcpu, ...]
    enable: tuple[Capability, ...] = ()
    tables: Tables | None = None
    setup: tuple[Action, ...] = ()
    ignore: tuple[Step, ...] = ()
    observe_regs: tuple[str, ...] = ()
    observe_memory: tuple[tuple[int, int], ...] = ()
    timeout: float = 5.0
    exits: int = 1000
    measure: Measure | None = None
    undecoded: str | None = None

    def to_json(self) -> Json:
        out: Json = {
            "arch": self.arch,
            "memslots": [s.to_json() for s in self.memslots],
            "image": [b.to_json() for b in self.image],
            "devices": [b.to_json() for b in self.devices],
            "vcpus": [v.to_json() for v in self.vcpus],
            "enable": [c.to_json() for c in self.enable],
            "tables": None if self.tables is None else self.tables.to_json(),
            "setup": [a.to_json() for a in self.setup],
            "ignore": [s.to_json() for s in self.ignore],
            "observe_regs": list(self.observe_regs),
            "observe_memory": [list(m) for m in self.observe_memory],
            "timeout": self.timeout,
            "exits": self.exits,
        }
        if self.measure is not None:
            out["measure"] = self.measure.to_json()
        if self.undecoded is not None:
            out["undecoded"] = self.undecoded
        return out

    @classmethod
    def from_json(cls, data: Json) -> Machine:
        tables, measure = data["tables"], data.get("measure")
        return cls(
            data["arch"],
            tuple(Memslot.from_json(s) for s in data["memslots"]),
            tuple(Bytes.from_json(b) for b in data["image"]),
            tuple(Bytes.from_json(b) for b in data["devices"]),
            tuple(Vcpu.from_json(v) for v in data["vcpus"]),
            tuple(Capability.from_json(c) for c in data["enable"]),
            None if tables is None else Tables.from_json(tables),
            tuple(Action.from_json(a) for a in data["setup"]),
            tuple(Step.from_json(s) for s in data["ignore"]),
            tuple(data["observe_regs"]),
            tuple((at, size) for at, size in data["observe_memory"]),
            data["timeout"],
            data["exits"],
            None if measure is None else Measure.from_json(measure),
            data.get("undecoded"),
        )

    def digest(self) -> str:
        """`sha256:...` of what the guest is and what it is answered; where exits are expected does not count."""
        return _digest(self.to_json())

    def seal(self, name: str) -> Sealed:
        """The Machine as it crosses a border; `name` is the case's, for whoever has to tell one from another."""
        data = self.to_json()
        return Sealed(name, json.dumps(data, separators=(",", ":")), _digest(data), self.arch, self.timeout)


def seconds(value: float) -> str:
    """A time as a scenario takes it: never with an exponent."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _digest(data: Json) -> str:
    import hashlib  # here, since it takes a while to import and only who seals a Machine needs it

    kept = {key: value for key, value in data.items() if key not in _NOT_IN_DIGEST}
    kept["vcpus"] = [{**vcpu, "script": _deeds(vcpu["script"] or (), _waits(vcpu["script"] or ()))} for vcpu in data["vcpus"]]
    if "measure" in kept:
        # How often and by which loop does not change the question.
        kept["measure"] = [{key: kind[key] for key in ("to", "since") if key in kind} for kind in kept["measure"]["kinds"]]
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _waits(steps: Any) -> bool:
    """Whether there is a timeout step. Which steps stand before it decides when it is due, and no recording tells how long a
    guest took to its exits."""
    return any(step["exit"] == "timeout" or _waits(step.get("steps", ())) for step in steps)


def _deeds(steps: Any, every: bool) -> list[Any]:
    """The steps at which something is replied or done, each with the exit that it stands at; or every step."""
    out: list[Any] = []
    for step in steps:
        deed = {key: step[key] for key in ("reply", "then", "timeout") if key in step}
        if step.get("steps"):
            deed["steps"] = _deeds(step["steps"], every)
        if every or (deed.get("steps") != [] and deed):
            out.append({**{key: step[key] for key in ("exit", "where", "repeat") if key in step}, **deed})
    return out


class Sealed(NamedTuple):
    """A Machine's JSON text, passed on unread: `execute` takes this, and the digest names it in reports."""

    name: str
    text: str
    digest: str
    arch: str
    timeout: float
