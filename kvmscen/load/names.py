"""The names that a scenario may use, out of the tables, and those that it may use later."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from kvmscen.load import other_names
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.header import actions, exits

# Keys of the language that a later version brings.
LATER_TOP = (
    "catch",
    "cpuid",
    "runs",
    "ioctl",
    "console",
    "irqchip",
    "pit",
    "devices",
    "each",
    "for",
)
LATER_STEP = ("meet", "follows", "exception", "keep", "meanwhile", "save", "restore", "console")
_LATER_ACTIONS = (
    "interrupt",
    "nmi",
    "smi",
    "irq_line",
    "irq_line_status",
    "signal_msi",
    "set_sregs",
    "set_fpu",
    "set_xsave",
    "set_xcrs",
    "set_msrs",
    "set_debugregs",
    "set_lapic",
    "set_cpuid2",
    "set_tsc_khz",
    "set_clock",
    "set_gsi_routing",
    "set_device_attr",
    "set_memory_attributes",
    "create_irqchip",
    "create_pit2",
    "create_device",
    "create_vcpu",
    "create_guest_memfd",
    "irqfd",
    "get_dirty_log",
    "clear_dirty_log",
    "reset_dirty_rings",
    "kvmclock_ctrl",
    "translate",
    "arm_vcpu_init",
    "x86_set_msr_filter",
    "pre_fault_memory",
    "ioctl",
    "signal",
    "madvise",
    "protect_memory",
    "save",
    "restore",
    "get_dirty_ring",
    "request_interrupt_window",
    "immediate_exit",
)
ACTIONS = tuple(actions.BY_NAME)
LATER_ACTIONS = tuple(name for name in _LATER_ACTIONS if name not in ACTIONS)

# What may stand beside the exit key of a step.
BESIDE = ("reply", "then", "regs", "memory", "repeat", "vcpu")
MEM_FLAGS = ("KVM_MEM_LOG_DIRTY_PAGES", "KVM_MEM_READONLY")
FLAVOURS = ("pvm", "svm", "vmx", "vhe", "nvhe")
HOSTS = ("kvm", "model", "qemu", "ssh")

# The ioctls that the engine calls, and so those that can fail.
_IOCTLS = (
    "KVM_RUN",
    "emulate",
    "write_memory",
    "KVM_CREATE_VM",
    "KVM_CREATE_VCPU",
    "KVM_CREATE_IRQCHIP",
    "KVM_SET_USER_MEMORY_REGION",
    "KVM_ENABLE_CAP",
    "KVM_CHECK_EXTENSION",
    "KVM_GET_VCPU_MMAP_SIZE",
    "KVM_GET_REGS",
    "KVM_SET_REGS",
    "KVM_GET_SREGS",
    "KVM_SET_SREGS",
    "KVM_GET_FPU",
    "KVM_SET_FPU",
    "KVM_GET_ONE_REG",
    "KVM_GET_REG_LIST",
    "KVM_GET_SUPPORTED_CPUID",
    "KVM_SET_CPUID2",
    "KVM_GET_MSRS",
    "KVM_SET_MSRS",
    "KVM_GET_MP_STATE",
    "KVM_ARM_PREFERRED_TARGET",
    "KVM_ARM_VCPU_INIT",
    "KVM_ARM_VCPU_FINALIZE",
)
IOCTLS = tuple(dict.fromkeys((*_IOCTLS, *(row.ioctl for row in actions.ACTIONS))))

# <asm-generic/errno-base.h> and <asm-generic/errno.h>: Linux's, whatever this machine runs.
_ERRNOS = """
EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK
EBUSY EEXIST EXDEV ENODEV
ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM
ERANGE EDEADLK ENAMETOOLONG
ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI
EL2HLT EBADE EBADR EXFULL
ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT
ECOMM EPROTO EMULTIHOP
EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ
ERESTART ESTRPIPE EUSERS
ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP
EPFNOSUPPORT EAFNOSUPPORT
EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN
ENOTCONN ESHUTDOWN
ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN
ENOTNAM ENAVAIL EISNAM
EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED
EOWNERDEAD ENOTRECOVERABLE
ERFKILL EHWPOISON
"""
ERRNOS = tuple(_ERRNOS.split())

# KVM_RUN returns these with -1 and an errno: they stand in an `error` step.
_WITH_ERRNO = ("memory_fault",)
# Members that hold 0 or 1.
FLAGS = ("is_write", "longmode", "dequeued", "emulated")
_BITS = {"B": 8, "H": 16, "I": 32, "Q": 64, "8s": 64}


def offered(arch: str | None = None) -> tuple[exits.Exit, ...]:
    """The exits that a step may name, on one architecture or on any that kvmscen knows."""
    wanted = set(ARCHES) if arch is None else {arch}
    return tuple(
        e
        for e in exits.EXITS
        if (not e.archs or wanted & set(e.archs)) and e.name not in _WITH_ERRNO
    )


@lru_cache(maxsize=256)
def members(name: str, arch: str) -> dict[str, exits.Field]:
    """The members of one exit on one architecture."""
    return {f.name: f for f in exits.fields_of(name, arch)}


def bits(field: exits.Field) -> int:
    """The width of a member, or of one element of it."""
    return _BITS[field.fmt]


@lru_cache(maxsize=256)
def numbers_of(exit_name: str, field_name: str) -> dict[str, int]:
    """The names that a member's value may have: short ones first, then the header's in full."""
    for field in exits.BY_NAME[exit_name].fields:
        if field.name == field_name and field.names:
            prefix = _prefix(exit_name, field)
            return {
                **field.names,
                **{prefix + key.upper(): number for key, number in field.names.items()},
            }
    return {}


def _prefix(exit_name: str, field: exits.Field) -> str:
    # The exit table names the prefix in the member's text where it is not the exit's own.
    match = re.search(r"\bKVM_[A-Z_]+_(?![A-Z])", field.text)
    return match[0] if match else f"KVM_EXIT_{exit_name.upper()}_"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    names = list(known)
    if len(word) > 60:
        return None
    folded = word.lower().replace("-", "_")
    for name in names:
        if name.lower() in (folded, folded + "s", folded.removesuffix("s")):
            return name
        if name.lower() in (
            "kvm_cap_" + folded,
            "kvm_mem_" + folded,
            folded.removeprefix("kvm_exit_"),
        ):
            return name
    folded = _bare(folded)
    bare = {_bare(name.lower()): name for name in names}
    if len(folded) >= 4:
        inside = [name for name in bare if folded in name or (len(name) >= 4 and name in folded)]
        if inside:
            return bare[min(inside, key=lambda name: abs(len(name) - len(folded)))]
    close = difflib.get_close_matches(folded, bare, 1, 0.6)
    return bare[close[0]] if close else None


def _bare(name: str) -> str:
    # What all names have in common says nothing about which is meant.
    return re.sub(r"^kvm_(?:cap_|mem_|exit_)?", "", name)


def either(names: Iterable[str], most: int = 14) -> str:
    """`a`, `b` or `c`; a long list is cut."""
    all_names = [f"`{name}`" for name in names] or ["nothing"]
    if len(all_names) > most:
        return ", ".join(all_names[:most]) + f" and {len(all_names) - most} more"
    return (
        all_names[0] if len(all_names) == 1 else ", ".join(all_names[:-1]) + " or " + all_names[-1]
    )


def unknown_register(key: str, arch: str | None) -> str:
    """What to say of a register that an architecture does not have."""
    shown = shorten(key)
    if arch is None:
        return f"`{shown}` is no register"
    module = ARCHES[arch]
    refused = getattr(module, "REFUSED", {}).get(key)
    if refused:
        return f"`{key}` is refused: {refused}"
    known = other_names.register(key, arch)
    if known:
        later = known.startswith("not yet")
        return (
            f"`{shown}` "
            f"{'cannot be written or compared' if later else f'is no register of {arch} here'}: "
            f"{known}"
        )
    others = [name for name, other in ARCHES.items() if _has_register(other.REGISTERS, key)]
    if others:
        return (
            f"`{shown}` is a register of {others[0]}, not of {arch}: write "
            f"{either(module.GENERAL, 4)}"
        )
    close = _closest_register(key, module.REGISTERS)
    return f"`{shown}` is no register of {arch}: " + (
        f"did you mean `{close}`" if close else f"write {either(module.GENERAL, 4)}"
    )


def _closest_register(key: str, table: Mapping[str, object]) -> str | None:
    folded = key.lower()
    if f"{folded}_el1" in table:
        return f"{folded}_el1"
    close = closest(key, table)
    # `cr1` is not like `r15`: of short names all letters but one must be right.
    alike = close is not None and difflib.SequenceMatcher(None, folded, close).ratio() >= 0.75
    return (
        close
        if alike
        or (close is not None and len(folded) >= 4 and (folded in close or close in folded))
        else None
    )


def _has_register(table: Mapping[str, object], name: str) -> bool:
    return name in table or any(register.startswith(name + ".") for register in table)


def shorten(text: str) -> str:
    """A name for a message: no line breaks, and no more than fits."""
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else flat[:57] + "..."
