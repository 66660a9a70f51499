"""Machines for the tests on /dev/kvm, out of assembly text by Keystone, and shorthands for their
steps and events.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from kvmscen.sent.machine import Action, Bytes, Machine, Memslot, Step, Tables, Vcpu
from kvmscen.sent.observation import Event, Observation

READONLY = 2
TABLES = Tables(0xFFFC0000, 0x8000, 509)


@cache
def assemble(mode: str, text: str) -> bytes:
    """Machine code at address 0."""
    from kvmscen.asm.keystone.encoder import engine

    code, _ = engine({"long": "x64", "protected": "x32", "real": "x16"}[mode]).asm(text, 0)
    return bytes(code)


def machine(
    code: str | bytes,
    script: tuple[Step, ...] | None = None,
    mode: str = "long",
    regs: dict[str, int] | None = None,
    **more: Any,
) -> Machine:
    """Two pages at 0 with the code, a device of a page at 0x5000; rbx points to it, and rsp behind
    the slot's end.
    """
    raw = assemble(mode, code) if isinstance(code, str) else code
    start = {"rip": 0, "rbx": 0x5000, "rsp": 0x2000, **(regs or {})}
    fields: dict[str, Any] = {
        "memslots": (Memslot(0, 0, 0x2000),),
        "image": (Bytes.at(0, raw),),
        "devices": (Bytes.at(0x5000, bytes(range(1, 65)), 0x1000),),
        "vcpus": (Vcpu(0, mode, start, (), script),),
        "tables": None if mode == "real" else TABLES,
        "timeout": 2.0,
        "exits": 200,
    }
    return Machine("x86_64", **{**fields, **more})


def mmio(at: int, write: bool = True, **more: Any) -> Step:
    return Step("mmio", {"phys_addr": at, "is_write": write}, **more)


def act(name: str, errno: str | None = None, **args: Any) -> Action:
    return Action(name, args, 0, errno)


def told(event: Event) -> tuple[Any, ...]:
    """An event as a short tuple: a store as ("w", address, length, data), a load as ("r", address,
    length).
    """
    f = event.fields
    if event.name == "mmio":
        return (
            ("w", f["phys_addr"], f["len"], f["data"])
            if f["is_write"]
            else ("r", f["phys_addr"], f["len"])
        )
    if event.name == "io":
        return (
            ("out", f["port"], f["size"], f["data"])
            if f["direction"]
            else ("in", f["port"], f["size"], f["count"])
        )
    if event.kind == "error":
        return (event.name, f["ioctl"])
    return ("timeout", f["timeout"]) if event.kind == "timeout" else (event.name,)


def story(seen: Observation) -> list[tuple[Any, ...]]:
    return [told(event) for event in seen.events]
