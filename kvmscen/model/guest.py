"""One modelled run: Unicorn executes the guest, the rules say where it would leave for user space.

Everything outside the slots stays unmapped in Unicorn, so that an access there stops before it has
any effect, with pc exact. What Unicorn would execute but KVM would not (port I/O, values that only
a real machine has) is found when a block is first executed: a hook on that one address then stops
the guest in front of it.

The order of acting and stopping is that of kvmscen.sent.executor.runner.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from unicorn import Uc, UcError  # type: ignore[attr-defined]
from unicorn import unicorn_const as uc_const

from kvmscen.model import hooks
from kvmscen.model.building import Blocked, Building, Unpredicted
from kvmscen.model.memory import Memory
from kvmscen.sent.arch.registers import Registers, base, get, put
from kvmscen.sent.executor.building import build, perform
from kvmscen.sent.machine import Machine, Step
from kvmscen.sent.observation import Observation
from kvmscen.sent.script.interpreter import Verdict

NOWHERE = (
    1 << 64
) - 2  # an `until` that no guest reaches: code starts at an even or a mapped address
FETCHES = (uc_const.UC_MEM_FETCH_UNMAPPED, uc_const.UC_MEM_FETCH_PROT)
CLOCK = 0xFF  # the clock is looked at once in so many blocks


class Guest(Building):
    """What both architectures share. A subclass gives the registers, the boot state and what each
    stop of Unicorn means.
    """

    NAME = ""
    REGISTERS: Registers = {}
    GENERAL: tuple[str, ...] = ()
    ENGINE: tuple[int, int] = (0, 0)

    def __init__(self, machine: Machine) -> None:
        engine: Any = Uc(*self.ENGINE)
        super().__init__(machine, engine, Memory(engine, self.NAME))
        self.kernel: str | None = None  # the version to predict, where versions differ
        self.script = self.recorder.scripts[self.plan.id]
        self.stale: str | None = None  # why nobody knows the registers that KVM has left
        self.ended: str | None = None  # why nobody knows what another KVM_RUN would do
        self.verdicts: list[Verdict] = []
        self.deadline = 0.0
        self.alarm = 0.0
        # What the hooks leave behind.
        self.fault: tuple[int, int, int, int, int] | None = None  # access, address, size, value, pc
        self.interrupt: int | None = None
        self.block = 0
        self.expired = False
        self._blocks = 0
        self.error: BaseException | None = None
        self.passing = False  # one instruction runs whatever it is
        self._seen: dict[int, bytes | None] = {}
        self._special: dict[int, int] = {}  # address: hook

    # --- what a subclass gives --------------------------------------------------------------------

    def read_whole(self, name: str) -> int:
        """A whole register (no view)."""
        raise NotImplementedError

    def read_wholes(self, names: Iterable[str]) -> dict[str, int]:
        """Several whole registers."""
        return {name: self.read_whole(name) for name in names}

    def write_wholes(self, values: Mapping[str, int]) -> None:
        """Set whole registers."""
        raise NotImplementedError

    def pc(self) -> int:
        """pc as KVM returns it."""
        raise NotImplementedError

    def specials(self, address: int, code: bytes) -> Iterable[int]:
        """Addresses in a block, about to run for the first time, in front of which the guest must
        stop.
        """
        raise NotImplementedError

    def special(self, address: int) -> bool:
        """Handle an address at which the guest stopped; False: nothing is special there any more,
        and the hook is stale.
        """
        raise NotImplementedError

    def harmless(self, address: int) -> bool:
        """Whether the guest need not stop at a special address after all, as its registers are
        now.
        """
        return False

    def faulted(self, access: int, address: int, size: int, value: int, pc: int) -> None:
        """An access outside the slots, a write to a read-only one, or a fetch."""
        raise NotImplementedError

    def interrupted(self, number: int) -> None:
        """Unicorn's interrupt hook was called."""
        raise NotImplementedError

    def refused(self, error: Any) -> None:
        """Unicorn gave up without a fault or an interrupt."""
        raise NotImplementedError

    def halted(self) -> None:
        """Unicorn stopped by itself: hlt or wfi."""
        raise NotImplementedError

    # --- the run ----------------------------------------------------------------------------------

    def observe(self) -> Observation:
        """Build the guest, run it, and return what happened."""
        start = time.monotonic()
        unpredicted = None
        stopped: str | None = None
        try:
            stopped = build(self, self.machine)
            if stopped is None:
                # The model never waits, so that CPU time is all the time that it has.
                self.deadline = time.thread_time() + self.machine.timeout
                stopped = self._run()
        except Unpredicted as reason:
            unpredicted = str(reason)
        regs: dict[str, int] = {}
        try:
            regs = self._final()
        except Unpredicted as reason:
            unpredicted = unpredicted or str(reason)
        memory = self._memory(self.machine.observe_memory)
        elapsed = time.monotonic() - start
        stopped = stopped or "end"
        detail = self.recorder.detail(stopped)
        notes = (*self.recorder.notes(), *self.notes())
        return Observation(
            stopped, self.recorder.seen(), regs, memory, elapsed, detail, unpredicted, notes=notes
        )

    def notes(self) -> tuple[str, ...]:
        """What the reader of a prediction must know beside it, in words."""
        return ()

    def _final(self) -> dict[str, int]:
        if not self.booted or (self.stale is not None and not self.machine.observe_regs):
            return {}
        return self.read((*self.GENERAL, *self.machine.observe_regs))

    def close(self) -> None:
        """Let go of the engine, whose hooks hold this object, and of the memory behind it."""
        hooks.let_go(self.engine)
        self.engine = self.error = None
        self.memory.close()

    def _run(self) -> str:
        if self.script.over():
            return "end"
        if not self.memory.slots:
            raise Unpredicted(
                "a VM without a memslot fails with ENOSPC or is an internal error, by KVM's flavour"
            )
        while True:
            self.verdicts.clear()
            if self.ended is not None:
                raise Unpredicted(self.ended)
            self._enter()
            stop = next(
                (verdict.stop for verdict in self.verdicts if verdict.stop is not None), None
            )
            if self.recorder.due[self.plan.id] and stop in (None, "end"):
                stop = perform(self, self.plan.id) or stop
            if stop is not None:
                return stop

    # --- registers and memory ---------------------------------------------------------------------

    def read(self, names: Iterable[str]) -> dict[str, int]:
        """Registers and views by name."""
        wanted = list(names)
        if wanted and self.stale is not None:
            raise Unpredicted(self.stale)
        values = self.read_wholes({base(self.REGISTERS, name) for name in wanted})
        return {name: get(self.REGISTERS, values, name) for name in wanted}

    def write(self, regs: Mapping[str, int]) -> None:
        """Set registers and views by name; what is not named keeps its value."""
        if self.stale is not None:
            raise Unpredicted(self.stale)
        values = {
            name: self.read_whole(name) for name in {base(self.REGISTERS, name) for name in regs}
        }
        for name, value in regs.items():
            put(self.REGISTERS, values, name, value)
        self.write_wholes(values)

    def _memory(self, ranges: Iterable[tuple[int, int]]) -> dict[int, bytes]:
        return {
            gpa: self.recorder.devices.beside(self.memory.read, gpa, size) or b""
            for gpa, size in ranges
        }

    # --- events -----------------------------------------------------------------------------------

    def take(self, kind: str, name: str, fields: Mapping[str, Any], pc: int) -> Verdict:
        """An event; what it asks for is done when the instruction is complete."""

        def observe(step: Step) -> tuple[Mapping[str, int], Mapping[int, bytes]]:
            return self.read(step.observe_regs), self._memory(step.observe_memory)

        verdict = self.recorder.take(self.plan.id, kind, name, fields, pc, observe)
        self.verdicts.append(verdict)
        return verdict

    def exit(self, name: str, fields: Mapping[str, Any], pc: int) -> Mapping[str, Any]:
        """Record an exit; returns the members that user space writes back."""
        return self.recorder.reply(self.take("exit", name, fields, pc), name, fields)

    @property
    def cut(self) -> bool:
        """Whether the limit of exits is reached: the pending instruction is then not completed."""
        return any(verdict.stop == "exits" for verdict in self.verdicts)

    # --- running ----------------------------------------------------------------------------------

    def _enter(self) -> None:
        """KVM_RUN until at least one event happened."""
        wait = self.script.timeout()
        now = time.thread_time()
        self.alarm = self.deadline if wait is None else min(self.deadline, now + wait)
        try:
            while not self.verdicts:
                if time.thread_time() >= self.alarm:
                    raise Blocked
                self.go()
        except Blocked:
            # Nothing can happen before the alarm: there is no need to wait for it.
            late = self.alarm >= self.deadline
            # Where the run's own limit came first, the step's time is what had passed of it: never
            # a rounding error less.
            whole = wait is not None and self.alarm == now + wait
            seconds = self.machine.timeout if wait is None else wait if whole else self.alarm - now
            if time.thread_time() < self.alarm:
                self.deadline -= self.alarm - time.thread_time()
            self.take("timeout", "", {"timeout": seconds}, self.pc())
            if late:
                self.verdicts[-1] = self.verdicts[-1]._replace(stop="timeout")

    def emulate(self, pc: int, count: int = 0, until: int = NOWHERE) -> Any:
        """Let Unicorn run until something stops it; its error, if it has one."""
        self.fault = self.interrupt = self.error = None
        self.expired = False
        failed = None
        try:
            # No timeout of Unicorn's: its timer thread costs 0.5 ms of waiting each time. The block
            # hook looks at the clock.
            self.engine.emu_start(pc, until, count=count)
        except UcError as error:
            failed = error.with_traceback(None)  # which would hold the engine, and itself
        if self.error is not None:
            raise self.error
        return failed

    def go(self) -> None:
        """Run to the next stop and handle it; a stop need not be an event."""
        pc = self.start()
        if pc in self._special:
            if self.special(pc):
                return
            self._forget(pc)
        failed = self.run_from(pc)
        if self.fault is not None:
            self.faulted(*self.fault)
        elif self.interrupt is not None:
            self.interrupted(self.interrupt)
        elif failed is not None:
            self.refused(failed)
        elif self._pending is None and self.start() not in self._special and not self.expired:
            self.halted()
        self._install()

    def run_from(self, pc: int) -> Any:
        """Run Unicorn from `pc`; its error, or None."""
        return self.emulate(pc)

    def start(self) -> int:
        """The linear address at which Unicorn continues."""
        return self.pc()

    # --- hooks ------------------------------------------------------------------------------------

    _pending: tuple[int, int, tuple[int, ...]] | None = None

    def hook(self) -> None:
        engine = self.engine
        engine.hook_add(uc_const.UC_HOOK_MEM_INVALID, self._on_fault)
        engine.hook_add(uc_const.UC_HOOK_INTR, self._on_interrupt)
        engine.hook_add(uc_const.UC_HOOK_BLOCK, self._on_block)

    def guard(self, at: int, size: int) -> None:
        """Give up where the guest writes to memory that the model relies on."""
        self.engine.hook_add(uc_const.UC_HOOK_MEM_WRITE, self._on_guarded, None, at, at + size - 1)

    def _on_guarded(
        self, engine: Any, access: int, address: int, size: int, value: int, data: Any
    ) -> None:
        if self.error is None:
            self.error = Unpredicted(f"the guest changes its own tables, at {address:#x}")
        engine.emu_stop()

    def _on_fault(
        self, engine: Any, access: int, address: int, size: int, value: int, data: Any
    ) -> bool:
        if self.stepping(access, address):
            return True
        if self.fault is None:
            self.fault = (
                access,
                address & (1 << 64) - 1,
                size,
                value & ((1 << 8 * size) - 1),
                self.pc(),
            )
        return False

    def stepping(self, access: int, address: int) -> bool:
        """Whether the access belongs to an instruction that is being carried out, and may go on."""
        return False

    def _on_interrupt(self, engine: Any, number: int, data: Any) -> None:
        if self.interrupt is None:
            self.interrupt = number
        engine.emu_stop()

    def _on_block(self, engine: Any, address: int, size: int, data: Any) -> None:
        if self.passing:
            return
        self.block = address
        self._blocks += 1
        if not self._blocks & CLOCK and time.thread_time() >= self.alarm:
            self.expired = True
            engine.emu_stop()
            return
        code = self._code(address, size)
        if self._seen.get(address) == code:
            return
        self._seen[address] = code
        addresses = tuple(a for a in self.specials(address, code) if a not in self._special)
        if addresses:
            self._pending = (address, size, addresses)
            engine.emu_stop()

    def _code(self, address: int, size: int) -> bytes:
        return self.memory.read(address, size) or b""

    def _on_special(self, engine: Any, address: int, size: int, data: Any) -> None:
        if not self.passing and not self.harmless(address):
            engine.emu_stop()

    def _install(self) -> None:
        """Put hooks on the special addresses that the block hook found; the block must be
        translated anew to have them.
        """
        if self._pending is None:
            return
        _, _, addresses = self._pending
        self._pending = None
        for address in addresses:
            self._special[address] = self.engine.hook_add(
                uc_const.UC_HOOK_CODE, self._on_special, None, address, address
            )
        self.engine.ctl_flush_tb()

    def _forget(self, address: int) -> None:
        hooks.remove(self.engine, self._special.pop(address))
        self.engine.ctl_flush_tb()
