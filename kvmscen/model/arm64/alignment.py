"""arm64: the accesses to the slots that Unicorn lets pass and a CPU of silicon does not
(kvmscen.sent.undecoded.alignment).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from unicorn import arm64_const as const
from unicorn import unicorn_const as uc_const
from unicorn.unicorn_py3 import unicorn as binding

from kvmscen.sent.undecoded.alignment import SA, misaligned, needs, stack


class Alignment:
    """Looks at each access to the slots; `report` is called with what is wrong, and the access then
    counts for nothing.

    `accessed` is told the address of each, and whether it writes.
    """

    def __init__(
        self,
        engine: Any,
        word: Callable[[int], int],
        read: Callable[[str], int],
        device: Callable[[int], bool],
        report: Callable[[str], None],
        accessed: Callable[[int, bool], None],
    ) -> None:
        # Not the engine itself: its hooks hold this object.
        self._word, self._read, self._device, self._report = word, read, device, report
        self._accessed = accessed
        # Reading a register through the binding takes longer than all else here.
        self._raw = binding.uclib.uc_reg_read
        self._handle = engine._uch
        self._pc = ctypes.c_uint64()
        self._sp = ctypes.c_uint64()
        self._pc_at, self._sp_at = ctypes.byref(self._pc), ctypes.byref(self._sp)
        engine.hook_add(uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE, self._on_access)

    def _on_access(
        self, engine: Any, access: int, address: int, size: int, value: int, data: Any
    ) -> None:
        self._accessed(address, access == uc_const.UC_MEM_WRITE)
        self._raw(self._handle, const.UC_ARM64_REG_PC, self._pc_at)
        by_sp, align = needs(self._word(self._pc.value))
        if by_sp:
            self._raw(self._handle, const.UC_ARM64_REG_SP, self._sp_at)
            if self._sp.value % 16 and self._read("sctlr_el1") & SA:
                self._report(stack(self._sp.value))
                return
        if address % size:
            self._accessed(address + size - 1, access == uc_const.UC_MEM_WRITE)
        if address % size or (align > size and address % align):
            wrong = self.wrong(self._pc.value)
            if wrong is not None:
                self._report(wrong)

    def wrong(self, pc: int) -> str | None:
        """The alignment or memory-type fault of the access at `pc`, before it is carried out; None
        where it has none.
        """
        return misaligned(self._word(pc), self._read, self._device)
