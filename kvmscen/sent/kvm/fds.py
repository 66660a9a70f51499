"""/dev/kvm, a VM and a vCPU: each owns its descriptor and its mappings, and gives them back.

Every ioctl goes through ctypes, not fcntl: from Python 3.14 `fcntl.ioctl` retries EINTR in C, so a
KVM_RUN with `immediate_exit` would spin for ever, and before 3.15 it refuses buffers over 1,024
bytes (KVM_SET_CPUID2). Guest memory and struct kvm_run are mapped by libc too: `mmap.mmap(fd)`
would dup the descriptor, and the VM live on after its close.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from typing import Any

from kvmscen.sent.arch import of_machine
from kvmscen.sent.errors import IoctlError
from kvmscen.sent.header import exits, kvm_run
from kvmscen.sent.header.actions import BY_NAME, REQUESTS, VALUE, Action, packed, reg_bits
from kvmscen.sent.header.caps import CAPABILITIES
from kvmscen.sent.header.uapi import GUEST_DEBUG

_libc = ctypes.CDLL(None, use_errno=True)
_ioctl = _libc.ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
_mmap = _libc.mmap
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_mmap.restype = ctypes.c_void_p
_munmap = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_RUN = REQUESTS["KVM_RUN"]

_PROT_READ_WRITE, _PROT_READ_EXEC = 3, 5
_MAP_SHARED, _MAP_PRIVATE, _MAP_ANONYMOUS, _MAP_NORESERVE = 1, 2, 0x20, 0x4000
_PIECE = 1 << 16
_NOTHING = bytes(_PIECE)
_FAILED = ctypes.c_void_p(-1).value


def _map(size: int, flags: int, fd: int, prot: int = _PROT_READ_WRITE) -> int:
    at = _mmap(None, size, prot, flags, fd, 0)
    if at == _FAILED:
        raise OSError(
            ctypes.get_errno(), f"mmap of {size} bytes: {os.strerror(ctypes.get_errno())}"
        )
    return int(at)


def map_code(code: bytes) -> int:
    """Machine code in executable memory that nobody can write to: its address. Raises OSError where
    that is refused.
    """
    fd = os.memfd_create("kvmscen-code")
    try:
        os.write(fd, code)
        return _map(len(code), _MAP_PRIVATE, fd, _PROT_READ_EXEC)
    finally:
        os.close(fd)


def unmap(at: int, size: int) -> None:
    """Give back what `map_code` mapped."""
    _munmap(at, size)


class Descriptor:
    """A file descriptor of KVM, with ioctls by name."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def ioctl(self, name: str, argument: int | ctypes.Array[ctypes.c_char] | None = 0) -> int:
        """One ioctl; `argument` is a number or a buffer. Raises IoctlError."""
        result = _ioctl(self.fd, REQUESTS[name], argument)
        if result < 0:
            raise IoctlError(name, ctypes.get_errno())
        return int(result)

    def close(self) -> None:
        """Give the descriptor back; a second time does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Memory:
    """Anonymous host memory of one slot number; pages are taken when first touched."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.at = _map(size, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE, -1)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from an offset."""
        return ctypes.string_at(self.at + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes at an offset."""
        ctypes.memmove(self.at + offset, data, len(data))

    def copy(self, other: Memory) -> None:
        """Take over the bytes of another, smaller memory; pages that hold nothing stay
        untouched.
        """
        for offset in range(0, other.size, _PIECE):
            piece = other.read(offset, min(_PIECE, other.size - offset))
            if not _NOTHING.startswith(piece):
                self.write(offset, piece)

    def close(self) -> None:
        """Unmap."""
        if self.at:
            _munmap(self.at, self.size)
            self.at = 0


class Kvm(Descriptor):
    """/dev/kvm (KVM API 4.1 to 4.5)."""

    def __init__(self, path: str = "/dev/kvm") -> None:
        super().__init__(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        self.run_size = self.ioctl("KVM_GET_VCPU_MMAP_SIZE")
        # Which sets of registers KVM_RUN can leave in struct kvm_run, as bits that each
        # architecture names by itself.
        self.sync_regs = self.check_extension(CAPABILITIES["KVM_CAP_SYNC_REGS"])

    def check_extension(self, number: int) -> int:
        """What KVM_CHECK_EXTENSION says of a capability; 0 where KVM does not know it."""
        try:
            return self.ioctl("KVM_CHECK_EXTENSION", number)
        except IoctlError:
            return 0

    def create_vm(self, kind: int = 0) -> Vm:
        """A VM without memory."""
        return Vm(self.ioctl("KVM_CREATE_VM", kind), self.run_size)


class Vm(Descriptor):
    """One VM."""

    def __init__(self, fd: int, run_size: int) -> None:
        super().__init__(fd)
        self.run_size = run_size

    def set_user_memory_region(self, slot: int, flags: int, gpa: int, size: int, at: int) -> None:
        """KVM API 4.35; size 0 deletes the slot. `at` is the host address of its bytes."""
        buffer = ctypes.create_string_buffer(struct.pack("=IIQQQ", slot, flags, gpa, size, at), 32)
        self.ioctl("KVM_SET_USER_MEMORY_REGION", buffer)

    def enable_cap(self, number: int, args: tuple[int, ...]) -> None:
        """KVM API 4.37 on the VM."""
        self.ioctl("KVM_ENABLE_CAP", _enable_cap(number, args))

    def create_vcpu(self, number: int) -> Vcpu:
        """A vCPU with its struct kvm_run mapped."""
        return Vcpu(self.ioctl("KVM_CREATE_VCPU", number), number, self.run_size)


def _enable_cap(number: int, args: tuple[int, ...]) -> ctypes.Array[ctypes.c_char]:
    padded = (*args, 0, 0, 0, 0)[:4]
    return ctypes.create_string_buffer(struct.pack("=II4Q", number, 0, *padded), 104)


_UNTOUCHED = struct.pack("=Q", kvm_run.UNTOUCHED)
_DEBUG_SIZE = 8 + GUEST_DEBUG[of_machine(os.uname().machine)][0]
# struct kvm_run: kvm_valid_regs, and where the registers themselves lie.
_VALID_REGS, SYNC_REGS = 288, 304
_Union = ctypes.c_char * exits.UNION_SIZE
_STEP = 3  # KVM_GUESTDBG_ENABLE and KVM_GUESTDBG_SINGLESTEP


class Vcpu(Descriptor):
    """One vCPU and its struct kvm_run.

    `synced`: struct kvm_run holds the registers as they are now (KVM API 5, "kvm_valid_regs"). Only
    a KVM_RUN that returned 0 leaves them there, and any other ioctl may change them.
    """

    def __init__(self, fd: int, number: int, run_size: int) -> None:
        super().__init__(fd)
        self.number = number
        self.run_size = run_size
        self.synced = self._syncs = False
        self._debug = bytes(_DEBUG_SIZE)
        self._watched = False  # whether a debug exit may come whose dr7 KVM may not write
        self.features: tuple[str, ...] = ()  # what KVM_ARM_VCPU_INIT was given
        self.one_reg: Any = None  # kvmscen.sent.kvm.one_reg's, once a register is asked for
        try:
            self.kvm_run = _map(run_size, _MAP_SHARED, fd)
        except OSError:
            os.close(fd)
            raise
        self._immediate_exit = ctypes.c_uint8.from_address(self.kvm_run + 1)
        self._exit_reason = ctypes.c_uint32.from_address(self.kvm_run + 8)
        self._union = _Union.from_address(self.kvm_run + exits.UNION)

    def sync(self, sets: int) -> None:
        """Have each KVM_RUN leave these sets of registers in struct kvm_run: bits of
        KVM_CAP_SYNC_REGS (KVM API 6.74).
        """
        ctypes.c_uint64.from_address(self.kvm_run + _VALID_REGS).value = sets
        self._syncs = sets != 0

    def ioctl(self, name: str, argument: int | ctypes.Array[ctypes.c_char] | None = 0) -> int:
        """One ioctl, as of any descriptor."""
        self.synced = False
        return super().ioctl(name, argument)

    def run(self) -> int:
        """KVM_RUN (KVM API 4.10): 0, or the errno with which it failed."""
        if self._watched:
            self.put(exits.UNION + exits.DR7, _UNTOUCHED)
        if _ioctl(self.fd, _RUN, None) < 0:
            self.synced = False
            return ctypes.get_errno()
        self.synced = self._syncs
        return 0

    @property
    def exit_reason(self) -> int:
        """The KVM_EXIT_ number of the last return."""
        return self._exit_reason.value

    @property
    def immediate_exit(self) -> int:
        """Nonzero: KVM_RUN completes what is pending and fails with EINTR."""
        return self._immediate_exit.value

    @immediate_exit.setter
    def immediate_exit(self, value: int) -> None:
        self._immediate_exit.value = value

    def exit(self, arch: str) -> tuple[str, dict[str, exits.Value]]:
        """Name and members of the exit that the last KVM_RUN returned with."""
        return kvm_run.decode(self._exit_reason.value, self._union, self.bytes_at, arch)

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Bytes of the kvm_run mapping; what lies outside of it is not there."""
        return ctypes.string_at(self.kvm_run + offset, max(0, min(length, self.run_size - offset)))

    def put(self, offset: int, data: bytes) -> None:
        """Write into the kvm_run mapping."""
        ctypes.memmove(self.kvm_run + offset, data, len(data))

    def enable_cap(self, number: int, args: tuple[int, ...]) -> None:
        """KVM API 4.37 on the vCPU."""
        self.ioctl("KVM_ENABLE_CAP", _enable_cap(number, args))

    def set_guest_debug(self, arch: str, args: Mapping[str, Any]) -> None:
        """KVM API 4.87: `control`, and the arrays of struct kvm_guest_debug_arch by name."""
        row = BY_NAME["set_guest_debug"]
        call(self, row, arch, args)
        self._debug = bytes(packed(row, row.of(arch) or (), args)).ljust(len(self._debug), b"\0")
        self._watched = arch == "x86_64" and args["control"] != 0

    @property
    def stepping(self) -> bool:
        """Whether what was set has KVM_RUN return after each instruction."""
        return int.from_bytes(self._debug[:4], "little") & _STEP == _STEP

    def single_step(self, on: bool) -> None:
        """Have KVM_RUN return after one instruction, or go back to what was set before."""
        whole = struct.pack("=II", _STEP, 0).ljust(len(self._debug), b"\0") if on else self._debug
        self.ioctl("KVM_SET_GUEST_DEBUG", ctypes.create_string_buffer(whole, len(whole)))

    def close(self) -> None:
        """Unmap struct kvm_run and close."""
        if self.fd >= 0:
            _munmap(self.kvm_run, self.run_size)
        self.one_reg = None
        super().close()


def call(descriptor: Descriptor, row: Action, arch: str, args: Mapping[str, Any]) -> None:
    """Fill the struct of an action that is one ioctl, and call it. `args` as in `packed`. Raises
    IoctlError.
    """
    members = row.of(arch) or ()
    buffer = ctypes.create_string_buffer(bytes(packed(row, members, args)))
    held = []  # what the struct points to lives until the call is over
    for member in members:
        if member.fmt == VALUE:
            size = reg_bits(args.get("id", 0)) // 8
            held.append(
                ctypes.create_string_buffer(args.get(member.name, 0).to_bytes(size, "little"), size)
            )
            struct.pack_into("=Q", buffer, member.offset, ctypes.addressof(held[-1]))
    descriptor.ioctl(row.ioctl, buffer)
