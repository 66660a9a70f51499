"""The action table: what a host can do to a VM or a vCPU between its entries, one row an action.

An action is named as its ioctl without KVM_, in lower case. A row with members is "fill a struct
and call an ioctl": it is all that such an action needs. `python schema/generate.py` carries it into
the JSON Schema, the checks and the performing read it here. A row without members has code of its
own, in `FORMS` of kvmscen.load.actions and of kvmscen.compile.resolve and in the performer of the
executor.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from kvmscen.sent.header.uapi import GUEST_DEBUG, GUESTDBG, IOCTLS, iow

# The `fmt` of a member that is a pointer to a register's value; KVM_REG_SIZE of the member `id`
# says how long that is.
VALUE = "*"


class Member(NamedTuple):
    """One member of an action's struct.

    `name`: of a struct in the struct `outer.inner`, written as a map in a map. `offset` in bytes,
    `fmt` a struct character, `length` > 1 an array. `names`: words that stand for numbers; with
    `flags` one of them or a list, which are or-ed. `needed`: it must be written (what is not is 0).
    `least` and `most`: it is a plain number within them, else a number or a symbol. `yes_no`: it is
    written as true or false. `width`: the member that says how many bytes of it count (0: all).
    `prefix`: what the header puts before the words of `names`.
    """

    name: str
    offset: int
    fmt: str
    text: str = ""
    length: int = 1
    names: Mapping[str, int] | None = None
    flags: bool = False
    needed: bool = False
    least: int | None = None
    most: int | None = None
    yes_no: bool = False
    width: str = ""
    prefix: str = ""

    @property
    def words(self) -> dict[str, int]:
        """The words that stand for numbers: short ones first, then the header's in full."""
        names = self.names or {}
        return {
            **names,
            **{self.prefix + name.upper(): number for name, number in names.items() if self.prefix},
        }

    @property
    def bits(self) -> int:
        """The width of one element; of a register's value it is not known here."""
        return 64 if self.fmt == VALUE else 8 * struct.calcsize("=" + self.fmt)


class Action(NamedTuple):
    """One action.

    `ioctl` is what fails, as an event names it. `on` is the descriptor that it goes to: vm or vcpu;
    empty where the engine does it itself. `number`: the second argument of its _IOW in
    <linux/kvm.h>. `struct` and `size`, in bytes, are what it takes. `members` by architecture
    (`""`: on all). `needs`: the capability without which a host cannot run it. `alone`: the member
    whose value stands for the whole map. `written`: how it is written, where the members do not
    tell.
    """

    name: str
    ioctl: str
    text: str
    on: str = ""
    number: int = 0
    struct: str = ""
    size: int = 0
    members: Mapping[str, tuple[Member, ...]] = {}
    needs: str = ""
    alone: str = ""
    written: str = ""

    def of(self, arch: str) -> tuple[Member, ...] | None:
        """The members on one architecture; None where it has no such action."""
        return self.members.get(arch, self.members.get(""))

    @property
    def anywhere(self) -> dict[str, tuple[Member, ...]]:
        """Every member by name, as the architectures have it that have it."""
        out: dict[str, tuple[Member, ...]] = {}
        for table in self.members.values():
            for member in table:
                out[member.name] = (*out.get(member.name, ()), member)
        return out


