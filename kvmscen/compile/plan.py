"""The part of a machine that does not depend on the host: layout, image, symbols, and where the
engine's own tables lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from kvmscen import asm
from kvmscen.compile.resolve import Resolver
from kvmscen.compile.slots import extent, later_slots, slot_holding, slot_touching
from kvmscen.compile.start import check_entry, mode_of, start_missing
from kvmscen.compile.tables import place_tables
from kvmscen.errors import Problem, ScenarioError
from kvmscen.job.legend import Legend, Line, Span
from kvmscen.scenario import Asm, Case, Section
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.machine import Bytes, Memslot


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
        check_entry(resolver, case, entry, usable, program)
    later = [resolver.memslot(slot) for slot in later_slots(case)]
    tables, spans = place_tables(resolver, case, [*usable, *later], program.sections)
    assembler = None if case.asm is None else program.assembler
    sections = tuple(Span(section.name, section.gpa, section.size) for section in program.sections)
    file_name = case.asm.name if case.asm is not None else ""
    note = start_missing(case, program, entry)
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
            slot = slot_touching(slots, at, section.size)
            if section.size and slot is not None and slot_holding(slots, at, section.size) is None:
                resolver.problem(
                    place,
                    f"{what}section {section.name} ({extent(at, section.size)}) crosses the edge "
                    f"of slot {slot.slot} ({extent(slot.gpa, slot.size)}): place it wholly inside "
                    "the slot or wholly outside every slot",
                )
                break
            if section.load == section.gpa:
                break
        if section.load != section.gpa:
            if (
                not section.nobits
                and section.size
                and slot_touching(slots, section.load, section.size) is None
            ):
                say = "which is in no slot: load it into one"
                resolver.problem(
                    place, f"section {section.name} is loaded at {section.load:#x}, {say}"
                )
            image.append(Bytes.at(section.load, section.data))
            if slot_holding(slots, section.gpa, section.size) is None:
                devices.append(Bytes.at(section.gpa, b"", section.size))
        elif slot_holding(slots, section.gpa, section.size) is not None:
            image.append(Bytes.at(section.gpa, section.data))
        elif section.size:
            devices.append(Bytes.at(section.gpa, section.data, section.size))
    return tuple(part for part in image if part.data), tuple(devices)
