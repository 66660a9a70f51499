"""`requires`, the conditions of `when`, and limits."""

from __future__ import annotations

from typing import Any

from kvmscen.load.document import Map
from kvmscen.load.values import Notes, as_map, as_text, texts
from kvmscen.scenario import Conditions

TIMEOUT_DEFAULT = 5.0


def conditions(notes: Notes, held: Map) -> Conditions:
    """What a host must be, from a map that may have other keys beside."""
    kernel = as_map(held.get("kernel"))
    low, high = as_text(kernel.get("from")), as_text(kernel.get("before"))
    if low and high and _version(low) and _version(high) and _version(low) >= _version(high):
        notes.add(
            kernel.at("before"),
            f"no kernel is from {low} on and before {high}: write a later `before`",
        )
    return Conditions(
        texts(held.get("capabilities")) if "capabilities" in held else (),
        low or None,
        high or None,
        texts(held.get("kvm")) if "kvm" in held else (),
        texts(held.get("cpu")) if "cpu" in held else (),
        texts(held.get("host")) if "host" in held else (),
    )


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    return (
        tuple(map(int, parts))
        if all(p.isascii() and p.isdigit() and len(p) < 6 for p in parts)
        else ()
    )


def added(first: Conditions, second: Conditions) -> Conditions:
    """Both: lists that must hold wholly are joined, and of the rest the second, where it says
    something, is the closer.
    """
    return Conditions(
        tuple(dict.fromkeys((*first.capabilities, *second.capabilities))),
        second.kernel_from or first.kernel_from,
        second.kernel_before or first.kernel_before,
        second.kvm or first.kvm,
        tuple(dict.fromkeys((*first.cpu, *second.cpu))),
        second.host or first.host,
    )


def limits(value: Any) -> tuple[float, int | None]:
    """`timeout` in seconds and `exits`; None: the script's sum decides."""
    held = as_map(value)
    timeout, exits = held.get("timeout"), held.get("exits")
    seconds = (
        float(timeout)
        if isinstance(timeout, (int, float)) and 0 < timeout <= 600
        else TIMEOUT_DEFAULT
    )
    return seconds, exits if isinstance(exits, int) else None
