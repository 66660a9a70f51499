"""Random stories for the property test."""

from __future__ import annotations

import random
from typing import Any

from kvmscen.job.expectation import Deed, Expected, MemoryExpected, Story
from kvmscen.sent.header import exits

EEXIST, EINVAL = 17, 22
ERRNOS = {"EEXIST": EEXIST, "EINVAL": EINVAL}
PORTS, ADDRESSES, DATA = (1, 2), (0x5000, 0x5008), (0, 1, 255)
REPEATS = [(1, 1)] * 6 + [(2, 2), (3, 3), (0, 1), (0, 2), (1, 2), (1, 3), (0, 3), (2, 3)]
ENDS = ("hlt", "error", "system_event")
Choose = random.Random


# --- stories --------------------------------------------------------------------------------------


# Bits of what a matcher is for, where they are not 64; a series has them, as the loader writes it.
BITS = {"port": 16, "size": 8, "len": 32, "type": 32, "index": 32}


def matcher(choose: Choose, value: int, repeated: bool, bits: int = 64) -> Any:
    """What often fits a value, and sometimes not."""
    kinds: list[Any] = [
        value,
        value,
        {"mask": 1, "value": value & 1},
        {"in": [value, 7]},
        {"min": value},
        {"max": value},
        {"min": 0, "max": 1},
    ]
    if repeated:
        wraps = {"bits": bits} if bits != 64 else {}
        kinds += [{"from": value, "step": step, **wraps} for step in (1, -1, 0)] * 2
    return choose.choice(kinds)


def deeds(choose: Choose) -> tuple[Deed, ...] | None:
    if choose.random() < 0.7:
        return None
    return some_deeds(choose, choose.randrange(3), "EEXIST")


def some_deeds(choose: Choose, count: int, errno: str) -> tuple[Deed, ...]:
    return tuple(
        Deed("an action", 9, choose.choice([None, None, errno]), choose.choice([1, 1, 2]))
        for _ in range(count)
    )


def one_step(choose: Choose, vcpu: int, repeat: tuple[int, int], repeated: bool) -> Expected:  # noqa: C901 one branch a kind of what is drawn
    kind = choose.choice(
        ["io", "io", "io", "mmio", "mmio", "hlt", "error", "timeout", "system_event", "x86_rdmsr"]
    )
    fields: dict[str, Any] = {}
    reply: dict[str, Any] | None = None

    def put(name: str, value: int, chance: float = 0.6) -> None:
        if choose.random() < chance:
            fields[name] = matcher(choose, value, repeated, BITS.get(name, 64))

    if kind == "io":
        way = choose.choice([0, 1])
        fields["direction"] = way
        put("port", choose.choice(PORTS), 0.8)
        put("size", 1, 0.3)
        if way and choose.random() < 0.15:
            fields["data"] = [
                matcher(choose, choose.choice(DATA), repeated)
                for _ in range(choose.choice([2, 2, 3]))
            ]
        elif way:
            put("data", choose.choice(DATA))
        elif choose.random() < 0.4:
            reply = {"data": choose.choice([5, 5, 300, [5, 6], [5, 300]])}
    elif kind == "mmio":
        write = choose.random() < 0.6
        fields["is_write"] = int(write)
        put("phys_addr", choose.choice(ADDRESSES), 0.8)
        put("len", choose.choice([1, 4]), 0.3)
        if write:
            put("data", choose.choice(DATA))
        elif choose.random() < 0.4:
            reply = {"data": choose.choice([5, 300])}
    elif kind == "error":
        told: dict[str, Any] = {"ioctl": "KVM_RUN", "errno": choose.choice(["ENOSYS", "EFAULT"])}
        if choose.random() < 0.3:
            told = {
                "ioctl": "KVM_SET_USER_MEMORY_REGION",
                "errno": choose.choice(["EEXIST", "EINVAL"]),
            }
        elif told["errno"] == "EFAULT" and choose.random() < 0.3:
            told["memory_fault"] = {"gpa": matcher(choose, 0x5000, repeated)}
        fields = {key: value for key, value in told.items() if choose.random() < 0.8}
    elif kind == "system_event":
        put("type", choose.choice([1, 2]))
        if choose.random() < 0.3:
            fields["data"] = [
                matcher(choose, choose.choice(DATA), repeated) for _ in range(choose.choice([1, 2]))
            ]
    elif kind == "x86_rdmsr":
        put("index", choose.choice([0x10, 0x11]), 0.8)
        if choose.random() < 0.6:
            reply = choose.choice([{"data": 1 << 40}, {"error": 1}, {"data": 5, "error": 1}])
    row = exits.BY_NAME.get(kind)
    telling = ("ioctl", "errno") if kind == "error" else row.where if row is not None else ()
    return Expected(
        kind,
        choose.randrange(100, 1 << 30),  # so that a line names a step
        5,
        vcpu,
        fields,
        tuple(key for key in telling if key in fields),
        (1, 1) if kind == "timeout" else repeat,
        {"rax": matcher(choose, choose.choice(DATA), repeated)} if choose.random() < 0.25 else {},
        (MemoryExpected(0x100, "u8", [matcher(choose, choose.choice(DATA), repeated, 8)]),)
        if choose.random() < 0.15
        else (),
        0.5 if kind == "timeout" else 0.0,
        then=deeds(choose),
        reply=reply,
    )


