"""The memslots of one VM and the host memory behind them. Bytes belong to the slot number and
outlive its deletion.
"""

from __future__ import annotations

import os

from kvmscen.sent.errors import HostError, IoctlError
from kvmscen.sent.kvm.fds import Memory, Vm
from kvmscen.sent.machine import SLOT_PAGES_MOST, SLOTS_MOST, Memslot

_READONLY = 2  # KVM_MEM_READONLY
_MOST = SLOT_PAGES_MOST * os.sysconf("SC_PAGE_SIZE")
# The memory of an engine's own slot whose VM is gone: the next one's bytes are written over all of
# it, which costs less than new pages. Larger ones are rare.
_kept: list[Memory] = []
_KEPT_MOST = 1 << 16


class Slots:
    """Slots by number, as KVM has them now."""

    def __init__(self, vm: Vm, ours: int = 0) -> None:
        self.vm = vm
        # What the engine's own slot takes comes on top.
        self._most = SLOTS_MOST + ours
        self._live: dict[int, Memslot] = {}
        self._memory: dict[int, Memory] = {}
        self._whole: Memory | None = None

    def set(self, slot: Memslot) -> None:
        """Create, move or change a slot (KVM API 4.35). Raises IoctlError, then nothing is
        changed.
        """
        memory, fresh = self._memory.get(slot.slot), None
        others = sum(held.size for number, held in self._memory.items() if number != slot.slot)
        if slot.size <= _MOST and others + slot.size > self._most:
            # The scenario was held to this; whatever asks for it, no guest gets more.
            say = (
                f"slot {slot.slot} would bring the slots to {others + slot.size:,} bytes: 256 "
                f"MiB in all is the limit"
            )
            raise HostError(say)
        # Also of a slot that is there, whose size KVM lets nobody change: what it maps must never
        # be more than what is behind it.
        if memory is None or slot.size > memory.size:
            fresh = Memory(max(slot.size, 1) if slot.size <= _MOST else 1)
            if memory is not None and slot.size <= _MOST:
                fresh.copy(memory)
        behind = fresh or memory
        assert behind is not None
        try:
            self.vm.set_user_memory_region(slot.slot, slot.flags, slot.gpa, slot.size, behind.at)
        except IoctlError:
            if fresh is not None:
                fresh.close()
            raise
        if fresh is not None:
            if memory is not None:
                memory.close()
            self._memory[slot.slot] = fresh
        if slot.size:
            self._live[slot.slot] = slot
        else:
            self._live.pop(slot.slot, None)  # size 0 has deleted it

    def put(self, slot: Memslot, data: bytes) -> None:
        """Create the engine's own slot with these bytes, and zeros behind them. Raises
        IoctlError.
        """
        kept = _kept.pop() if _kept and _kept[-1].size == slot.size else None
        memory = kept or Memory(slot.size)
        memory.write(0, data.ljust(slot.size, b"\0")[: slot.size])
        try:
            self.vm.set_user_memory_region(slot.slot, slot.flags, slot.gpa, slot.size, memory.at)
        except IoctlError:
            memory.close()
            raise
        self._memory[slot.slot] = self._whole = memory
        self._live[slot.slot] = slot

    def delete(self, number: int) -> None:
        """Delete a slot: KVM_SET_USER_MEMORY_REGION with size 0."""
        memory = self._memory.get(number)
        self.vm.set_user_memory_region(number, 0, 0, 0, memory.at if memory is not None else 0)
        self._live.pop(number, None)

    def read(self, gpa: int, size: int) -> bytes | None:
        """Bytes of one slot; None where the range does not lie wholly in one."""
        slot = self._find(gpa, size)
        return None if slot is None else self._memory[slot.slot].read(gpa - slot.gpa, size)

    def write(self, gpa: int, data: bytes) -> bool:
        """Put bytes into one slot; False where the range does not lie wholly in one."""
        slot = self._find(gpa, len(data))
        if slot is None:
            return False
        self._memory[slot.slot].write(gpa - slot.gpa, data)
        return True

    def readonly(self, gpa: int) -> bool | None:
        """Whether the slot at `gpa` is read-only; None where there is none."""
        slot = self._find(gpa, 1)
        return None if slot is None else bool(slot.flags & _READONLY)

    def _find(self, gpa: int, size: int) -> Memslot | None:
        for slot in self._live.values():
            if slot.gpa <= gpa and gpa + size <= slot.gpa + slot.size:
                return slot
        return None

    def close(self) -> None:
        """Unmap the host memory; the VM must be closed before."""
        for memory in self._memory.values():
            if memory is self._whole and memory.size <= _KEPT_MOST and not _kept:
                _kept.append(memory)
            else:
                memory.close()
        self._memory.clear()
        self._live.clear()
