"""Source text and expected errno of memslots, capabilities and actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvmscen.job.expectation import Deed
from kvmscen.scenario import Action, Case, Enable, Memslot


def built(case: Case) -> Mapping[str, Deed]:
    """Capabilities, slots and vCPUs, by the name that an Event's `op` gives them."""
    out = {
        f"enable/{n}": Deed(_enable(one), one.place.line, one.errno)
        for n, one in enumerate(case.enable)
    }
    out.update(
        (f"memslots/{n}", Deed(_slot(one), one.place.line, one.errno))
        for n, one in enumerate(case.memslots)
    )
    out.update(
        (f"vcpus/{n}", Deed("the state of the vCPU", one.place.line))
        for n, one in enumerate(case.vcpus)
    )
    return out


def done(actions: Iterable[Action]) -> tuple[Deed, ...]:
    """The actions of a `then`, or of `setup`."""
    return tuple(
        Deed(one.text, one.place.line, one.errno, len(one.args.get("memory", (0,))))
        for one in actions
    )


def _enable(one: Enable) -> str:
    return f"enable: {one.cap}"


def _slot(one: Memslot) -> str:
    flags = f", flags: [{', '.join(one.flags)}]" if one.flags else ""
    return f"{{slot: {one.slot}, gpa: {one.gpa}, size: {one.size:#x}{flags}}}"
