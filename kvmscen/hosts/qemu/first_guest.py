"""The guest that a machine runs before any other once it has been restored: it pays for what has to
come from the disk.

A machine that goes on from a snapshot maps its memory from a file, and reads each page when it is
first touched: those of its kernel's KVM, too, at the first VM. A guest with a limit of its own
would lose its time to that.
"""

from __future__ import annotations

from kvmscen.sent.machine import Bytes, Machine, Memslot, Step, Vcpu

# It goes the way of every case once: a VM, a slot, an exit that leaves for user space, a reply, and
# a guest that must be interrupted. In each architecture: a load from _AT, and a branch to itself.
_AT = 0x10000
_GUESTS = {
    "arm64": (
        Vcpu(0, "el1", {"pc": 0, "x1": _AT}, ("psci_0_2",)),
        "200040f900000014",
    ),  # ldr x0, [x1]; b .
    "riscv64": (Vcpu(0, "s", {"pc": 0, "a1": _AT}), "03b505006f000000"),  # ld a0, 0(a1); j .
    "x86_64": (
        Vcpu(0, "real", {"rip": 0, "ds": _AT >> 4, "rbx": 0}),
        "8b07ebfe",
    ),  # mov ax, [bx]; jmp .
}
_SCRIPT = (Step("mmio", {"phys_addr": _AT}, reply={"data": 1}), Step("timeout", timeout=0.01))
# What comes from a busy disk may take its time.
SECONDS = 60.0


def machine(arch: str) -> Machine:
    """The guest for an architecture."""
    vcpu, code = _GUESTS[arch]
    # A slot is made of whole pages, and the largest have 64 KiB.
    return Machine(
        arch,
        (Memslot(0, 0, _AT),),
        (Bytes.at(0, bytes.fromhex(code)),),
        (),
        (vcpu._replace(script=_SCRIPT),),
        timeout=SECONDS,
    )
