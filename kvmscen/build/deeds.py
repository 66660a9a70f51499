"""What the host is told to do besides running the guest: where slots, capabilities and actions are written, and how they fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvmscen.expectation import Deed, Expected
from kvmscen.kvm.caps import ON_VCPU
from kvmscen.scenario import Action, Case, Enable, Memslot, Place

# set_regs takes whichever ioctls the registers need.
_IOCTL_OF = {
    "set_memslot": "KVM_SET_USER_MEMORY_REGION",
    "delete_memslot": "KVM_SET_USER_MEMORY_REGION",
    "enable": "KVM_ENABLE_CAP",
    "register_coalesced_mmio": "KVM_REGISTER_COALESCED_MMIO",
    "unregister_coalesced_mmio": "KVM_UNREGISTER_COALESCED_MMIO",
    "ioeventfd": "KVM_IOEVENTFD",
    "set_guest_debug": "KVM_SET_GUEST_DEBUG",
}


def built(case: Case) -> Mapping[str, Deed]:
    """Capabilities, slots and vCPUs, by the name that an Event's `op` gives them."""
    out = {f"enable/{n}": Deed(_enable(one), one.place.line, one.errno) for n, one in enumerate(case.enable)}
    out.update((f"memslots/{n}", Deed(_slot(one), one.place.line, one.errno)) for n, one in enumerate(case.memslots))
    out.update((f"vcpus/{n}", Deed("the state of the vCPU", one.place.line)) for n, one in enumerate(case.vcpus))
    return out


def done(actions: Iterable[Action]) -> tuple[Deed, ...]:
    """The actions of a `then`, or of `setup`."""
    return tuple(Deed(one.text, one.place.line, one.errno, len(one.args.get("memory", (0,)))) for one in actions)


def before(case: Case) -> tuple[Expected, ...]:
    """The ioctls that must fail before the first entry, in the order of building."""
    first = [_failing("KVM_ENABLE_CAP", one.errno, one.place) for one in case.enable if one.errno and one.cap not in ON_VCPU]
    slots = [_failing("KVM_SET_USER_MEMORY_REGION", one.errno, one.place) for one in case.memslots if one.errno]
    second = [_failing("KVM_ENABLE_CAP", one.errno, one.place) for one in case.enable if one.errno and one.cap in ON_VCPU]
    return (*first, *slots, *second, *failing(case.setup))


def failing(actions: Iterable[Action]) -> tuple[Expected, ...]:
    """The actions that must fail."""
    return tuple(_failing(_IOCTL_OF.get(one.name), one.errno, one.place) for one in actions if one.errno is not None)


def _failing(ioctl: str | None, errno: str | None, place: Place) -> Expected:
    fields = {"errno": errno} if ioctl is None else {"ioctl": ioctl, "errno": errno}
    return Expected("error", place.line, place.column, fields=fields, where=tuple(fields), implied=True)


def _enable(one: Enable) -> str:
    return f"enable: {one.cap}"


def _slot(one: Memslot) -> str:
    flags = f", flags: [{', '.join(one.flags)}]" if one.flags else ""
    return f"{{slot: {one.slot}, gpa: {one.gpa}, size: {one.size:#x}{flags}}}"
