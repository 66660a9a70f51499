"""The memslots of a modelled VM: KVM's rules for them, their bytes, and where Unicorn sees them.

Rules of KVM_SET_USER_MEMORY_REGION (KVM API 4.35; `kvm_set_memory_region` in virt/kvm/kvm_main.c
and `kvm_arch_prepare_memory_region` of each architecture).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import sys
from typing import Any

from unicorn import unicorn_const as uc_const

from kvmscen.errors import HostError, IoctlError
from kvmscen.sent.machine import SLOTS_MOST

PAGE = 0x1000
LOG_DIRTY, READONLY = 1, 2
SLOTS_MAX = 32767
PAGES_MAX = (1 << 31) - 1
GRAINS = (1 << 16, 1 << 14, PAGE)  # the pages that a host may have
_PIECE = 1 << 16
_NOTHING = bytes(_PIECE)
# What the engine's own slot may take on top.
_OURS = 16 << 20
_IOCTL = "KVM_SET_USER_MEMORY_REGION"
# mmap has a name for it from Python 3.13 on.
_NORESERVE = 0x4000 if sys.platform == "linux" else 0
# How far guest physical addresses reach (KVM_CREATE_VM type 0 on arm64; without TDP 52 bits on
# x86), and the errno beyond.
REACH = {"arm64": (40, errno.EFAULT), "x86_64": (52, errno.EINVAL)}


class Slot:
    """A memslot that is there: `size` bytes at `gpa`, backed by `held`."""

    def __init__(self, number: int, gpa: int, size: int, flags: int, held: mmap.mmap) -> None:
        self.number = number
        self.gpa = gpa
        self.size = size
        self.flags = flags
        self.held = held

    @property
    def readonly(self) -> bool:
        return bool(self.flags & READONLY)


class Memory:
    """The slots of one VM. Bytes belong to the slot number and outlive its deletion."""

    def __init__(self, engine: Any, arch: str) -> None:
        self._engine = engine
        self._bits, self._beyond = REACH[arch]
        self._held: dict[int, mmap.mmap] = {}
        self.slots: dict[int, Slot] = {}
        self.written: set[int] = set()  # numbers of the pages that host or guest have written to
        self.changed: set[int] = (
            set()
        )  # those that the host has written to, for who looks at them and empties it
        self.unmapped = 0  # how often a slot was moved, deleted, or got other flags

    # --- the ioctl --------------------------------------------------------------------------------

    def set(self, number: int, gpa: int, size: int, flags: int) -> None:
        """KVM_SET_USER_MEMORY_REGION; raises IoctlError as KVM would."""
        if (
            flags & ~(LOG_DIRTY | READONLY)
            or (size | gpa) % PAGE
            or gpa + size > 1 << 64
            or not 0 <= number < SLOTS_MAX
        ):
            raise IoctlError(_IOCTL, errno.EINVAL)
        old = self.slots.get(number)
        if size == 0:
            if old is None:
                raise IoctlError(_IOCTL, errno.EINVAL)
            del self.slots[number]
            self._unmap(old)
            return
        if size // PAGE > PAGES_MAX:
            raise IoctlError(_IOCTL, errno.EINVAL)
        if old is not None and (old.size != size or (old.flags ^ flags) & READONLY):
            raise IoctlError(_IOCTL, errno.EINVAL)
        if old is not None and old.gpa == gpa:
            old.flags = flags
            self.unmapped += 1
            return
        others = (slot for slot in self.slots.values() if slot.number != number)
        if any(gpa < slot.gpa + slot.size and slot.gpa < gpa + size for slot in others):
            raise IoctlError(_IOCTL, errno.EEXIST)
        if gpa + size > 1 << self._bits:
            raise IoctlError(_IOCTL, self._beyond)
        if old is not None:
            self._unmap(old)
        slot = self.slots[number] = Slot(number, gpa, size, flags, self._backing(number, size))
        self._map(slot)

    def delete(self, number: int) -> None:
        """KVM_SET_USER_MEMORY_REGION with size 0."""
        self.set(number, 0, 0, 0)

    def _backing(self, number: int, size: int) -> mmap.mmap:
        held = self._held.get(number)
        if held is None or len(held) < size:
            others = sum(len(behind) for of, behind in self._held.items() if of != number)
            if others + size > SLOTS_MOST + _OURS:
                raise HostError(
                    f"slot {number} would bring the slots to {others + size:,} bytes: 256 MiB in "
                    f"all is the limit"
                )
            # A page that nobody touches takes no memory, as with KVM's.
            larger = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
            for at in range(0, len(held or b""), _PIECE):
                assert held is not None
                piece = held[at : at + _PIECE]
                if not _NOTHING.startswith(piece):
                    larger[at : at + len(piece)] = piece
            held = self._held[number] = larger
        return held

    def _map(self, slot: Slot) -> None:
        at = ctypes.addressof(ctypes.c_char.from_buffer(slot.held))
        rights = uc_const.UC_PROT_READ | uc_const.UC_PROT_EXEC
        self._engine.mem_map_ptr(
            slot.gpa, slot.size, rights if slot.readonly else uc_const.UC_PROT_ALL, at
        )

    def _unmap(self, slot: Slot) -> None:
        self.unmapped += 1
        self._engine.mem_unmap(slot.gpa, slot.size)
        self.forget_code()

    # --- bytes ------------------------------------------------------------------------------------

    def at(self, gpa: int) -> Slot | None:
        """The slot that holds the byte at `gpa`."""
        for slot in self.slots.values():
            if slot.gpa <= gpa < slot.gpa + slot.size:
                return slot
        return None

    def readonly(self, gpa: int) -> bool | None:
        """Whether the slot at `gpa` is read-only; None where there is none."""
        slot = self.at(gpa)
        return None if slot is None else slot.readonly

    def read(self, gpa: int, size: int) -> bytes | None:
        """Bytes of one slot; None where the range does not lie wholly in one."""
        slot = self.at(gpa)
        if slot is None or gpa + size > slot.gpa + slot.size:
            return None
        return slot.held[gpa - slot.gpa : gpa - slot.gpa + size]

    def write(self, gpa: int, data: bytes) -> bool:
        """Write as the host does, past read-only flags; False where the range does not lie wholly
        in one slot.
        """
        slot = self.at(gpa)
        if slot is None or gpa + len(data) > slot.gpa + slot.size:
            return False
        slot.held[gpa - slot.gpa : gpa - slot.gpa + len(data)] = data
        if data:
            pages = range(gpa // PAGE, (gpa + len(data) - 1) // PAGE + 1)
            self.written.update(pages)
            self.changed.update(pages)
        return True

    def pristine(self, gpa: int) -> bool | None:
        """Whether nobody has written to the host's page behind `gpa`, so that KVM maps it read-only
        first; None: unsure.
        """
        slot = self.at(gpa)
        if gpa // PAGE in self.written and not (slot is not None and slot.flags & LOG_DIRTY):
            return False
        if self.unmapped or slot is None or slot.flags & LOG_DIRTY:
            return None
        # A host with larger pages takes no slots that are not multiples of them.
        grain = next(
            g
            for g in GRAINS
            if not any(slot.gpa % g or slot.size % g for slot in self.slots.values())
        )
        first = gpa // grain * grain // PAGE
        return None if self.written & set(range(first, first + grain // PAGE)) else True

    def forget_code(self) -> None:
        """Unicorn does not see what the host writes: drop what it has translated."""
        self._engine.ctl_flush_tb()

    def close(self) -> None:
        """Drop the engine, the slots and their bytes, so that they can be freed."""
        self._engine = None
        self.slots.clear()
        self._held.clear()
