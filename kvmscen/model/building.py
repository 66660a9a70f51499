"""A modelled VM as kvmscen.sent.executor.building builds it and acts on it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from kvmscen.errors import IoctlError
from kvmscen.model.memory import Memory
from kvmscen.sent.header import actions
from kvmscen.sent.machine import Action, Capability, Machine, Memslot, Vcpu
from kvmscen.sent.script.recorder import Recorder


class Unpredicted(Exception):
    """The model has no prediction from here on; the message is why, in one clause."""


class Blocked(Exception):
    """The vCPU waits, or spins, until a signal comes: nothing more can happen in this KVM_RUN."""


class Building:
    """One VM with its slots, its vCPU and the capabilities that it has. The vCPU and its hooks are
    a subclass's.
    """

    CAPABILITIES: Mapping[str, int] = {}
    ENABLED: tuple[str, ...] = ()  # capabilities that KVM_ENABLE_CAP takes here

    def __init__(self, machine: Machine, engine: Any, memory: Memory) -> None:
        self.machine = machine
        self.engine = engine
        self.memory = memory
        self.recorder = Recorder(machine)
        self.plan: Vcpu = machine.vcpus[0]
        self.booted = False
        self.enabled: set[str] = set()

    # --- what a subclass gives --------------------------------------------------------------------

    def boot(self, plan: Vcpu) -> None:
        """Put the vCPU into the state in which kvmscen starts it."""
        raise NotImplementedError

    def pc(self) -> int:
        """pc as KVM returns it."""
        raise NotImplementedError

    def write(self, regs: Mapping[str, int]) -> None:
        """Set registers and views by name."""
        raise NotImplementedError

    def hook(self) -> None:
        """Install the engine's hooks for what the model must see of the guest."""
        raise NotImplementedError

    # --- what kvmscen.sent.executor.building asks for ---------------------------------------------

    def create_vm(self) -> None:
        """The hooks of the engine; the VM is this object."""
        if len(self.machine.vcpus) != 1:
            raise Unpredicted("the model runs one vCPU")
        self.hook()

    def enable(self, cap: Capability, vcpu: int) -> None:
        """KVM_ENABLE_CAP, as far as the model knows the capability."""
        if cap.name in self.ENABLED and not cap.on_vcpu:
            self.enabled.add(cap.name)
        elif cap.name in self.CAPABILITIES:
            raise IoctlError("KVM_ENABLE_CAP", errno.EINVAL)
        else:
            raise Unpredicted(f"the model does not know {cap.name}")

    def put_tables(self) -> None:
        """The engine's own slot, where the architecture has one."""

    def set_memslot(self, slot: Memslot) -> None:
        """KVM_SET_USER_MEMORY_REGION."""
        self.memory.set(slot.slot, slot.gpa, slot.size, slot.flags)

    def delete_memslot(self, number: int) -> None:
        """KVM_SET_USER_MEMORY_REGION with size 0."""
        self.memory.delete(number)

    def write_memory(self, gpa: int, data: bytes) -> bool:
        """Put bytes into a slot; False where the range does not lie wholly in one."""
        if self.booted:
            self.memory.forget_code()
        return self.memory.write(gpa, data)

    def create_vcpus(self) -> None:
        """Nothing to create: the one vCPU is Unicorn's engine."""

    def boot_vcpu(self, plan: Vcpu) -> None:
        """Put the vCPU into the state in which kvmscen starts it."""
        self.boot(plan)
        self.booted = True

    def set_regs(self, vcpu: int, regs: Mapping[str, int]) -> None:
        """Set registers and views by name."""
        self.write(regs)

    def pc_of(self, vcpu: int) -> int:
        """pc as KVM returns it."""
        return self.pc()

    def carry_out(self, vcpu: int) -> None:
        """Carry out the access of the last arm_nisv; arm64 only."""
        raise Unpredicted("the model has no action emulate")

    def call(self, row: actions.Action, action: Action) -> None:
        """Refuse an ioctl that the model has no rules for."""
        raise Unpredicted(f"the model has no action {action.name}")
