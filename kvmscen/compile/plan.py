"""The part of a machine that does not depend on the host: layout, image, symbols, and where the
engine's own tables lie.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from kvmscen import asm
from kvmscen.compile.resolve import Resolver, actions_of
from kvmscen.errors import Problem, ScenarioError
from kvmscen.job.legend import Legend, Line, Span
from kvmscen.scenario import Asm, Case, Section
from kvmscen.scenario import Memslot as MemslotWritten
from kvmscen.sent.arch import ARCHES, arm64, arm64_tables, x86_64
from kvmscen.sent.arch.registers import base
from kvmscen.sent.machine import Bytes, Memslot

_GIB4 = 1 << 32
# Above it an address is not canonical with four levels of page tables, or is another in a map of
# addresses to themselves.
_MAPPED = 1 << 47


class Plan(NamedTuple):
    """One case, laid out. `tables` is (gpa, size) of the engine's own slot on x86, `spans` what it
    maps above 4 GiB.

    `entry` is where vCPUs begin unless their `pc` says otherwise; `assembler` is what made the
    program.
    """

    memslots: tuple[Memslot, ...]
    sections: tuple[asm.Section, ...]
    image: tuple[Bytes, ...]
    devices: tuple[Bytes, ...]
    symbols: dict[str, int]
    legend: Legend
    entry: int
    tables: tuple[int, int] | None
    spans: tuple[tuple[int, int], ...]
    assembler: str | None = None


@lru_cache(maxsize=64)
def _assemble(
    arch: str,
    bits: int,
    source: asm.Source,
    placements: tuple[asm.Placement, ...],
    origin: int,
    assembler: str | None,
) -> asm.Program | ScenarioError:
    # Cases mostly share their program; a wrong one is wrong for all of them.
    try:
        return asm.assemble(arch, bits, source, placements, origin, assembler)
    except ScenarioError as error:
        return error


@lru_cache(maxsize=8)
def _linked(
    arch: str, bits: int, executable: asm.Executable, placements: tuple[asm.Placement, ...]
) -> asm.Program | ScenarioError:
    try:
        return asm.from_elf(arch, bits, executable, placements)
    except ScenarioError as error:
        return error


def mode_of(case: Case, index: int = 0) -> str:
    """The mode of a vCPU, by the architecture's default where none is written."""
    mode = case.vcpus[index].mode if case.vcpus else None
    return mode or ARCHES[case.arch].MODES[0]


def names_pc(case: Case, names: Iterable[str]) -> bool:
    """Whether the program counter or a view of it is among registers."""
    arch = ARCHES[case.arch]
    return any(base(arch.REGISTERS, name) == arch.PC for name in names)


def later_slots(case: Case) -> Iterator[MemslotWritten]:
    """The slots that host actions make, whichever `when` applies."""
    stories = (case.expect or (), *(overlay.expect or () for overlay in case.when))
    for action in (*case.setup, *(action for story in stories for action in actions_of(story))):
        if action.name == "set_memslot" and action.errno is None and action.args["memslot"].size:
            yield action.args["memslot"]


