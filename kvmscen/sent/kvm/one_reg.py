"""Registers by id: KVM_GET_ONE_REG and KVM_SET_ONE_REG (KVM API 4.68, 4.69), for the architectures
that have no others.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Mapping

from kvmscen.sent.arch.registers import Registers, base, get, put
from kvmscen.sent.errors import HostError, IoctlError
from kvmscen.sent.kvm.fds import Vcpu

# The size of a register in its id: the binary logarithm of its bytes, from this bit on.
SIZE_SHIFT = 52
_ONE_REG = struct.Struct("=QQ")
_MOST = 2048
_WITH = ctypes.c_char * (_ONE_REG.size + _MOST)


def sized(number: int, size: int) -> int:
    """An id with its size in bytes put in."""
    return number | (size.bit_length() - 1) << SIZE_SHIFT


def size_of(number: int) -> int:
    """The bytes of the register with this id."""
    return 1 << (number >> SIZE_SHIFT & 15)


class OneReg:
    """One register at a time; struct kvm_one_reg and the value that it points to are one buffer."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self._buffer = _WITH()
        self._value = ctypes.addressof(self._buffer) + _ONE_REG.size

    def get(self, number: int) -> int:
        """The value of the register with this id. Raises IoctlError."""
        _ONE_REG.pack_into(self._buffer, 0, number, self._value)
        self.vcpu.ioctl("KVM_GET_ONE_REG", self._buffer)
        return int.from_bytes(ctypes.string_at(self._value, size_of(number)), "little")

    def set(self, number: int, value: int) -> None:
        """Write the register with this id. Raises IoctlError."""
        data = value.to_bytes(size_of(number), "little")
        _ONE_REG.pack_into(self._buffer, 0, number, self._value)
        ctypes.memmove(self._value, data, len(data))
        self.vcpu.ioctl("KVM_SET_ONE_REG", self._buffer)


def of(vcpu: Vcpu) -> OneReg:
    """The one of a vCPU, whose pc is asked for at each exit: the buffer is large."""
    if vcpu.one_reg is None:
        vcpu.one_reg = OneReg(vcpu)
    made: OneReg = vcpu.one_reg
    return made


def read(
    vcpu: Vcpu, table: Registers, ids: Mapping[str, int], names: Iterable[str]
) -> dict[str, int]:
    """Registers and views of them by name. Raises HostError for one that this KVM does not have."""
    registers, values, out = of(vcpu), {}, {}
    for name in names:
        whole = base(table, name)
        if whole not in values:
            try:
                values[whole] = registers.get(ids[whole])
            except IoctlError as error:
                raise HostError(f"this KVM gives no register {whole} ({error})") from None
        out[name] = get(table, values, name)
    return out


def write(vcpu: Vcpu, table: Registers, ids: Mapping[str, int], regs: Mapping[str, int]) -> None:
    """Set registers by name, in their order; what is not named keeps its value."""
    registers, values = of(vcpu), {}
    for name, value in regs.items():
        row = table[name]
        whole = base(table, name)
        if row.of and not row.zeroes and whole not in values:
            values[whole] = registers.get(ids[whole])
        put(table, values, name, value)
    for whole, value in values.items():
        registers.set(ids[whole], value)
