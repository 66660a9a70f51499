"""The second assembler: as and ld of the target's binutils, with places, symbols and lines as the
first one gives them.

as assembles, layout.place says where the sections go, by the same rules as for Keystone, and ld
links them there by a script that is made for the program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvmscen.asm.values import Placement, Program, Source


def assemble(
    arch: str, bits: int, source: Source, placements: Sequence[Placement], origin: int
) -> Program:
    """Assemble and link a program, as kvmscen.asm.assemble does. Raises ScenarioError with all
    problems.
    """
    from kvmscen.asm.gnu import program

    return program.assemble(arch, bits, source, placements, origin)


def reasons(arch: str, bits: int, source: Source) -> Mapping[tuple[str, int, int], str] | None:
    """By the place of a statement why as refuses it; None where it is not installed, or did not get
    that far.
    """
    from kvmscen.asm.gnu import refused

    return refused.reasons(arch, bits, source)
