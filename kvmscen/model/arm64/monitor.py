"""arm64: whether a store-exclusive to a slot finds the monitor as its load-exclusive left it (Arm
ARM, B2.12).

The hypervisor clears it each time that it goes back to the guest, since ERET does. So it is lost
where KVM came in between: for user space, for a hypercall, or for a page that stage 2 did not map
yet, or mapped read-only.
"""

from __future__ import annotations

from typing import NamedTuple

from kvmscen.model.memory import GRAINS, PAGE, Memory

_GRANULE = 2048  # bytes: the most that a CPU may mark
_NEAR = 256  # bytes of code between the two that are looked at


class Fate(NamedTuple):
    """Whether a store-exclusive is done; `doubt` says why nobody can know."""

    done: bool
    doubt: str | None = None


class Monitor:
    """The exclusive monitor of one vCPU, and the pages of the slots that stage 2 maps for sure."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._readable: set[int] = set()
        self._writable: set[int] = set()
        # A store-exclusive that failed may have had them mapped for writing. It may take KVM two
        # faults (6.1) or one (7.3).
        self._unsure: set[int] = set()
        self._unmapped = 0
        self._mark: tuple[int, int] | None = None
        self._pc = 0
        self._doubt: str | None = None

    def accessed(self, address: int, write: bool) -> None:
        """The guest accesses a slot: where its page is not mapped for that yet, KVM comes in
        between.
        """
        self._follow()
        if write:
            self._memory.written.add(address // PAGE)
            if self._mark is not None and address // _GRANULE == self._mark[0] // _GRANULE:
                self.doubt(
                    f"what the write to {address:#x} does to the mark of the load-exclusive "
                    f"depends on the CPU"
                )
        page = address // PAGE
        if page in (self._writable if write else self._readable):
            return
        self.doubt(
            f"the access to {address:#x} behind the load-exclusive may be the first to its page"
        )
        self._readable.add(page)
        slot = self._memory.at(address)
        # A page that was written to before is mapped for writing also when it is read.
        if write or (
            self._memory.pristine(address) is False and slot is not None and not slot.readonly
        ):
            self._writable.add(page)

    def load(self, address: int, size: int, pc: int) -> None:
        """A load-exclusive of a slot."""
        self._mark = None
        self.accessed(address, False)
        self._mark, self._pc, self._doubt = (address, size), pc, None

    def clear(self) -> None:
        """An exit to KVM clears the exclusive monitor."""
        self._mark = None

    def doubt(self, why: str) -> None:
        """From here on the monitor may be clear or not: the CPU may have left to KVM."""
        if self._mark is not None:
            self._doubt = self._doubt or why

    def fate(self, address: int, size: int, pc: int) -> Fate:
        """Of a store-exclusive to a slot, which changes nothing yet."""
        self._follow()
        page, readonly = address // PAGE, self._memory.readonly(address)
        if self._mark is None:
            return Fate(False)
        if self._mark != (address, size):
            return Fate(
                False, f"it stores to {address:#x} behind a load-exclusive of {self._mark[0]:#x}"
            )
        if not readonly and page not in self._writable:
            pristine = self._memory.pristine(address)
            if pristine and page not in self._unsure:
                return Fate(False)  # KVM maps it for writing first
            return Fate(False, f"it may be the first write to the page of {address:#x}")
        if not 0 < pc - self._pc <= _NEAR:
            return Fate(False, "KVM may come in for the code between it and its load-exclusive")
        return Fate(self._doubt is None, self._doubt)

    def failed(self, address: int) -> None:
        """A store-exclusive to a slot was not done."""
        self._unsure.add(address // PAGE)
        self.clear()

    def _follow(self) -> None:
        """Forget what stage 2 no longer maps."""
        if self._unmapped != self._memory.unmapped:
            self._unmapped = self._memory.unmapped
            self._readable.clear()
            self._writable.clear()
        if self._memory.changed:
            # The host's first write gives the slot another page there, of whatever size the host's
            # are.
            grains = {page * PAGE // GRAINS[0] for page in self._memory.changed}
            self._readable -= {
                page
                for page in self._readable - self._writable
                if page * PAGE // GRAINS[0] in grains
            }
            self._memory.changed.clear()
