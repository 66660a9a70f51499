"""Registers by name, with the views of them (eax of rax, w0 of x0) at their own width."""

from __future__ import annotations

from typing import NamedTuple


class Register(NamedTuple):
    """`bits` wide; a view names the register it is `of`, and its `shift` in it. `zeroes`: a write
    clears the rest.
    """

    bits: int
    of: str = ""
    shift: int = 0
    zeroes: bool = False


Registers = dict[str, Register]


def base(table: Registers, name: str) -> str:
    """The register that `name` is, or is a view of."""
    return table[name].of or name


def get(table: Registers, values: dict[str, int], name: str) -> int:
    """The value of a register or view out of the values of whole registers."""
    row = table[name]
    return (values[row.of or name] >> row.shift) & ((1 << row.bits) - 1)


def put(table: Registers, values: dict[str, int], name: str, value: int) -> None:
    """Write a register or view into the values of whole registers, as the CPU would (a 32-bit view
    clears the top).
    """
    row = table[name]
    mask = (1 << row.bits) - 1
    if not row.of:
        values[name] = value & mask
    elif row.zeroes:
        values[row.of] = value & mask
    else:
        values[row.of] = (values.get(row.of, 0) & ~(mask << row.shift)) | (
            (value & mask) << row.shift
        )
