"""Which x86 instructions KVM's emulator carries out when they touch memory outside the slots
(arch/x86/kvm/emulate.c).

What it does not know leaves as internal_error, suberror 1: AVX, x87 but for the stores of control
and status word, movd, movq and movss of xmm registers, popcnt, and all newer than SSE2. Only
instructions with a memory operand matter here.
"""

from __future__ import annotations

from typing import NamedTuple

LEGACY = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
_STRINGS = frozenset(
    (0x6C, 0x6D, 0x6E, 0x6F, 0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF)
)
# Two-byte opcodes with a general-purpose operand.
_TWO = frozenset(
    (
        *range(0x40, 0x50),
        *range(0x90, 0xA0),
        *(0xA0, 0xA1, 0xA8, 0xA9),
        *(
            0xA3,
            0xA4,
            0xA5,
            0xAB,
            0xAC,
            0xAD,
            0xAF,
            0xB0,
            0xB1,
            0xB3,
            0xB6,
            0xB7,
            0xBA,
            0xBB,
            0xBC,
            0xBD,
            0xBE,
            0xBF,
        ),
        *(0xC0, 0xC1, 0xC3),
    )
)
_UNCERTAIN = frozenset(
    (
        0x06,
        0x07,
        0x0E,
        0x16,
        0x17,
        0x1E,
        0x1F,
        0x60,
        0x61,
        0x62,
        0x8C,
        0x8E,
        0x9A,
        0xC4,
        0xC5,
        0xC8,
        0xCA,
        0xCB,
        0xCF,
        0xEA,
    )
)
# SSE and MMX moves: opcode to the mandatory prefixes (0 is none) with which they are known.
_MOVES = {
    0x10: (0, 0x66),
    0x11: (0, 0x66),
    0x28: (0, 0x66),
    0x29: (0, 0x66),
    0x2B: (0, 0x66),
    0x6F: (0, 0x66, 0xF3),
    0x7F: (0, 0x66, 0xF3),
    0xE7: (0x66,),
}
_ALIGNED = {
    (0x28, 0),
    (0x28, 0x66),
    (0x29, 0),
    (0x29, 0x66),
    (0x2B, 0),
    (0x2B, 0x66),
    (0x6F, 0x66),
    (0x7F, 0x66),
    (0xE7, 0x66),
}


class Instruction(NamedTuple):
    """The parts of an instruction that tell what KVM's emulator does with it."""

    map: int  # 1 one-byte, 2 0F, 3 0F 38, 4 0F 3A; 0 VEX, EVEX or XOP
    opcode: int
    modrm: int
    prefix: int  # the last of 66, F2, F3 that counts, 0 none
    rep: int  # F2, F3 or 0
    segment: int  # segment override, 0 none
    sizes: int  # 1: operand size, 2: address size overridden
    rex: int

    @property
    def string(self) -> bool:
        """Whether it is a string instruction, ins and outs included."""
        return self.map == 1 and self.opcode in _STRINGS

    @property
    def wide_move(self) -> bool:
        """Whether the instruction moves 16 bytes at once."""
        return (
            self.map == 2
            and self.opcode in _MOVES
            and not (self.opcode in (0x6F, 0x7F) and self.prefix == 0)
        )

    @property
    def aligned(self) -> bool:
        """Whether the instruction's 16-byte operand must be aligned."""
        return self.map == 2 and (self.opcode, self.prefix) in _ALIGNED


def parse(raw: bytes, bits: int) -> Instruction:
    """Prefixes, opcode and ModRM of the instruction at the start of `raw`."""
    at = sizes = rex = rep = segment = prefix = 0
    padded = raw + bytes(4)
    while padded[at] in LEGACY and at < len(raw):
        byte = padded[at]
        if byte in (0xF2, 0xF3):
            rep = byte
        elif byte == 0x66:
            sizes |= 1
        elif byte == 0x67:
            sizes |= 2
        elif byte != 0xF0:
            segment = byte
        at += 1
    if bits == 64 and padded[at] & 0xF0 == 0x40:
        rex, at = padded[at], at + 1
    prefix = rep or (0x66 if sizes & 1 else 0)
    opcode, follow = padded[at], padded[at + 1]
    vex = opcode in (0xC4, 0xC5, 0x62) and (bits == 64 or follow >= 0xC0)
    if vex or (opcode == 0x8F and follow & 0x38):
        return Instruction(0, opcode, follow, prefix, rep, segment, sizes, rex)
    if opcode != 0x0F:
        return Instruction(1, opcode, follow, prefix, rep, segment, sizes, rex)
    if follow in (0x38, 0x3A):
        three = 3 if follow == 0x38 else 4
        return Instruction(three, padded[at + 2], padded[at + 3], prefix, rep, segment, sizes, rex)
    return Instruction(2, follow, padded[at + 2], prefix, rep, segment, sizes, rex)


def reads_flags(insn: Instruction) -> bool:
    """Whether a memory operand is written from flags: setcc, rcl, rcr."""
    rotates = insn.opcode in (0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3) and insn.modrm >> 3 & 7 in (
        2,
        3,
    )
    return (insn.map == 2 and 0x90 <= insn.opcode <= 0x9F) or (insn.map == 1 and rotates)


def uncertain(insn: Instruction) -> bool:
    """Whether KVM's order or width of accesses is not the processor's: segment loads, far
    transfers, several pushes.
    """
    group = insn.modrm >> 3 & 7
    if insn.map == 1:
        return insn.opcode in _UNCERTAIN or (insn.opcode == 0xFF and group in (3, 5))
    return insn.map == 2 and insn.opcode in (0xA0, 0xA1, 0xA8, 0xA9, 0xB2, 0xB4, 0xB5)


def system(insn: Instruction) -> str | None:
    """Of the instructions on descriptor tables and the machine status word: what KVM does with a
    memory operand, if it is known.

    `spins`: it tries again in the kernel until a signal comes; else in words why the model does not
    follow it.
    """
    group = insn.modrm >> 3 & 7
    if insn.map != 2 or insn.opcode > 1 or insn.modrm >= 0xC0:
        return None
    if insn.opcode == 1 and group in (0, 1):
        return "spins"
    if insn.opcode == 1 and group in (2, 3):
        return "lgdt or lidt from outside the slots, which KVM reads without end"
    if (insn.opcode, group) in ((1, 4), (1, 6), (0, 0), (0, 1), (0, 2), (0, 3)):
        return "smsw, lmsw, sldt, str, lldt or ltr outside the slots"
    return None


def emulated(insn: Instruction) -> bool:
    """Whether KVM's emulator carries the instruction out."""
    group = insn.modrm >> 3 & 7
    if insn.map == 1:
        if 0xD8 <= insn.opcode <= 0xDF:
            return (insn.opcode, group) in ((0xD9, 7), (0xDD, 7))  # fnstcw, fnstsw
        return insn.opcode != 0x9B
    if insn.map == 2:
        if insn.opcode in _MOVES:
            return insn.prefix in _MOVES[insn.opcode]
        if insn.opcode == 0xC7:
            return group == 1 and not insn.rex & 8  # cmpxchg8b, not cmpxchg16b
        return insn.opcode in _TWO
    return insn.map == 3 and insn.opcode in (0xF0, 0xF1) and insn.rep == 0  # movbe, not crc32
