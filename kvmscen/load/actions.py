"""Host actions, in `then` and `setup`."""

from __future__ import annotations

from typing import Any

from kvmscen.kvm import uapi
from kvmscen.load import guest, names
from kvmscen.load.document import Map
from kvmscen.load.values import NOWHERE, Notes, as_int, as_list, as_map, as_text, expression, memory, registers, texts
from kvmscen.load.written import item
from kvmscen.scenario import Action, Enable, Expr, Memslot, Place

EMULATE = "emulate"


def actions(notes: Notes, value: Any, arch: str, kind: str = "") -> tuple[Action, ...]:
    """A list of host actions; `kind` is the exit that they follow, if any."""
    held = as_list(value)
    out: list[Action] = []
    for n, one_of in enumerate(held):
        bare = one_of == EMULATE
        one = Action(EMULATE, {}, held.at(n), text=EMULATE) if bare else _action(notes, as_map(one_of), held.at(n), arch)
        if one is not None:
            out.append(one)
            if one.name == EMULATE:
                _emulate(notes, one.place, arch, kind)
    return tuple(out)


def _emulate(notes: Notes, place: Place, arch: str, kind: str) -> None:
    if arch != "arm64":
        notes.add(place, f"`emulate` carries out what arm64's KVM cannot decode: {arch} has no such exit, leave it out")
    elif kind != "arm_nisv":
        notes.add(place, "`emulate` carries out the access of an arm_nisv: write it in the `then` of such a step")


def _action(notes: Notes, held: Map, place: Place, arch: str) -> Action | None:
    named = [key for key in held if key in names.ACTIONS]
    if not named:
        if place != NOWHERE and all(key in ("vcpu", "errno") for key in held):
            notes.add(place, f"an action is missing: write {names.either(names.ACTIONS)}")
        return None
    for extra in named[1:]:
        notes.add(
            held.at_key(extra),
            f"one action is meant here, `{named[0]}` stands before: begin a new item with `- {extra}:`",
        )
    name = named[0]
    value, at = held[name], held.at(name)
    errno = as_text(held.get("errno")) or None
    waived = errno is not None
    if name == "set_regs":
        args: dict[str, Any] = dict(registers(notes, value, arch, False))
    elif name == "write_memory":
        args = {"memory": memory(notes, value, False)}
    elif name == "set_memslot":
        args = {"memslot": _slot(notes, as_map(value), at, waived)}
    elif name == "delete_memslot":
        args = {"slot": as_int(value.get("slot") if isinstance(value, Map) else value)}
    elif name == "set_guest_debug":
        args = _guest_debug(notes, as_map(value), arch)
    elif name == "ioeventfd":
        args = _ioeventfd(notes, as_map(value), waived)
    elif name in ("register_coalesced_mmio", "unregister_coalesced_mmio"):
        zone = as_map(value)
        args = {"addr": _addr(notes, zone), "size": as_int(zone.get("size")), "pio": zone.get("pio") is True}
    elif name == EMULATE:
        args = {}
    else:
        one = guest.enable(notes, value, at)
        args = {"enable": Enable(one.cap, one.args, None, one.place)}
        if one.errno is not None and errno is not None:
            notes.add(at, "`errno` is there twice: keep the one beside `enable`")
        errno = errno or one.errno
    return Action(name, args, place, vcpu(notes, held), errno, item(held))


def _slot(notes: Notes, held: Map, place: Place, waived: bool) -> Memslot:
    size, gpa, flags = guest.slot_numbers(notes, held, waived)
    return Memslot(as_int(held.get("slot")), gpa, size, flags, None, place)


def _addr(notes: Notes, held: Map) -> Expr:
    return expression(notes, held["addr"], held.at("addr")) if "addr" in held else Expr(None, 0, NOWHERE)


def _ioeventfd(notes: Notes, held: Map, waived: bool) -> dict[str, Any]:
    length = as_int(held.get("len"))
    if not waived and length not in (0, 1, 2, 4, 8):
        notes.add(held.at("len"), f"no write has {length} bytes: write 1, 2, 4 or 8, or 0 for any")
    match: Expr | None = None
    if "datamatch" in held:
        match = expression(notes, held["datamatch"], held.at("datamatch"), 8 * length or 64)
        if not length and not waived:
            notes.add(held.at_key("datamatch"), "`datamatch` needs the width of the write: write `len` 1, 2, 4 or 8")
    return {"addr": _addr(notes, held), "len": length, "datamatch": match, "flags": texts(held.get("flags"))}


def _guest_debug(notes: Notes, held: Map, arch: str) -> dict[str, Any]:
    flags, arrays = uapi.GUESTDBG[arch], uapi.GUEST_DEBUG[arch][1]
    control = texts(held.get("control"))
    for n, flag in enumerate(as_list(held.get("control"))):
        if isinstance(flag, str) and flag in names.GUESTDBG and flag not in flags:
            notes.add(as_list(held["control"]).at(n), f"{arch} has no {flag}: write {names.either(flags)}")
    args: dict[str, Any] = {"control": control}
    for name in held:
        if name not in names.DEBUG_REGISTERS:
            continue
        if name not in arrays:
            say = f"write {names.either(arrays)}" if arrays else "leave it out"
            notes.add(held.at_key(name), f"`{name}` is no debug register of {arch}: {say}")
            continue
        values = as_list(held[name])
        args[name] = tuple(expression(notes, value, values.at(n)) for n, value in enumerate(values))
    return args


def vcpu(notes: Notes, held: Map) -> int:
    """The vCPU that a step or an action is about."""
    number = as_int(held.get("vcpu"))
    if number > 0:
        notes.add(held.at("vcpu"), "there is one vCPU, number 0: not yet: several vCPUs")
        return 0
    return max(number, 0)
