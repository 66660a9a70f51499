"""Writes that KVM takes without leaving to user space: coalesced ones, kept in a ring, and those
that only signal an eventfd.

KVM_REGISTER_COALESCED_MMIO (KVM API 4.116), KVM_IOEVENTFD (4.59).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from typing import Any

from kvmscen.sent.errors import IoctlError
from kvmscen.sent.header.actions import BY_NAME
from kvmscen.sent.kvm.fds import Kvm, Vcpu, Vm, call
from kvmscen.sent.script.interpreter import Devices

ACTIONS = ("register_coalesced_mmio", "unregister_coalesced_mmio", "ioeventfd")
_CAP_COALESCED_MMIO = 15
_DATAMATCH, _DEASSIGN = 1, 4
# struct kvm_coalesced_mmio_ring: first, last, entries of (phys_addr, len, pio, data).
_HEAD = struct.Struct("=II")
_ENTRY = struct.Struct("=QII8s")
_CLOEXEC_NONBLOCK = 0o2000000 | 0o4000


class IoBus:
    """The coalesced zones and eventfds of one VM: what its KVM has on its I/O bus (kvm_io_bus)."""

    def __init__(self, kvm: Kvm, vm: Vm, vcpu: Vcpu) -> None:
        self.vm = vm
        self.vcpu = vcpu
        self.page = os.sysconf("SC_PAGE_SIZE")
        # Where the ring lies in what is mapped of a vCPU, in pages; 0 where this KVM has none.
        self.offset = kvm.check_extension(_CAP_COALESCED_MMIO) * self.page
        self.zones = 0
        self._fds: dict[tuple[Any, ...], int] = {}

    def act(self, name: str, args: Mapping[str, Any]) -> None:
        """One of ACTIONS. Raises IoctlError."""
        if name == "ioeventfd":
            self._ioeventfd(args["addr"], args["len"], args.get("datamatch"), args.get("flags", 0))
            return
        call(self.vm, BY_NAME[name], "", args)
        self.zones += name.startswith("register")

    def _ioeventfd(self, addr: int, length: int, datamatch: int | None, flags: int) -> None:
        kind = flags & ~_DEASSIGN | (0 if datamatch is None else _DATAMATCH)
        key = (addr, length, datamatch, kind)
        known = self._fds.get(key)
        fd = _eventfd() if known is None else known
        whole = struct.pack("=QQIiI36x", datamatch or 0, addr, length, fd, kind | flags & _DEASSIGN)
        try:
            self.vm.ioctl("KVM_IOEVENTFD", ctypes.create_string_buffer(whole, 64))
        except IoctlError:
            if known is None:
                os.close(fd)
            raise
        if flags & _DEASSIGN:
            os.close(fd)
            self._fds.pop(key, None)
        else:
            self._fds[key] = fd

    @property
    def ring(self) -> int | None:
        """The host address of the ring, None where nothing is coalesced."""
        return self.vcpu.kvm_run + self.offset if self.zones and self.offset else None

    def drain(self, devices: Devices) -> None:
        """Carry out the writes that the ring holds, in order; those to ports have nowhere to go."""
        ring = self.ring
        if ring is None:
            return
        first, last = _HEAD.unpack(ctypes.string_at(ring, _HEAD.size))
        room = (self.page - _HEAD.size) // _ENTRY.size
        while first != last:
            entry = ctypes.string_at(ring + _HEAD.size + first * _ENTRY.size, _ENTRY.size)
            gpa, length, pio, data = _ENTRY.unpack(entry)
            if not pio:
                devices.write(gpa, data[: min(length, 8)])
            first = (first + 1) % room
        ctypes.memmove(ring, struct.pack("=I", first), 4)

    def close(self) -> None:
        """Close the eventfds."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


def _eventfd() -> int:
    # os.eventfd is there from Python 3.10 on.
    fd = int(ctypes.CDLL(None, use_errno=True).eventfd(0, _CLOEXEC_NONBLOCK))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "eventfd")
    return fd
