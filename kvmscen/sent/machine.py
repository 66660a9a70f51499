"""What a host is told: the Machine and its parts.

Frozen values that go to JSON and back (kvmscen.sent.codec). Nothing here knows YAML, symbols or
expectations. Addresses are guest physical addresses in bytes, sizes are bytes, times are seconds,
bytes are hex in JSON.

A *matcher* is plain JSON data: a number, or one of `{"mask": m, "value": v}`, `{"in": [..]}`,
`{"min": a, "max": b}` and, in a repeat, `{"from": a, "step": n}`; see
kvmscen.sent.script.interpreter.matches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from kvmscen.sent.codec import encode
from kvmscen.sent.measure import Measure

Json = dict[str, Any]
Matcher = Any
# Bytes of host memory behind the slots of one run, and of memory that is looked at in it.
SLOTS_MOST = 256 << 20
OBSERVED_MOST = 16 << 20
# KVM_MEM_MAX_NR_PAGES: a slot of more pages is refused, whatever lies behind it.
SLOT_PAGES_MOST = (1 << 31) - 1
_NOT_IN_DIGEST = ("ignore", "observe_regs", "observe_memory", "timeout", "exits")


class Memslot(NamedTuple):
    """One KVM_SET_USER_MEMORY_REGION (KVM API 4.35). With `errno` it must fail so, and the run goes
    on.
    """

    slot: int
    gpa: int
    size: int
    flags: int = 0
    errno: str | None = None


class Bytes(NamedTuple):
    """Bytes at a guest physical address; `size` may exceed len(data), the rest is zero."""

    gpa: int
    data: bytes
    size: int

    @classmethod
    def at(cls, gpa: int, data: bytes, size: int = 0) -> Bytes:
        """All of `data`, and zeros behind it up to `size`."""
        return cls(gpa, data, max(size, len(data)))


class Capability(NamedTuple):
    """One KVM_ENABLE_CAP (KVM API 4.37): name and number of the capability, and its args."""

    name: str
    number: int
    args: tuple[int, ...] = ()
    on_vcpu: bool = False
    errno: str | None = None


class Action(NamedTuple):
    """One host action, named after its ioctl.

    `args` by name: set_regs `{register: value}`; write_memory `{"gpa": n, "data": hex}`;
    set_memslot the members of Memslot; delete_memslot `{"slot": n}`; enable the members of
    Capability; register_coalesced_mmio and its counterpart `{"addr", "size", "pio"}`; emulate none;
    ioeventfd `{"addr", "len", "datamatch", "flags"}`; set_guest_debug `{"control"}` and lists of
    debug registers. With `errno` it must fail so.
    """

    name: str
    args: Mapping[str, Any]
    vcpu: int = 0
    errno: str | None = None


class Step(NamedTuple):
    """Where the script expects an exit: enough to reply and to act, nothing of what the exit should
    hold.

    `exit` is an exit name, `error`, `timeout`, or `group` (then only `steps` and `repeat` count).
    `where` maps the telling fields to matchers (for `error`: ioctl and errno). `repeat` is (min,
    max). `reply` are the members user space writes back. `then` None: the vCPU ends here if the
    exit is an ending one. `observe_*`: what to record at the exit.
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


class Vcpu(NamedTuple):
    """One vCPU: `mode` by the architecture's own names, `features` lower-case KVM_ARM_VCPU_ names,
    `regs` by name.

    `script` None: it runs until it ends or a limit does, and every exit is recorded. `cpuid`:
    whether it gets the host's.
    """

    id: int
    mode: str
    regs: Mapping[str, int]
    features: tuple[str, ...] = ()
    script: tuple[Step, ...] | None = None


class Tables(NamedTuple):
    """The engine's own x86 slot: GDT and identity page tables at `at`; `spans` are (gpa, size) to
    map above 4 GiB.
    """

    at: int
    size: int
    slot: int
    spans: tuple[tuple[int, int], ...] = ()


class Machine(NamedTuple):
    """Everything a host needs to know to run one case.

    `image` goes into the slots before the first entry; `devices` are the sections outside every
    slot, which hold their bytes; `ignore` are exits (name and telling matchers) that are answered
    and recorded but take no step; `observe_regs` and `observe_memory` (gpa, size) are read at the
    end beside the general registers. `limits` in seconds and exits. With `measure` exits are timed,
    and no script is followed. `undecoded` is `emulate` where each arm_nisv is carried out for the
    guest.
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

    def digest(self) -> str:
        """`sha256:...` of what the guest is and what it is answered; where exits are expected does
        not count.
        """
        return _digest(encode(self))

    def seal(self, name: str) -> Sealed:
        """The Machine as it crosses a border; `name` is the case's, for whoever has to tell one
        from another.
        """
        data = encode(self)
        return Sealed(
            name, json.dumps(data, separators=(",", ":")), _digest(data), self.arch, self.timeout
        )


def seconds(value: float) -> str:
    """A time as a scenario takes it: never with an exponent."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _digest(data: Json) -> str:
    import hashlib  # here, since it takes a while to import and only who seals a Machine needs it

    kept = {key: value for key, value in data.items() if key not in _NOT_IN_DIGEST}
    scripts = [vcpu.get("script", ()) for vcpu in data["vcpus"]]
    kept["vcpus"] = [
        {**vcpu, "script": _deeds(script, _waits(script))}
        for vcpu, script in zip(data["vcpus"], scripts)
    ]
    if "measure" in kept:
        # Sample counts and the kind of loop do not affect the guest, so they are not hashed.
        kept["measure"] = [
            {key: kind[key] for key in ("to", "since") if key in kind}
            for kind in kept["measure"]["kinds"]
        ]
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _waits(steps: Any) -> bool:
    """Whether there is a timeout step. Which steps stand before it decides when it is due, and no
    recording tells how long a guest took to its exits."""
    return any(step["exit"] == "timeout" or _waits(step.get("steps", ())) for step in steps)


def _deeds(steps: Any, every: bool) -> list[Any]:
    """The steps at which something is replied or done, each with the exit that it stands at; or
    every step.
    """
    out: list[Any] = []
    for step in steps:
        deed = {key: step[key] for key in ("reply", "then", "timeout") if key in step}
        if step.get("steps"):
            deed["steps"] = _deeds(step["steps"], every)
        if every or (deed.get("steps") != [] and deed):
            out.append(
                {**{key: step[key] for key in ("exit", "where", "repeat") if key in step}, **deed}
            )
    return out


class Sealed(NamedTuple):
    """A Machine's JSON text, passed on unread: `execute` takes this, and the digest names it in
    reports.
    """

    name: str
    text: str
    digest: str
    arch: str
    timeout: float