def lay_out(file: str, case: Case) -> tuple[Plan, list[Problem]]:
    """One case laid out, with every problem of the layout. Raises ScenarioError where there is no
    program to lay out.
    """
    resolver = Resolver(file, {})
    for written in case.memslots:
        if written.gpa.symbol is not None:
            resolver.problem(
                written.gpa.place,
                f"{written.gpa} is no number: slots are laid out before symbols are",
            )
    if resolver.problems:
        raise ScenarioError(resolver.problems)
    slots = tuple(resolver.memslot(slot) for slot in case.memslots)
    usable = [slot for slot in slots if slot.errno is None]
    program = _program(file, case, usable)
    resolver.symbols = program.symbols
    image, devices = _spread(resolver, case, program, usable)
    entry = program.entry
    if entry is None:
        entry = program.symbols.get(
            "_start", next((s.gpa for s in program.sections if s.name == ".text"), 0)
        )
    if program.sections:
        _check_entry(resolver, case, entry, usable, program)
    later = [resolver.memslot(slot) for slot in later_slots(case)]
    tables, spans = _tables(resolver, case, [*usable, *later], program.sections)
    assembler = None if case.asm is None else program.assembler
    sections = tuple(Span(section.name, section.gpa, section.size) for section in program.sections)
    file_name = case.asm.name if case.asm is not None else ""
    note = _start_missing(case, program, entry)
    legend = Legend(
        dict(program.symbols), _rows(program.lines), file_name, sections, _rows(program.debug), note
    )
    made = Plan(
        slots,
        program.sections,
        image,
        devices,
        dict(program.symbols),
        legend,
        entry,
        tables,
        spans,
        assembler,
    )
    return made, resolver.problems


def _rows(lines: Iterable[asm.Line]) -> tuple[Line, ...]:
    return tuple(Line(line.gpa, line.size, line.line, line.text) for line in lines if line.size)


def _program(file: str, case: Case, slots: Sequence[Memslot]) -> asm.Program:
    bits = ARCHES[case.arch].BITS[mode_of(case)]
    if case.elf is not None:
        executable = asm.Executable(
            case.elf.raw, case.elf.name, file, case.elf.place.line, case.elf.place.column
        )
        return _made(
            _linked(
                case.arch,
                bits,
                executable,
                tuple(_placement(file, section) for section in case.sections),
            )
        )
    if case.asm is None:
        if case.sections:
            place = case.sections[0].place
            raise ScenarioError(
                [Problem(file, place.line, place.column, "sections without a program: write asm")]
            )
        return asm.Program((), {}, ())
    source = _source(file, case, case.asm)
    placements = tuple(_placement(file, section) for section in case.sections)
    return _made(
        _assemble(case.arch, bits, source, placements, slots[0].gpa if slots else 0, case.assembler)
    )


def _made(made: asm.Program | ScenarioError) -> asm.Program:
    if isinstance(made, ScenarioError):
        raise made
    return made


def misassembled(file: str, case: Case) -> list[Problem]:
    """What is wrong with the program of a case that cannot be laid out, by itself."""
    if case.asm is None or case.arch not in ARCHES or mode_of(case) not in ARCHES[case.arch].BITS:
        return []
    source = _source(file, case, case.asm)
    placements = tuple(
        asm.Placement(section.name) for section in case.sections if section.name in asm.STANDARD
    )
    made = _assemble(
        case.arch, ARCHES[case.arch].BITS[mode_of(case)], source, placements, 0, case.assembler
    )
    return list(made.problems) if isinstance(made, ScenarioError) else []


def _source(file: str, case: Case, program: Asm) -> asm.Source:
    macros = tuple(
        asm.Macro(macro.name, macro.text, file, macro.line, macro.column) for macro in case.macros
    )
    return asm.Source(program.path or file, program.text, program.line, program.column, macros)


def _placement(file: str, s: Section) -> asm.Placement:
    return asm.Placement(s.name, s.at, s.after, s.align, s.load, s.place.line, s.place.column, file)


def _inside(slots: Sequence[Memslot], gpa: int, size: int) -> Memslot | None:
    return next((s for s in slots if s.gpa <= gpa and gpa + size <= s.gpa + s.size), None)


def _touching(slots: Sequence[Memslot], gpa: int, size: int) -> Memslot | None:
    return next((s for s in slots if gpa < s.gpa + s.size and s.gpa < gpa + size), None)


def _range(gpa: int, size: int) -> str:
    return f"{gpa:#x}-{gpa + size - 1:#x}" if size else f"{gpa:#x}"


