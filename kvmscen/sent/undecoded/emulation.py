"""An arm64 access that KVM could not decode, carried out for the guest by its host.

It is done in two halves: `prepare` works out what the instruction at pc does, `commit` makes it so.
Between them is the time to record the exit with registers and memory as KVM gave them. `Bus` is
what the two need of a host.

Parts that lie in a memslot are read and written there (a read-only slot drops writes, as its MMIO
exits do), all others in the sections outside the slots. Several vCPUs are not kept out meanwhile.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NamedTuple

from kvmscen.sent.errors import IoctlError
from kvmscen.sent.script.interpreter import Devices, Verdict
from kvmscen.sent.script.recorder import Recorder
from kvmscen.sent.undecoded.decode import decode
from kvmscen.sent.undecoded.emulate import Monitors, emulate
from kvmscen.sent.undecoded.forms import Form, Unemulated
from kvmscen.sent.undecoded.walk import MMU, NoTranslation, translate

PAGE = 0x1000
_EE, _E0E, _AARCH32 = 1 << 25, 1 << 24, 1 << 4
IOCTL = "emulate"  # what a failing emulation is called in an `error` event


class Bus:
    """What an access needs of the host: registers and memslots by functions, and the sections
    outside them.

    `read` and `write` are of registers by name; `load(gpa, size)` gives bytes of one memslot or
    None, `store` changes them, and `readonly(gpa)` says of the slot there whether it is, None where
    there is none.
    """

    def __init__(  # noqa: PLR0913 what KVM and the model each fill
        self,
        vcpu: int,
        read: Callable[[str], int],
        write: Callable[[Mapping[str, int]], None],
        load: Callable[[int, int], bytes | None],
        store: Callable[[int, bytes], Any],
        readonly: Callable[[int], bool | None],
        devices: Devices,
        monitors: Monitors,
    ) -> None:
        self.vcpu = vcpu
        self.read = read
        self.write = write
        self.load = load
        self.store = store
        self.readonly = readonly
        self.devices = devices
        self.monitors = monitors
        self._known: dict[str, int] = {}

    def fresh(self) -> Bus:
        """The same with nothing read yet: the guest has run."""
        self._known.clear()
        return self

    def register(self, name: str) -> int:
        """A register, read once; `sp` is the stack pointer in use."""
        if name not in self._known:
            self._known[name] = self.read(self.named(name))
        return self._known[name]

    def named(self, name: str) -> str:
        """KVM's name of a register."""
        return name if name != "sp" else "sp_el1" if self.register("pstate") & 1 else "sp_el0"


class Prepared(NamedTuple):
    """What an instruction does: `accesses` as the event has them, then the changes."""

    form: Form
    accesses: list[dict[str, Any]]
    regs: Mapping[str, int]
    stores: tuple[tuple[int, bytes], ...]


class _View:
    """Memory through the guest's translation, as kvmscen.sent.undecoded.emulate wants it. Stores
    wait for `commit`.
    """

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.mmu = bool(bus.register("sctlr_el1") & MMU)
        self.accesses: list[dict[str, Any]] = []
        self.stores: list[tuple[int, bytes]] = []
        self._pieces: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def physical(self, address: int, write: bool) -> int:
        return translate(address, write, self.bus.register, self.bus.load) if self.mmu else address

    def resolve(self, address: int, size: int, write: bool) -> list[tuple[int, int]]:
        """The physical ranges of an access: one a page, joined where they lie side by side and
        outside the slots or in them.
        """
        out: list[tuple[int, int]] = []
        at = address
        while at < address + size:
            length = min(PAGE - at % PAGE, address + size - at)
            gpa = self.physical(at & (1 << 64) - 1, write)
            if (
                out
                and sum(out[-1]) == gpa
                and self.bus.readonly(out[-1][0]) is self.bus.readonly(gpa) is None
            ):
                out[-1] = (out[-1][0], out[-1][1] + length)
            else:
                out.append((gpa, length))
            at += length
        self._pieces[address, size] = out
        return out

    def load(self, address: int, size: int) -> bytes:
        data = b""
        for gpa, length in self._pieces[address, size]:
            held = self.bus.load(gpa, length)
            piece = self.bus.devices.read(gpa, length) if held is None else held
            self._record(gpa, piece, False)
            data += piece
        return data

    def store(self, address: int, data: bytes) -> None:
        for gpa, length in self._pieces[address, len(data)]:
            piece, data = data[:length], data[length:]
            self._record(gpa, piece, True)
            self.stores.append((gpa, piece))

    def _record(self, gpa: int, data: bytes, is_write: bool) -> None:
        value = int.from_bytes(data, "little")
        self.accesses.append(
            {"phys_addr": gpa, "len": len(data), "is_write": is_write, "data": value}
        )

    def mark(self, ranges: Iterable[tuple[int, int]]) -> None:
        self.bus.monitors.mark(self.bus.vcpu, ranges)

    def take(self, ranges: Iterable[tuple[int, int]]) -> bool:
        return self.bus.monitors.take(self.bus.vcpu, ranges)