def steps(
    choose: Choose, vcpus: int, depth: int, repeated: bool, vcpu: int | None = None
) -> tuple[Expected, ...]:
    out: list[Expected] = []
    count = choose.choice([0, 1, 2, 2, 3, 4] if vcpu is None else [1, 1, 2, 3])
    for n in range(count):
        repeat = choose.choice(REPEATS)
        own = choose.randrange(vcpus) if vcpu is None else vcpu
        again = repeated or repeat != (1, 1)
        if depth and choose.random() < 0.3:
            out.append(
                Expected(
                    "group",
                    9,
                    5,
                    own,
                    repeat=repeat,
                    steps=steps(choose, vcpus, depth - 1, again, own),
                )
            )
        else:
            step = one_step(choose, own, repeat, again)
            if (
                step.kind in ENDS
                and step.then is None
                and choose.random() < 0.85
                and (vcpu is not None or n < count - 1)
            ):
                # Else nothing could come behind it.
                step = step._replace(then=())
            out.append(step)
    return tuple(out)


def story(choose: Choose) -> Story:
    vcpus = choose.choice([1, 1, 1, 2])
    built = {
        "memslots/0": Deed("slot 0", 3),
        "memslots/1": Deed("slot 1", 4, choose.choice([None, None, None, "EEXIST"])),
    }
    setup = some_deeds(choose, choose.choice([0, 0, 0, 1, 2]), "EINVAL")
    ignore: tuple[Expected, ...] = ()
    if choose.random() < 0.2:
        members = choose.choice([{"port": 2}, {"phys_addr": 0x5008, "data": 1}])
        ignore = (Expected("io" if "port" in members else "mmio", 2, 5, fields=members),)
    return Story(
        None
        if choose.random() < 0.08
        else steps(choose, vcpus, choose.choice([0, 1, 2, 3, 3]), False),
        ignore,
        {"rax": matcher(choose, choose.choice(DATA), False)} if choose.random() < 0.2 else {},
        (MemoryExpected(0x100, "u8", [matcher(choose, choose.choice(DATA), False)]),)
        if choose.random() < 0.1
        else (),
        20,
        built,
        setup,
    )


# --- stories that are almost another one ----------------------------------------------------------


def loosened(choose: Choose, told: Story) -> Story:
    """As a known wrong outcome is written: other values, and at times other replies and actions, at
    the same steps.
    """
    return told._replace(
        steps=None
        if told.steps is None
        else tuple(_other_values(choose, step) for step in told.steps)
    )


def _other_values(choose: Choose, step: Expected) -> Expected:
    if step.kind == "group":
        return step._replace(steps=tuple(_other_values(choose, inner) for inner in step.steps))
    if choose.random() < 0.5:
        return step
    fields = {
        key: value
        if key in (*step.where, "memory_fault") or isinstance(value, (list, str))
        else matcher(choose, choose.choice(DATA), False)
        for key, value in step.fields.items()
        if key in step.where or choose.random() < 0.7
    }
    regs = {name: matcher(choose, choose.choice(DATA), False) for name in step.regs}
    reply = (
        {"data": 6}
        if step.reply is not None and "data" in step.reply and choose.random() < 0.2
        else step.reply
    )
    then = step.then
    if then and choose.random() < 0.2:
        then = (then[0]._replace(text="another action"), *then[1:])
    return step._replace(fields=fields, regs=regs, reply=reply, then=then)


def rewritten(choose: Choose, told: Story) -> Story:
    """As a scenario is edited: steps left out, put in, doubled, or with another `repeat`, reply or
    value.
    """
    if told.steps is None:
        return told
    listed = list(told.steps)
    for _ in range(choose.choice([0, 1, 1, 2])):
        how, at = choose.randrange(5), choose.randrange(len(listed) + 1)
        if how == 0 or at == len(listed):
            listed.insert(at, one_step(choose, 0, choose.choice(REPEATS), True))
        elif how == 1:
            del listed[at]
        elif how == 2 and listed[at].kind != "timeout":
            listed[at] = listed[at]._replace(repeat=choose.choice(REPEATS))
        elif how == 3:
            listed[at] = listed[at]._replace(
                then=None if listed[at].then == () else listed[at].then
            )
        else:
            listed[at] = _other_values(choose, listed[at])
    return told._replace(steps=tuple(listed))
