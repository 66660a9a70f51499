"""Where vCPUs begin: their mode, the program counter, and what is wrong with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from kvmscen import asm
from kvmscen.compile.resolve import Resolver
from kvmscen.compile.slots import slot_holding
from kvmscen.scenario import Case
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.arch.registers import base
from kvmscen.sent.machine import Memslot


def mode_of(case: Case, index: int = 0) -> str:
    """The mode of a vCPU, by the architecture's default where none is written."""
    mode = case.vcpus[index].mode if case.vcpus else None
    return mode or ARCHES[case.arch].MODES[0]


def names_pc(case: Case, names: Iterable[str]) -> bool:
    """Whether the program counter or a view of it is among registers."""
    arch = ARCHES[case.arch]
    return any(base(arch.REGISTERS, name) == arch.PC for name in names)


def check_entry(
    resolver: Resolver, case: Case, entry: int, slots: Sequence[Memslot], program: asm.Program
) -> None:
    """Problems of where the program begins: in no slot, too high for real mode, or not where it was
    meant.
    """
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
        elif slot_holding(slots, entry, 1) is None:
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
_BEGINNINGS = tuple("start __start _begin begin main _main entry _entry begins boot _boot".split())


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


def start_missing(case: Case, program: asm.Program, entry: int) -> str:
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
