"""The loop around KVM_RUN that takes the time: a few machine instructions of the host's
architecture, called in place.

The code (kvmscen.sent.arch.*_loop) lies in a memfd that is written and then mapped readable and
executable: at no time is memory both writable and executable. It takes one struct of ten 64-bit
words:

     0 descriptor        8 request           16 struct kvm_run
    24 rows             32 end of rows       40 next record
    48 start and        56 end of the last call
    64 two 32-bit words that must be equal (first and last of the coalesced ring)
    72 end of records

and makes `ioctl(descriptor, request, 0)` again and again, with a reading of the counter before and
after. It returns -errno where the call fails, 1 at an exit that no row fits, 0 when the records are
full. All rows that fit set their bit in the record.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

from kvmscen.sent.errors import HostError
from kvmscen.sent.header.actions import REQUESTS
from kvmscen.sent.kvm.fds import Kvm, map_code, unmap
from kvmscen.sent.timing import arm64_loop, riscv64_loop, x86_64_loop

CODES: dict[str, bytes] = {
    "x86_64": x86_64_loop.CODE,
    "arm64": arm64_loop.CODE,
    "riscv64": riscv64_loop.CODE,
}
CONDITIONS = 4
_ROW = struct.Struct("=IIQQQQ" + "4Q" * CONDITIONS)
_CONTEXT = struct.Struct("=10Q")
RECORD = struct.Struct("=QQQ")
ROW_SIZE = _ROW.size
NOTHING, REPLY, REPLY_AT, TO_GUEST, FROM_GUEST = range(5)
# A counter that is slower than this tells nothing of an exit.
_LEAST_HZ = 100_000
_NOOPS = 1000


class KnownExit(NamedTuple):
    """One exit that the loop takes by itself: its reason, its bit, conditions (offset in kvm_run,
    mask, least, most).

    `action` REPLY puts `value` at `place` of struct kvm_run, REPLY_AT where the word at `place`
    says; TO_GUEST and FROM_GUEST copy between mmio.data and the bytes of a section whose gpa 0
    would be at the host address `value` and which ends at `place`.
    """

    reason: int
    bit: int
    conditions: Sequence[tuple[int, int, int, int]]
    action: int = NOTHING
    value: int = 0
    place: int = 0

    def pack(self) -> bytes:
        """The row packed as the loop of machine code reads it."""
        flat = [number for condition in self.conditions for number in condition]
        flat += [0] * (4 * CONDITIONS - len(flat))
        value = self.value & ((1 << 64) - 1)
        return _ROW.pack(
            self.reason, len(self.conditions), self.bit, self.action, value, self.place, *flat
        )


class Loop:
    """The code, mapped. Raises OSError where the machine refuses executable memory."""

    def __init__(self, code: bytes) -> None:
        self.size = len(code)
        self.at = map_code(code)
        self.call = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(self.at)
        self._even = ctypes.create_string_buffer(8)

    def close(self) -> None:
        """Unmap the code."""
        if self.at:
            unmap(self.at, self.size)
            self.at = 0

    def entry(
        self,
        fd: int,
        run: int,
        rows: Sequence[KnownExit],
        ring: int | None,
        most: int,
        request: str = "KVM_RUN",
    ) -> Entry:
        """The loop made ready for one descriptor and its struct kvm_run, for at most so many
        records a call.
        """
        return Entry(
            self,
            (fd & 0xFFFFFFFF, REQUESTS[request], run),
            rows,
            ring or ctypes.addressof(self._even),
            most,
        )


class Entry:
    """One struct, with its rows and its room for records."""

    def __init__(
        self,
        loop: Loop,
        whom: tuple[int, int, int],
        rows: Sequence[KnownExit],
        ring: int,
        most: int,
    ) -> None:
        self._loop = loop
        packed = b"".join(row.pack() for row in rows)
        self._rows = ctypes.create_string_buffer(packed, max(len(packed), 1))
        # Written to once, so that no page is taken while the clock runs.
        self._records = ctypes.create_string_buffer(
            b"\xff" * (RECORD.size * most), RECORD.size * most
        )
        self._start = ctypes.addressof(self._records)
        first = ctypes.addressof(self._rows)
        words = (
            *whom,
            first,
            first + len(packed),
            self._start,
            0,
            0,
            ring,
            self._start + RECORD.size * most,
        )
        self._context = ctypes.create_string_buffer(_CONTEXT.pack(*words), _CONTEXT.size)
        self._at = ctypes.c_void_p(ctypes.addressof(self._context))
        self._next = ctypes.c_uint64.from_buffer(self._context, 40)
        self._stamps = (ctypes.c_uint64 * 2).from_buffer(self._context, 48)

    def __call__(self) -> int:
        """Run KVM_RUN until an exit needs Python or the record buffer is full.

        0: the buffer is full; 1: an exit of no row; else -errno.
        """
        return int(self._loop.call(self._at))

    def take(self) -> bytes:
        """The records made since the last time."""
        size, self._next.value = self._next.value - self._start, self._start
        return ctypes.string_at(self._start, size)

    def waiting(self) -> bytes:
        """The records that are not taken yet: for another thread, while the loop runs."""
        return ctypes.string_at(self._start, max(self._next.value - self._start, 0))

    @property
    def last(self) -> tuple[int, int]:
        """The counter before and after the last call of the ioctl."""
        start, end = self._stamps
        return start, end


def noops(loop: Loop, kvm: Kvm, count: int = _NOOPS) -> list[int]:
    """Samples, in ticks, with KVM_GET_API_VERSION in place of KVM_RUN: what is measured of an exit
    that costs nothing.
    """
    blank = ctypes.create_string_buffer(4096)
    entry = loop.entry(
        kvm.fd, ctypes.addressof(blank), [KnownExit(0, 1, ())], None, count, "KVM_GET_API_VERSION"
    )
    if entry() != 0:
        raise HostError("KVM_GET_API_VERSION failed in the timing loop")
    return [end - start for start, end, _ in RECORD.iter_unpack(entry.take())]


class Clock:
    """The rate of the counter, measured against CLOCK_MONOTONIC_RAW over a time that is as long as
    what is timed.
    """

    LEAST = 0.05

    def __init__(self, loop: Loop, kvm: Kvm) -> None:
        self.loop = loop
        self.kvm = kvm
        self._first = self._both()

    def _both(self) -> tuple[int, int]:
        """Counter and clock (ns) at one moment: of several tries the one that took the least
        time.
        """
        tries = []
        blank = ctypes.create_string_buffer(4096)
        entry = self.loop.entry(
            self.kvm.fd,
            ctypes.addressof(blank),
            [KnownExit(0, 1, ())],
            None,
            1,
            "KVM_GET_API_VERSION",
        )
        for _ in range(32):
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            entry()
            after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            entry.take()
            start, end = entry.last
            tries.append((after - before, (start + end) // 2, (before + after) // 2))
        _, ticks, nanoseconds = min(tries)
        return ticks, nanoseconds

    def hz(self) -> float:
        """Ticks a second since this was made. Raises HostError for a counter that does not move as
        one should.
        """
        gone = (time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - self._first[1]) / 1e9
        if gone < self.LEAST:
            time.sleep(self.LEAST - gone)
        ticks, nanoseconds = self._both()
        rate = (ticks - self._first[0]) * 1e9 / max(nanoseconds - self._first[1], 1)
        if rate < _LEAST_HZ:
            what = (
                "does not move"
                if ticks == self._first[0]
                else f"moves by {rate:,.0f} ticks a second"
            )
            raise HostError(
                f"the counter of this machine's CPU {what}, so nothing can be timed with it: "
                f"measure with --loop python"
            )
        return rate


def python_noops(kvm: Kvm, count: int = _NOOPS) -> list[int]:
    """As `noops`, in nanoseconds of the loop in Python."""
    out = []
    for _ in range(count):
        start = time.perf_counter_ns()
        kvm.ioctl("KVM_GET_API_VERSION")
        out.append(time.perf_counter_ns() - start)
    return out


def opened(arch: str) -> Loop | str:
    """The loop for this machine, or why there is none."""
    code = CODES.get(arch)
    if code is None:
        return f"there is no timing loop for {arch}"
    try:
        return Loop(code)
    except (OSError, AttributeError) as error:
        return (
            f"this machine gives no executable memory: {getattr(error, 'strerror', None) or error}"
        )