M = Member
_ZONE = {
    "": (
        M("addr", 0, "Q", "the first address, or port", needed=True),
        M("size", 8, "I", "bytes", needed=True, least=1, most=0xFFFFFFFF),
        M("pio", 12, "I", "`addr` is a port", yes_no=True),
    )
}
_IOEVENTFD = {
    "": (
        M("addr", 8, "Q", "the address, or port, of the write", needed=True),
        M(
            "len",
            16,
            "I",
            "bytes of the write: 1, 2, 4 or 8; 0 for any",
            needed=True,
            least=0,
            most=8,
        ),
        M("datamatch", 0, "Q", "the value of the write; without it any", width="len"),
        M(
            "flags",
            24,
            "I",
            "KVM_IOEVENTFD_FLAG_DATAMATCH follows from `datamatch`",
            names={"KVM_IOEVENTFD_FLAG_PIO": 1 << 1, "KVM_IOEVENTFD_FLAG_DEASSIGN": 1 << 2},
            flags=True,
        ),
    )
}
_DEBUG_REGISTERS = (
    "debug registers in order, as struct kvm_guest_debug_arch has them; those that "
    "are not written are 0"
)
_GUEST_DEBUG = {
    arch: (
        M(
            "control",
            0,
            "I",
            "KVM_GUESTDBG_ENABLE and others",
            names=GUESTDBG[arch],
            flags=True,
            needed=True,
        ),
        *(
            M(name, 8 + offset, "Q", _DEBUG_REGISTERS, length)
            for name, (offset, length) in arrays.items()
        ),
    )
    for arch, (_, arrays) in GUEST_DEBUG.items()
}
_MP_STATES = (
    *(
        "runnable",
        "uninitialized",
        "init_received",
        "halted",
        "sipi_received",
        "stopped",
        "check_stop",
        "operating",
        "load",
    ),
    *("ap_reset_hold", "suspended"),
)
_MP_STATE = {
    "": (
        M(
            "mp_state",
            0,
            "I",
            "a KVM_MP_STATE_",
            names={name: n for n, name in enumerate(_MP_STATES)},
            prefix="KVM_MP_STATE_",
        ),
    )
}
_ONE_REG = {
    "": (
        M(
            "id",
            0,
            "Q",
            "the register's id: KVM_REG_ARM64 and the like, or-ed with its size, kind and number",
            needed=True,
        ),
        M("value", 8, VALUE, "as wide as KVM_REG_SIZE of `id` says", needed=True),
    )
}
_VALID = ("NMI_PENDING", "SIPI_VECTOR", "SHADOW", "SMM", "PAYLOAD", "TRIPLE_FAULT")
_EVENTS = {
    "arm64": (
        M("exception.serror_pending", 0, "B"),
        M("exception.serror_has_esr", 1, "B"),
        M("exception.ext_dabt_pending", 2, "B"),
        M("exception.serror_esr", 8, "Q"),
    ),
    "x86_64": (
        M("exception.injected", 0, "B"),
        M("exception.nr", 1, "B"),
        M("exception.has_error_code", 2, "B"),
        M("exception.pending", 3, "B"),
        M("exception.error_code", 4, "I"),
        M("interrupt.injected", 8, "B"),
        M("interrupt.nr", 9, "B"),
        M("interrupt.soft", 10, "B"),
        M("interrupt.shadow", 11, "B"),
        M("nmi.injected", 12, "B"),
        M("nmi.pending", 13, "B"),
        M("nmi.masked", 14, "B"),
        M("sipi_vector", 16, "I"),
        M(
            "flags",
            20,
            "I",
            names={f"KVM_VCPUEVENT_VALID_{name}": 1 << n for n, name in enumerate(_VALID)},
            flags=True,
        ),
        M("smi.smm", 24, "B"),
        M("smi.pending", 25, "B"),
        M("smi.smm_inside_nmi", 26, "B"),
        M("smi.latched_init", 27, "B"),
        M("triple_fault.pending", 28, "B"),
        M("exception_has_payload", 55, "B"),
        M("exception_payload", 56, "Q"),
    ),
}

