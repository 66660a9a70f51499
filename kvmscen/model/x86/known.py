"""x86: instructions of which it depends on the CPU, or on what Unicorn leaves out, what they do; by
their bytes.
"""

from __future__ import annotations

from kvmscen.model.x86.emulator import LEGACY, Instruction, emulated

_F2, _F3 = 0xF2, 0xF3
_ENDBR = (0xFA, 0xFB)
# In long mode no processor knows those, and none gives them another meaning.
_NONE = frozenset(
    (
        0x06,
        0x07,
        0x0E,
        0x16,
        0x17,
        0x1E,
        0x1F,
        0x27,
        0x2F,
        0x37,
        0x3F,
        0x60,
        0x61,
        0x82,
        0x9A,
        0xCE,
        0xD4,
        0xEA,
    )
)
_TO_MEMORY = frozenset(
    (0x00, 0x01, 0x08, 0x09, 0x10, 0x11, 0x18, 0x19, 0x20, 0x21, 0x28, 0x29, 0x30, 0x31, 0x86, 0x87)
)
# Two-byte opcodes of MMX and SSE. movnti is none of them.
_VECTORS = frozenset(
    (
        *range(0x10, 0x18),
        *range(0x28, 0x30),
        *range(0x50, 0x80),
        0xC2,
        0xC4,
        0xC5,
        0xC6,
        *range(0xD0, 0xFF),
    )
)
_NEAR = frozenset((0xC2, 0xC3, 0xE0, 0xE1, 0xE2, 0xE3, 0xE8, 0xE9, 0xEB, *range(0x70, 0x80)))


def named(mnemonic: str, operands: str) -> str:
    """The name without prefixes. Capstone calls far jumps and calls by memory as near ones, with an
    operand of no size.
    """
    name = mnemonic.split()[-1]
    return f"l{name}" if name in ("jmp", "call") and operands.startswith("ptr [") else name


def wrong(insn: Instruction, raw: bytes, bits: int) -> str | None:
    """Why nobody can say what an instruction does that is carried out in the guest, or None."""
    if _of_extension(insn):
        return "not every CPU has it"
    if _locked(raw) and not _lockable(insn):
        return (
            "with a LOCK prefix that it does not take it is undefined on a processor, and QEMU "
            "does not check"
        )
    if (
        insn.map == 2
        and 0xC8 <= insn.opcode <= 0xCF
        and not insn.rex & 8
        and (bits == 16) != bool(insn.sizes & 1)
    ):
        return "of 16 bits it is undefined"
    if bits == 16 and insn.sizes & 1 and _near(insn):
        return "a branch of 32 bits in real mode: Unicorn does not look at the end of cs"
    return None


def undefined(insn: Instruction, bits: int) -> bool:
    """Whether what Capstone does not know is no instruction of any processor."""
    return bits == 64 and insn.map == 1 and insn.opcode in _NONE


def stays(insn: Instruction) -> bool:
    """Whether the instruction may leave pc where it is: a near jump, call or return to itself."""
    group = insn.modrm >> 3 & 7
    return insn.map == 1 and (
        insn.opcode in (0xC2, 0xC3) or (insn.opcode == 0xFF and group in (2, 4))
    )


def lacking(insn: Instruction, raw: bytes, bits: int) -> bool:
    """Whether PVM's emulator, which runs kernel mode there, lacks what processors have; measured on
    6.18.
    """
    group, register = insn.modrm >> 3 & 7, insn.modrm >= 0xC0
    if insn.map == 1 and 0xD8 <= insn.opcode <= 0xDF:
        stores = (insn.opcode, group) in ((0xD9, 7), (0xDD, 7)) and not register
        return not stores and (insn.opcode, insn.modrm) != (0xDB, 0xE3)  # fnstcw, fnstsw; fninit
    if insn.map == 1 and insn.opcode == 0xC8:
        return bool(raw[-1] & 31)  # enter of a nested procedure
    if insn.map == 1:
        traps = insn.opcode in (0xCC, 0xCD, 0xCE) and bits != 16
        decimal = insn.opcode in (0x27, 0x37, 0x3F) and bits != 64
        checks = (insn.opcode == 0x62 and bits != 64) or (insn.opcode == 0x63 and bits == 32)
        return traps or decimal or checks or insn.opcode == 0x9B
    if insn.map == 2 and insn.opcode == 0xAE:
        return group == 3 and not register  # stmxcsr
    return insn.map == 2 and insn.opcode in _VECTORS and not emulated(insn)


def _of_extension(insn: Instruction) -> bool:
    if insn.map in (3, 4):
        return True
    if insn.map != 2:
        return False
    if insn.opcode in (0xB8, 0xBC, 0xBD):
        return insn.rep == _F3  # popcnt, tzcnt, lzcnt
    if insn.opcode == 0xC7:
        return insn.modrm >> 3 & 7 == 1 and bool(
            insn.rex & 8
        )  # cmpxchg16b, which QEMU's SVM runs without
    if insn.opcode == 0x1E:
        return insn.rep == _F3 and insn.modrm not in _ENDBR and insn.modrm >= 0xC0
    if insn.opcode in (0x78, 0x79, 0x0F):
        return True  # SSE4a, 3DNow!
    return insn.opcode == 0x2B and insn.rep in (_F2, _F3)


def _locked(raw: bytes) -> bool:
    for byte in raw:
        if byte == 0xF0:
            return True
        if byte not in LEGACY:
            break
    return False


def _lockable(insn: Instruction) -> bool:
    group = insn.modrm >> 3 & 7
    if insn.modrm >= 0xC0:
        return False
    if insn.map == 1:
        groups = {0x80: 7, 0x81: 7, 0x83: 7}
        if insn.opcode in groups:
            return group != groups[insn.opcode]
        return (
            insn.opcode in _TO_MEMORY
            or (insn.opcode in (0xF6, 0xF7) and group in (2, 3))
            or (insn.opcode in (0xFE, 0xFF) and group in (0, 1))
        )
    if insn.map != 2:
        return False
    return (
        insn.opcode in (0xAB, 0xB0, 0xB1, 0xB3, 0xBB, 0xC0, 0xC1)
        or (insn.opcode == 0xBA and group in (5, 6, 7))
        or (insn.opcode == 0xC7 and group == 1)
    )


def _near(insn: Instruction) -> bool:
    if insn.map == 2:
        return 0x80 <= insn.opcode <= 0x8F
    return insn.map == 1 and (
        insn.opcode in _NEAR or (insn.opcode == 0xFF and insn.modrm >> 3 & 7 in (2, 4))
    )
