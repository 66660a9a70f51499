"""What lies in which memslot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvmscen.compile.resolve import actions_of
from kvmscen.scenario import Case
from kvmscen.scenario import Memslot as MemslotWritten
from kvmscen.sent.machine import Memslot


def later_slots(case: Case) -> Iterator[MemslotWritten]:
    """The slots that host actions make, whichever `when` applies."""
    stories = (case.expect or (), *(overlay.expect or () for overlay in case.when))
    for action in (*case.setup, *(action for story in stories for action in actions_of(story))):
        if action.name == "set_memslot" and action.errno is None and action.args["memslot"].size:
            yield action.args["memslot"]


def slot_holding(slots: Sequence[Memslot], gpa: int, size: int) -> Memslot | None:
    """The slot that a range lies wholly in."""
    return next((s for s in slots if s.gpa <= gpa and gpa + size <= s.gpa + s.size), None)


def slot_touching(slots: Sequence[Memslot], gpa: int, size: int) -> Memslot | None:
    """The first slot that a range has bytes in."""
    return next((s for s in slots if gpa < s.gpa + s.size and s.gpa < gpa + size), None)


def extent(gpa: int, size: int) -> str:
    """A range as it is written in messages: its first and its last address."""
    return f"{gpa:#x}-{gpa + size - 1:#x}" if size else f"{gpa:#x}"
