"""Where the engine's own page tables lie: out of the way of all that the guest has."""

from __future__ import annotations

from collections.abc import Sequence

from kvmscen import asm
from kvmscen.compile.resolve import Resolver
from kvmscen.compile.slots import extent, later_slots
from kvmscen.compile.start import mode_of
from kvmscen.scenario import Case
from kvmscen.sent.arch import arm64, arm64_tables, x86_64
from kvmscen.sent.machine import Memslot

_GIB4 = 1 << 32
# Above it an address is not canonical with four levels of page tables, or is another in a map of
# addresses to themselves.
_MAPPED = 1 << 47


def place_tables(
    resolver: Resolver, case: Case, slots: Sequence[Memslot], sections: Sequence[asm.Section]
) -> tuple[tuple[int, int] | None, tuple[tuple[int, int], ...]]:
    """Where the engine's own tables go: at x86_64.TABLES_AT, or lower where something lies
    there.
    """
    ranges = [(slot.gpa, slot.size) for slot in slots] + [
        (s.gpa, s.size) for s in sections if s.size
    ]
    if case.arch == arm64.NAME and any(vcpu.mmu for vcpu in case.vcpus):
        return _identity(resolver, case, ranges)
    if case.arch != x86_64.NAME:
        return None, ()
    own = {name for vcpu in case.vcpus for name in vcpu.regs} & set(x86_64.OWN_TABLES)
    if own or all(mode_of(case, index) == "real" for index in range(len(case.vcpus))):
        return None, ()
    # Without paging nothing above 4 GiB can be reached.
    long = any(mode_of(case, index) == "long" for index in range(len(case.vcpus)))
    spans = tuple((gpa, size) for gpa, size in ranges if long and gpa + size > _GIB4)
    if any(gpa + size > _MAPPED for gpa, size in spans):
        _too_high(resolver, case, sections)
        return None, ()
    return _room(resolver, case, ranges, x86_64.tables_size(spans), x86_64.TSS_BELOW), spans


def _identity(
    resolver: Resolver, case: Case, ranges: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int] | None, tuple[tuple[int, int], ...]]:
    """The stage-1 tables of `mmu: identity`."""
    spans = tuple(ranges)
    if any(gpa + size > arm64_tables.REACH for gpa, size in spans):
        say = (
            f"what lies above {arm64_tables.REACH - 1:#x} cannot be mapped by `mmu: identity`: "
            f"place it lower"
        )
        resolver.problem(case.place, say)
        return None, ()
    return _room(resolver, case, ranges, arm64_tables.tables_size(spans), 0), spans


def _room(
    resolver: Resolver, case: Case, ranges: Sequence[tuple[int, int]], size: int, below: int
) -> tuple[int, int] | None:
    """The highest place up to TABLES_AT that is free, with so many bytes below it."""
    at = min(x86_64.TABLES_AT, (_GIB4 - size) & ~0xFFFF)
    while clash := next((t for t in ranges if t[0] < at + size and at - below < t[0] + t[1]), None):
        at = (clash[0] - size) & ~0xFFFF
        if at < below:
            resolver.problem(
                case.place, "no room below 4 GiB for the engine's page tables: leave 64 KiB free"
            )
            return None
    return at, size


def _too_high(resolver: Resolver, case: Case, sections: Sequence[asm.Section]) -> None:
    places = {section.name: section.place for section in case.sections}
    first = case.program_place
    written = [*(slot for slot in case.memslots if slot.errno is None), *later_slots(case)]
    lying = [
        (f"slot {slot.slot}", slot.place, resolver.number(slot.gpa), slot.size) for slot in written
    ]
    lying += [(f"section {s.name}", places.get(s.name, first), s.gpa, s.size) for s in sections]
    for what, place, at, size in lying:
        if at + size > _MAPPED:
            say = (
                f"{what} ({extent(at, size)}) ends above {_MAPPED - 1:#x}, the last address "
                f"that the engine's page tables can map"
            )
            resolver.problem(
                place, f"{say}: place it lower, or bring your own with regs: {{cr3: ...}}"
            )