def prepare(bus: Bus, fault_ipa: int | None) -> Prepared:
    """Work out what the instruction at pc does; it must touch the page of `fault_ipa`.

    Raises IoctlError with the reason where it is not carried out.
    """
    try:
        _state(bus)
        view = _View(bus)
        word = _fetch(bus, view)
        effect = emulate(word, bus.register, view)
    except Unemulated as reason:
        raise IoctlError(IOCTL, errno.ENOSYS, str(reason)) from None
    except NoTranslation as reason:
        raise IoctlError(IOCTL, errno.EFAULT, str(reason)) from None
    touched = [(a["phys_addr"], a["len"]) for a in view.accesses]
    if (
        fault_ipa is not None
        and touched
        and not any(
            at // PAGE <= fault_ipa // PAGE <= (at + size - 1) // PAGE for at, size in touched
        )
    ):
        say = (
            f"the instruction at pc ({effect.form.name}) accesses {touched[0][0]:#x}, but the "
            f"abort was at {fault_ipa:#x}"
        )
        raise IoctlError(IOCTL, errno.EFAULT, say)
    return Prepared(effect.form, view.accesses, effect.regs, tuple(view.stores))


def commit(bus: Bus, prepared: Prepared) -> None:
    """Apply the stores and register writes that prepare() computed."""
    for gpa, data in prepared.stores:
        readonly = bus.readonly(gpa)
        if readonly is None:
            bus.devices.write(gpa, data)
        elif not readonly:
            bus.store(gpa, data)
        bus.monitors.written(bus.vcpu, gpa, len(data))
    bus.write({bus.named(name): value for name, value in prepared.regs.items()})


def _state(bus: Bus) -> None:
    pstate, sctlr = bus.register("pstate"), bus.register("sctlr_el1")
    if pstate & _AARCH32:
        raise Unemulated("AArch32 code is not emulated")
    if pstate & 0xC > 4:
        raise Unemulated("code at EL2 is not emulated")
    if sctlr & (_EE if pstate & 0xC else _E0E):
        raise Unemulated("big-endian data is not emulated")


def instruction(bus: Bus) -> int:
    """The instruction word at pc. Raises NoTranslation."""
    return _fetch(bus, _View(bus))


def _fetch(bus: Bus, view: _View) -> int:
    pc = bus.register("pc")
    raw = bus.load(view.physical(pc, False), 4)
    if raw is None:
        raise NoTranslation(f"the instruction at pc {pc:#x} lies in no memslot")
    return int.from_bytes(raw, "little")


class Signed(NamedTuple):
    """A negative reply to a load that extends its sign: the register, and what it should hold."""

    reg: str
    value: int
    lost: int


def negative(bus: Bus, fields: Mapping[str, Any], reply: Mapping[str, Any]) -> Signed | None:
    """What the load at pc should put into its register, where that is a sign that KVM may lose (it
    did before 7.2).
    """
    size, data = fields["len"], reply.get("data")
    if fields["is_write"] or not isinstance(data, int) or not data >> 8 * size - 1 & 1:
        return None
    try:
        _state(bus)
        form = decode(instruction(bus))
    except (Unemulated, NoTranslation):
        return None
    part = form.parts[0] if len(form.parts) == 1 else None
    if part is None or not part.sign or part.reg == "xzr" or part.size != size:
        return None
    value = (data - (1 << 8 * size)) & (1 << part.sign) - 1
    return Signed(part.reg, value, data)


def extend(recorder: Recorder, bus: Bus, signed: Signed) -> None:
    """Put the sign into the register where KVM, which has completed the load by now, has put zeros
    there.
    """
    if bus.read(signed.reg) == signed.lost:
        bus.write({signed.reg: signed.value})
        recorder.corrected += 1
        recorder.amend(bus.vcpu, "mmio", {"corrected": True})


def carry_out(
    recorder: Recorder,
    bus: Bus,
    fields: Mapping[str, Any],
    take: Callable[[Mapping[str, Any]], Verdict],
) -> Verdict:
    """An arm_nisv where the scenario says `undecoded: emulate`: recorded by `take` with its
    accesses, then made so.
    """
    try:
        prepared = prepare(bus, fields["fault_ipa"])
    except IoctlError as error:
        verdict = take(fields)
        stop = recorder.failed(bus.vcpu, error, bus.register("pc"), None)
        return verdict._replace(then=(), stop=stop or "error")
    verdict = take({**fields, "accesses": prepared.accesses, "emulated": True})
    if verdict.stop != "exits":
        commit(bus, prepared)
        _behind(recorder, bus, prepared)
    return verdict


def store_exclusive(recorder: Recorder, bus: Bus) -> bool:
    """Carry out the instruction at pc if it is a store-exclusive; its accesses join those of the
    load-exclusive's exit.

    A CPU's own monitor is clear after an exit, so that there it would fail before it accesses
    anything: no exit would come.
    """
    try:
        _state(bus)
        if not decode(instruction(bus)).status:
            return False
        prepared = prepare(bus, None)
    except (Unemulated, NoTranslation, IoctlError):
        return False
    event = recorder.latest(bus.vcpu, "arm_nisv")
    if event is not None and prepared.accesses:
        recorder.amend(
            bus.vcpu, "arm_nisv", {"accesses": [*event.fields["accesses"], *prepared.accesses]}
        )
    commit(bus, prepared)
    return True


def act(recorder: Recorder, bus: Bus) -> None:
    """The host action `emulate`: carry out what the last exit, an arm_nisv, was about. Raises
    IoctlError.
    """
    event = recorder.last(bus.vcpu, "arm_nisv")
    if event is None:
        raise IoctlError(IOCTL, errno.EINVAL, "the last exit of the vCPU is no arm_nisv")
    prepared = prepare(bus, event.fields["fault_ipa"])
    recorder.amend(bus.vcpu, "arm_nisv", {"accesses": prepared.accesses, "emulated": True})
    commit(bus, prepared)
    _behind(recorder, bus, prepared)


def _behind(recorder: Recorder, bus: Bus, prepared: Prepared) -> None:
    (recorder.exclusive.add if prepared.form.monitor else recorder.exclusive.discard)(bus.vcpu)
