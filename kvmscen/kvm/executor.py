"""Run one Machine on /dev/kvm and say everything that happened.

The order of building is fixed: VM, VM capabilities, slots with their bytes, vCPUs, vCPU capabilities, registers, setup.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Callable

from kvmscen.arch import of_machine
from kvmscen.errors import HostError, IoctlError
from kvmscen.kvm import alignment, arm64, emulation, exits, riscv64, vectors, x86_64
from kvmscen.kvm.fds import Kvm, Vcpu, Vm
from kvmscen.kvm.limits import Clock, Limits
from kvmscen.kvm.quiet import ACTIONS, Quiet
from kvmscen.kvm.reach import beyond
from kvmscen.kvm.recorder import Recorder
from kvmscen.kvm.script import Verdict
from kvmscen.kvm.slots import Slots
from kvmscen.machine import Action, Capability, Machine, Memslot, Step
from kvmscen.measure import Timing
from kvmscen.observation import Observation

_EINTR = 4
_FAULTS = ("EFAULT", "EHWPOISON")
_MEMORY_FAULT = 39
# A signal that comes between the last bytecode and the system call is lost, so the timer fires again and again.
_AGAIN = 0.02
_DEBUG = 4
# A loop of exclusives is shorter; the Arm ARM lets them fail where more lies between (B2.9.5).
_EXCLUSIVE_STEPS = 64
ARCHES: dict[str, Any] = {"arm64": arm64, "riscv64": riscv64, "x86_64": x86_64}


class Executor:
    """One open /dev/kvm that runs Machines one after another."""

    def __init__(self, kvm: Kvm, flavour: str | None, effects: bool = False) -> None:
        self.kvm = kvm
        self.flavour = flavour
        self.effects = effects  # whether a guest may have capabilities that reach beyond its VM
        self.arch = of_machine(os.uname().machine)
        self.clock = Clock()

    def execute(self, machine: Machine) -> Observation:
        """Build the VM, run it, give everything back. Limits count as in kvmscen.kvm.limits.

        Raises HostError where the time limit was over before the guest's first instruction.
        """
        if machine.arch != self.arch:
            raise HostError(f"KVM on {self.arch} does not run {machine.arch}")
        seen = self._run(machine)
        return seen if seen.exception is None else vectors.first(machine, seen, self._run)

    def _run(self, machine: Machine) -> Observation:
        run = Run(self.kvm, machine, self.flavour, self.clock)
        run.effects = self.effects
        try:
            return run.observe()
        finally:
            run.close()


class Run:
    """One Machine on its way, from the VM's making to its end."""

    def __init__(self, kvm: Kvm, machine: Machine, flavour: str | None, clock: Clock) -> None:
        self.kvm = kvm
        self.machine = machine
        self.state = ARCHES[machine.arch]
        self.recorder = Recorder(machine)
        self.effects = False
        self.slots: Slots | None = None
        self.vm: Vm | None = None
        self.vcpus: dict[int, Vcpu] = {}
        self.booted: set[int] = set()
        self.flavour = flavour
        self.expired = False
        self.limits = Limits(clock, machine.timeout)
        self.timing: Timing | None = None
        self.quiet: Quiet | None = None
        self.buses: dict[int, emulation.Bus] = {}
        self.signed: emulation.Signed | None = None  # a load at the last exit whose sign KVM may lose

    def close(self) -> None:
        for vcpu in self.vcpus.values():
            vcpu.close()
        if self.quiet is not None:
            self.quiet.close()
        if self.vm is not None:
            self.vm.close()
        if self.slots is not None:
            self.slots.close()

    def observe(self) -> Observation:
        start = time.monotonic()
        previous = signal.signal(signal.SIGALRM, self._alarm)
        try:
            stopped = self._build()
            if stopped is None:
                self.limits.begin(self.state.pc(self.vcpus[self.machine.vcpus[0].id]))
            if stopped is None and self.machine.measure is not None:
                from kvmscen.kvm.timed import Timed  # here, since most runs time nothing

                self.timing, stopped = Timed(self).measure(self.machine.measure)
            for plan in self.machine.vcpus if stopped is None else ():
                stopped = self.run_vcpu(self.vcpus[plan.id])
            regs, memory = self._final()
            exception = vectors.look(self, stopped)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        elapsed = time.monotonic() - start
        detail = self.recorder.detail(stopped or "end") if self.timing is None else None
        notes = self.recorder.notes()
        return Observation(
            stopped or "end",
            self.recorder.seen(),
            regs,
            memory,
            elapsed,
            detail,
            timing=self.timing,
            notes=notes,
            exception=exception,
        )

    # --- building ---------------------------------------------------------------------------------------------------

    def _build(self) -> str | None:
        machine = self.machine
        self.vm = self.state.create_vm(self.kvm, machine, self.flavour)
        self.slots = Slots(self.vm, machine.tables.size if machine.tables is not None else 0)
        for n, cap in enumerate(machine.enable):
            if not cap.on_vcpu and (stop := self._try("enable", partial(self._enable, cap), cap.errno, f"enable/{n}")):
                return stop
        if machine.tables is not None:
            tables = machine.tables
            self.slots.set(Memslot(tables.slot, tables.at, tables.size))
            self.slots.write(tables.at, self.state.tables(machine))
        for n, slot in enumerate(machine.memslots):
            if stop := self._try("set_memslot", partial(self.slots.set, slot), slot.errno, f"memslots/{n}"):
                return stop
        for part in machine.image:
            self.slots.write(part.gpa, part.data)
        for plan in machine.vcpus:
            self.vcpus[plan.id] = self.vm.create_vcpu(plan.id)
        for n, cap in enumerate(machine.enable):
            if cap.on_vcpu and (stop := self._try("enable", partial(self._enable, cap), cap.errno, f"enable/{n}")):
                return stop
        for plan in machine.vcpus:
            boot = partial(self.state.boot, self.kvm, self.vm, self.vcpus[plan.id], plan, machine)
            if stop := self._try("boot", boot, None, f"vcpus/{plan.id}"):
                return stop
            self.booted.add(plan.id)
        first = machine.vcpus[0].id
        self.recorder.prepare(first, machine.setup)
        return self._perform(first)

    def _slots(self) -> Slots:
        assert self.slots is not None
        return self.slots

    def _try(self, name: str, act: Callable[[], None], wanted: str | None, op: str) -> str | None:
        return self.recorder.attempt(self.machine.vcpus[0].id, name, act, None, wanted, op)

    def _enable(self, cap: Capability, vcpu: int = 0) -> None:
        assert self.vm is not None
        if not self.effects and (reach := beyond(cap.number)):
            raise HostError(reach)
        (self.vcpus[vcpu] if cap.on_vcpu else self.vm).enable_cap(cap.number, cap.args)

    def _perform(self, vcpu: int) -> str | None:
        return self.recorder.perform(vcpu, partial(self.state.pc, self.vcpus[vcpu]), self._act)

    def _act(self, action: Action) -> None:
        args = action.args
        if action.name == "set_regs":
            self.state.write(self.vcpus[action.vcpu], args)
        elif action.name == "write_memory":
            self._write_memory(args["gpa"], bytes.fromhex(args["data"]))
        elif action.name == "set_memslot":
            self._slots().set(Memslot.from_json(dict(args)))
        elif action.name == "delete_memslot":
            self._slots().delete(args["slot"])
        elif action.name == "enable":
            self._enable(Capability.from_json(dict(args)), action.vcpu)
        elif action.name == "set_guest_debug":
            self.vcpus[action.vcpu].set_guest_debug(self.machine.arch, args)
        elif action.name in ACTIONS:
            self._quietly().act(action.name, args)
        elif action.name == "emulate":
            emulation.act(self.recorder, self.bus(self.vcpus[action.vcpu]))
        else:
            raise HostError(f"this agent has no action {action.name!r}")

    def _quietly(self) -> Quiet:
        if self.quiet is None:
            assert self.vm is not None
            self.quiet = Quiet(self.kvm, self.vm, self.vcpus[self.machine.vcpus[0].id])
        return self.quiet

    def drain(self) -> None:
        """Carry out the writes that KVM has gathered."""
        if self.quiet is not None:
            self.quiet.drain(self.recorder.devices)

    def _write_memory(self, gpa: int, data: bytes) -> None:
        if not self._slots().write(gpa, data):
            self.recorder.devices.put(gpa, data)

    # --- running ----------------------------------------------------------------------------------------------------

    def _alarm(self, number: int, frame: object) -> None:
        self.expired = True
        for vcpu in self.vcpus.values():
            vcpu.immediate_exit = 1

    def run_vcpu(self, vcpu: Vcpu) -> str:
        """Enter the vCPU until its script, an ending exit or a limit stops it; why, as in kvmscen.observation.STOPPED."""
        self.arm(None)
        if self.recorder.scripts[vcpu.number].over():
            return "end"
        while True:
            verdict, completes = self._enter(vcpu)
            due, stop = self.recorder.due[vcpu.number], verdict.stop
            signed, self.signed = self.signed, None
            while completes and (due or stop is not None or signed) and stop != "exits":
                more = self._complete(vcpu)
                if more is None:
                    break
                verdict, completes = more
                stop = stop or verdict.stop
            if signed is not None and stop != "exits":
                emulation.extend(self.recorder, self.bus(vcpu), signed)
            if due and stop in (None, "end"):
                stop = self._perform(vcpu.number) or stop
            if stop is not None:
                return stop

    def arm(self, seconds: float | None) -> None:
        """Start the timer: for a step, or (None) for what is left of the whole run."""
        self.limits.wait(seconds)
        self._set_timer()

    def _set_timer(self) -> None:
        self.expired = False
        signal.setitimer(signal.ITIMER_REAL, max(self.limits.left(), 1e-6), _AGAIN)

    def _enter(self, vcpu: Vcpu) -> tuple[Verdict, bool]:
        """KVM_RUN until something happened: the verdict on it, and whether an instruction is left to complete."""
        wait = self.recorder.scripts[vcpu.number].timeout()
        if wait is not None:
            self.arm(wait)
        while True:
            if self.expired:
                vcpu.immediate_exit = 0
                if self.limits.left() > 0 or self.limits.lend(vcpu, partial(self.state.pc, vcpu)):
                    # The wall's time is over, but not that in which this thread could run.
                    self._set_timer()
                    continue
                late = self.limits.late()
                # Where the run's own limit came first, the step's time is what had passed of it.
                seconds = self.machine.timeout if wait is None else self.limits.passed()
                self.arm(None)
                verdict = self._take(vcpu, "timeout", "", {"timeout": seconds})
                return (verdict._replace(stop="timeout") if late else verdict), False
            vcpu.immediate_exit = 0
            number = self.step(vcpu) if vcpu.number in self.recorder.exclusive else None
            if number is None:
                number = vcpu.run()
            if number != _EINTR:
                break
        self.limits.ran = True
        if wait is not None:
            self.arm(None)
        return self._returned(vcpu, number)

    def step(self, vcpu: Vcpu) -> int | None:
        """From an emulated load-exclusive to its store-exclusive, step by step, and carry that out too.

        None where it has come to its end, else what KVM_RUN returned with instead of a step. Where the scenario steps the guest
        itself, each step is an exit of its own.
        """
        if vcpu.stepping:
            return emulation.step_on(self.recorder, self.bus(vcpu), vcpu)
        self.recorder.exclusive.discard(vcpu.number)
        for _ in range(_EXCLUSIVE_STEPS):
            if emulation.store_exclusive(self.recorder, self.bus(vcpu)):
                break
            vcpu.single_step(True)
            number = vcpu.run()
            if number or vcpu.exit_reason != _DEBUG:
                vcpu.single_step(False)
                return number
        vcpu.single_step(False)
        return None

    def _complete(self, vcpu: Vcpu) -> tuple[Verdict, bool] | None:
        """Complete the pending exit without entering the guest; an exit that this yields is the next event."""
        vcpu.immediate_exit = 1
        number = vcpu.run()
        vcpu.immediate_exit = 0
        return None if number == _EINTR else self._returned(vcpu, number)

    def _returned(self, vcpu: Vcpu, number: int) -> tuple[Verdict, bool]:
        if number:
            error = IoctlError("KVM_RUN", number)
            fields: dict[str, Any] = {"ioctl": "KVM_RUN"}
            if error.errno in _FAULTS and vcpu.exit_reason == _MEMORY_FAULT:
                fields["memory_fault"] = vcpu.exit(self.machine.arch)[1]
            self._aligned(vcpu, error.errno, fields)
            return self._take(vcpu, "error", error.errno, fields), False
        self.drain()
        name, members = vcpu.exit(self.machine.arch)
        self._aligned(vcpu, name, members)
        if name == "arm_nisv" and self.machine.undecoded:
            take = partial(self._take, vcpu, "exit", name)
            return emulation.carry_out(self.recorder, self.bus(vcpu), members, take), False
        verdict = self._take(vcpu, "exit", name, members)
        reply = self.recorder.reply(verdict, name, members)
        row = exits.BY_NAME.get(name)
        if reply:
            write_back(vcpu, name, members, reply)
        if name == "mmio" and self.machine.undecoded:
            self.signed = emulation.negative(self.bus(vcpu), members, reply)
        return verdict, row is not None and row.completes

    def _aligned(self, vcpu: Vcpu, name: str, members: Mapping[str, Any]) -> None:
        if self.machine.arch == "arm64":
            alignment.look(self.recorder, self.bus(vcpu), name, members)

    def bus(self, vcpu: Vcpu) -> emulation.Bus:
        """What an access is emulated on, with nothing read yet."""
        if vcpu.number not in self.buses:
            slots, held = self._slots(), self.recorder
            self.buses[vcpu.number] = emulation.Bus(
                vcpu.number,
                self.state.reader(vcpu),
                partial(self.state.write, vcpu),
                slots.read,
                slots.write,
                slots.readonly,
                held.devices,
                held.monitors,
            )
        return self.buses[vcpu.number].fresh()

    def _take(self, vcpu: Vcpu, kind: str, name: str, fields: Mapping[str, Any]) -> Verdict:
        def observe(step: Step) -> tuple[Mapping[str, int], Mapping[int, bytes]]:
            return self.state.read(vcpu, step.observe_regs), self._memory(step.observe_memory)

        return self.recorder.take(vcpu.number, kind, name, fields, self.state.pc(vcpu), observe)

    # --- observing --------------------------------------------------------------------------------------------------

    def _memory(self, ranges: Iterable[tuple[int, int]]) -> dict[int, bytes]:
        """Bytes as they lie, in slots and in sections outside them; none of a range that is not wholly in these."""
        return {gpa: self.recorder.devices.beside(self._slots().read, gpa, size) or b"" for gpa, size in ranges}

    def _final(self) -> tuple[dict[str, int], dict[int, bytes]]:
        first = self.machine.vcpus[0]
        self.drain()
        memory = self._memory(self.machine.observe_memory)
        if first.id not in self.booted:
            # KVM gives no registers of a vCPU that it could not initialise.
            return {}, memory
        names = (*self.state.GENERAL, *self.machine.observe_regs)
        return self.state.read(self.vcpus[first.id], names), memory


def write_back(vcpu: Vcpu, name: str, members: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
    """Put the reply where KVM takes it from at the next KVM_RUN."""
    if name == "io":
        if "data" in reply and members["direction"] == 0:
            offset = int.from_bytes(vcpu.bytes_at(exits.UNION + 8, 8), "little")
            data = reply["data"]
            values = data if isinstance(data, list) else [data]
            size, count = members["size"], members["count"]
            # As with mmio, an access takes as many bytes of the reply as it is wide.
            raw = b"".join(v.to_bytes(16, "little")[:size] for v in values[:count])
            vcpu.put(offset, raw.ljust(size * count, b"\0"))
        return
    for field in exits.BY_NAME[name].fields:
        if field.name in reply:
            vcpu.put(exits.UNION + field.offset, exits.encode(field, reply[field.name]))
