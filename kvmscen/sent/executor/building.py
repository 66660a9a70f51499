"""The order in which a Machine is built, and how a host action is done: one for KVM and for the
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Callable, Protocol

from kvmscen.sent.codec import decode
from kvmscen.sent.errors import HostError
from kvmscen.sent.header import actions
from kvmscen.sent.machine import Action, Capability, Machine, Memslot, Vcpu
from kvmscen.sent.script.recorder import Recorder


class Backend(Protocol):
    """What KVM and the model each do in their own way. Each method raises IoctlError where the
    ioctl that it stands for fails.
    """

    recorder: Recorder

    def create_vm(self) -> None:
        """KVM_CREATE_VM."""

    def enable(self, cap: Capability, vcpu: int) -> None:
        """KVM_ENABLE_CAP, on the VM or on that vCPU."""

    def put_tables(self) -> None:
        """The engine's own slot with its tables, where the architecture has one."""

    def set_memslot(self, slot: Memslot) -> None:
        """KVM_SET_USER_MEMORY_REGION."""

    def delete_memslot(self, number: int) -> None:
        """KVM_SET_USER_MEMORY_REGION with size 0."""

    def write_memory(self, gpa: int, data: bytes) -> bool:
        """Put bytes into a slot; False where the range does not lie wholly in one."""

    def create_vcpus(self) -> None:
        """KVM_CREATE_VCPU for each vCPU of the Machine."""

    def boot_vcpu(self, plan: Vcpu) -> None:
        """Put a vCPU into the state in which kvmscen starts it."""

    def set_regs(self, vcpu: int, regs: Mapping[str, int]) -> None:
        """Set registers by name; what is not named keeps its value."""

    def pc_of(self, vcpu: int) -> int:
        """pc as KVM returns it."""

    def carry_out(self, vcpu: int) -> None:
        """The action `emulate`: carry out the access of the last arm_nisv."""

    def call(self, row: actions.Action, action: Action) -> None:
        """An action that fills a struct and calls an ioctl."""


def build(host: Backend, machine: Machine) -> str | None:
    """VM, its capabilities, slots with their bytes, vCPUs, their capabilities, registers, `setup`.
    None, or why the run stops.
    """
    first = machine.vcpus[0].id

    def attempt(name: str, op: str, wanted: str | None, act: Callable[[], None]) -> str | None:
        return host.recorder.attempt(first, name, act, None, wanted, op)

    def enable(on_vcpu: bool) -> str | None:
        for n, cap in enumerate(machine.enable):
            if cap.on_vcpu == on_vcpu and (
                stop := attempt(
                    "enable", f"enable/{n}", cap.errno, partial(host.enable, cap, first)
                )
            ):
                return stop
        return None

    host.create_vm()
    if stop := enable(on_vcpu=False):
        return stop
    host.put_tables()
    for n, slot in enumerate(machine.memslots):
        if stop := attempt(
            "set_memslot", f"memslots/{n}", slot.errno, partial(host.set_memslot, slot)
        ):
            return stop
    for part in machine.image:
        host.write_memory(part.gpa, part.data)
    host.create_vcpus()
    if stop := enable(on_vcpu=True):
        return stop
    for plan in machine.vcpus:
        if stop := attempt("boot", f"vcpus/{plan.id}", None, partial(host.boot_vcpu, plan)):
            return stop
    host.recorder.prepare(first, machine.setup)
    return perform(host, first)


def perform(host: Backend, vcpu: int) -> str | None:
    """Do the actions that are due for a vCPU; None, or why the run stops."""
    return host.recorder.perform(vcpu, partial(host.pc_of, vcpu), partial(_act, host))


def _act(host: Backend, action: Action) -> None:
    if action.name in OWN:
        OWN[action.name](host, action, action.args)
    elif action.name in actions.BY_NAME:
        host.call(actions.BY_NAME[action.name], action)
    else:
        raise HostError(f"this agent has no action {action.name!r}")


def _write_memory(host: Backend, action: Action, args: Mapping[str, Any]) -> None:
    gpa, data = args["gpa"], bytes.fromhex(args["data"])
    if not host.write_memory(gpa, data):
        host.recorder.devices.put(gpa, data)


# Actions that are not "fill a struct and call an ioctl".
OWN: dict[str, Callable[[Backend, Action, Mapping[str, Any]], None]] = {
    "set_regs": lambda host, action, args: host.set_regs(action.vcpu, args),
    "write_memory": _write_memory,
    "set_memslot": lambda host, action, args: host.set_memslot(decode(Memslot, args)),
    "delete_memslot": lambda host, action, args: host.delete_memslot(args["slot"]),
    "enable": lambda host, action, args: host.enable(decode(Capability, args), action.vcpu),
    "emulate": lambda host, action, args: host.carry_out(action.vcpu),
}
