"""Steps: exits, failing ioctls, timeouts and groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kvmscen.load import names, other_names
from kvmscen.load.actions import actions, vcpu
from kvmscen.load.document import Map
from kvmscen.load.values import (
    UNKNOWN_WIDTH,
    Notes,
    as_int,
    as_list,
    as_map,
    as_text,
    check,
    checks,
    expression,
    memory,
    registers,
)
from kvmscen.load.written import flow
from kvmscen.scenario import Expr, Place, Step, Value
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.header import exits

REPEAT_MAX = 100_000
_SPECIAL = ("error", "timeout", "steps")
_OFFERED = {row.name for row in names.offered()}
_BY_ARCH = {arch: {row.name for row in names.offered(arch)} for arch in ARCHES}
# The member that gives the width of `data`.
_WIDTH_OF_DATA = {"mmio": "len", "io": "size"}


def steps(notes: Notes, value: Any, arch: str) -> tuple[Step, ...]:
    """The steps of `expect`."""
    held = as_list(value)
    out = _list(notes, held, arch, False)
    _count(notes, out, 1, [0])
    return out


def _list(notes: Notes, value: Any, arch: str, repeats: bool) -> tuple[Step, ...]:
    held = as_list(value)
    return tuple(
        step
        for n, item in enumerate(held)
        if (step := _step(notes, item, held.at(n), arch, repeats))
    )


def _count(notes: Notes, listed: tuple[Step, ...], factor: int, total: list[int]) -> None:
    for step in listed:
        times = factor * step.repeat[1]
        if step.steps:
            _count(notes, step.steps, min(times, REPEAT_MAX + 1), total)
            continue
        before = total[0]
        total[0] += times
        if before <= REPEAT_MAX < total[0]:
            notes.add(
                step.place,
                f"the steps up to here are more than {REPEAT_MAX:,} exits: repeat less often",
            )


def _step(notes: Notes, value: Any, place: Place, arch: str, repeats: bool) -> Step | None:
    if isinstance(value, str):
        if value in _OFFERED and _exists(notes, value, place, arch):
            return Step(value, {}, place)
        return None
    if not isinstance(value, Map):
        return None
    key = _key(notes, value, place)
    if key is None:
        return None
    low, high = _repeat(notes, value)
    again = repeats or (low, high) != (1, 1)
    if key == "steps":
        return _group(notes, value, place, arch, (low, high), again)
    fields: Mapping[str, Value] = {}
    reply: Mapping[str, Value] | None = None
    timeout = 0.0
    if key == "timeout":
        timeout = _timeout(notes, value)
    elif key == "error":
        fields = _error(notes, as_map(value["error"]), again)
        if "reply" in value:
            notes.add(value.at_key("reply"), "a failing ioctl takes no reply: leave it out")
    elif _exists(notes, key, value.at_key(key), arch):
        fields = _members(notes, key, as_map(value[key]), arch, again)
        reply = _reply(notes, key, value, arch)
    return Step(
        key,
        fields,
        place,
        vcpu(notes, value),
        (low, high),
        reply,
        actions(notes, value["then"], arch, key) if isinstance(value.get("then"), list) else None,
        registers(notes, value["regs"], arch, True, again) if "regs" in value else {},
        memory(notes, value["memory"], True, again) if "memory" in value else (),
        timeout,
        answer=flow(value["reply"]) if reply is not None else "",
    )


def _key(notes: Notes, held: Map, place: Place) -> str | None:
    keys = [key for key in held if key in _OFFERED or key in _SPECIAL]
    if not keys:
        if all(key in names.BESIDE for key in held):
            notes.add(place, "no exit is named here: write an exit, `error`, `timeout` or `steps`")
        return None
    for extra in keys[1:]:
        say = (
            f"one exit key is meant in a step, `{keys[0]}` stands before: begin a new step "
            f"with `- {extra}:`"
        )
        notes.add(held.at_key(extra), say)
    return keys[0]


def _exists(notes: Notes, name: str, place: Place, arch: str) -> bool:
    if name in _BY_ARCH[arch]:
        return True
    row = exits.BY_NAME[name]
    if name in other_names.ENDING:
        notes.add(place, f"`{name}` is an exit of x86_64 only: {other_names.ENDS[arch]}")
        return False
    here = [row for row in names.offered(arch) if row.archs]
    close = names.closest(name, [row.name for row in here])
    hint = (
        f", did you mean `{close}`"
        if close
        else f": {arch} has {names.either(row.name for row in here)} of its own"
    )
    notes.add(place, f"`{name}` is an exit of {names.either(row.archs)} only{hint}")
    return False


def _repeat(notes: Notes, held: Map) -> tuple[int, int]:
    value = held.get("repeat", 1)
    if isinstance(value, Map):
        low, high = as_int(value.get("min"), 1), as_int(value.get("max"), 1)
        if low > high and {"min", "max"} <= set(value):
            notes.add(value.at("min"), "`min` is above `max`: exchange them")
            return (1, 1)
        return (max(low, 0), min(max(high, 1), REPEAT_MAX))
    number = min(max(as_int(value, 1), 1), REPEAT_MAX)
    return (number, number)


def _group(
    notes: Notes, held: Map, place: Place, arch: str, repeat: tuple[int, int], repeats: bool
) -> Step:
    for key in held:
        if key in names.BESIDE and key != "repeat":
            notes.add(
                held.at_key(key),
                f"a group has `repeat` and `steps` only: write `{key}` in a step of it",
            )
    return Step("group", {}, place, repeat=repeat, steps=_list(notes, held["steps"], arch, repeats))


def _timeout(notes: Notes, held: Map) -> float:
    for key in ("reply", "repeat"):
        if key in held:
            say = "nothing is answered" if key == "reply" else "write a longer timeout"
            notes.add(held.at_key(key), f"a timeout step takes no `{key}`: {say}")
    value = held["timeout"]
    return float(value) if isinstance(value, (int, float)) and 0 < value <= 600 else 0.0


# --- members --------------------------------------------------------------------------------------


def _members(notes: Notes, name: str, held: Map, arch: str, repeats: bool) -> dict[str, Value]:
    known = names.members(name, arch)
    out: dict[str, Value] = {}
    for key in held:
        field = known.get(key)
        if field is not None:
            out[key] = _member(notes, name, field, held, repeats)
        elif any(key == f.name for other in ARCHES for f in exits.fields_of(name, other)):
            say = f"its members are {names.either(known)}" if known else "it has no members there"
            notes.add(held.at_key(key), f"`{name}` has no `{key}` on {arch}: {say}")
    if "data" in held and _reads(name, held):
        notes.add(
            held.at_key("data"),
            "the value of a read is what user space answers: write `reply` beside the exit key",
        )
    return out


def _member(notes: Notes, name: str, field: exits.Field, held: Map, repeats: bool) -> Value:
    value, place = held[field.name], held.at(field.name)
    if field.name == "accesses":
        return _accesses(notes, value, repeats)
    numbers = names.numbers_of(name, field.name)
    if numbers and isinstance(value, str):
        return Expr(None, numbers.get(value, 0), place)
    bits = _bits(name, field, held)
    most = field.length
    if name == "io" and field.name == "data":
        count = held.get("count")
        most = count if isinstance(count, int) and count > 0 else 4096
        if isinstance(value, list) and isinstance(count, int) and count > len(value):
            notes.add(
                place, f"`count` is {count}, but there are {len(value)} elements: write them all"
            )
    if most > 1:
        return checks(notes, value, place, bits, repeats, most)
    if isinstance(value, list) and name == "io":
        notes.add(place, "a list is meant where `count` is above 1: write one number")
        return Expr(None, 0, place)
    return check(notes, value, place, bits, repeats)


def _accesses(notes: Notes, value: Any, repeats: bool) -> tuple[Value, ...]:
    """The parts of an emulated access; `data` is as wide as `len` says, at most the 64 bytes of a
    dc zva.
    """
    held = as_list(value)
    out: list[Value] = []
    for item in map(as_map, held):
        size = item.get("len")
        wide = 8 * size if isinstance(size, int) and 0 < size <= 64 else 128
        data = item.get("data")
        if isinstance(data, int) and data < 0 and "len" not in item:
            notes.add(
                item.at("data"),
                "a negative `data` has no width without `len`: write `len` beside it",
            )
        bits = {"phys_addr": 64, "len": 32, "is_write": 8, "data": wide}
        out.append(
            {
                key: check(notes, item[key], item.at(key), bits[key], repeats)
                for key in item
                if key in bits
            }
        )
    return tuple(out)


def _bits(name: str, field: exits.Field, held: Map) -> int:
    if field.name == "data" and name in _WIDTH_OF_DATA:
        size = held.get(_WIDTH_OF_DATA[name])
        return 8 * size if isinstance(size, int) and 0 < size <= 8 else UNKNOWN_WIDTH
    return names.bits(field)


def _reads(name: str, held: Map) -> bool:
    if name == "mmio":
        return held.get("is_write") in (False, 0) and "is_write" in held
    if name == "io":
        return held.get("direction") in ("in", "KVM_EXIT_IO_IN", 0) and "direction" in held
    return name == "x86_rdmsr"


def _writes(name: str, held: Map) -> bool:
    if name == "mmio":
        return held.get("is_write") in (True, 1)
    return name == "io" and held.get("direction") in ("out", "KVM_EXIT_IO_OUT", 1)


def _error(notes: Notes, held: Map, repeats: bool) -> dict[str, Value]:
    out: dict[str, Value] = {key: as_text(held[key]) for key in ("ioctl", "errno") if key in held}
    if "memory_fault" in held:
        fault = as_map(held["memory_fault"])
        errno = held.get("errno")
        if (
            isinstance(errno, str)
            and errno not in ("EFAULT", "EHWPOISON")
            and errno in names.ERRNOS
        ):
            say = f"memory_fault comes with EFAULT or EHWPOISON, not {errno}: leave it out"
            notes.add(held.at_key("memory_fault"), say)
        known = {f.name: f for f in exits.BY_NAME["memory_fault"].fields}
        out["memory_fault"] = {
            key: _member(notes, "memory_fault", known[key], fault, repeats)
            for key in fault
            if key in known
        }
    return out


def _reply(notes: Notes, name: str, held: Map, arch: str) -> dict[str, Value] | None:
    if "reply" not in held:
        return None
    value, place = held["reply"], held.at("reply")
    row = exits.BY_NAME[name]
    members = as_map(held[name])
    if not row.reply:
        notes.add(held.at_key("reply"), f"`{name}` takes no reply: leave it out")
        return None
    if _writes(name, members):
        notes.add(
            held.at_key("reply"),
            f"`{name}` is a write here and takes no reply: leave it out, or make it a read",
        )
        return None
    if not isinstance(value, Map):
        return {row.reply[0]: _answer(notes, name, row.reply[0], value, place, members, arch)}
    out: dict[str, Value] = {}
    for key in value:
        if key in row.reply:
            out[key] = _answer(notes, name, key, value[key], value.at(key), members, arch)
        elif any(key in other.reply for other in names.offered()):
            notes.add(
                value.at_key(key),
                f"`{name}` does not take `{key}` back: write {names.either(row.reply)}",
            )
    if not value:
        notes.add(place, f"the reply is empty: write {names.either(row.reply)}, or leave it out")
    return out


def _answer(
    notes: Notes, name: str, key: str, value: Any, place: Place, held: Map, arch: str
) -> Value:
    field = names.members(name, arch)[key]
    bits = _bits(name, field, held)
    if not isinstance(value, list):
        return expression(notes, value, place, bits)
    count = held.get("count") if name == "io" else None
    most = (
        count
        if isinstance(count, int) and count > 0
        else 4096
        if name == "io" and count is None
        else field.length
    )
    if most == 1 or len(value) > most:
        notes.add(place, f"a list of {len(value)} is too long: {most} is what `{name}` takes")
    items = as_list(value)
    return tuple(expression(notes, item, items.at(n), bits) for n, item in enumerate(items))


def ignored(notes: Notes, value: Any, arch: str, carried_out: bool) -> tuple[Step, ...]:
    """Exits to answer and record, but not to compare; `carried_out`: an arm_nisv is done for the
    guest.
    """
    held = as_list(value)
    steps = [
        step for n, item in enumerate(held) if (step := exit_of(notes, item, held.at(n), arch))
    ]
    for step in steps:
        if exits.BY_NAME[step.kind].ends:
            say = (
                "the vCPU ends at it: write it as a step, with `then: []` where the guest is to "
                "go on"
            )
            notes.add(step.place, f"`{step.kind}` cannot be ignored, {say}")
        elif step.kind == "arm_nisv" and not carried_out:
            notes.add(
                step.place,
                "`arm_nisv` would repeat for ever: write `undecoded: emulate` too, or a step with "
                "`then`",
            )
    return tuple(steps)


def exit_of(
    notes: Notes, item: Any, place: Place, arch: str, beside: Collection[str] = ()
) -> Step | None:
    """One exit with members that tell it, as a map or by its name alone; `beside` may stand beside
    it.
    """
    if isinstance(item, str) and item in _OFFERED and _exists(notes, item, place, arch):
        return Step(item, {}, place)
    if not isinstance(item, Map):
        return None
    if all(key in beside for key in item):
        notes.add(place, "no exit is named here: write an exit, as `mmio: {}`")
    keys = [key for key in item if key in _OFFERED]
    for extra in keys[1:]:
        notes.add(
            item.at_key(extra), f"one exit is meant in an item: begin a new one with `- {extra}:`"
        )
    if not keys or not _exists(notes, keys[0], item.at_key(keys[0]), arch):
        return None
    members = _members(notes, keys[0], as_map(item[keys[0]]), arch, False)
    return Step(keys[0], members, place, reply=_reply(notes, keys[0], item, arch))
