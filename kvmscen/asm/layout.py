"""Sizes and placements to addresses: what ld would do with one output section per input section.
Pure.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from kvmscen.asm.values import Placement, Wrong

# The order of sections that nothing places. Each of these may be placed and stay empty.
STANDARD = (".text", ".rodata", ".data", ".bss")


class Shape(NamedTuple):
    """A section of the program before it has an address: size and alignment in bytes."""

    name: str
    size: int
    align: int = 1


class Placed(NamedTuple):
    """A section's addresses: where the guest sees it and where its bytes are loaded."""

    gpa: int
    load: int


class Misplaced(NamedTuple):
    """Something wrong with a placement; `placement` is None where none names the section."""

    message: str
    placement: Placement | None


def align_up(value: int, align: int) -> int:
    """`value` rounded up to a multiple of `align`."""
    return -(-value // align) * align


def stem(name: str) -> str:
    """The middle of `__text_start`: the section's name without its dot, other characters made
    `_`.
    """
    return re.sub(r"\W", "_", name.removeprefix("."), flags=re.ASCII)


def span(address: int, size: int) -> str:
    """A range as messages show it."""
    return f"{address:#x}-{address + size - 1:#x}" if size else f"{address:#x} (empty)"


def place(
    shapes: Sequence[Shape], placements: Sequence[Placement], origin: int
) -> tuple[dict[str, Placed], list[Misplaced]]:
    """The address of every section, and all that is wrong with the placements."""
    problems: list[Misplaced] = []
    by_name = {shape.name: shape for shape in shapes}
    named = _named(by_name, placements, problems)
    places: dict[str, Placed] = {}
    for name in named:
        _place_named(name, named, by_name, places, problems, origin, ())
    fixed = [(places[name].gpa, by_name[name].size) for name in places if by_name[name].size]
    cursor = origin
    order = {name: number for number, name in enumerate(STANDARD)}
    rank = {
        shape.name: (order.get(shape.name, len(order)), index) for index, shape in enumerate(shapes)
    }
    for shape in sorted(shapes, key=lambda shape: rank[shape.name]):
        if shape.name not in places:
            cursor = _free(align_up(cursor, shape.align), shape, fixed)
            places[shape.name] = Placed(cursor, cursor)
            cursor += shape.size
    _overlaps(shapes, places, named, problems)
    return places, problems


def section_symbols(shapes: Sequence[Shape], places: dict[str, Placed]) -> dict[str, int]:
    """`__text_start` and its like for every section; of `.x-1` and `.x_1` together `__x_1_start`
    would say one of two things.
    """
    symbols: dict[str, int] = {}
    stems = Counter(stem(shape.name) for shape in shapes)
    for shape in shapes:
        at = places[shape.name]
        middle = stem(shape.name)
        if stems[middle] > 1:
            continue
        symbols[f"__{middle}_start"] = at.gpa
        symbols[f"__{middle}_end"] = at.gpa + shape.size
        symbols[f"__{middle}_size"] = shape.size
        symbols[f"__{middle}_load"] = at.load
    return symbols


def _named(
    shapes: dict[str, Shape], placements: Sequence[Placement], problems: list[Misplaced]
) -> dict[str, Placement]:
    named: dict[str, Placement] = {}
    for placement in placements:
        if placement.name in named:
            problems.append(Misplaced(f"section {placement.name} is placed twice", placement))
        elif placement.name not in shapes:
            message = (
                f"section {placement.name} has nothing in it: the program has "
                f"{_has(placement.name, shapes)}"
            )
            problems.append(Misplaced(message, placement))
        else:
            named[placement.name] = placement
    return named


def _has(name: str, shapes: dict[str, Shape]) -> str:
    close = difflib.get_close_matches(name, shapes, 1)
    return (", ".join(shapes) or "no sections") + (f"; did you mean {close[0]}?" if close else "")


def _place_named(
    name: str,
    named: dict[str, Placement],
    shapes: dict[str, Shape],
    places: dict[str, Placed],
    problems: list[Misplaced],
    origin: int,
    behind: tuple[str, ...],
) -> None:
    if name in places:
        return
    placement, shape = named[name], shapes[name]
    gpa = placement.at
    if gpa is None and placement.after is None:
        if placement.align is None and placement.load is None:
            return
        gpa = align_up(origin, max(shape.align, placement.align or 1))
    elif gpa is None:
        gpa = _after(placement, named, shapes, places, problems, origin, (*behind, name))
        gpa = align_up(gpa, max(shape.align, placement.align or 1))
    try:
        _check(gpa, placement, shape)
    except Wrong as wrong:
        problems.append(Misplaced(str(wrong), placement))
    places[name] = Placed(gpa, gpa if placement.load is None else placement.load)


def _check(gpa: int, placement: Placement, shape: Shape) -> None:
    align = placement.align or 1
    if align < 1 or align & (align - 1):
        raise Wrong(f"section {shape.name}: align must be a power of two, not {align}")
    align = max(align, shape.align)
    if gpa % align:
        raise Wrong(
            f"section {shape.name} needs an address aligned to {align} bytes; {gpa:#x} is not"
        )
    for address in (gpa, placement.load or 0):
        if not 0 <= address <= (1 << 64) - shape.size:
            raise Wrong(f"section {shape.name} at {address:#x} does not fit in 64 bits of address")


def _after(
    placement: Placement,
    named: dict[str, Placement],
    shapes: dict[str, Shape],
    places: dict[str, Placed],
    problems: list[Misplaced],
    origin: int,
    behind: tuple[str, ...],
) -> int:
    before = placement.after or ""
    if before not in shapes:
        has = _has(before, shapes)
        problems.append(
            Misplaced(
                f"section {placement.name} is to follow {before}: the program has {has}", placement
            )
        )
        return origin
    if before in behind or len(behind) > 100:
        problems.append(
            Misplaced(
                f"section {placement.name} is to follow {before}, which follows it: give one of "
                f"them an address",
                placement,
            )
        )
        return origin
    if before in named:
        _place_named(before, named, shapes, places, problems, origin, behind)
    if before not in places:
        # It is not placed by name itself: it starts where the unnamed ones do.
        gpa = align_up(origin, shapes[before].align)
        places[before] = Placed(gpa, gpa)
    return places[before].gpa + shapes[before].size


def _free(at: int, shape: Shape, fixed: list[tuple[int, int]]) -> int:
    moved = bool(shape.size)
    while moved:
        moved = False
        for start, size in fixed:
            if at < start + size and start < at + shape.size:
                at = align_up(start + size, shape.align)
                moved = True
    return at


def _overlaps(
    shapes: Sequence[Shape],
    places: dict[str, Placed],
    named: dict[str, Placement],
    problems: list[Misplaced],
) -> None:
    # What is misplaced already lies somewhere only for want of a place.
    misplaced = {problem.placement.name for problem in problems if problem.placement is not None}
    for what in ("gpa", "load"):
        ranges = sorted(
            (getattr(places[shape.name], what), shape.name, shape.size)
            for shape in shapes
            if shape.size
        )
        for (start, name, size), (start_2, name_2, size_2) in pairwise(ranges):
            if start + size <= start_2 or (
                what == "load" and places[name].gpa + size > places[name_2].gpa >= start
            ):
                continue
            if misplaced & {name, name_2}:
                continue
            verb = "overlaps" if what == "gpa" else "is loaded over"
            message = (
                f"section {name_2} at {span(start_2, size_2)} {verb} {name} at "
                f"{span(start, size)}: move one of them"
            )
            problems.append(Misplaced(message, _later(named.get(name), named.get(name_2))))


def _later(one: Placement | None, other: Placement | None) -> Placement | None:
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda placement: (placement.line, placement.column))
