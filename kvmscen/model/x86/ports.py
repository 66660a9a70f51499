"""Port I/O on x86, as KVM carries it out: in, out, ins and outs (arch/x86/kvm/x86.c and
emulate.c).
"""

from __future__ import annotations

from typing import Any

from kvmscen.model.building import Unpredicted
from kvmscen.model.x86.emulator import Instruction
from kvmscen.model.x86.flags import Flags
from kvmscen.model.x86.processor import Processor

_PAGE, _AHEAD = 0x1000, 1024  # rep ins reads so many bytes ahead, and not beyond a page
_SEGMENTS = {0x26: "es", 0x2E: "cs", 0x36: "ss", 0x3E: "ds"}
_DIRECTION = 1 << 10


def ports(guest: Processor, flags: Flags, insn: Instruction, length: int) -> None:
    """The exit of one port instruction at pc, of `length` bytes, and its completion."""
    size = 1 if not insn.opcode & 1 else 2 if bool(insn.sizes & 1) != (guest.bits == 16) else 4
    if insn.string:
        _string(guest, flags, insn, size, length)
        return
    pc = guest.pc()
    immediate = not insn.opcode & 8
    port = insn.modrm if immediate else guest.read(("dx",))["dx"]
    register = {1: "al", 2: "ax", 4: "eax"}[size]
    fields: dict[str, Any] = {
        "direction": insn.opcode >> 1 & 1,
        "size": size,
        "port": port,
        "count": 1,
    }
    if fields["direction"]:
        fields["data"] = guest.read((register,))[register]
    reply = guest.exit("io", fields, pc)
    if guest.cut:
        return
    if not fields["direction"]:
        guest.write({register: _values(reply["data"], 1, size)[0]})
    guest.jump(pc + length)


def _values(data: Any, count: int, size: int) -> list[int]:
    values = data if isinstance(data, list) else [data]
    return [value & (1 << 8 * size) - 1 for value in (*values, *[0] * count)][:count]


def _string(guest: Processor, flags: Flags, insn: Instruction, size: int, length: int) -> None:
    bits = {64: (64, 32), 32: (32, 16), 16: (16, 32)}[guest.bits][insn.sizes >> 1]
    letter = {64: "r", 32: "e", 16: ""}[bits]
    pc, count = guest.pc(), letter + "cx"
    left = guest.read((count,))[count] if insn.rep else 1
    if left == 0:
        guest.jump(pc + length)
        return
    port, down = guest.read(("dx",))["dx"], guest.read_whole("rflags") & _DIRECTION
    step = -size if down else size
    if insn.opcode & 2:
        index, segment = letter + "si", _SEGMENTS.get(insn.segment or 0x3E)
    else:
        index, segment = letter + "di", "es"
    at = guest.read((index,))[index]
    if segment is None or (down and insn.rep):
        raise Unpredicted(f"a string port instruction with a segment base or downwards at {pc:#x}")
    linear = at + guest.base(segment)
    mask = (1 << bits) - 1

    def moved(elements: int) -> None:
        registers = {index: (at + step * elements) & mask}
        if insn.rep:
            registers[count] = left - elements
        guest.write(registers)

    if insn.opcode & 2:
        data = guest.memory.read(linear, size)
        if data is None:
            raise Unpredicted(f"outs reads {linear:#x}, outside the slots")
        # Both index and count are written back before the exit.
        moved(1)
        if not insn.rep:
            guest.jump(pc + length)
        else:
            flags.written(pc)
        fields = {
            "direction": 1,
            "size": size,
            "port": port,
            "count": 1,
            "data": int.from_bytes(data, "little"),
        }
        guest.exit("io", fields, guest.pc())
        return
    elements = max(1, min(left, (_PAGE - linear % _PAGE) // size, _AHEAD // size))
    slot = guest.memory.at(linear)
    if slot is None or slot.readonly or guest.memory.read(linear, size * elements) is None:
        raise Unpredicted(f"ins writes {linear:#x}, where the guest cannot")
    reply = guest.exit("io", {"direction": 0, "size": size, "port": port, "count": elements}, pc)
    if guest.cut:
        return
    raw = b"".join(
        value.to_bytes(size, "little") for value in _values(reply["data"], elements, size)
    )
    guest.memory.write(linear, raw)
    guest.memory.forget_code()
    moved(elements)
    if not insn.rep:
        guest.jump(pc + length)
