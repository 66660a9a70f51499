"""arm64: which loads and stores leave KVM a syndrome that it can decode (Arm ARM, ESR_EL2, "ISS
encoding for an exception from a Data Abort"; encodings from C4.1, "Loads and Stores").

ESR_EL2.ISV is 1 only for a load or store of one general-purpose register without write-back. The
words are classified by their bits, in the order of the Arm ARM's table: a disassembler's operand
flags are wrong for LSE and literal loads.
"""

from __future__ import annotations

from typing import NamedTuple

# The data fault status codes, without the level (ISS bits 5:0).
FAULT_TRANSLATION = 0x04
FAULT_PERMISSION = 0x0C
WNR = 1 << 6

# DC ZVA, DC GVA and DC GZVA: they write; every other cache operation is completed by KVM itself.
_ZERO = frozenset((0xD50B7420, 0xD50B7460, 0xD50B7480))


class Access(NamedTuple):
    """The data access of one instruction.

    `isv`: its abort has a valid syndrome; only then `size` (bytes), `reg` (31 is xzr), `signed` and
    `wide` (the register is written as 64 bits) count. `write`: ESR's WnR where nothing is mapped.
    `modifies`: it reads and writes, so that where reading alone is allowed WnR is 1.
    """

    isv: bool
    write: bool
    size: int = 0
    reg: int = 0
    signed: bool = False
    wide: bool = False
    modifies: bool = False


_LOAD, _STORE, _MODIFY = (
    Access(False, False),
    Access(False, True),
    Access(False, False, modifies=True),
)


def decode(word: int) -> Access | None:
    """The data access of an A64 instruction; None when it makes none that can abort (a prefetch
    never does).
    """
    if word & 0x0A000000 != 0x08000000:
        return _outside(word)
    kind, simd = word >> 28 & 3, word >> 26 & 1
    if kind == 0:
        if simd:
            # ld1 to ld4, st1 to st4, of multiple and single structures.
            return _by_l(word) if word >> 31 == 0 else None
        return _exclusive(word)
    if kind == 1:
        return _literal(word, simd) if not word >> 24 & 1 else _tags_and_unscaled(word, simd)
    if kind == 2:
        return _by_l(word)
    return _register(word, simd)


def esr_iss(access: Access, readonly: bool, level: int) -> int:
    """What arm_nisv's esr_iss holds: WnR and the fault status (KVM hands out nothing else when ISV
    is 0).
    """
    write = access.write or (readonly and access.modifies)
    return (WNR if write else 0) | (FAULT_PERMISSION if readonly else FAULT_TRANSLATION) | level


def _by_l(word: int) -> Access:
    return _LOAD if word >> 22 & 1 else _STORE


def _outside(word: int) -> Access | None:
    if word & ~0x1F in _ZERO:
        return _STORE
    if word >> 25 & 0xF == 2 and word >> 31:
        # SVE: three groups of loads (and prefetches, which never abort), one of stores.
        return _STORE if word >> 29 & 3 == 3 else _LOAD
    return None


def _exclusive(word: int) -> Access | None:
    if word >> 24 & 1:
        return None
    if not word >> 23 & 1:
        # ldxr, stxr and their pairs; with size 0x and bit 21, casp.
        return _MODIFY if word >> 21 & 1 and not word >> 31 else _by_l(word)
    if word >> 21 & 1:
        return _MODIFY  # cas
    return _general(word, word >> 22 & 1)  # ldar, stlr, ldlar, stllr


def _general(word: int, opc: int) -> Access | None:
    """One general-purpose register, by the size and opc of the "Load/store register" encodings."""
    size = word >> 30
    if opc == 0:
        return Access(True, True, 1 << size, word & 31)
    if opc == 1:
        return Access(True, False, 1 << size, word & 31, False, size == 3)
    if size == 3 or (size == 2 and opc == 3):
        return None  # prfm, or unallocated
    return Access(True, False, 1 << size, word & 31, True, opc == 2)


def _literal(word: int, simd: int) -> Access | None:
    opc = word >> 30
    if simd:
        return _LOAD if opc != 3 else None
    if opc == 3:
        return None
    return Access(True, False, 8 if opc == 1 else 4, word & 31, opc == 2, opc != 0)


def _tags_and_unscaled(word: int, simd: int) -> Access | None:
    op4 = word >> 10 & 3
    if not word >> 21 & 1 and op4 == 1:
        # Memory copy and set; bit 26 is an opcode bit there (cpyf and cpy, set and setg).
        return _STORE if word >> 22 & 3 == 3 else _MODIFY
    if word >> 21 & 1:
        if simd or word >> 30 != 3:
            return _MODIFY if not simd else None  # rcw compare and swap
        # MTE: of stzgm, stg, stzg, st2g and the like only ldg and ldgm read.
        return _LOAD if op4 == 0 and word >> 22 & 1 else _STORE
    if op4 == 0 and not simd:
        return _general(word, word >> 22 & 3)  # ldapur, stlur and their kind
    return _by_l(word)  # LRCPC3: pairs, write-back, SIMD


def _register(word: int, simd: int) -> Access | None:
    opc, op4 = word >> 22 & 3, word >> 10 & 3
    if word >> 24 & 1:
        return _by_l(word) if simd else _general(word, opc)
    if not word >> 21 & 1:
        if simd:
            return _by_l(word)
        access = _general(word, opc)
        if access is None or op4 in (0, 2):
            return access  # unscaled, unprivileged
        return _LOAD if opc else _STORE  # post- and pre-indexed
    if op4 == 2:
        return _by_l(word) if simd else _general(word, opc)
    if op4 == 0:
        return _MODIFY if simd else _atomic(word)
    if simd or word >> 30 != 3:
        return None
    # ldraa, ldrab: bit 11 is the write-back.
    return _LOAD if op4 & 2 else Access(True, False, 8, word & 31, False, True)


def _atomic(word: int) -> Access | None:
    if word & 0x0000FC00 == 0x0000C000:
        # o3 = 1, opc = 100: ldapr.
        return Access(True, False, 1 << (word >> 30), word & 31, False, word >> 30 == 3)
    if word >> 30 == 3 and word & 0x0080FC00 in (0x00009000, 0x0000A000, 0x0000B000, 0x0000D000):
        return _LOAD if word & 0xFC00 == 0xD000 else _STORE  # ld64b, st64b, st64bv, st64bv0
    return _MODIFY
