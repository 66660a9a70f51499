"""What a run of a case may take in sum: host memory behind its slots, and memory that is looked
at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kvmscen.load.values import Notes
from kvmscen.scenario import Action, Case, Final, MemoryCheck, Place, Step
from kvmscen.sent.machine import OBSERVED_MOST, SLOT_PAGES_MOST, SLOTS_MOST

# The largest page that a host may have, where it may have several.
_PAGE = {"arm64": 65536}


class _Slot(NamedTuple):
    """What a slot number is given, where, and whether that must fail."""

    number: int
    size: int
    place: Place
    fails: bool


def check(notes: Notes, case: Case) -> None:
    """Note what brings a case above a limit, whichever entry of `when` applies."""
    ways = [(case.expect, case.final)]
    for overlay in case.when:
        expect = case.expect if overlay.expect is None else overlay.expect
        ways.append((expect, case.final if overlay.final is None else overlay.final))
    for expect, final in ways:
        _slots(notes, case, expect or ())
        _observed(notes, expect or (), final)


def _slots(notes: Notes, case: Case, expect: Iterable[Step]) -> None:
    """The bytes of a slot belong to its number and outlive its deletion, so each number counts
    once, with its largest size.
    """
    size_of_slot: dict[int, int] = {}
    total = 0
    for slot in _given(case, expect):
        more = max(0, slot.size - size_of_slot.get(slot.number, 0))
        # KVM refuses these whatever lies behind them, so nothing is set aside for them.
        if slot.fails and slot.size > SLOT_PAGES_MOST * _PAGE.get(case.arch, 4096):
            continue
        before, total = total, total + more
        size_of_slot[slot.number] = size_of_slot.get(slot.number, 0) + more
        if before <= SLOTS_MOST < total:
            if_not = " (one that must fail counts too, since it might not)" if slot.fails else ""
            notes.add(
                slot.place,
                f"slot {slot.number} brings the slots to {total:,} bytes: 256 MiB in all is the "
                f"limit{if_not}",
            )


def _given(case: Case, expect: Iterable[Step]) -> Iterator[_Slot]:
    for slot in case.memslots:
        yield _Slot(slot.slot, slot.size, slot.place, slot.errno is not None)
    for action in (*case.setup, *_actions(expect)):
        if action.name == "set_memslot":
            slot = action.args["memslot"]
            yield _Slot(slot.slot, slot.size, action.place, action.errno is not None)


def _actions(steps: Iterable[Step]) -> Iterator[Action]:
    for step in steps:
        yield from step.then or ()
        yield from _actions(step.steps)


def _observed(notes: Notes, expect: Iterable[Step], final: Final | None) -> None:
    """Check the size of all observed memory: each range is kept once for every exit at which it is
    read.
    """
    total = 0
    checked = [
        *_looks(expect, 1),
        *(((1, check) for check in final.memory) if final is not None else ()),
    ]
    for times, memory_check in checked:
        before, total = total, total + times * _size(memory_check)
        if before <= OBSERVED_MOST < total:
            say = (
                f"the memory to look at (`memory`, times its step's `repeat`) is {total:,} "
                f"bytes up to here"
            )
            notes.add(memory_check.place, f"{say}: 16 MiB in all is the limit")


def _looks(steps: Iterable[Step], rounds: int) -> Iterator[tuple[int, MemoryCheck]]:
    for step in steps:
        times = rounds * step.repeat[1]
        yield from ((times, check) for check in step.memory)
        yield from _looks(step.steps, times)


def _size(check: MemoryCheck) -> int:
    if isinstance(check.values, bytes):
        return len(check.values)
    return len(check.values) * int(check.unit[1:]) // 8
