"""arm64: the loads and stores by their bits (Arm ARM, C4.1.94 "Loads and Stores", and C6.2 and C7.2
for each).

What is not covered is refused by name, never guessed; so is what the Arm ARM calls CONSTRAINED
UNPREDICTABLE, since CPUs differ there.
"""

from __future__ import annotations

from functools import lru_cache

from kvmscen.sent.undecoded.forms import (
    Form,
    Index,
    Part,
    Unemulated,
    base_of,
    general,
    unallocated,
    unpredictable,
)
from kvmscen.sent.undecoded.structures import structures

ZVA = 64  # bytes that DC ZVA zeroes: DCZID_EL0.BS is 4 on every CPU that runs Linux's KVM today


@lru_cache(maxsize=4096)
def decode(word: int) -> Form:
    """What an A64 instruction does to memory. Raises Unemulated."""
    if word & ~0x1F == 0xD50B7420:
        return Form("dc zva", "store", general(word), (Part(0, ZVA, ""),), align=ZVA)
    if word & ~0x1F in (0xD50B7460, 0xD50B7480):
        raise Unemulated("dc gva and dc gzva write memory tags (MTE), which are not emulated")
    if word & 0x0A000000 != 0x08000000:
        raise Unemulated(_outside(word))
    kind, simd = word >> 28 & 3, word >> 26 & 1
    if kind == 0:
        if simd:
            return structures(word)
        return _exclusive(word)
    if kind == 1:
        return _literal(word, simd) if not word >> 24 & 1 else _ordered(word, simd)
    if kind == 2:
        return _pair(word, simd)
    return _register(word, simd)


def _outside(word: int) -> str:
    major = word >> 25 & 0xF
    if major == 2 and word >> 31:
        return "SVE loads and stores are not emulated"
    if major == 0 and word >> 31:
        return "SME loads and stores are not emulated"
    return "the instruction is not a memory access"


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


# --- one register of either bank ------------------------------------------------------------------

_LETTER = {1: "b", 2: "h", 4: "", 8: ""}


def _gp(word: int, opc: int, name: str) -> Form:
    """One general-purpose register, by size and opc of the "Load/store register" encodings; `name`
    has `{}` for ld and st.
    """
    size = 1 << (word >> 30)
    if opc == 0:
        return Form(
            name.format("st") + _LETTER[size],
            "store",
            base_of(word),
            (Part(0, size, general(word)),),
        )
    if opc == 1:
        return Form(
            name.format("ld") + _LETTER[size],
            "load",
            base_of(word),
            (Part(0, size, general(word)),),
        )
    if size == 8 or (size == 4 and opc == 3):
        raise unallocated(word)
    sign = 64 if opc == 2 else 32
    return Form(
        name.format("ld") + "s" + (_LETTER[size] or "w"),
        "load",
        base_of(word),
        (Part(0, size, general(word), sign),),
    )


def _vector(word: int, opc: int, name: str) -> Form:
    if opc & 2 and word >> 30:
        raise unallocated(word)
    size = 16 if opc & 2 else 1 << (word >> 30)
    part = Part(0, size, f"v{word & 31}")
    return Form(
        name.format("ld" if opc & 1 else "st"),
        "load" if opc & 1 else "store",
        base_of(word),
        (part,),
    )


def _one(word: int, simd: int, name: str) -> Form:
    opc = word >> 22 & 3
    return _vector(word, opc, name) if simd else _gp(word, opc, name)


def _literal(word: int, simd: int) -> Form:
    opc, offset = word >> 30, _signed(word >> 5, 19) * 4
    if simd:
        if opc == 3:
            raise unallocated(word)
        return Form("ldr", "load", "pc", (Part(0, 4 << opc, f"v{word & 31}"),), offset)
    if opc == 3:
        return Form("prfm", "none", "pc", (), offset)
    part = Part(0, 8 if opc == 1 else 4, general(word), 64 if opc == 2 else 0)
    return Form("ldrsw" if opc == 2 else "ldr", "load", "pc", (part,), offset)


def _register(word: int, simd: int) -> Form:
    mode, prefetch = word >> 10 & 3, not simd and word >> 30 == 3 and word >> 22 & 3 == 2
    if word >> 24 & 1:
        if prefetch:
            return Form("prfm", "none", base_of(word))
        form = _one(word, simd, "{}r")
        return form._replace(offset=(word >> 10 & 0xFFF) * form.parts[0].size)
    if word >> 21 & 1:
        if mode == 2:
            return _indexed(word, simd, bool(prefetch))
        if mode == 0:
            return _atomic(word, simd)
        if simd or word >> 30 != 3:
            raise unallocated(word)
        raise Unemulated(
            "ldraa and ldrab authenticate a pointer with the guest's keys, which is not emulated"
        )
    offset = _signed(word >> 12, 9)
    if mode == 0:
        return (
            Form("prfum", "none", base_of(word))
            if prefetch
            else _one(word, simd, "{}ur")._replace(offset=offset)
        )
    if mode == 2:
        if simd:
            raise unallocated(word)
        return _one(word, 0, "{}tr")._replace(offset=offset)
    form = _one(word, simd, "{}r")
    if form.base == form.parts[0].reg:
        raise unpredictable(form.name, "writes its address back to the register that it moves")
    return form._replace(offset=offset if mode == 3 else 0, update=offset)


def _indexed(word: int, simd: int, prefetch: bool) -> Form:
    option = word >> 13 & 7
    if not option & 2:
        raise unallocated(word)
    if prefetch:
        return Form("prfm", "none", base_of(word))
    form = _one(word, simd, "{}r")
    shift = form.parts[0].size.bit_length() - 1 if word >> 12 & 1 else 0
    return form._replace(
        indexed=Index(general(word >> 16), 64 if option & 1 else 32, option >= 4, shift)
    )


