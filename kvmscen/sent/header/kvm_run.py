"""What `struct kvm_run` holds of an exit, to names and numbers, and what is replied back to bytes.

The rows are those of kvmscen.sent.header.exits.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from kvmscen.sent.header.exits import BY_NUMBER, DEBUG_FIELDS, Field, Value

_MMIO, _IO = struct.Struct("=Q8sIB"), struct.Struct("=BBHIQ")


def decode(reason: int, union: Any, data_at: Any, arch: str) -> tuple[str, dict[str, Value]]:
    """Name and members of the exit whose reason and union `struct kvm_run` hold; the union may be
    any buffer, and nothing of it is kept.

    `data_at(offset, length)` reads bytes of the kvm_run mapping, for `io`. A reason that the table
    does not have keeps its number: it is named `KVM_EXIT_<n>`.
    """
    row = BY_NUMBER.get(reason)
    if row is None:
        return f"KVM_EXIT_{reason}", {}
    if row.name == "mmio" or row.name == "loongarch_iocsr":
        addr, data, length, is_write = _MMIO.unpack_from(union)
        out: dict[str, Value] = {"phys_addr": addr, "is_write": bool(is_write), "len": length}
        if is_write:
            out["data"] = int.from_bytes(data[:length], "little")
        return row.name, out
    if row.name == "io":
        return row.name, _decode_io(union, data_at)
    fields = DEBUG_FIELDS.get(arch, ()) if row.name == "debug" else row.fields
    values: dict[str, Value] = {}
    for f in fields:
        if f.length == 1:
            values[f.name] = struct.unpack_from("=" + f.fmt, union, f.offset)[0]
        else:
            values[f.name] = list(struct.unpack_from(f"={f.length}{f.fmt}", union, f.offset))
    if "is_write" in values:
        values["is_write"] = bool(values["is_write"])
    if "ndata" in values:
        values["data"] = values["data"][: min(values["ndata"], 16)]
    for member in _unwritten(row.name, values, data_at, arch):
        values.pop(member, None)
    return row.name, values


# What stands in dr7 of a debug exit before KVM_RUN, so that it can be told whether KVM wrote there.
UNTOUCHED = 0x6B766D7363656E21
_RUN_FLAGS = 14
_HSR_HIGH_VALID = 1
_WATCHPOINTS = (0x34, 0x35)
_BREAKPOINT = 3
_FAR_NOT_VALID, _GPA_VALID = 1 << 10, 1


def _unwritten(name: str, values: Mapping[str, Any], data_at: Any, arch: str) -> tuple[str, ...]:
    """The members of an exit that KVM leaves as the last exit or reply left them."""
    if name == "debug" and arch == "arm64":
        # far: kvm_handle_guest_debug. hsr_high: ("KVM: arm64: Treat ESR_EL2 as a 64-bit register")
        # (in v5.19).
        far = () if values["hsr"] >> 26 in _WATCHPOINTS else ("far",)
        valid = int.from_bytes(data_at(_RUN_FLAGS, 2), "little") & _HSR_HIGH_VALID
        return far if valid else (*far, "hsr_high")
    if name == "debug" and arch == "x86_64":
        # A #BP writes pc and exception; a step that KVM emulates (kvm_vcpu_do_singlestep) dr6 too.
        if values["exception"] == _BREAKPOINT:
            return ("dr6", "dr7")
        return ("dr7",) if values["dr7"] == UNTOUCHED else ()
    if name == "arm_sea":
        gva = ("gva",) if values["esr"] & _FAR_NOT_VALID else ()
        return gva if values["flags"] & _GPA_VALID else (*gva, "gpa")
    return ()


def _decode_io(union: Any, data_at: Any) -> dict[str, Value]:
    direction, size, port, count, offset = _IO.unpack_from(union)
    out: dict[str, Value] = {"direction": direction, "size": size, "port": port, "count": count}
    if direction == 1:
        raw = data_at(offset, size * count)
        out["data"] = elements(raw, size)
    return out


def elements(raw: bytes, size: int) -> Value:
    """The little-endian elements of `size` bytes in `raw`: a number, or a list when there are
    several.
    """
    values: list[int] = [
        int.from_bytes(raw[i : i + size], "little") for i in range(0, len(raw), size)
    ]
    return values[0] if len(values) == 1 else values


def is_read(name: str, fields: Mapping[str, Value]) -> bool:
    """Whether the exit waits for a value from user space."""
    if name == "mmio" or name == "loongarch_iocsr":
        return not fields.get("is_write")
    if name == "io":
        return fields.get("direction") == 0
    return name in ("x86_rdmsr", "riscv_csr")


def encode(field: Field, value: Value) -> bytes:
    """The bytes of one member, as user space writes it back."""
    if field.fmt == "8s":
        return int(value).to_bytes(8, "little")
    if field.length > 1:
        values = value if isinstance(value, list) else [value]
        return struct.pack(f"={len(values)}{field.fmt}", *values)
    return struct.pack("=" + field.fmt, value)
