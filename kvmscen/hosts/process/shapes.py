"""Whether an Observation of others is one: of an agent, or out of a recording. What reads it later
need not ask again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from kvmscen.sent.facts import Facts
from kvmscen.sent.header import exits
from kvmscen.sent.measure import Timing
from kvmscen.sent.observation import EVENTS_MOST, STOPPED, Event, Observation

# Members without which nothing can be said of an exit.
_NEEDED = {
    "mmio": ("phys_addr", "len", "is_write"),
    "io": ("direction", "size", "port", "count"),
    "arm_nisv": ("fault_ipa",),
}
_MOST = 1 << 512
_KINDS = ("exit", "error", "succeeded", "timeout")


def check(seen: Observation) -> Observation:
    """The same. Raises ValueError where a value is of another kind than hosts give it."""
    _hold(seen.stopped in STOPPED, "stopped")
    _hold(
        isinstance(seen.elapsed, int | float) and isfinite(seen.elapsed) and seen.elapsed >= 0,
        "elapsed",
    )
    _hold(_numbers(seen.regs), "regs")
    _hold(
        all(one is None or isinstance(one, str) for one in (seen.detail, seen.unpredicted)),
        "detail",
    )
    _hold(all(isinstance(note, str) for note in seen.notes), "notes")
    _hold(seen.exception is None or _numbers(seen.exception), "exception")
    _hold(seen.timing is None or _timing(seen.timing), "timing")
    for event in seen.events:
        _event(event)
    _hold(sum(event.times for event in seen.events) <= EVENTS_MOST, "count of equal events")
    return seen


def facts(known: Facts) -> Facts:
    """The same. Raises ValueError where a value is of another kind than hosts give it."""
    _hold(isinstance(known.arch, str) and isinstance(known.kernel or "", str), "arch")
    _hold(_numbers(known.capabilities) and isinstance(known.page_size, int), "capabilities")
    _hold(
        all(
            isinstance(text, str)
            for text in (known.flavour or "", known.agent, known.kind, *known.cpu)
        ),
        "flavour",
    )
    _hold(isinstance(known.predicted, bool), "predicted")
    return known


def _timing(timing: Timing) -> bool:
    """Whether all that is calculated with are numbers."""
    texts = (timing.loop, timing.why or "", *timing.series)
    if not all(isinstance(text, str) for text in texts) or not _times(
        (timing.hz, timing.exits, *timing.overhead)
    ):
        return False
    return all(
        _times((*one.ticks, *one.whole, one.kvm, one.user))
        and all(map(_count, (one.came, one.ends, one.begins, one.broken)))
        for one in timing.series.values()
    )


def _times(values: Iterable[Any]) -> bool:
    return all(type(value) in (int, float) and isfinite(value) for value in values)


def _event(event: Event) -> None:
    _hold(
        event.kind in _KINDS
        and isinstance(event.fields, dict)
        and all(isinstance(key, str) for key in event.fields),
        "kind",
    )
    _hold(_count(event.vcpu) and event.vcpu < 1 << 16, "vcpu")
    _hold(event.pc is None or _count(event.pc, 64), "pc")
    _hold(isinstance(event.name, str), "name")
    _hold(event.regs is None or _numbers(event.regs), "regs")
    _hold(event.op is None or isinstance(event.op, str), "op")
    _hold(
        isinstance(event.ignored, bool)
        and _count(event.done)
        and _count(event.times)
        and event.times > 0,
        "done",
    )
    _hold(event.at is None or all(_count(index) and _count(nth) for index, nth in event.at), "step")
    _hold(
        event.reply is None
        or (isinstance(event.reply, dict) and all(map(_plain, event.reply.values()))),
        "reply",
    )
    if event.kind == "timeout":
        time = event.fields.get("timeout")
        _hold(isinstance(time, int | float) and isfinite(time) and time >= 0, "timeout")
    elif event.kind == "error":
        _hold(isinstance(event.fields.get("ioctl"), str), "ioctl")
        _hold(
            isinstance(event.fields.get("reason", ""), str)
            and _numbers(event.fields.get("memory_fault", {})),
            "reason",
        )
    elif event.kind == "exit":
        _members(event)


def _members(event: Event) -> None:
    row = exits.BY_NAME.get(event.name)
    _hold(all(map(_plain, event.fields.values())), event.name)
    for name in _NEEDED.get(event.name, () if row is None else row.where):
        _hold(_number(event.fields.get(name)), name)
    if event.name in ("mmio", "io"):
        _access(event.name, event.fields)
    _hold(
        all(isinstance(part, dict) for part in _list(event.fields.get("accesses", []))), "accesses"
    )
    for part in _list(event.fields.get("accesses", [])):
        _hold(all(_number(part.get(name)) for name in ("phys_addr", "len", "is_write")), "accesses")


def _access(name: str, fields: Mapping[str, Any]) -> None:
    """Data is there with a write alone, as wide as the access, and of a string as many elements."""
    length, count = fields["len" if name == "mmio" else "size"], fields.get("count", 1)
    writes = fields["is_write" if name == "mmio" else "direction"]
    _hold(_count(length) and 1 <= length <= 8, "len")
    _hold(_count(count) and count >= 1, "count")
    _hold(writes in (0, 1), "is_write" if name == "mmio" else "direction")
    _hold(("data" in fields) == bool(writes), "data")
    data = fields.get("data", 0)
    values = data if isinstance(data, list) else [data]
    _hold(not writes or len(values) == (count if name == "io" else 1), "data")
    _hold(all(isinstance(value, int) and 0 <= value < 1 << 8 * length for value in values), "data")


def _list(value: Any) -> list[Any]:
    _hold(isinstance(value, list), "list")
    return list(value)


def _hold(right: bool, what: str) -> None:
    if not right:
        raise ValueError(f"{what} is of no kind that a host gives it")


def _number(value: Any) -> bool:
    return isinstance(value, int) and -_MOST < value < _MOST


def _count(value: Any, bits: int = 63) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << bits


def _numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(
        isinstance(name, str) and _number(value) for name, value in values.items()
    )


def _plain(value: Any) -> bool:
    """A number, or a list or map of them."""
    if isinstance(value, list):
        return all(_number(member) or _numbers(member) for member in value)
    return _number(value) or _numbers(value)
