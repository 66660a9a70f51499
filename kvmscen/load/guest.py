"""Memslots, sections, vCPUs and capabilities of a scenario."""

from __future__ import annotations

from typing import Any

from kvmscen.load import names
from kvmscen.load.document import Map
from kvmscen.load.values import (
    NOWHERE,
    Notes,
    as_int,
    as_list,
    as_map,
    as_text,
    expression,
    registers,
    texts,
)
from kvmscen.scenario import Enable, Expr, Memslot, Place, Section, Vcpu
from kvmscen.sent.arch import ARCHES

PAGE = 4096


# --- memslots -------------------------------------------------------------------------------------


def memslots(notes: Notes, value: Any) -> tuple[Memslot, ...]:
    """The slots, each checked by itself and against the others; one with `errno` is not."""
    held = as_list(value)
    slots: list[Memslot] = []
    checked: list[Memslot] = []
    for n, item in enumerate(held):
        before = len(notes.problems)
        slot = _memslot(notes, as_map(item), held.at(n))
        if slot is not None:
            slots.append(slot)
            # What is wrong by itself is not held against the others.
            if slot.errno is None and len(notes.problems) == before:
                checked.append(slot)
    _twice(notes, checked)
    _overlaps(notes, checked)
    return tuple(slots)


def _memslot(notes: Notes, held: Map, place: Place) -> Memslot | None:
    if not {"slot", "gpa", "size"} <= set(held):
        return None
    errno = held.get("errno")
    size, gpa, flags = slot_numbers(notes, held, errno is not None)
    return Memslot(as_int(held["slot"]), gpa, size, flags, as_text(errno) or None, place)


