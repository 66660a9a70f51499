"""What a scenario asks for that cannot come, or that it did not mean: an exit in a slot, steps and
final states that a case has from the scenario.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kvmscen.job.expectation import Expected
from kvmscen.job.notation import Notation
from kvmscen.judge.outcome import Outcome

# The atomics of LSE, and the syndrome of a write (WnR) that a translation fault refused.
_ATOMIC = re.compile(
    r"\s*(?:\w+:\s*)*(?:ld|st)?(?:add|clr|eor|set|[su]max|[su]min|swp|casp?)(?:a|l|al)?[bh]?\s",
    re.IGNORECASE,
)
_WRITE_OF_NOTHING, _WNR_AND_KIND = 0x44, 0x7C
_PROBED = (
    "a CPU reports an atomic access to what is mapped nowhere as a read, since it reads first (Arm "
    "ARM, ESR_ELx, WnR). QEMU with several CPUs tries the write first: if the machine is one that "
    "QEMU emulates, boot it with `-smp 1`"
)


def in_a_slot(outcome: Outcome) -> str | None:
    """An mmio that was expected at an address that a memslot has."""
    missing = {row.line for row in outcome.rows if row.mark in "!-" and row.expected}
    for step in _steps(outcome.story.steps or ()):
        at = step.fields.get("phys_addr", step.fields.get("fault_ipa"))
        if (
            step.line not in missing
            or step.kind not in ("mmio", "arm_nisv")
            or not isinstance(at, int)
        ):
            continue
        slot = outcome.slot(at)
        # A write to a read-only slot exits.
        if slot is None or (slot.flags & 2 and step.fields.get("is_write") is not False):
            continue
        name = Notation(outcome.legend, outcome.job.arch).address(at)
        section = next(
            (s.name for s in outcome.legend.sections if s.gpa <= at < s.gpa + s.size), None
        )
        remedy = "write an address outside every slot"
        if section:
            remedy = f"place {section} outside every slot (`sections: {{{section}: 0x...}}`)"
        return f"`{name}` lies in slot {slot.slot}, where no access exits: {remedy}"
    return None


def probed(outcome: Outcome) -> str | None:
    """An atomic whose fault is that of a write, and differs by nothing else."""
    if outcome.job.arch != "arm64":
        return None
    alone = any(
        row.differs == ("esr_iss",) and _ATOMIC.match(row.source.partition(":")[2])
        for row in outcome.rows
    )
    writes = (
        event.fields["esr_iss"]
        for event in outcome.seen.events
        if event.kind == "exit" and event.name == "arm_nisv"
    )
    return (
        _PROBED
        if alone and any(iss & _WNR_AND_KIND == _WRITE_OF_NOTHING for iss in writes)
        else None
    )


def _steps(steps: Sequence[Expected]) -> Iterator[Expected]:
    for step in steps:
        yield step
        yield from _steps(step.steps)


def inherited(outcome: Outcome) -> str | None:
    """A final state that a case has from the scenario."""
    first = next(iter(outcome.mismatches), None)
    above = first is not None and first.step == 0 and 0 < first.line < outcome.job.line
    if (
        first is None
        or outcome.job.case == "default"
        or not above
        or not (first.expected or "").startswith("final")
    ):
        return None
    return (
        f"`final` is the scenario's (line {first.line}), and the case has none: write its own, "
        f"or `final: null`"
    )


def other_steps(outcome: Outcome) -> str | None:
    """Steps that a case with a program of its own has from the scenario."""
    lines = [step.line for step in _steps(outcome.story.steps or ())]
    program = [line.number for line in outcome.legend.lines if line.number]
    if outcome.job.case == "default" or not lines or not program or outcome.legend.file:
        return None
    if max(lines) < outcome.job.line < min(program):
        return (
            f"the steps are the scenario's (line {lines[0]}), and the case has a program of "
            f"its own: write its own `expect` too"
        )
    return None
