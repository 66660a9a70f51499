"""Sizes of x86 memory operands that Keystone takes otherwise than GNU as: put right before it sees
them, or left to GNU as.
"""

from __future__ import annotations

import re

from kvmscen.asm.keystone.x86.operands import SEGMENTS, Operand

# They take an address, and any size means the same.
_ANY = re.compile(r"(?:invlpg|prefetch\w*|clflush(?:opt)?|clwb|cldemote)\Z", re.ASCII)
# They have a size of their own, for which there is no word.
_NONE = re.compile(
    r"(?:fxsave|fxrstor|xsave(?:opt|c|s)?|xrstors?)(?:64)?\Z|f(?:ldenv|n?stenv|rstor|n?save)\Z|l(?:jmp|call)\Z"
)
_TABLE = re.compile(r"[sl][gi]dt\Z")
_FAR_POINTER = re.compile(r"l[defgs]s\Z|lss\Z")
# Of a general register's width: 64 bits exist in 64-bit code only, where Keystone does not look.
_GENERAL = re.compile(
    r"(?:mov|add|or|adc|sbb|and|sub|xor|cmp|test|inc|dec|neg|not|i?mul|i?div|sh[lr]|sal|sar|ro[lr]|rc[lr]|bt[src]?|call|jmp|"
    r"push|pop|v?cvtsi2s[sd])\Z"
)
_LONG_ONLY = re.compile(r"v?p(?:insr|extr)q\Z")
_SCALAR = re.compile(r"v(?!cvt|mov|broadcast|p)\w+s([sd])\Z|vcvts([sd])2s[sd]\Z", re.ASCII)
_LOW_HALVES = re.compile(r"punpckl(?:bw|wd|dq)\Z")
_HALVED = re.compile(r"vcvtt?pd2(?:ps|dq)\Z")
_OPERAND_SIZE = 0x66


def fits(word: str, operands: list[Operand], mode: int) -> bool:  # noqa: C901 frozen
    """Whether GNU as takes this size, maybe left out, of the memory operand; `size` becomes what
    Keystone wants to see.
    """
    memory = next((operand for operand in operands if operand.kind == "mem"), None)
    if memory is None:
        return True
    register = next((operand for operand in operands if operand.kind == "reg"), None)
    size, width = memory.size, register.size if register else 0
    if (memory.distance and word not in ("call", "jmp")) or (mode != 64 and _LONG_ONLY.match(word)):
        return False
    if not size:
        if word == "pop":
            memory.size = mode
        elif scalar := _SCALAR.match(word):
            memory.size = 32 if "s" in scalar.groups() else 64
        elif mode != 64 and word.startswith("cvtsi2s"):
            memory.size = 32
        ambiguous = (word in ("movzx", "movsx") and width == 16) or (
            _HALVED.match(word) is not None and width == 128
        )
        return not ambiguous and not (_FAR_POINTER.match(word) and width == 64)
    if _ANY.match(word):
        memory.size = 0
        # as gives a prefix that means nothing to such, or refuses.
        return not (mode == 16 and size == 48)
    if _NONE.match(word):
        return False
    if _TABLE.match(word):
        return size == (80 if mode == 64 else 48)
    if _FAR_POINTER.match(word):
        return size == {16: 32, 32: 48}.get(width)
    if word == "lsl":
        memory.size = 0
        return size == 16
    if _LOW_HALVES.match(word) and register and register.register.startswith("mm"):
        memory.size = 0
        return size == 32
    if _SCALAR.match(word):
        return size != 128
    if word in ("call", "jmp"):
        return size != 80 and (size != 64 or mode == 64)
    return not (mode != 64 and size == 64 and _GENERAL.match(word))


def without_operand_size(word: str, operands: list[Operand], code: bytes, mode: int) -> bytes:
    """A store of a segment register to memory has 16 bits anyway: GNU as gives it no prefix."""
    segment = any(operand.register in SEGMENTS for operand in operands)
    if (
        mode == 16
        or word != "mov"
        or not segment
        or not any(operand.kind == "mem" for operand in operands)
    ):
        return code
    at = code.index(0x8C) if 0x8C in code[:5] else 0
    return code[:at].replace(bytes([_OPERAND_SIZE]), b"") + code[at:]
