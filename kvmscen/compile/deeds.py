"""Source text and expected errno of memslots, capabilities and actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvmscen.job.expectation import Deed
from kvmscen.scenario import Action, Case, Enable, Memslot


def built(case: Case) -> Mapping[str, Deed]:
    """Capabilities, slots and vCPUs, by the name that an Event's `op` gives them."""
    out = {
        f"enable/{n}": Deed(_enable(capability), capability.place.line, capability.errno)
        for n, capability in enumerate(case.enable)
    }
    out.update(
        (f"memslots/{n}", Deed(_slot(memslot), memslot.place.line, memslot.errno))
        for n, memslot in enumerate(case.memslots)
    )
    out.update(
        (f"vcpus/{n}", Deed("the state of the vCPU", vcpu.place.line))
        for n, vcpu in enumerate(case.vcpus)
    )
    return out


def done(actions: Iterable[Action]) -> tuple[Deed, ...]:
    """The actions of a `then`, or of `setup`."""
    return tuple(
        Deed(action.text, action.place.line, action.errno, len(action.args.get("memory", (0,))))
        for action in actions
    )


def _enable(capability: Enable) -> str:
    return f"enable: {capability.cap}"


def _slot(memslot: Memslot) -> str:
    flags = f", flags: [{', '.join(memslot.flags)}]" if memslot.flags else ""
    return f"{{slot: {memslot.slot}, gpa: {memslot.gpa}, size: {memslot.size:#x}{flags}}}"