def _spread(
    resolver: Resolver, case: Case, program: asm.Program, slots: Sequence[Memslot]
) -> tuple[tuple[Bytes, ...], tuple[Bytes, ...]]:
    """Sections into the slots' image and into devices; one lies wholly in one slot or wholly
    outside all of them.
    """
    places = {section.name: section.place for section in case.sections}
    first = case.program_place
    image: list[Bytes] = []
    devices: list[Bytes] = []
    for section in program.sections:
        place = places.get(section.name, first)
        for what, at in (("", section.gpa), ("load address of ", section.load)):
            slot = _touching(slots, at, section.size)
            if section.size and slot is not None and _inside(slots, at, section.size) is None:
                resolver.problem(
                    place,
                    f"{what}section {section.name} ({_range(at, section.size)}) crosses the edge "
                    f"of slot {slot.slot} "
                    f"({_range(slot.gpa, slot.size)}): place it wholly inside the slot or wholly "
                    f"outside every slot",
                )
                break
            if section.load == section.gpa:
                break
        if section.load != section.gpa:
            if (
                not section.nobits
                and section.size
                and _touching(slots, section.load, section.size) is None
            ):
                say = "which is in no slot: load it into one"
                resolver.problem(
                    place, f"section {section.name} is loaded at {section.load:#x}, {say}"
                )
            image.append(Bytes.at(section.load, section.data))
            if _inside(slots, section.gpa, section.size) is None:
                devices.append(Bytes.at(section.gpa, b"", section.size))
        elif _inside(slots, section.gpa, section.size) is not None:
            image.append(Bytes.at(section.gpa, section.data))
        elif section.size:
            devices.append(Bytes.at(section.gpa, section.data, section.size))
    return tuple(part for part in image if part.data), tuple(devices)


def _check_entry(
    resolver: Resolver, case: Case, entry: int, slots: Sequence[Memslot], program: asm.Program
) -> None:
    what = "_start" if "_start" in program.symbols else "the first instruction"
    meant = _start_meant(case, program, entry)
    if meant is not None:
        say = (
            f"the program has no `_start`, so it begins at its first instruction, {entry:#x}, "
            f"and not at `{meant}`"
        )
        resolver.problem(
            case.program_place, f"{say}: call that label `_start`, or write `regs: {{pc: {meant}}}`"
        )
    if case.elf is not None:
        what = f"the entry point of `{case.elf.name}`"
    inside = next((s.name for s in program.sections if s.gpa <= entry < s.gpa + s.size), ".text")
    # Where the section is placed by name, that is what is to be changed.
    places = {section.name: section.place for section in case.sections}
    place = places.get(inside, case.program_place)
    for index, vcpu in enumerate(case.vcpus):
        if names_pc(case, vcpu.regs):
            continue
        if not case.memslots and case.elf is None:
            slot = f"{{slot: 0, gpa: {entry & -0x1000:#x}, size: 0x1000}}"
            resolver.problem(
                case.program_place,
                f"there is no memslot for the program to run in: write `memslots: [{slot}]`",
            )
        elif _inside(slots, entry, 1) is None:
            resolver.problem(
                place,
                f"{what} is at {entry:#x}, outside every memslot, where no instruction can be "
                f"fetched: "
                f"place {inside} in a slot, or write regs: {{pc: ...}} if that is what you ask",
            )
        elif mode_of(case, index) == "real" and entry >= 0x10000:
            say = (
                f"{what} is at {entry:#x}: a real-mode vCPU begins with cs 0, so it must lie "
                f"below 0x10000"
            )
            resolver.problem(place, say)


# What people call the place where a program begins.
_BEGINNINGS = (
    "start",
    "__start",
    "_begin",
    "begin",
    "main",
    "_main",
    "entry",
    "_entry",
    "begins",
    "boot",
    "_boot",
)


