"""What is built of one Machine on /dev/kvm: the VM, its slots, its vCPUs, and what is kept of what
they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Callable

from kvmscen.sent.errors import HostError
from kvmscen.sent.header import actions
from kvmscen.sent.header.reach import beyond
from kvmscen.sent.kvm import arm64, riscv64, x86_64
from kvmscen.sent.kvm.fds import Kvm, Vcpu, Vm, call
from kvmscen.sent.kvm.io_bus import IoBus
from kvmscen.sent.kvm.slots import Slots
from kvmscen.sent.machine import Action, Capability, Machine, Memslot
from kvmscen.sent.machine import Vcpu as Plan
from kvmscen.sent.script.recorder import Recorder
from kvmscen.sent.undecoded import emulation
from kvmscen.sent.undecoded.emulate import Monitors

ARCHES: dict[str, Any] = {"arm64": arm64, "riscv64": riscv64, "x86_64": x86_64}


class Session:
    """One VM, from its making to its end. `effects`: the guest may have capabilities that reach
    beyond the VM.

    A Backend of kvmscen.sent.executor.building. The descriptors are its own; `close` gives them
    back.
    """

    def __init__(
        self, kvm: Kvm, machine: Machine, flavour: str | None, effects: bool = False
    ) -> None:
        self.kvm = kvm
        self.machine = machine
        self.state = ARCHES[machine.arch]
        self.recorder = Recorder(machine)
        self.flavour = flavour
        self.effects = effects
        self.vcpus: dict[int, Vcpu] = {}
        self.booted: set[int] = set()
        self.io_bus: IoBus | None = None
        self._vm: Vm | None = None
        self._slots: Slots | None = None
        self._monitors = Monitors()
        self._buses: dict[int, emulation.Bus] = {}

    @property
    def vm(self) -> Vm:
        """The VM, once it is made."""
        assert self._vm is not None
        return self._vm

    @property
    def slots(self) -> Slots:
        """The memslots, once the VM is made."""
        assert self._slots is not None
        return self._slots

    @property
    def first(self) -> Vcpu:
        """The vCPU of which the final state is read."""
        return self.vcpus[self.machine.vcpus[0].id]

    def close(self) -> None:
        """Give everything back."""
        for vcpu in self.vcpus.values():
            vcpu.close()
        if self.io_bus is not None:
            self.io_bus.close()
        if self._vm is not None:
            self._vm.close()
        if self._slots is not None:
            self._slots.close()

    # --- building ---------------------------------------------------------------------------------

    def create_vm(self) -> None:
        """KVM_CREATE_VM (KVM API 4.2), and what the architecture's VM has from its making on."""
        self._vm = self.state.create_vm(self.kvm, self.machine, self.flavour)
        self._slots = Slots(
            self.vm, self.machine.tables.size if self.machine.tables is not None else 0
        )

    def enable(self, cap: Capability, vcpu: int) -> None:
        """KVM_ENABLE_CAP (KVM API 4.37). Raises HostError for what reaches beyond the VM and is not
        allowed.
        """
        if not self.effects and (reach := beyond(cap.number)):
            raise HostError(reach)
        (self.vcpus[vcpu] if cap.on_vcpu else self.vm).enable_cap(cap.number, cap.args)

    def put_tables(self) -> None:
        """The slot of x86's descriptor and page tables."""
        tables = self.machine.tables
        if tables is not None:
            slot = Memslot(tables.slot, tables.at, tables.size)
            self.slots.put(slot, self.state.tables(self.machine))

    def set_memslot(self, slot: Memslot) -> None:
        """KVM_SET_USER_MEMORY_REGION (KVM API 4.35)."""
        self.slots.set(slot)

    def delete_memslot(self, number: int) -> None:
        """The same with size 0."""
        self.slots.delete(number)

    def write_memory(self, gpa: int, data: bytes) -> bool:
        """Put bytes into a slot; False where the range does not lie wholly in one."""
        return self.slots.write(gpa, data)

    def create_vcpus(self) -> None:
        """KVM_CREATE_VCPU (KVM API 4.7)."""
        for plan in self.machine.vcpus:
            self.vcpus[plan.id] = self.vm.create_vcpu(plan.id)

    def boot_vcpu(self, plan: Plan) -> None:
        """Registers and mode, as the architecture starts a vCPU."""
        self.state.boot(self.kvm, self.vm, self.vcpus[plan.id], plan, self.machine)
        self.booted.add(plan.id)

    # --- host actions -----------------------------------------------------------------------------

    def set_regs(self, vcpu: int, regs: Mapping[str, int]) -> None:
        """Set registers by name; what is not named keeps its value."""
        self.state.write(self.vcpus[vcpu], regs)

    def pc_of(self, vcpu: int) -> int:
        """pc as KVM returns it."""
        pc: int = self.state.pc(self.vcpus[vcpu])
        return pc

    def carry_out(self, vcpu: int) -> None:
        """The access of the last arm_nisv."""
        emulation.act(self.recorder, self.bus(self.vcpus[vcpu]))

    def call(self, row: actions.Action, action: Action) -> None:
        """Fill a struct and call an ioctl; a few do more beside it."""
        vcpu = self.vcpus[action.vcpu]
        if row.name in MORE:
            MORE[row.name](self, vcpu, row, action.args)
        else:
            call(self.vm if row.on == "vm" else vcpu, row, self.machine.arch, action.args)

    def act_on_io_bus(self, vcpu: Vcpu, row: actions.Action, args: Mapping[str, Any]) -> None:
        """An action on writes that do not leave to user space."""
        if self.io_bus is None:
            self.io_bus = IoBus(self.kvm, self.vm, self.first)
        self.io_bus.act(row.name, args)

    # --- what a runner asks for -------------------------------------------------------------------

    def drain(self) -> None:
        """Carry out the writes that KVM has gathered."""
        if self.io_bus is not None:
            self.io_bus.drain(self.recorder.devices)

    def bus(self, vcpu: Vcpu) -> emulation.Bus:
        """What an access is emulated on, with nothing read yet."""
        if vcpu.number not in self._buses:
            slots, held = self.slots, self.recorder
            self._buses[vcpu.number] = emulation.Bus(
                vcpu.number,
                self.state.reader(vcpu),
                partial(self.state.write, vcpu),
                slots.read,
                slots.write,
                slots.readonly,
                held.devices,
                self._monitors,
            )
        return self._buses[vcpu.number].fresh()

    def memory(self, ranges: Iterable[tuple[int, int]]) -> dict[int, bytes]:
        """Bytes as they lie, in slots and in sections outside them; none of a range that is not
        wholly in these.
        """
        return {
            gpa: self.recorder.devices.beside(self.slots.read, gpa, size) or b""
            for gpa, size in ranges
        }

    def final(self) -> tuple[dict[str, int], dict[int, bytes]]:
        """Registers of the first vCPU and memory, at the end of the run."""
        self.drain()
        memory = self.memory(self.machine.observe_memory)
        if self.machine.vcpus[0].id not in self.booted:
            # KVM gives no registers of a vCPU that it could not initialise.
            return {}, memory
        return self.state.read(
            self.first, (*self.state.GENERAL, *self.machine.observe_regs)
        ), memory


# Actions that keep something of their own beside the ioctl.
MORE: dict[str, Callable[[Session, Vcpu, actions.Action, Mapping[str, Any]], None]] = {
    "register_coalesced_mmio": Session.act_on_io_bus,
    "unregister_coalesced_mmio": Session.act_on_io_bus,
    "ioeventfd": Session.act_on_io_bus,
    "set_guest_debug": lambda session, vcpu, row, args: vcpu.set_guest_debug(
        session.machine.arch, args
    ),
}
