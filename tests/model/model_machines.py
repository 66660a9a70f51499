"""Machines for the model's tests, out of assembly text by Keystone."""

from __future__ import annotations

from functools import cache
from typing import Any

from kvmscen.asm.keystone import encoder
from kvmscen.sent.machine import Action, Bytes, Capability, Machine, Memslot, Step, Tables, Vcpu

NISV = (Capability("KVM_CAP_ARM_NISV_TO_USER", 177),)
_MODES = {"arm64": "arm64", "long": "x64", "protected": "x32", "real": "x16"}
DEVICE = bytes(range(1, 65))
READONLY = bytes(range(100, 164))


@cache
def assemble(mode: str, text: str) -> bytes:
    """Machine code at address 0."""
    return bytes(encoder.engine(_MODES[mode]).asm(text, 0)[0])


def arm64(
    code: str | bytes,
    script: tuple[Step, ...] | None = None,
    regs: dict[str, int] | None = None,
    **more: Any,
) -> Machine:
    """One slot of a page at 0 with the code, a read-only one at 0x8000, a device of 4 KiB at
    0x5000.
    """
    features = more.pop("features", ("psci_0_2",))
    raw = assemble("arm64", code) if isinstance(code, str) else code
    fields: dict[str, Any] = {
        "memslots": (Memslot(0, 0, 0x1000), Memslot(1, 0x8000, 0x1000, 2)),
        "image": (Bytes.at(0, raw), Bytes.at(0x8000, READONLY)),
        "devices": (Bytes.at(0x5000, DEVICE, 0x1000),),
        "vcpus": (Vcpu(0, "el1", {"pc": 0, **(regs or {})}, features, script),),
        "timeout": 1.0,
    }
    return Machine("arm64", **{**fields, **more})


def x86(
    code: str | bytes,
    mode: str = "long",
    script: tuple[Step, ...] | None = None,
    regs: dict[str, int] | None = None,
    **more: Any,
) -> Machine:
    """Two pages at 0 with the code, a read-only slot at 0x8000, a device at 0x5000, the engine's
    tables.
    """
    raw = assemble(mode, code) if isinstance(code, str) else code
    fields: dict[str, Any] = {
        "memslots": (Memslot(0, 0, 0x2000), Memslot(1, 0x8000, 0x1000, 2)),
        "image": (Bytes.at(0, raw), Bytes.at(0x8000, READONLY)),
        "devices": (Bytes.at(0x5000, DEVICE, 0x1000),),
        "tables": None if mode == "real" else Tables(0xFFFC0000, 0x8000, 509),
        "vcpus": (Vcpu(0, mode, {"rip": 0, **(regs or {})}, (), script),),
        "timeout": 1.0,
        "exits": 100,
    }
    return Machine("x86_64", **{**fields, **more})


def mmio(
    at: int | None = None,
    write: bool | None = None,
    then: tuple[Action, ...] | None = None,
    **more: Any,
) -> Step:
    """A step for an MMIO exit."""
    where: dict[str, Any] = {}
    if at is not None:
        where["phys_addr"] = at
    if write is not None:
        where["is_write"] = write
    return Step("mmio", where, then=then, **more)
