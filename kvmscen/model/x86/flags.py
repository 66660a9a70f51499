"""What rflags holds where Unicorn's is not the processor's: flags that an instruction leaves
undefined, RF, and stale ones.

KVM's emulator writes rflags back with the registers. In a repeated string instruction it does so at
a write, with RF set, and not at a read (x86_emulate_insn in arch/x86/kvm/emulate.c).
"""

from __future__ import annotations

from kvmscen.model.building import Unpredicted
from kvmscen.model.x86.processor import Processor

RF = 1 << 16
# Arithmetic flags that processors set each in their way. That of and, or, xor and test is 0 on all
# of them.
UNDEFINED = frozenset(
    (
        *"mul imul div idiv shl sal shr sar shld shrd rol ror rcl rcr".split(),
        *("bsf", "bsr", "bt", "bts", "btr", "btc", "aaa", "aas", "aad", "aam", "daa", "das"),
    )
)
_DEFINED = frozenset(
    ("add", "adc", "sub", "sbb", "cmp", "neg", "and", "or", "xor", "test", "xadd", "cmpxchg")
)
READERS = frozenset(("pushf", "pushfd", "pushfq", "lahf"))


class Flags:
    """The flags of one guest."""

    def __init__(self, guest: Processor) -> None:
        self.guest = guest
        self.unsure = False  # an instruction that leaves flags undefined has been met
        self._resumes: int | None = None  # the string instruction at whose write RF was set
        self._stale: tuple[int, int] | None = (
            None  # a repeated comparison that has begun, and rflags before it
        )

    def entered(self) -> None:
        """Forget what was kept of one instruction: the guest resumes elsewhere."""
        pc = self.guest.pc()
        if self._resumes is not None and (
            pc != self._resumes or not self.guest.read_whole("rcx") & (1 << self.guest.bits) - 1
        ):
            self._resumes = None
        if self._stale is not None and pc != self._stale[0]:
            self._stale = None

    def written(self, pc: int) -> None:
        """An element of a repeated string instruction is written to user space."""
        self._resumes = pc

    def compares(self, pc: int) -> None:
        """A repeated comparison reads from user space."""
        if self._stale is None or self._stale[0] != pc:
            self._stale = (pc, self.guest.read_whole("rflags"))

    def seen(self, value: int) -> int:
        """What KVM_GET_REGS gives where Unicorn has `value`."""
        if self._stale is not None and self.guest.accessing:
            return self._stale[1]
        return value if self._resumes is None else value | RF

    def looked_at(self) -> None:
        """Somebody compares them, or the guest stores them. Raises Unpredicted."""
        if not self._certain():
            pc = self.guest.pc()
            raise Unpredicted(
                f"rflags at {pc:#x}: an instruction before, such as mul or a shift, leaves flags "
                f"of it undefined"
            )

    def _certain(self) -> bool:
        unsure, at, end = self.unsure, self.guest.block, self.guest.start()
        while at < end:
            size, name, _ = self.guest.decode(at)
            if not size:
                break
            unsure = name in UNDEFINED or (unsure and name not in _DEFINED)
            at += size
        return not unsure if at == end else not self.unsure
