"""The assembler: a program's text and where its sections go, to bytes, symbols and source lines.

The front end is kvmscen's own and follows GNU as; Keystone encodes single instructions for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmscen.asm.layout import STANDARD
from kvmscen.asm.values import Line, Placement, Program, Section, Source

__all__ = ["STANDARD", "Line", "Placement", "Program", "Section", "Source", "assemble"]


def assemble(arch: str, bits: int, source: Source, placements: Sequence[Placement], origin: int) -> Program:
    """Assemble `source` for `arch` ("arm64" or "x86_64"; `bits` 64, 32 or 16), placed in guest physical memory.

    Sections that `placements` do not name follow each other from `origin`. Raises ScenarioError with all problems.
    """
    from kvmscen.asm.assembly import Assembly

    return Assembly(arch, bits, source, placements, origin).run()
