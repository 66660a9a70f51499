"""arm64: what one load or store does, as a value.

A `Form` is everything but the values: where the address comes from, which bytes go to which
registers, what is written back. kvmscen.sent.undecoded.decode reads it from an instruction's bits,
kvmscen.sent.undecoded.emulate carries it out.
"""

from __future__ import annotations

from typing import NamedTuple


class Unemulated(Exception):
    """The instruction is not carried out for the guest; the message is why, in one clause."""


class Part(NamedTuple):
    """Consecutive bytes of the access, and the register that they belong to.

    `offset` and `size` in bytes from the address; `reg` `x0` to `x30`, `xzr`, `v0` to `v31`, or
    nothing for zeros. `sign`: a load extends the sign to so many bits. Of v: `at` is the byte of
    the register where the element lies, `keep` says that a load leaves the register's other bytes
    alone, and `copies` how often the element is repeated.
    """

    offset: int
    size: int
    reg: str
    sign: int = 0
    at: int = 0
    keep: bool = False
    copies: int = 1


class Index(NamedTuple):
    """A register that is added to the base: its low `bits`, extended with or without sign, then
    shifted.
    """

    reg: str
    bits: int
    signed: bool
    shift: int


class Form(NamedTuple):
    """One instruction.

    `kind`: `load`, `store`, `atomic` (op on memory, the old value to `parts[0].reg`, if any),
    `cas`, or `none` (a prefetch). The address is base + offset + indexed; `base` is a register,
    `sp` or `pc`. `update`, or the register `update_by`, is added to the base afterwards. `sources`
    are the operands of an atomic, or the new values of a cas. `status` is the register of a
    store-exclusive, `monitor` marks a load-exclusive, `align` rounds the address down.
    """

    name: str
    kind: str
    base: str
    parts: tuple[Part, ...] = ()
    offset: int = 0
    indexed: Index | None = None
    update: int | None = None
    update_by: str = ""
    op: str = ""
    sources: tuple[str, ...] = ()
    status: str = ""
    monitor: bool = False
    align: int = 1


def unallocated(word: int) -> Unemulated:
    """A word in the group of loads and stores that this table does not have."""
    return Unemulated(f"the encoding {word:#010x} is none of a load or store up to Armv8.5")


def unpredictable(name: str, why: str) -> Unemulated:
    """The error for an instruction that is CONSTRAINED UNPREDICTABLE."""
    return Unemulated(f"{name} {why}: CONSTRAINED UNPREDICTABLE, CPUs differ")


def base_of(word: int) -> str:
    """Rn, where 31 is the stack pointer."""
    n = word >> 5 & 31
    return "sp" if n == 31 else f"x{n}"


def general(n: int) -> str:
    """x0 to x30, where 31 is the zero register."""
    n &= 31
    return "xzr" if n == 31 else f"x{n}"
