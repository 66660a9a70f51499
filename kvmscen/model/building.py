"""What is built before a modelled guest runs, and what the host does to it at its exits.

The order of building and acting is that of kvmscen.kvm.executor.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from kvmscen.errors import IoctlError
from kvmscen.kvm.recorder import Recorder
from kvmscen.machine import Action, Capability, Machine, Vcpu
from kvmscen.model.memory import Memory


class Unpredicted(Exception):
    """The model has no prediction from here on; the message is why, in one clause."""


class Blocked(Exception):
    """The vCPU waits, or spins, until a signal comes: nothing more can happen in this KVM_RUN."""


class Building:
    """One VM with its slots, its vCPU and the capabilities that it has. The vCPU and its hooks are a subclass's."""

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

    # --- what a subclass gives --------------------------------------------------------------------------------------

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
        """Have the engine call when the guest does what is to be seen."""
        raise NotImplementedError

    # --- building ---------------------------------------------------------------------------------------------------

    def build(self) -> str | None:
        machine = self.machine
        if len(machine.vcpus) != 1:
            raise Unpredicted("the model runs one vCPU")
        self.hook()
        for n, cap in enumerate(machine.enable):
            if not cap.on_vcpu and (stop := self._try("enable", partial(self._enable, cap), cap.errno, f"enable/{n}")):
                return stop
        self.make_tables()
        for n, slot in enumerate(machine.memslots):
            act = partial(self.memory.set, slot.slot, slot.gpa, slot.size, slot.flags)
            if stop := self._try("set_memslot", act, slot.errno, f"memslots/{n}"):
                return stop
        for part in machine.image:
            self.memory.write(part.gpa, part.data)
        for n, cap in enumerate(machine.enable):
            if cap.on_vcpu and (stop := self._try("enable", partial(self._enable, cap), cap.errno, f"enable/{n}")):
                return stop
        self.boot(self.plan)
        self.booted = True
        self.recorder.prepare(self.plan.id, machine.setup)
        return self.perform()

    def make_tables(self) -> None:
        """The engine's own slot, where the architecture has one."""

    def _try(self, name: str, act: Any, wanted: str | None, op: str) -> str | None:
        return self.recorder.attempt(self.plan.id, name, act, None, wanted, op)

    # --- host actions -----------------------------------------------------------------------------------------------

    def perform(self) -> str | None:
        return self.recorder.perform(self.plan.id, self.pc, self._act)

    def _act(self, action: Action) -> None:
        args = action.args
        if action.name == "set_regs":
            self.write(args)
        elif action.name == "write_memory":
            data = bytes.fromhex(args["data"])
            if not self.memory.write(args["gpa"], data):
                self.recorder.devices.put(args["gpa"], data)
            self.memory.forget_code()
        elif action.name == "set_memslot":
            self.memory.set(args["slot"], args["gpa"], args["size"], args.get("flags", 0))
        elif action.name == "delete_memslot":
            self.memory.delete(args["slot"])
        elif action.name == "enable":
            self._enable(Capability.from_json(dict(args)))
        else:
            raise Unpredicted(f"the model has no action {action.name}")

    def _enable(self, cap: Capability) -> None:
        if cap.name in self.ENABLED and not cap.on_vcpu:
            self.enabled.add(cap.name)
        elif cap.name in self.CAPABILITIES:
            raise IoctlError("KVM_ENABLE_CAP", 22)
        else:
            raise Unpredicted(f"the model does not know {cap.name}")
