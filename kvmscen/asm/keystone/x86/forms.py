"""x86 memory operands that Keystone encodes wrongly: another that it gets right is encoded, and its
bytes are corrected.
"""

from __future__ import annotations

from collections.abc import Callable

from kvmscen.asm.keystone.expressions import Expression
from kvmscen.asm.keystone.x86.operands import DISP_MARK, Operand

_SEGMENTS = {"es": 0x26, "cs": 0x2E, "ss": 0x36, "ds": 0x3E, "fs": 0x64, "gs": 0x65}
_STACK = ("bp", "ebp", "rbp", "esp", "rsp")
_ZERO = Expression("0", (), (), 0)


def with_memory(
    operand: Operand, mode: int, encode: Callable[[Operand], bytes | None]
) -> bytes | None:
    """What `encode` makes of an instruction with this memory operand, corrected; None where it
    makes nothing.

    Keystone drops a `ds:` that is not the default and keeps an `ss:` that is; in 16-bit code it
    loses the index of `[esi*8 + 4]` and adds a displacement of zero to `[bp + si]`.
    """
    plain = operand.but(segment="")
    if mode == 16 and operand.index and not operand.base and operand.address_bits(mode) == 32:
        code = _without_base(plain, encode)
    elif (
        operand.base == "bp"
        and operand.index
        and not operand.number
        and (operand.value is None or operand.number == 0)
    ):
        code = _base_pointer(plain, encode)
    else:
        code = encode(plain)
    default = "ss" if operand.base in _STACK else "ds"
    if not code or operand.segment in ("", default):
        return code
    return bytes([_SEGMENTS[operand.segment]]) + code


def _without_base(operand: Operand, encode: Callable[[Operand], bytes | None]) -> bytes | None:
    """`[index*scale + displacement]`, which is `[ebp + index*scale + displacement]` with another
    mode in its ModRM byte.
    """
    code = encode(operand.but(base="ebp", value=operand.value or _ZERO, number=None))
    mark = DISP_MARK.to_bytes(4, "little")
    if code is None or code.count(mark) != 1:
        return None
    at = code.index(mark)
    displacement = mark
    if operand.value is None or operand.number is not None:
        displacement = ((operand.number or 0) & 0xFFFFFFFF).to_bytes(4, "little")
    return (
        code[: at - 2]
        + bytes([code[at - 2] & 0x3F])
        + code[at - 1 : at]
        + displacement
        + code[at + 4 :]
    )


def _base_pointer(operand: Operand, encode: Callable[[Operand], bytes | None]) -> bytes | None:
    """`[bp + si]` and `[bp + di]`, whose ModRM byte is that of `[bx + si]` and 2."""
    operand = operand.but(value=None, number=None)
    code, other = (encode(operand.but(base="bx", index=index)) for index in ("si", "di"))
    if code is None or other is None or len(code) != len(other):
        return None
    (at,) = [at for at in range(len(code)) if code[at] != other[at]]
    return code[:at] + bytes([code[at] + 2 + (operand.index == "di")]) + code[at + 1 :]
