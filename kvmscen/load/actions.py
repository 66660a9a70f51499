"""Host actions, in `then` and `setup`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from kvmscen.load import guest, names
from kvmscen.load.document import List, Map
from kvmscen.load.values import (
    NOWHERE,
    Notes,
    as_int,
    as_list,
    as_map,
    as_text,
    expression,
    memory,
    registers,
    texts,
)
from kvmscen.load.written import item
from kvmscen.scenario import Action, Expr, Memslot, Place
from kvmscen.sent.header import actions as actions_table
from kvmscen.sent.header.actions import BY_NAME, VALUE, Member, reg_bits

EMULATE = "emulate"
# KVM_REG_SIZE_U2048 is the longest register.
VALUE_BITS = 2048


def actions(notes: Notes, value: Any, arch: str, kind: str = "") -> tuple[Action, ...]:
    """A list of host actions; `kind` is the exit that they follow, if any."""
    held = as_list(value)
    out: list[Action] = []
    for n, entry in enumerate(held):
        bare = entry == EMULATE
        action = (
            Action(EMULATE, {}, held.at(n), text=EMULATE)
            if bare
            else _action(notes, as_map(entry), held.at(n), arch)
        )
        if action is not None:
            out.append(action)
            if action.name == EMULATE:
                _emulate(notes, action.place, arch, kind)
    return tuple(out)


def _emulate(notes: Notes, place: Place, arch: str, kind: str) -> None:
    if arch != "arm64":
        notes.add(
            place,
            f"`emulate` carries out what arm64's KVM cannot decode: {arch} has no such exit, leave "
            f"it out",
        )
    elif kind != "arm_nisv":
        notes.add(
            place,
            "`emulate` carries out the access of an arm_nisv: write it in the `then` of such a "
            "step",
        )


def _action(notes: Notes, held: Map, place: Place, arch: str) -> Action | None:
    named = [key for key in held if key in names.ACTIONS]
    if not named:
        if place != NOWHERE and all(key in ("vcpu", "errno") for key in held):
            notes.add(place, f"an action is missing: write {names.either(names.ACTIONS)}")
        return None
    for extra in named[1:]:
        notes.add(
            held.at_key(extra),
            f"one action is meant here, `{named[0]}` stands before: begin a new item with `- "
            f"{extra}:`",
        )
    name = named[0]
    errno = as_text(held.get("errno")) or None
    written = Written(notes, BY_NAME[name], held[name], held.at(name), arch, errno is not None)
    args = FORMS[name](written) if name in FORMS else _members(written)
    if name == "enable" and (own := args["enable"].errno) is not None:
        if errno is not None:
            notes.add(written.at, "`errno` is there twice: keep the one beside `enable`")
        args, errno = {"enable": (args["enable"])._replace(errno=None)}, errno or own
    return Action(name, args, place, vcpu(notes, held), errno, item(held))


class Written(NamedTuple):
    """One action as it is written. `waived`: it is to fail, so its numbers may be wrong."""

    notes: Notes
    row: actions_table.Action
    value: Any
    at: Place
    arch: str
    waived: bool


# --- actions that fill a struct -------------------------------------------------------------------


def _members(written: Written) -> dict[str, Any]:
    """The members of the struct by name: Exprs, or names of flags; tuples for arrays."""
    notes, row, arch = written.notes, written.row, written.arch
    table = row.of(arch)
    if table is None:
        notes.add(
            written.at,
            f"{arch} has no {row.ioctl}: write it in a scenario of {names.either(row.members)}",
        )
        return {}
    here = {member.name: member for member in table}
    if row.alone:
        return {row.alone: _member(written, here[row.alone], written.value, written.at)}
    args: dict[str, Any] = {}
    for key, value, at, key_at in _flat(as_map(written.value), row.anywhere):
        if key in here:
            args[key] = _member(written, here[key], value, at)
        else:
            outer, inner = key.partition(".")[::2]
            beside = {name: None for name in here if inner and name.startswith(outer + ".")}
            known = beside or {name.partition(".")[0]: None for name in here}
            notes.add(
                key_at,
                f"`{key}` is no member of `{row.name}` on {arch}: write {names.either(known)}",
            )
    if row.name in CHECKS and not written.waived:
        CHECKS[row.name](written, args)
    return args


def _flat(held: Map, known: Mapping[str, Any]) -> Iterator[tuple[str, Any, Place, Place]]:
    """The members that are written, each with its place and that of its name; those of a map in the
    map as `outer.inner`.
    """
    for key, value in held.items():
        if key in known:
            yield key, value, held.at(key), held.at_key(key)
        for inner, number in as_map(value).items():
            if f"{key}.{inner}" in known:
                yield f"{key}.{inner}", number, value.at(inner), value.at_key(inner)


def _member(written: Written, member: Member, value: Any, at: Place) -> Any:
    notes = written.notes
    if member.flags:
        everywhere = {
            name for same in written.row.anywhere[member.name] for name in same.names or {}
        }
        for n, flag in enumerate(as_list(value) if isinstance(value, List) else (value,)):
            if isinstance(flag, str) and flag in everywhere and flag not in (member.names or {}):
                where = as_list(value).at(n) if isinstance(value, List) else at
                notes.add(
                    where, f"{written.arch} has no {flag}: write {names.either(member.names or {})}"
                )
        return texts(value)
    if isinstance(value, str) and value in member.words:
        return Expr(None, member.words[value], at)
    if member.length > 1:
        values = as_list(value)
        return tuple(
            expression(notes, number, values.at(n), member.bits) for n, number in enumerate(values)
        )
    if member.yes_no or member.least is not None:
        return Expr(None, int(value) if isinstance(value, (bool, int)) else 0, at)
    return expression(notes, value, at, _bits(member, as_map(written.value)))


def _bits(member: Member, beside: Map) -> int:
    """The width of a member whose width another member gives. Problems of that member are reported
    where it is read.
    """
    if member.fmt == VALUE:
        return reg_bits(max(as_int(beside.get("id")), 0)) if "id" in beside else VALUE_BITS
    return 8 * max(as_int(beside.get(member.width)), 0) or member.bits


# --- actions with code of their own ---------------------------------------------------------------


def _slot(notes: Notes, held: Map, place: Place, waived: bool) -> Memslot:
    size, gpa, flags = guest.slot_numbers(notes, held, waived)
    return Memslot(as_int(held.get("slot")), gpa, size, flags, None, place)


def _delete(written: Written) -> dict[str, Any]:
    return {
        "slot": as_int(
            written.value.get("slot") if isinstance(written.value, Map) else written.value
        )
    }


def _ioeventfd(written: Written, args: Mapping[str, Any]) -> None:
    held = as_map(written.value)
    length = as_int(held.get("len"))
    if length not in (0, 1, 2, 4, 8):
        written.notes.add(
            held.at("len"), f"no write has {length} bytes: write 1, 2, 4 or 8, or 0 for any"
        )
    if "datamatch" in args and not length:
        written.notes.add(
            held.at_key("datamatch"),
            "`datamatch` needs the width of the write: write `len` 1, 2, 4 or 8",
        )


FORMS: dict[str, Callable[[Written], dict[str, Any]]] = {
    "set_regs": lambda written: dict(registers(written.notes, written.value, written.arch, False)),
    "write_memory": lambda written: {"memory": memory(written.notes, written.value, False)},
    "set_memslot": lambda written: {
        "memslot": _slot(written.notes, as_map(written.value), written.at, written.waived)
    },
    "delete_memslot": _delete,
    "enable": lambda written: {"enable": guest.enable(written.notes, written.value, written.at)},
    EMULATE: lambda written: {},
}
# What is asked of the members of a struct beyond their widths.
CHECKS: dict[str, Callable[[Written, Mapping[str, Any]], None]] = {"ioeventfd": _ioeventfd}


def vcpu(notes: Notes, held: Map) -> int:
    """The vCPU that a step or an action is about."""
    number = as_int(held.get("vcpu"))
    if number > 0:
        notes.add(held.at("vcpu"), "there is one vCPU, number 0: not yet: several vCPUs")
        return 0
    return max(number, 0)
