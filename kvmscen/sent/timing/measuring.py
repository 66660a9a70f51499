"""Times exits of one vCPU: the loop of machine code takes those that it knows by itself, Python
handles all others.

What is made of their records is in kvmscen.sent.timing.tally. User space answers as in a run
without a script: sections outside every slot hold their bytes.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, Protocol

from kvmscen.sent.header import exits
from kvmscen.sent.kvm.fds import Kvm, Vcpu
from kvmscen.sent.measure import Measure, TimedExit, Timing
from kvmscen.sent.script.interpreter import Devices
from kvmscen.sent.timing import loop
from kvmscen.sent.timing.loop import KnownExit
from kvmscen.sent.timing.tally import BROKEN, Tallies
from kvmscen.sent.timing.watch import Watch

EINTR = 4
_CHUNK = 1 << 16
_U64 = (1 << 64) - 1


class Rounds(Protocol):
    """What a loop does: `run` enters the guest, `take` gives the records since the last time."""

    def run(self) -> int:
        """0: nothing to do; 1: an exit to handle, whose record is to be added; -errno."""

    def take(self) -> bytes:
        """Packed records since the last call."""

    def waiting(self) -> bytes:
        """Packed records that are not taken yet. Called from another thread."""

    @property
    def last(self) -> tuple[int, int]:
        """The counter before and after the last KVM_RUN."""


class Native:
    """Rounds by the loop of machine code around KVM_RUN."""

    def __init__(self, entry: loop.Entry) -> None:
        self.entry = entry
        self.take, self.waiting = entry.take, entry.waiting

    def run(self) -> int:
        return self.entry()

    @property
    def last(self) -> tuple[int, int]:
        return self.entry.last


class Python:
    """By Python: stamps in nanoseconds, and every exit is handled outside."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.enter = vcpu.run
        self.last = (0, 0)

    def run(self) -> int:
        start = time.perf_counter_ns()
        number = self.enter()
        self.last = (start, time.perf_counter_ns())
        return -number if number else 1

    def take(self) -> bytes:
        return b""

    def waiting(self) -> bytes:
        return b""


# --- rows -----------------------------------------------------------------------------------------


def rows_of(places: Sequence[TimedExit], devices: Devices, arch: str) -> list[KnownExit]:
    """The rows of the exits that the loop of machine code can take by itself; of others there are
    none.
    """
    # All rows that fit act, one after another: a reply that is written wins over what a section
    # holds.
    numbered = sorted(enumerate(places), key=lambda pair: pair[1].reply is not None)
    return [row for n, place in numbered for row in _rows(place, 1 << n, devices, arch)]


def _rows(place: TimedExit, bit: int, devices: Devices, arch: str) -> Iterable[KnownExit]:
    row = exits.BY_NAME[place.exit]
    fields = {field.name: field for field in exits.fields_of(place.exit, arch)}
    base: list[tuple[int, int, int, int]] = []
    for name, matcher in place.where.items():
        condition = _condition(fields[name], matcher)
        if condition is None or (place.exit == "io" and name == "data"):
            return
        base.append(condition)
    if place.exit == "mmio":
        known_exits = list(_mmio(place, bit, base, devices))
    elif place.exit == "io":
        known_exits = list(_io(place, bit, base))
    elif row.reply or row.name == "arm_nisv":
        return  # user space has more to do
    else:
        known_exits = [KnownExit(row.number, bit, base)]
    yield from (known for known in known_exits if len(known.conditions) <= loop.CONDITIONS)


def _condition(field: exits.Field, matcher: Any) -> tuple[int, int, int, int] | None:
    """One member as the loop compares it: offset in struct kvm_run, mask, least and most; None
    where it cannot.
    """
    width = {"B": 8, "H": 16, "I": 32, "Q": 64}.get(field.fmt, 0)
    at, whole = exits.UNION + field.offset, (1 << width) - 1
    if not width or field.length > 1:
        return None
    if isinstance(matcher, dict):
        if "mask" in matcher:
            return at, whole & matcher["mask"], matcher["value"], matcher["value"]
        if "in" in matcher or "from" in matcher:
            return None
        return at, whole, matcher.get("min", 0), min(matcher.get("max", whole), whole)
    return (at, whole, int(matcher), int(matcher)) if isinstance(matcher, int) else None


