"""arm64: accesses that lie partly in a slot and partly where they leave the guest.

An abort leaves the part that could be written as it was or not, as the CPU likes (Arm ARM, B2.2.1),
and of one unaligned element it may tell either address. KVM's exit then has all bytes of the
element, at the address that the CPU told.
"""

from __future__ import annotations

from collections.abc import Callable

from kvmscen.sent.undecoded.decode import decode
from kvmscen.sent.undecoded.emulate import address_of
from kvmscen.sent.undecoded.forms import Unemulated

_PAGE = 0x1000
_MASK = (1 << 64) - 1


def torn(
    word: int, read: Callable[[str], int], readonly: Callable[[int], bool | None], emulated: bool
) -> str | None:
    """Why what an access does is for the CPU to say, or None. `emulated`: it is carried out whole
    afterwards.
    """
    try:
        form = decode(word)
    except Unemulated:
        return None
    write = form.kind != "load"
    start = address_of(form, read)
    kinds: set[bool] = set()
    for part in form.parts:
        at = start + part.offset & _MASK
        ends = {_there(readonly(byte & _MASK), write) for byte in (at, at + part.size - 1)}
        if len(ends) > 1:
            return (
                f"the access to {at:#x} lies partly in a slot: which address is told, and what "
                f"is written, depends on the CPU"
            )
        kinds |= ends
    if write and len(kinds) > 1 and not emulated:
        return (
            f"a part of the access to {start:#x} lies in a slot: whether it is written there "
            f"depends on the CPU"
        )
    return None


def _there(readonly: bool | None, write: bool) -> bool:
    return readonly is False or (readonly is True and not write)
