"""ioctl numbers of <linux/kvm.h> and the sizes of what they take (KVM API, section 4)."""

from __future__ import annotations

import os

from kvmscen.sent.arch import of_machine


def io(number: int) -> int:
    return 0xAE00 | number


def ior(number: int, size: int) -> int:
    return 0x80000000 | size << 16 | 0xAE00 | number


def iow(number: int, size: int) -> int:
    """The request of an ioctl that hands KVM so many bytes."""
    return 0x40000000 | size << 16 | 0xAE00 | number


def iowr(number: int, size: int) -> int:
    return 0xC0000000 | size << 16 | 0xAE00 | number


API_VERSION = 12

# Sizes of structs, in bytes.
REGS_X86 = 144
SREGS_X86 = 312
XSAVE = 4096
CPUID_ENTRY = 40
VCPU_INIT_ARM = 32

# struct kvm_guest_debug_arch by architecture: its size, and its arrays of 64-bit numbers as
# (offset, length).
GUEST_DEBUG: dict[str, tuple[int, dict[str, tuple[int, int]]]] = {
    "arm64": (
        512,
        {
            name: (128 * n, 16)
            for n, name in enumerate(("dbg_bcr", "dbg_bvr", "dbg_wcr", "dbg_wvr"))
        },
    ),
    "riscv64": (0, {}),
    "x86_64": (64, {"debugreg": (0, 8)}),
}


def set_guest_debug(arch: str) -> int:
    """KVM_SET_GUEST_DEBUG, whose number has the size of its struct in it."""
    return iow(0x9B, 8 + GUEST_DEBUG.get(arch, (0, {}))[0])


IOCTLS: dict[str, int] = {
    "KVM_GET_API_VERSION": io(0x00),
    "KVM_CREATE_VM": io(0x01),
    "KVM_CHECK_EXTENSION": io(0x03),
    "KVM_GET_VCPU_MMAP_SIZE": io(0x04),
    "KVM_GET_SUPPORTED_CPUID": iowr(0x05, 8),
    "KVM_CREATE_VCPU": io(0x41),
    "KVM_SET_USER_MEMORY_REGION": iow(0x46, 32),
    "KVM_SET_TSS_ADDR": io(0x47),
    "KVM_RUN": io(0x80),
    "KVM_GET_REGS": ior(0x81, REGS_X86),
    "KVM_SET_REGS": iow(0x82, REGS_X86),
    "KVM_GET_SREGS": ior(0x83, SREGS_X86),
    "KVM_SET_SREGS": iow(0x84, SREGS_X86),
    "KVM_SET_CPUID2": iow(0x90, 8),
    "KVM_GET_MP_STATE": ior(0x98, 4),
    "KVM_SET_GUEST_DEBUG": set_guest_debug(of_machine(os.uname().machine)),
    "KVM_ENABLE_CAP": iow(0xA3, 104),
    "KVM_GET_XSAVE": ior(0xA4, XSAVE),
    "KVM_SET_XSAVE": iow(0xA5, XSAVE),
    "KVM_GET_ONE_REG": iow(0xAB, 16),
    "KVM_SET_ONE_REG": iow(0xAC, 16),
    "KVM_ARM_VCPU_INIT": iow(0xAE, VCPU_INIT_ARM),
    "KVM_ARM_PREFERRED_TARGET": ior(0xAF, VCPU_INIT_ARM),
    "KVM_ARM_VCPU_FINALIZE": iow(0xC2, 4),
    "KVM_GET_STATS_FD": io(0xCE),
}

# KVM_SET_USER_MEMORY_REGION flags.
MEM_FLAGS: dict[str, int] = {
    "KVM_MEM_LOG_DIRTY_PAGES": 1 << 0,
    "KVM_MEM_READONLY": 1 << 1,
    "KVM_MEM_GUEST_MEMFD": 1 << 2,
}

# `control` of KVM_SET_GUEST_DEBUG (KVM API 4.87): the first two everywhere, the others by
# architecture.
_GUESTDBG = {"KVM_GUESTDBG_ENABLE": 1, "KVM_GUESTDBG_SINGLESTEP": 2}
GUESTDBG: dict[str, dict[str, int]] = {
    "arm64": {**_GUESTDBG, "KVM_GUESTDBG_USE_SW_BP": 1 << 16, "KVM_GUESTDBG_USE_HW": 1 << 17},
    "riscv64": _GUESTDBG,
    "x86_64": {
        **_GUESTDBG,
        "KVM_GUESTDBG_USE_SW_BP": 1 << 16,
        "KVM_GUESTDBG_USE_HW_BP": 1 << 17,
        "KVM_GUESTDBG_INJECT_DB": 1 << 18,
        "KVM_GUESTDBG_INJECT_BP": 1 << 19,
        "KVM_GUESTDBG_BLOCKIRQ": 1 << 20,
    },
}
