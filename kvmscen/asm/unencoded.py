"""What GNU as is asked where Keystone could not encode an instruction: the reason, or the whole
program.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmscen.asm import gnu
from kvmscen.asm.gnu import targets
from kvmscen.asm.keystone.assembly import Assembly
from kvmscen.asm.values import Placement, Program, Source
from kvmscen.errors import Problem, ScenarioError

LATER = "GNU as knows it, and is used where nothing else is wrong"
CHOOSE = "GNU as knows it: use the assembler gnu"


def explained(
    error: ScenarioError,
    first: Assembly,
    arch: str,
    bits: int,
    source: Source,
    instead: str = LATER,
) -> ScenarioError:
    """The error with what GNU as says, where it is installed, of instructions for which Keystone
    has no reason.

    `instead` is what to do where GNU as takes them all.
    """
    if not first.unexplained:
        return error
    reasons = gnu.reasons(arch, bits, source)
    return (
        error
        if reasons is None
        else ScenarioError(first.explained(error.problems, reasons, instead))
    )


def instead(
    error: ScenarioError,
    first: Assembly,
    arch: str,
    bits: int,
    source: Source,
    placements: Sequence[Placement],
    origin: int,
) -> Program:
    """The program by GNU as, since Keystone could not encode all of it. Raises ScenarioError."""
    if targets.find(arch) is None:
        say = f"; where it is right, GNU as may know it: apt install {targets.package(arch)}"
        problems = [Problem(p.file, p.line, p.column, p.message + say) for p in error.problems]
        raise ScenarioError(problems) from None
    try:
        return gnu.assemble(arch, bits, source, placements, origin)
    except ScenarioError as other:
        # Of what both refuse the first has the better words, and the hints, and the other maybe the
        # reason.
        lines = {problem.line for problem in other.problems}
        both = [problem for problem in error.problems if problem.line in lines]
        both = list(explained(ScenarioError(both), first, arch, bits, source).problems)
        problems = both + [
            p for p in other.problems if p.line not in {problem.line for problem in both}
        ]
        raise ScenarioError(problems) from None
