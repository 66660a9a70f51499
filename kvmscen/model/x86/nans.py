"""x86: SSE arithmetic on two NaNs gives the first of them; Unicorn gives that of the larger
significand, as x87 does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

# Bytes of a lane by the last letter of the name.
_LANE = {"s": 4, "d": 8}
_WHOLE = 16
# Each lane with the same one of the other operand; then those that join lanes.
_SCALAR = frozenset(name + kind for name in ("add", "sub", "mul", "div") for kind in ("ss", "sd"))
_PACKED = frozenset(
    name + kind for name in ("add", "sub", "mul", "div", "addsub") for kind in ("ps", "pd")
)
_ACROSS = frozenset(name + kind for name in ("hadd", "hsub", "dp") for kind in ("ps", "pd"))
ARITHMETIC = _SCALAR | _PACKED | _ACROSS


def two_nans(
    name: str,
    operands: str,
    read: Callable[[Iterable[str]], Mapping[str, int]],
    memory: Callable[[int], int],
) -> bool:
    """Whether two different NaNs meet in an instruction of ARITHMETIC; `memory` gives its operand
    there by its size in bytes.
    """
    lane = _LANE[name[-1]]
    size = lane if name in _SCALAR else _WHOLE
    first, second = (text.strip() for text in operands.split(",")[:2])
    values = [memory(size) if "[" in text else read((text,))[text] for text in (first, second)]
    lanes = [
        [value >> 8 * at & (1 << 8 * lane) - 1 for at in range(0, size, lane)] for value in values
    ]
    if name in _ACROSS:
        nans = {value for of in lanes for value in of if _is_nan(value, lane)}
        return len(nans) > 1
    return any(
        a != b and _is_nan(a, lane) and _is_nan(b, lane) for a, b in zip(*lanes, strict=True)
    )


def _is_nan(value: int, lane: int) -> bool:
    """Whether the bits are a NaN's."""
    infinity = 0x7F800000 if lane == 4 else 0x7FF << 52
    return value & (1 << 8 * lane - 1) - 1 > infinity
