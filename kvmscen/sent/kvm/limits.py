"""Time limits of a vCPU: they count only while its thread could run, and not before the guest
did.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from typing import Callable

from kvmscen.sent.errors import HostError, IoctlError
from kvmscen.sent.kvm.fds import Vcpu
from kvmscen.sent.machine import seconds as written

# A guest that does nothing but `jmp .` is left at each tick of the host's clock, 100 to 1,000 times
# a second. One whose first instruction could not be fetched yet, or that was held up by interrupts
# that were due, has been left a few times all the same.
_ENTRIES = 10
# What a guest is given when its limit is over and nothing shows that it ran: as much again, within
# these bounds in seconds, and again until it has had the most.
_LEAST, _MOST = 0.02, 3.0
_RUNNABLE = 0  # KVM_MP_STATE_RUNNABLE
# struct kvm_stats_header and kvm_stats_desc (KVM API 4.133).
_HEADER = struct.Struct("=6I")
_DESC = struct.Struct("=IhHII")


class Clock:
    """Seconds that the thread which made this ran or slept: what it waited for a CPU is left out.

    The kernel counts that in /proc/PID/task/TID/schedstat. Where it does not, the clock is that of
    the wall.
    """

    def __init__(self) -> None:
        try:
            self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def now(self) -> float:
        """The time of this clock; only differences mean something."""
        return time.monotonic() - self._waited()

    def _waited(self) -> float:
        if self._fd < 0:
            return 0.0
        try:
            return int(os.pread(self._fd, 128, 0).split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Limits:
    """The limit of a whole run, and that of the step which waits for nothing to happen.

    Neither is over before something shows that the guest has run: a machine that could not get to
    it (a busy one, or one that QEMU has just restored, whose memory is still on the disk) has seen
    nothing of the guest. What shows it is an exit, a pc that has moved, or that the guest was left
    several times (KVM counts it), as at a tick of the clock. The time that the thread used the CPU
    shows it only beside these: in a machine that QEMU runs, it goes on while QEMU waits for the
    disk.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds
        self.whole = clock.now() + seconds
        self.step: float | None = None
        self._step = (0.0, 0.0)  # when the step's limit began, and its seconds
        self.ran = False
        self._waits = seconds
        self._lent = 0.0
        self._pc: int | None = None
        self._began = (0.0, 0.0)

    def begin(self, pc: int | None) -> None:
        """The guest is entered for the first time, at `pc`."""
        self._pc, self._began = pc, (self.clock.now(), time.thread_time())
        self.whole = self._began[0] + self.seconds

    def wait(self, seconds: float | None) -> None:
        """Begin the limit of a step, or (None) have none."""
        if seconds is None:
            self.step, self._waits = None, self.seconds
            return
        now = self.clock.now()
        self.step = now + seconds
        self._step = (now, seconds)
        self._waits = min(seconds, self.seconds)

    def left(self) -> float:
        """Seconds until the first of the limits."""
        until = self.whole if self.step is None else min(self.whole, self.step)
        return until - self.clock.now()

    def passed(self) -> float:
        """How much of the step's time has passed: all of it, where it is over."""
        began, seconds = self._step
        now = self.clock.now()
        return seconds if self.step is None or self.step <= now else now - began

    def late(self) -> bool:
        """Whether the limit of the whole run is over."""
        return self.whole <= self.clock.now()

    def lend(self, vcpu: Vcpu, pc: Callable[[], int | None]) -> bool:
        """At the end of a limit: whether the guest gets more time, since nothing shows that it ran.

        Raises HostError when nothing does even so.
        """
        if self.ran or self._shown(vcpu, pc()):
            self.ran = True
            return False
        if self._lent >= _MOST:
            raise HostError(
                f"inconclusive: the time limit of {written(self.seconds)} s was over before the "
                "guest's first instruction: the machine could not get to it"
            )
        more = min(max(self._waits, _LEAST), _MOST)
        self._lent += more
        until = self.clock.now() + more
        self.whole = max(self.whole, until)
        if self.step is not None:
            self.step = max(self.step, until)
        return True

    def _shown(self, vcpu: Vcpu, pc: int | None) -> bool:
        if pc != self._pc or not _runnable(vcpu):
            return True
        count = entries(vcpu)
        # A clock without ticks (nohz_full) interrupts a guest rarely; its thread then has used the
        # CPU all the time.
        began, cpu = self._began
        busy = time.thread_time() - cpu >= (self.clock.now() - began) / 2
        if count is None:
            return busy
        return count >= _ENTRIES or (count > 0 and self._lent >= _MOST and busy)


def entries(vcpu: Vcpu) -> int | None:
    """How often the guest was left so far, for whatever reason (KVM_GET_STATS_FD); None where KVM
    does not tell (before 5.14).
    """
    try:
        fd = vcpu.ioctl("KVM_GET_STATS_FD")
    except IoctlError:
        return None
    try:
        _, name_size, number, _, descriptors, data = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
        size = _DESC.size + name_size
        table = os.pread(fd, size * number, descriptors)
        for at in range(0, len(table), size):
            if table[at + _DESC.size : at + size].partition(b"\0")[0] == b"exits":
                offset = _DESC.unpack_from(table, at)[3]
                return int.from_bytes(os.pread(fd, 8, data + offset), "little")
    except (OSError, struct.error):
        pass
    finally:
        os.close(fd)
    return None


def _runnable(vcpu: Vcpu) -> bool:
    """False for a vCPU that KVM itself keeps waiting, as one that is powered off (KVM_GET_MP_STATE,
    KVM API 4.38).
    """
    buffer = ctypes.create_string_buffer(4)
    try:
        vcpu.ioctl("KVM_GET_MP_STATE", buffer)
    except IoctlError:
        return True
    return int.from_bytes(buffer.raw, "little") == _RUNNABLE