def _mmio(
    place: TimedExit, bit: int, base: list[tuple[int, int, int, int]], devices: Devices
) -> Iterable[KnownExit]:
    number = exits.BY_NAME["mmio"].number
    address = next((c for c in base if c[0] == exits.UNION and c[1] == _U64), (0, 0, 0, _U64))
    for is_write in (0, 1) if "is_write" not in place.where else (None,):
        writes = is_write if is_write is not None else place.where["is_write"]
        side = [] if is_write is None else [(exits.UNION + 20, 0xFF, is_write, is_write)]
        constant = (place.reply or {}).get("data")
        if not writes and constant is not None:
            yield KnownExit(number, bit, [*base, *side], loop.REPLY, constant, exits.UNION + 8)
            continue
        others = [c for c in base if c is not address]
        for low, high, held in devices.spans():
            first, last = max(low, address[2]), min(high, address[3])
            if first > last:
                continue
            within = (exits.UNION, _U64, first, last)
            if held is not None:
                at = ctypes.addressof(ctypes.c_char.from_buffer(held))
                action = loop.FROM_GUEST if writes else loop.TO_GUEST
                yield KnownExit(number, bit, [within, *others, *side], action, at - low, high + 1)
            else:
                action = loop.NOTHING if writes else loop.REPLY
                yield KnownExit(number, bit, [within, *others, *side], action, 0, exits.UNION + 8)


def _io(place: TimedExit, bit: int, base: list[tuple[int, int, int, int]]) -> Iterable[KnownExit]:
    number, direction = exits.BY_NAME["io"].number, place.where.get("direction")
    if isinstance(direction, dict):
        return  # it may be either, and only one of them is answered
    if direction != 0:
        yield KnownExit(
            number, bit, base if direction is not None else [*base, (exits.UNION, 0xFF, 1, 1)]
        )
    value = (place.reply or {}).get("data", 0)
    if direction != 1 and isinstance(value, int):
        # One element, whose place struct kvm_run tells at data_offset.
        single = [*base, (exits.UNION + 4, 0xFFFFFFFF, 1, 1)]
        into = single if direction is not None else [*single, (exits.UNION, 0xFF, 0, 0)]
        yield KnownExit(number, bit, into, loop.REPLY_AT, value, exits.UNION + 8)


# --- the run --------------------------------------------------------------------------------------


class Hands(Protocol):
    """Callbacks of the timing loop into the executor."""

    def answer(
        self, vcpu: Vcpu, name: str, members: Mapping[str, Any], place: TimedExit | None
    ) -> str | None:
        """Answer an exit as user space does. Returns why the vCPU ends there; None: it goes on."""

    def failed(self, vcpu: Vcpu, number: int) -> str:
        """Handle a KVM_RUN that failed. Returns why the vCPU ends."""

    def watch(self, count: Callable[[], int], seconds: float) -> Watch:
        """Who breaks the run off when `count()` stays the same for so many seconds, or the whole
        run's time is over.
        """


def timed(
    kvm: Kvm,
    vcpu: Vcpu,
    arch: str,
    measure: Measure,
    devices: Devices,
    ring: int | None,
    hands: Hands,
) -> tuple[Timing, str]:
    """Enter the guest until every kind has its samples: what was timed, and why it stopped (`end`
    when all are there).
    """
    tallies = Tallies(measure.kinds)
    native = loop.opened(arch) if measure.loop == "native" else "the loop in Python was asked for"
    if isinstance(native, str):
        noops = loop.python_noops(kvm)
        stopped = _collect(tallies, Python(vcpu), vcpu, arch, measure.stall, hands)
        return _timing("python", 1e9, noops + loop.python_noops(kvm), tallies, native), stopped
    try:
        clock = loop.Clock(native, kvm)
        noops = loop.noops(native, kvm)
        most = min(_CHUNK, tallies.missing)
        entry = native.entry(
            vcpu.fd, vcpu.kvm_run, rows_of(tallies.places, devices, arch), ring, most
        )
        stopped = _collect(tallies, Native(entry), vcpu, arch, measure.stall, hands)
        noops += loop.noops(native, kvm)
        return _timing("native", clock.hz(), noops, tallies, None), stopped
    finally:
        native.close()


def _collect(
    tallies: Tallies, rounds: Rounds, vcpu: Vcpu, arch: str, stall: float, hands: Hands
) -> str:
    with hands.watch(lambda: tallies.count(rounds.waiting()), stall) as watch:
        return _rounds(tallies, rounds, vcpu, arch, hands, watch)


def _rounds(
    tallies: Tallies, rounds: Rounds, vcpu: Vcpu, arch: str, hands: Hands, watch: Watch
) -> str:
    while tallies.missing > 0:
        result = rounds.run()
        tallies.add(rounds.take())
        stop: str | None = None
        if result == -EINTR:
            if watch.over:
                return "timeout"
            vcpu.immediate_exit = 0
            tallies.feed([(*rounds.last, BROKEN)])
        elif result < 0:
            return hands.failed(vcpu, -result)
        elif result > 0:
            name, members = vcpu.exit(arch)
            bits = tallies.fitting(name, members)
            tallies.feed([(*rounds.last, bits)])
            stop = hands.answer(vcpu, name, members, tallies.answering(bits))
        if stop is not None:
            return stop
    return "end"


def _timing(name: str, hz: float, noops: list[int], tallies: Tallies, why: str | None) -> Timing:
    return Timing(name, hz, tuple(noops), tallies.series(), tallies.exits, why)