def _ordered(word: int, simd: int) -> Form:
    """ldapur and stlur; what else has this place is refused by its extension."""
    mode = word >> 10 & 3
    if word >> 21 & 1:
        if not simd and word >> 30 == 3:
            raise Unemulated("loads and stores of memory tags (MTE) are not emulated")
        raise unallocated(word)
    if mode == 1:
        raise Unemulated("memory copy and set instructions (MOPS) are not emulated")
    if mode == 2:
        raise Unemulated("the write-back, pair and SIMD forms of FEAT_LRCPC3 are not emulated")
    if simd or mode:
        raise unallocated(word)
    form = _one(word, 0, "{}ur")
    name = form.name.replace("ldur", "ldapur").replace("stur", "stlur")
    return form._replace(name=name, offset=_signed(word >> 12, 9))


# --- pairs ----------------------------------------------------------------------------------------


def _pair(word: int, simd: int) -> Form:
    opc, mode, load = word >> 30, word >> 23 & 3, word >> 22 & 1
    bank, sign = ("v" if simd else "x"), 0
    if opc == 3:
        raise unallocated(word)
    if simd:
        size = 4 << opc
    elif opc == 1:
        if not mode:
            raise unallocated(word)
        if not load:
            raise Unemulated("stgp writes memory tags (MTE), which are not emulated")
        size, sign = 4, 64
    else:
        size = 8 if opc else 4
    numbers = word & 31, word >> 10 & 31
    name = ("ld" if load else "st") + ("p" if mode else "np") + ("sw" if sign else "")
    if load and numbers[0] == numbers[1]:
        raise unpredictable(name, "loads one register twice")
    regs = [f"v{n}" for n in numbers] if bank == "v" else [general(n) for n in numbers]
    base, offset = base_of(word), _signed(word >> 15, 7) * size
    update = offset if mode & 1 else None
    if update is not None and base in regs:
        raise unpredictable(name, "writes its address back to a register that it moves")
    parts = (Part(0, size, regs[0], sign), Part(size, size, regs[1], sign))
    return Form(
        name, "load" if load else "store", base, parts, 0 if mode == 1 else offset, None, update
    )


# --- exclusives, acquire and release, atomics -----------------------------------------------------


def _exclusive(word: int) -> Form:
    if word >> 24 & 1:
        raise unallocated(word)
    load, first, ordered = word >> 22 & 1, word >> 21 & 1, word >> 15 & 1
    if word >> 23 & 1:
        if first:
            return _swap(word)
        return _gp(
            word,
            load,
            "{}ar" if load and ordered else "{}lr" if ordered else "{}lar" if load else "{}llr",
        )
    if first and not word >> 31:
        return _swap_pair(word)
    size = (8 if word >> 30 & 1 else 4) if first else 1 << (word >> 30)
    regs = [general(word), general(word >> 10)] if first else [general(word)]
    middle = ("a" if ordered else "") if load else ("l" if ordered else "")
    name = ("ld" if load else "st") + middle + "x" + ("p" if first else "r" + _LETTER[size])
    parts = tuple(Part(size * n, size, reg) for n, reg in enumerate(regs))
    if load:
        if first and regs[0] == regs[1]:
            raise unpredictable(name, "loads one register twice")
        return Form(name, "load", base_of(word), parts, monitor=True)
    status = general(word >> 16)
    if status in regs or status == base_of(word):
        raise unpredictable(name, "has its status in a register that it uses otherwise")
    return Form(name, "store", base_of(word), parts, status=status)


def _suffix(word: int, acquire: int, release: int, size: int) -> str:
    return (
        ("a" if word >> acquire & 1 else "") + ("l" if word >> release & 1 else "") + _LETTER[size]
    )


def _swap(word: int) -> Form:
    if word >> 10 & 31 != 31:
        raise unallocated(word)
    size = 1 << (word >> 30)
    parts = (Part(0, size, general(word >> 16)),)
    return Form(
        "cas" + _suffix(word, 22, 15, size), "cas", base_of(word), parts, sources=(general(word),)
    )


def _swap_pair(word: int) -> Form:
    if word >> 10 & 31 != 31 or word >> 16 & 1 or word & 1:
        raise unallocated(word)
    size = 8 if word >> 30 & 1 else 4
    parts = (Part(0, size, general(word >> 16)), Part(size, size, general((word >> 16 & 31) + 1)))
    sources = (general(word), general((word & 31) + 1))
    return Form("casp" + _suffix(word, 22, 15, 4), "cas", base_of(word), parts, sources=sources)


_OPS = ("add", "clr", "eor", "set", "smax", "smin", "umax", "umin")


def _atomic(word: int, simd: int) -> Form:
    if simd:
        raise unallocated(word)
    size, opc, acquire, source = (
        1 << (word >> 30),
        word >> 12 & 7,
        word >> 23 & 1,
        general(word >> 16),
    )
    if not word >> 15 & 1:
        op, name = _OPS[opc], "ld" + _OPS[opc]
    elif opc == 0:
        op = name = "swp"
    elif opc == 4 and acquire and not word >> 22 & 1 and source == "xzr":
        return _gp(word, 1, "{}apr")
    elif size == 8 and not acquire and not word >> 22 & 1 and opc in (1, 2, 3, 5):
        raise Unemulated("64-byte loads and stores (LS64) are not emulated")
    else:
        raise unallocated(word)
    parts = (Part(0, size, general(word)),)
    return Form(
        name + _suffix(word, 23, 22, size), "atomic", base_of(word), parts, op=op, sources=(source,)
    )