ACTIONS: tuple[Action, ...] = (
    Action(
        "set_regs",
        "KVM_SET_REGS",
        "sets registers; what is not named keeps its value",
        written="{rax: 1}",
    ),
    Action(
        "write_memory",
        "write_memory",
        "writes to a slot's memory or to a section outside. What lies wholly in neither fails with "
        "EFAULT, the `ioctl` of that event being `write_memory`",
        written="{counter: {u32: 7}}",
    ),
    Action(
        "set_memslot",
        "KVM_SET_USER_MEMORY_REGION",
        "a new slot, or one moved or with other flags; it is not checked beforehand against other "
        "slots",
        "vm",
        written="{slot, gpa, size, flags}",
    ),
    Action(
        "delete_memslot",
        "KVM_SET_USER_MEMORY_REGION",
        "the same with size 0",
        "vm",
        written="1` or `{slot: 1}",
    ),
    Action(
        "enable", "KVM_ENABLE_CAP", "KVM_ENABLE_CAP", "vm", written="NAME` or `{cap, args, errno}"
    ),
    Action(
        "register_coalesced_mmio",
        "KVM_REGISTER_COALESCED_MMIO",
        "writes to these addresses, or ports, gather in a ring; sections outside every slot see "
        "them at the next exit, in order",
        "vm",
        0x67,
        "kvm_coalesced_mmio_zone",
        16,
        _ZONE,
        "KVM_CAP_COALESCED_MMIO",
    ),
    Action(
        "unregister_coalesced_mmio",
        "KVM_UNREGISTER_COALESCED_MMIO",
        "they do so no more",
        "vm",
        0x68,
        "kvm_coalesced_mmio_zone",
        16,
        _ZONE,
        "KVM_CAP_COALESCED_MMIO",
    ),
    Action(
        "ioeventfd",
        "KVM_IOEVENTFD",
        "a write of `len` bytes (0: any) there, of the value `datamatch` where it is written, "
        "signals an eventfd that nobody reads, and goes nowhere else",
        "vm",
        0x79,
        "kvm_ioeventfd",
        64,
        _IOEVENTFD,
        "KVM_CAP_IOEVENTFD",
    ),
    Action(
        "emulate",
        "emulate",
        "in the `then` of an `arm_nisv`: [carries out](#undecoded-accesses) the access of this one "
        "exit",
        written="{}` or `emulate",
    ),
    Action(
        "set_guest_debug",
        "KVM_SET_GUEST_DEBUG",
        "breakpoints and single steps of the guest are `debug` exits. `control`: KVM_GUESTDBG_ "
        "flags, one or a list, `[]` for "
        "none; debug registers as lists in their order. It replaces all of the call before",
        "vcpu",
        0x9B,
        "kvm_guest_debug",
        0,
        _GUEST_DEBUG,
        "KVM_CAP_SET_GUEST_DEBUG",
    ),
    Action(
        "set_mp_state",
        "KVM_SET_MP_STATE",
        "whether the vCPU runs, and what it waits for",
        "vcpu",
        0x99,
        "kvm_mp_state",
        4,
        _MP_STATE,
        "KVM_CAP_MP_STATE",
        alone="mp_state",
    ),
    Action(
        "set_one_reg",
        "KVM_SET_ONE_REG",
        "a register by its id, with no look at what is known of it",
        "vcpu",
        0xAC,
        "kvm_one_reg",
        16,
        _ONE_REG,
        "KVM_CAP_ONE_REG",
    ),
    Action(
        "set_vcpu_events",
        "KVM_SET_VCPU_EVENTS",
        "exceptions, interrupts, NMIs and SMIs that the vCPU takes, or is in; what is not written "
        "is 0",
        "vcpu",
        0xA0,
        "kvm_vcpu_events",
        64,
        _EVENTS,
        "KVM_CAP_VCPU_EVENTS",
    ),
)
BY_NAME: dict[str, Action] = {row.name: row for row in ACTIONS}
# The requests of all ioctls that are called, by name.
REQUESTS: dict[str, int] = {
    **{row.ioctl: iow(row.number, row.size) for row in ACTIONS if row.size},
    **IOCTLS,
}


def reg_bits(number: int) -> int:
    """The width of a register by its id (KVM_REG_SIZE, KVM API 4.68)."""
    return 8 << (number >> 52 & 15)


def packed(row: Action, members: tuple[Member, ...], args: Mapping[str, object]) -> bytearray:
    """The struct of an action with its members filled in; a pointer is left 0.

    `args` are numbers by member, lists of them for arrays; what is not there is 0.
    """
    out = bytearray(row.size or max(m.offset + m.length * m.bits // 8 for m in members))
    for member in members:
        value = args.get(member.name)
        if value is None or member.fmt == VALUE:
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        struct.pack_into(f"={len(values)}{member.fmt}", out, member.offset, *values)
    return out
