"""What must not reach Keystone as it stands: instructions at which it ends the process or picks
another encoding.
"""

from __future__ import annotations

import re

from kvmscen.asm.keystone.x86.operands import Operand

STRING = re.compile(r"(?:scas|movs|cmps|lods|stos|ins|outs|xlat)[bwdlq]?\Z")
_HIGH_BYTES = ("ah", "bh", "ch", "dh")
_NEEDS_REX = re.compile(
    r"r\d+[bwd]?\Z|[sd]il\Z|[sb]pl\Z|[xyz]mm\d\d\Z|cr\d\d|cr8|cr9|dr\d\d|dr8|dr9", re.ASCII
)


def mixes_high_bytes(operands: list[Operand]) -> bool:
    """Whether `ah` stands beside what needs a REX prefix, at which Keystone ends the process."""
    if not any(operand.register in _HIGH_BYTES for operand in operands):
        return False
    names = [
        name for operand in operands for name in (operand.register, operand.base, operand.index)
    ]
    return any(operand.size == 64 for operand in operands) or any(
        _NEEDS_REX.match(name) for name in names
    )


def is_far_away(operands: list[Operand]) -> bool:
    """Whether one operand is a plain address beyond 31 bits, which `mov` reaches with the
    accumulator alone.
    """
    if len(operands) != 2 or not any(
        operand.register in ("al", "ax", "eax", "rax") for operand in operands
    ):
        return False
    for operand in operands:
        if (
            operand.kind == "mem"
            and not (operand.base or operand.index)
            and operand.number is not None
        ):
            return not -(1 << 31) <= operand.number < 1 << 31
    return False


def drop_size(source: Operand) -> None:
    """The source of a move to a segment register as 32 bits wide in 32- and 64-bit code: no prefix,
    as in GNU as.
    """
    if source.kind == "reg" and source.size == 16:
        is_new = source.register[1:2].isdigit()
        source.register = source.register[:-1] + "d" if is_new else "e" + source.register
