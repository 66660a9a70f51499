"""Who looks after a run that is timed: it leaves the guest alone until there is a reason to stop
it.
"""

from __future__ import annotations

import signal
import threading
import time

import pytest
from kvm_machines import machine

from kvmscen.sent.executor.executor import Executor
from kvmscen.sent.kvm.fds import Kvm
from kvmscen.sent.kvm.limits import Clock, Limits
from kvmscen.sent.machine import Bytes
from kvmscen.sent.measure import Kind, Measure, TimedExit
from kvmscen.sent.observation import Observation
from kvmscen.sent.timing.watch import Watch

# A span from port 0x10 to port 0x11, of r8 million ticks of the TSC.
SPAN = """
again: rdtsc; shl rdx, 32; or rax, rdx; mov rbx, rax; out 0x10, al
wait: rdtsc; shl rdx, 32; or rax, rdx; sub rax, rbx; cmp rax, r8; jb wait
out 0x11, al; jmp again
"""
FROM, TO, NEVER = (
    TimedExit("io", {"port": 0x10}),
    TimedExit("io", {"port": 0x11}),
    TimedExit("io", {"port": 0x12}),
)


def spans(kind: Kind, ticks: int, stall: float, loop: str = "native") -> Observation:
    made = machine(SPAN, regs={"r8": ticks}, timeout=120.0, measure=Measure((kind,), loop, stall))
    return Executor(Kvm(), None).execute(made)


@pytest.mark.kvm
@pytest.mark.parametrize("loop", ["native", "python"])
def test_a_span_of_more_than_a_second_is_sampled_and_not_disturbed(loop: str) -> None:
    seen = spans(Kind("span", TO, FROM, 2, 0), 4_000_000_000, 60.0, loop)
    assert seen.timing is not None
    assert seen.stopped == "end"
    series = seen.timing.series["span"]
    assert len(series.ticks) == 2
    # Nothing broke a span off: each that began has ended.
    assert (series.came, series.ends, series.begins, series.broken) == (2, 2, 2, 0)
    assert min(series.ticks) / seen.timing.hz > 1.0


@pytest.mark.kvm
def test_what_does_not_come_ends_the_run() -> None:
    began = time.monotonic()
    seen = spans(Kind("never", NEVER, None, 5, 0), 1000, 0.5)
    assert seen.stopped == "timeout"
    assert time.monotonic() - began >= 0.5
    assert seen.timing is not None
    series = seen.timing.series["never"]
    assert (series.came, series.ends, series.broken) == (0, 0, 0)
    # The same where spans end that never began: samples count, not exits.
    seen = spans(Kind("never", TO, NEVER, 5, 0), 1000, 0.5)
    assert seen.stopped == "timeout"
    assert seen.timing is not None
    assert seen.timing.series["never"].begins == 0
    assert seen.timing.series["never"].ends > 0


@pytest.mark.kvm
def test_a_guest_without_any_exit_is_stopped() -> None:
    made = machine(
        "again: jmp again",
        timeout=60.0,
        devices=(Bytes.at(0x5000, b"", 0x1000),),
        measure=Measure((Kind("a", TO, None, 5, 0),), stall=0.3),
    )
    assert Executor(Kvm(), None).execute(made).stopped == "timeout"


def test_it_signals_its_thread_only_when_nothing_comes() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: came.append(number))
    count = 0
    try:
        limits = Limits(Clock(), 600.0)
        threads = threading.active_count()
        with Watch(lambda: count, limits, 0.4) as watch:
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                count += 1
                time.sleep(0.005)
            assert came == []
            assert not watch.over
            deadline = time.monotonic() + 60
            while not came and time.monotonic() < deadline:
                time.sleep(0.01)
            assert watch.over
            assert came
        assert threading.active_count() == threads
        told = len(came)
        time.sleep(0.1)
        assert len(came) == told
    finally:
        signal.signal(signal.SIGALRM, before)
