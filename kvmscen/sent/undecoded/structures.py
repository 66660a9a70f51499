"""arm64: ld1 to ld4 and st1 to st4, of multiple structures, of single ones, and replicating (Arm
ARM, C4.1.94 and C7.2).
"""

from __future__ import annotations

from kvmscen.sent.undecoded.forms import Form, Part, base_of, unallocated

# opcode: registers that are filled one after the other, or elements of a structure, one a register.
_MULTIPLE = {0: (1, 4), 2: (4, 1), 4: (1, 3), 6: (3, 1), 7: (1, 1), 8: (1, 2), 10: (2, 1)}


def structures(word: int) -> Form:
    """A SIMD structure load or store. Raises Unemulated."""
    if word >> 31 or (not word >> 23 & 1 and word >> 16 & 31):
        raise unallocated(word)
    elements, parts = _single(word) if word >> 24 & 1 else _multiple(word)
    load = word >> 22 & 1
    replicates = word >> 24 & 1 and word >> 14 & 3 == 3
    name = f"{'ld' if load else 'st'}{elements}{'r' if replicates else ''}"
    form = Form(name, "load" if load else "store", base_of(word), parts)
    if not word >> 23 & 1:
        return form
    by = word >> 16 & 31
    if by != 31:
        return form._replace(update_by=f"x{by}")
    return form._replace(update=sum(part.size for part in parts))


def _multiple(word: int) -> tuple[int, tuple[Part, ...]]:
    opcode, size, whole = word >> 12 & 15, 1 << (word >> 10 & 3), 16 if word >> 30 & 1 else 8
    if word >> 21 & 1 or opcode not in _MULTIPLE:
        raise unallocated(word)
    registers, elements = _MULTIPLE[opcode]
    first = word & 31
    if elements == 1:
        return 1, tuple(Part(whole * n, whole, f"v{(first + n) % 32}") for n in range(registers))
    if size == 8 and whole == 8:
        raise unallocated(word)
    # The first element clears what the register held, above it too where only 64 bits are loaded.
    parts = tuple(
        Part(size * (elements * e + s), size, f"v{(first + s) % 32}", at=size * e, keep=e > 0)
        for e in range(whole // size)
        for s in range(elements)
    )
    return elements, parts


def _single(word: int) -> tuple[int, tuple[Part, ...]]:
    scale, low, size, whole = word >> 14 & 3, word >> 12 & 1, word >> 10 & 3, word >> 30 & 1
    elements = ((word >> 13 & 1) << 1 | word >> 21 & 1) + 1
    copies, index = 1, whole << 3 | low << 2 | size
    if scale == 3:
        if low or not word >> 22 & 1:
            raise unallocated(word)
        scale, index = size, 0
        copies = (16 if whole else 8) >> scale
    elif scale == 1:
        if size & 1:
            raise unallocated(word)
        index >>= 1
    elif scale == 2:
        if size & 2 or (size and low):
            raise unallocated(word)
        scale, index = (3, whole) if size else (2, index >> 2)
    each, first, keep = 1 << scale, word & 31, word >> 14 & 3 != 3
    parts = tuple(
        Part(each * s, each, f"v{(first + s) % 32}", at=each * index, keep=keep, copies=copies)
        for s in range(elements)
    )
    return elements, parts
