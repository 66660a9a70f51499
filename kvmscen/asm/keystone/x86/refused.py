"""x86: what is said of an instruction that does not assemble, and of a number that Keystone would
cut.
"""

from __future__ import annotations

from functools import lru_cache

from kvmscen.asm.keystone.x86.branches import is_branch
from kvmscen.asm.keystone.x86.operands import (
    Operand,
)
from kvmscen.asm.keystone.x86.patched import bare
from kvmscen.asm.source import Statement
from kvmscen.asm.values import Unexplained, Wrong, clip

_NEEDS_SIZE = frozenset(
    "mov add sub and or xor cmp test adc sbb inc dec neg not mul div idiv imul push pop".split()
)
_NEEDS_SIZE |= frozenset("shl shr sal sar rol ror rcl rcr movzx movsx bt bts btr btc".split())


@lru_cache(maxsize=4096)
def _appears(code: bytes, value: int) -> bool:
    for width in (2, 4, 8):
        bits = 8 * width
        if (
            -(1 << (bits - 1)) <= value < 1 << bits
            and (value & ((1 << bits) - 1)).to_bytes(width, "little") in code
        ):
            return True
    return False


def check_numbers(code: bytes, operands: list[Operand], statement: Statement) -> None:
    """Keystone cuts an immediate that is too wide without a word: what was asked for must be in the
    bytes.
    """
    for operand in operands:
        number = operand.number if operand.kind == "imm" else None
        if number is not None and not -128 <= number <= 255 and not _appears(code, number):
            raise Wrong(f"the number {number:#x} does not fit here: {clip(statement.text)}")


def complaint(statement: Statement, word: str, operands: list[Operand], att: bool) -> Wrong:
    """What to say of an instruction that does not assemble: its cause, where one is known."""
    message = f"this does not assemble: {clip(statement.text)}"
    for operand in operands:
        if (
            operand.kind == "imm"
            and operand.bare
            and operand.number is None
            and not att
            and not is_branch(word)
        ):
            return Wrong(f"{message}; {bare(operand)}")
    memory = [operand for operand in operands if operand.kind == "mem"]
    if not att and memory and not any(operand.size for operand in operands) and word in _NEEDS_SIZE:
        size = f"its size is not known: write byte, word, dword or qword ptr {clip(memory[0].text)}"
        return Wrong(f"{message}; {size}")
    return Unexplained(message)