def slot_numbers(notes: Notes, held: Map, waived: bool) -> tuple[int, Expr, tuple[str, ...]]:
    """Size, gpa and flags of a slot, checked unless it is to fail."""
    size = as_int(held.get("size"), PAGE)
    gpa = (
        expression(notes, held["gpa"], held.at("gpa")) if "gpa" in held else Expr(None, 0, NOWHERE)
    )
    if not waived and "size" in held and size >= 0:
        at = held.at("size")
        if size == 0:
            notes.add(at, "a slot has at least one page: write a multiple of 4096")
        elif size % PAGE:
            up = -(-size // PAGE) * PAGE
            notes.add(at, f"`{notes.written(at, size)}` is not a multiple of 4096: write {up:#x}")
    if not waived and gpa.symbol is None and gpa.offset % PAGE:
        written = notes.written(gpa.place, held["gpa"])
        notes.add(
            gpa.place,
            f"`{written}` is not a multiple of 4096: write {gpa.offset // PAGE * PAGE:#x}",
        )
    if not waived and gpa.symbol is None and gpa.offset + size > 1 << 64:
        notes.add(
            gpa.place,
            f"the slot ends at {gpa.offset + size:#x}, behind the last address: write a lower gpa",
        )
    return size, gpa, texts(held.get("flags"))


def _twice(notes: Notes, slots: list[Memslot]) -> None:
    first: dict[int, Memslot] = {}
    for slot in slots:
        other = first.setdefault(slot.slot, slot)
        if other is not slot:
            say = (
                f"slot {slot.slot} is there twice: line {other.place.line} has it, give this "
                f"one another number"
            )
            notes.add(slot.place, say)


def _overlaps(notes: Notes, slots: list[Memslot]) -> None:
    placed = sorted(
        (s for s in slots if s.gpa.symbol is None and s.size > 0), key=lambda s: s.gpa.offset
    )
    reach: Memslot | None = None
    for slot in placed:
        if reach is not None and slot.gpa.offset < reach.gpa.offset + reach.size:
            late, early = (slot, reach) if slot.place > reach.place else (reach, slot)
            say = (
                f"slot {late.slot} ({_span(late)}) overlaps slot {early.slot} of line "
                f"{early.place.line} ({_span(early)}): move or shrink one of them"
            )
            notes.add(late.place, say)
        if reach is None or slot.gpa.offset + slot.size > reach.gpa.offset + reach.size:
            reach = slot


def _span(slot: Memslot) -> str:
    return f"{slot.gpa.offset:#x} to {slot.gpa.offset + slot.size:#x}"


# --- sections -------------------------------------------------------------------------------------


def sections(notes: Notes, value: Any) -> tuple[Section, ...]:
    """Where the sections lie, as far as it is written."""
    held = as_map(value)
    return tuple(_section(notes, name, item, held.at(name)) for name, item in held.items())


def _section(notes: Notes, name: str, value: Any, place: Place) -> Section:
    if not isinstance(value, Map):
        return Section(name, place, at=_address(notes, value, place))
    if "at" in value and "after" in value:
        notes.add(
            value.at("after"), "`at` and `after` both say where the section lies: keep one of them"
        )
    align = as_int(value.get("align"), 1)
    if align > 0 and align & (align - 1):
        say = (
            f"`{notes.written(value.at('align'), align)}` is not a power of two: write "
            f"{1 << align.bit_length():#x}"
        )
        notes.add(value.at("align"), say)
    after = value.get("after")
    if after == name:
        notes.add(value.at("after"), f"`{name}` cannot follow itself: write another section")
    numbers = {
        key: _address(notes, value[key], value.at(key)) for key in ("at", "load") if key in value
    }
    return Section(
        name,
        place,
        at=numbers.get("at"),
        after=after if isinstance(after, str) else None,
        align=align if "align" in value else None,
        load=numbers.get("load"),
    )


def _address(notes: Notes, value: Any, place: Place) -> int:
    number = as_int(value)
    return expression(notes, number, place).offset if number > 0 else 0


# --- vCPUs and capabilities -----------------------------------------------------------------------


def vcpus(
    notes: Notes, keys: dict[str, tuple[Any, Place]], arch: str, place: Place
) -> tuple[Vcpu, ...]:
    """The vCPUs: `mode`, `features`, `regs` and `mmu` hold for all, and each map of `vcpus` is laid
    over them.
    """
    listed, at = keys.get("vcpus", (1, place))
    base = _vcpu(
        notes,
        {key: keys[key] for key in ("mode", "features", "regs", "mmu") if key in keys},
        arch,
        place,
    )
    count = len(listed) if isinstance(listed, list) else as_int(listed, 1)
    if count > 1:
        notes.add(at, "not yet: several vCPUs")
        return (base,)
    if not isinstance(listed, list):
        return (base,)
    items = as_list(listed)
    return tuple(
        _laid_over(notes, base, as_map(item), arch, items.at(n)) for n, item in enumerate(items)
    )


def _laid_over(notes: Notes, base: Vcpu, held: Map, arch: str, place: Place) -> Vcpu:
    own = _vcpu(notes, {key: (held[key], held.at(key)) for key in held}, arch, place)
    features = base.features if own.features is None else own.features
    return Vcpu(
        own.mode or base.mode, features, {**base.regs, **own.regs}, place, own.mmu or base.mmu
    )


def _vcpu(notes: Notes, keys: dict[str, tuple[Any, Place]], arch: str, place: Place) -> Vcpu:
    module = ARCHES[arch]
    mode, mode_at = keys.get("mode", (None, place))
    if (
        isinstance(mode, str)
        and mode not in module.MODES
        and any(mode in m.MODES for m in ARCHES.values())
    ):
        notes.add(mode_at, f"`{mode}` is no mode of {arch}: write {names.either(module.MODES)}")
    features, _ = keys.get("features", (None, place))
    for n, feature in enumerate(as_list(features)):
        if (
            isinstance(feature, str)
            and feature not in module.FEATURES
            and any(feature in m.FEATURES for m in ARCHES.values())
        ):
            say = (
                f"write {names.either(module.FEATURES)}" if module.FEATURES else "leave the key out"
            )
            notes.add(as_list(features).at(n), f"`{feature}` is no feature of {arch}: {say}")
    regs = registers(notes, keys["regs"][0], arch, False) if "regs" in keys else {}
    plain = {name: value for name, value in regs.items() if isinstance(value, Expr)}
    listed = texts(features) if isinstance(features, list) else None
    mmu, mmu_at = keys.get("mmu", (None, place))
    if mmu is not None and arch != "arm64":
        notes.add(mmu_at, f"`mmu` is about arm64, which starts without one: on {arch} leave it out")
    # What KVM refuses of a vCPU is mostly a register.
    at = keys["regs"][1] if "regs" in keys else place
    return Vcpu(mode if isinstance(mode, str) else None, listed, plain, at, as_text(mmu) or None)


def enables(notes: Notes, value: Any) -> tuple[Enable, ...]:
    """The capabilities to enable."""
    held = as_list(value)
    return tuple(enable(notes, item, held.at(n)) for n, item in enumerate(held))


def enable(notes: Notes, value: Any, place: Place) -> Enable:
    """One capability, by name or with its args."""
    if not isinstance(value, Map):
        return Enable(as_text(value), (), None, place)
    args = as_list(value.get("args"))
    numbers = tuple(expression(notes, as_int(n), args.at(i)).offset for i, n in enumerate(args))
    return Enable(as_text(value.get("cap")), numbers, as_text(value.get("errno")) or None, place)
