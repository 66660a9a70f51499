"""cmpxchg of 32 bits in long mode, where Unicorn writes too much.

A processor writes eax where the comparison fails, and else the destination; a register that it does
not write keeps its upper half. Unicorn writes both, and so clears both upper halves.
"""

from __future__ import annotations

from kvmscen.model.building import Unpredicted
from kvmscen.model.x86.emulator import Instruction
from kvmscen.model.x86.processor import Processor

_LOW = (1 << 32) - 1
_ZF = 1 << 6


def exchanges(insn: Instruction, bits: int) -> bool:
    """Whether the instruction is a cmpxchg of 32 bits in 64-bit code."""
    return (
        bits == 64
        and (insn.map, insn.opcode) == (2, 0xB1)
        and not insn.rex & 8
        and not insn.sizes & 1
    )


def loses(guest: Processor, insn: Instruction) -> bool:
    """Whether Unicorn may clear an upper half that is not 0, at the instruction at pc."""
    return any(guest.read_whole(name) > _LOW for name in ("rax", *_destination(insn)))


def kept(guest: Processor, insn: Instruction) -> int | None:
    """rax in front of a cmpxchg, for mend(); None where it is none.

    Raises Unpredicted where a comparison with a register fails whose upper half is not 0: a
    processor leaves it, PVM's emulator clears it.
    """
    if not exchanges(insn, guest.bits):
        return None
    rax = guest.read_whole("rax")
    for name in _destination(insn):
        value = guest.read_whole(name)
        if value > _LOW and (value ^ rax) & _LOW:
            raise Unpredicted(
                f"cmpxchg at {guest.pc():#x}: whether {name}, which is not written, keeps its "
                f"upper half is another thing on PVM than on a processor"
            )
    # As the destination rax is written where the comparison holds, and then always.
    return None if "rax" in _destination(insn) else rax


def mend(guest: Processor, rax: int | None) -> None:
    """Give rax back the upper half that it had, where the comparison held."""
    if rax is not None and guest.read_whole("rflags") & _ZF:
        guest.write_wholes({"rax": rax})


_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")


def _destination(insn: Instruction) -> tuple[str, ...]:
    """The register that it writes to, none where that is memory."""
    if insn.modrm < 0xC0:
        return ()
    number = insn.modrm & 7 | (insn.rex & 1) << 3
    return (_NAMES[number] if number < 8 else f"r{number}",)
