"""The assembler: a program's text and where its sections go, to bytes, symbols and source lines.

There are two behind one interface. `keystone`: a front end of kvmscen's own that follows GNU as,
for which Keystone encodes single instructions; in the process, and quick. `gnu`: as and ld of the
target's binutils.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmscen.asm.layout import STANDARD
from kvmscen.asm.values import (
    GNU,
    KEYSTONE,
    Executable,
    Line,
    Macro,
    Placement,
    Program,
    Section,
    Source,
    Wrong,
)
from kvmscen.errors import Problem, ScenarioError

__all__ = [
    "ASSEMBLERS",
    "STANDARD",
    "Executable",
    "Line",
    "Macro",
    "Placement",
    "Program",
    "Section",
    "Source",
]
__all__ += ["absent", "assemble", "from_elf"]

ASSEMBLERS = (KEYSTONE, GNU)


def assemble(
    arch: str,
    bits: int,
    source: Source,
    placements: Sequence[Placement],
    origin: int,
    assembler: str | None = None,
) -> Program:
    """Assemble `source` for `arch` (`bits` 64, 32 or 16: the mode), placed in guest physical
    memory.

    Sections that `placements` do not name follow each other from `origin`. Without `assembler` it
    is Keystone where that is installed and knows the architecture, and the whole program goes to
    GNU as where Keystone cannot encode an instruction. Raises ScenarioError with all problems.
    """
    from kvmscen.asm import unencoded
    from kvmscen.asm.keystone import encoder
    from kvmscen.asm.keystone.assembly import FRONTS, Assembly

    chosen = assembler
    if chosen is None:
        chosen = KEYSTONE if arch in FRONTS and encoder.is_installed() else GNU
    if chosen == GNU:
        return _gnu(arch, bits, source, placements, origin)
    if arch not in FRONTS:
        say = f"Keystone does not know {arch}: use the assembler gnu"
        raise ScenarioError([Problem(source.file, source.line, source.column, say)])
    first = Assembly(arch, bits, source, placements, origin)
    try:
        return first.run()
    except ScenarioError as error:
        if assembler is None and first.only_unencoded:
            return unencoded.instead(error, first, arch, bits, source, placements, origin)
        raise unencoded.explained(
            error,
            first,
            arch,
            bits,
            source,
            unencoded.LATER if assembler is None else unencoded.CHOOSE,
        ) from None


def absent(arch: str, assembler: str | None = None) -> str | None:
    """What to install before programs for `arch` can be assembled at all; None where something here
    does it.
    """
    from kvmscen.asm.gnu import targets
    from kvmscen.asm.keystone import encoder
    from kvmscen.asm.keystone.assembly import FRONTS

    if assembler != GNU and arch in FRONTS and (assembler == KEYSTONE or encoder.is_installed()):
        return None
    return None if targets.find(arch) else targets.absent(arch)


def _gnu(
    arch: str, bits: int, source: Source, placements: Sequence[Placement], origin: int
) -> Program:
    from kvmscen.asm import gnu

    return gnu.assemble(arch, bits, source, placements, origin)


def from_elf(
    arch: str, bits: int, executable: Executable, placements: Sequence[Placement]
) -> Program:
    """The program in a linked ELF file, whose sections must be where `placements` say. Raises
    ScenarioError.
    """
    from kvmscen.asm.linked import elf

    try:
        program = elf.read(executable.raw, arch, bits)
    except Wrong as wrong:
        raise ScenarioError(
            [
                Problem(
                    executable.file,
                    executable.line,
                    executable.column,
                    f"`{executable.name}` {wrong}",
                )
            ]
        ) from None
    problems = [
        Problem(
            misplaced.placement.file,
            misplaced.placement.line,
            misplaced.placement.column,
            misplaced.message,
        )
        for misplaced in elf.check_placements(program, placements)
        if misplaced.placement is not None
    ]
    if problems:
        raise ScenarioError(problems)
    return program
