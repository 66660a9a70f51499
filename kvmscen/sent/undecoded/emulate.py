"""arm64: carry out one load or store for the guest, with all that it does to registers.

It is what user space does at KVM_EXIT_ARM_NISV, where KVM had no syndrome to decode the access with
(KVM API, section 5). Registers are read by name through a function and what changes is given back,
so that a host touches no more of them than it must; memory is an object with virtual addresses.

The exclusive monitor is kept here, since a CPU clears its own at each exit: an emulated
load-exclusive marks its bytes for its vCPU; an emulated store-exclusive by it to just these bytes
succeeds, unless another vCPU has written to them through `Monitors`, and clears the mark either
way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable, NamedTuple

from kvmscen.sent.undecoded.decode import decode
from kvmscen.sent.undecoded.forms import Form, Part

MASK = (1 << 64) - 1
# PSTATE.BTYPE and PSTATE.SS: completing an instruction clears them (kvm_skip_instr in
# arch/arm64/include/asm/kvm_emulate.h).
_DONE = 0xC00 | 1 << 21

Read = Callable[[str], int]


class Effect(NamedTuple):
    """`regs` are the registers that change, pc among them, by their names in
    kvmscen.sent.arch.arm64; `sp` is the one in use.
    """

    form: Form
    address: int
    regs: dict[str, int]


class Monitors:
    """The exclusive monitor of each vCPU: which physical bytes its last emulated load-exclusive
    marked.
    """

    def __init__(self) -> None:
        self._marks: dict[int, tuple[tuple[int, int], ...]] = {}

    def mark(self, vcpu: int, ranges: Iterable[tuple[int, int]]) -> None:
        """A load-exclusive of these (address, size)."""
        self._marks[vcpu] = tuple(ranges)

    def take(self, vcpu: int, ranges: Iterable[tuple[int, int]]) -> bool:
        """A store-exclusive to these: whether it is done. The mark is gone afterwards."""
        return self._marks.pop(vcpu, None) == tuple(ranges)

    def written(self, vcpu: int, address: int, size: int) -> None:
        """A vCPU has written: the others' marks there are gone."""
        for other, ranges in list(self._marks.items()):
            if other != vcpu and any(address < at + n and at < address + size for at, n in ranges):
                del self._marks[other]


class _Registers:
    """Registers as the instruction sees them: what it has written is what it reads."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.changed: dict[str, int] = {}

    def get(self, name: str) -> int:
        if name == "xzr":
            return 0
        return self.changed[name] if name in self.changed else self._read(name)

    def put(self, name: str, value: int) -> None:
        if name != "xzr":
            self.changed[name] = value


def emulate(word: int, read: Read, memory: Any) -> Effect:
    """Carry out the instruction `word` at pc; the registers are for the caller to write.

    `memory` has `resolve(address, size, write)`, which is asked for every part before the first is
    touched and gives the physical (address, size) that it lies in, `load(address, size) -> bytes`,
    `store(address, bytes)`, and for exclusives `mark(ranges)` and `take(ranges)` as Monitors has
    them. Raises Unemulated, and what `resolve` raises.
    """
    form = decode(word)
    regs = _Registers(read)
    pc = regs.get("pc")
    base = regs.get(form.base)
    address = address_of(form, regs.get)
    by = regs.get(form.update_by) if form.update_by else form.update
    _transfer(form, address, regs, memory)
    if by is not None:
        regs.put(form.base, (base + by) & MASK)
    regs.put("pc", (pc + 4) & MASK)
    pstate = regs.get("pstate")
    if pstate & _DONE:
        regs.put("pstate", pstate & ~_DONE)
    return Effect(form, address, regs.changed)


def address_of(form: Form, read: Read) -> int:
    """Where an instruction accesses memory; `read` gives registers by name, `sp` and `pc` among
    them.
    """
    address = read(form.base) + form.offset
    if form.indexed is not None:
        index = 0 if form.indexed.reg == "xzr" else read(form.indexed.reg)
        address += _extended(index, form.indexed.bits, form.indexed.signed) << form.indexed.shift
    return address & MASK & -form.align


def _transfer(form: Form, address: int, regs: _Registers, memory: Any) -> None:
    if form.kind == "none":
        return
    writes = form.kind != "load"
    pieces_of_parts = [
        memory.resolve((address + part.offset) & MASK, part.size, writes) for part in form.parts
    ]
    ranges = [piece for pieces in pieces_of_parts for piece in pieces]
    if form.kind == "load":
        _load(form, address, regs, memory)
        if form.monitor:
            memory.mark(ranges)
    elif form.kind == "store":
        if form.status:
            done = memory.take(ranges)
            regs.put(form.status, 0 if done else 1)
            if not done:
                return
        for part in form.parts:
            memory.store((address + part.offset) & MASK, _bytes_of(part, regs))
    elif form.kind == "cas":
        _compare(form, address, regs, memory)
    else:
        _modify(form, address, regs, memory)


def _load(form: Form, address: int, regs: _Registers, memory: Any) -> None:
    for part in form.parts:
        value = int.from_bytes(memory.load((address + part.offset) & MASK, part.size), "little")
        if part.reg[0] == "x":
            regs.put(
                part.reg,
                _extended(value, 8 * part.size, True) & (1 << part.sign) - 1
                if part.sign
                else value,
            )
            continue
        value = sum(value << 8 * part.size * n for n in range(part.copies)) << 8 * part.at
        if part.keep:
            hole = ((1 << 8 * part.size) - 1) << 8 * part.at
            value |= regs.get(part.reg) & ~hole
        regs.put(part.reg, value)


def _bytes_of(part: Part, regs: _Registers) -> bytes:
    if not part.reg:
        return bytes(part.size)
    value = regs.get(part.reg) >> 8 * part.at
    return (value & (1 << 8 * part.size) - 1).to_bytes(part.size, "little")


def _compare(form: Form, address: int, regs: _Registers, memory: Any) -> None:
    """cas and casp: the memory is written only where it held what was expected; the registers get
    the old values always.
    """
    places = [(address + part.offset) & MASK for part in form.parts]
    old = [memory.load(at, part.size) for at, part in zip(places, form.parts)]
    if all(value == _bytes_of(part, regs) for value, part in zip(old, form.parts)):
        new = [
            _bytes_of(part._replace(reg=source), regs)
            for part, source in zip(form.parts, form.sources)
        ]
        for at, value in zip(places, new):
            memory.store(at, value)
    for part, value in zip(form.parts, old):
        regs.put(part.reg, int.from_bytes(value, "little"))


def _modify(form: Form, address: int, regs: _Registers, memory: Any) -> None:
    (part,), size = form.parts, form.parts[0].size
    old = int.from_bytes(memory.load(address, size), "little")
    new = operate(form.op, old, regs.get(form.sources[0]), 8 * size)
    memory.store(address, new.to_bytes(size, "little"))
    regs.put(part.reg, old)


def operate(op: str, old: int, operand: int, bits: int) -> int:
    """The new value of an LSE atomic, `bits` wide."""
    mask = (1 << bits) - 1
    operand &= mask
    if op == "add":
        return (old + operand) & mask
    if op == "clr":
        return old & ~operand
    if op == "eor":
        return old ^ operand
    if op == "set":
        return old | operand
    if op == "swp":
        return operand
    choose = max if op.endswith("max") else min
    return choose(old, operand, key=lambda value: _extended(value, bits, op[0] == "s"))


def _extended(value: int, bits: int, signed: bool) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> bits - 1 else value