def _start_meant(case: Case, program: asm.Program, entry: int) -> str | None:
    """The label that was meant to be `_start`, where there is none and the program begins
    elsewhere.
    """
    if not _begins_by_itself(case, program):
        return None
    # Those of sections, as `__data_start`, are not the program's own.
    own = [name for name in program.symbols if not name.startswith("__") or name in _BEGINNINGS]
    named = [
        *difflib.get_close_matches("_start", own, 1, 0.8),
        *(name for name in own if name.lower() in _BEGINNINGS),
    ]
    return next((name for name in named if program.symbols[name] != entry), None)


def _begins_by_itself(case: Case, program: asm.Program) -> bool:
    """Whether a vCPU begins at the first instruction, since nothing says where."""
    if case.elf is not None or "_start" in program.symbols or not program.sections:
        return False
    return not all(names_pc(case, vcpu.regs) for vcpu in case.vcpus)


def _start_missing(case: Case, program: asm.Program, entry: int) -> str:
    """What to say of a program without `_start`; empty where there is one, or a label that is
    called so stands at the entry.
    """
    if not _begins_by_itself(case, program) or any(
        program.symbols.get(name) == entry for name in _BEGINNINGS
    ):
        return ""
    first = next(
        (f" (line {line.line})" for line in program.lines if line.gpa == entry and line.size), ""
    )
    return f"the program has no `_start`: it begins at its first instruction, {entry:#x}{first}"


def _tables(
    resolver: Resolver, case: Case, slots: Sequence[Memslot], sections: Sequence[asm.Section]
) -> tuple[tuple[int, int] | None, tuple[tuple[int, int], ...]]:
    """Where the engine's own tables go: at x86_64.TABLES_AT, or lower where something lies
    there.
    """
    taken = [(slot.gpa, slot.size) for slot in slots] + [
        (s.gpa, s.size) for s in sections if s.size
    ]
    if case.arch == arm64.NAME and any(vcpu.mmu for vcpu in case.vcpus):
        return _identity(resolver, case, taken)
    if case.arch != x86_64.NAME:
        return None, ()
    own = {name for vcpu in case.vcpus for name in vcpu.regs} & set(x86_64.OWN_TABLES)
    if own or all(mode_of(case, index) == "real" for index in range(len(case.vcpus))):
        return None, ()
    # Without paging nothing above 4 GiB can be reached.
    long = any(mode_of(case, index) == "long" for index in range(len(case.vcpus)))
    spans = tuple((gpa, size) for gpa, size in taken if long and gpa + size > _GIB4)
    if any(gpa + size > _MAPPED for gpa, size in spans):
        _too_high(resolver, case, sections)
        return None, ()
    return _room(resolver, case, taken, x86_64.tables_size(spans), x86_64.TSS_BELOW), spans


def _identity(
    resolver: Resolver, case: Case, taken: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int] | None, tuple[tuple[int, int], ...]]:
    """The stage-1 tables of `mmu: identity`."""
    spans = tuple(taken)
    if any(gpa + size > arm64_tables.REACH for gpa, size in spans):
        say = (
            f"what lies above {arm64_tables.REACH - 1:#x} cannot be mapped by `mmu: identity`: "
            f"place it lower"
        )
        resolver.problem(case.place, say)
        return None, ()
    return _room(resolver, case, taken, arm64_tables.tables_size(spans), 0), spans


def _room(
    resolver: Resolver, case: Case, taken: Sequence[tuple[int, int]], size: int, below: int
) -> tuple[int, int] | None:
    """The highest place up to TABLES_AT that is free, with so many bytes below it."""
    at = min(x86_64.TABLES_AT, (_GIB4 - size) & ~0xFFFF)
    while clash := next((t for t in taken if t[0] < at + size and at - below < t[0] + t[1]), None):
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
                f"{what} ({_range(at, size)}) ends above {_MAPPED - 1:#x}, the last address "
                f"that the engine's page tables can map"
            )
            resolver.problem(
                place, f"{say}: place it lower, or bring your own with regs: {{cr3: ...}}"
            )
