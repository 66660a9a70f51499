"""What a guest accessed, by section, symbol, size and kind."""

from __future__ import annotations

from kvmscen.job.legend import Legend, Span
from kvmscen.judge.accesses import tally
from kvmscen.results.result import AccessTally
from kvmscen.sent.observation import Event, Observation

LEGEND = Legend(
    {
        "table": 0x5000,
        "alias": 0x5000,
        "sum": 0x5020,
        "__data_start": 0x5000,
        ".LANCHOR0": 0x5010,
        "far": 0x9000,
        "_start": 0,
    },
    (),
    "",
    (Span(".text", 0, 0x100), Span(".data", 0x5000, 0x40), Span(".bss", 0x6000, 0x10)),
)


def mmio(at: int, size: int, is_write: bool, count: int = 1) -> Event:
    return Event(
        0, "exit", "mmio", {"phys_addr": at, "len": size, "is_write": is_write}, 0, times=count
    )


def nisv(*parts: tuple[int, int, bool]) -> Event:
    accesses = [
        {"phys_addr": at, "len": size, "is_write": is_write, "data": 0}
        for at, size, is_write in parts
    ]
    return Event(
        0, "exit", "arm_nisv", {"fault_ipa": parts[0][0], "accesses": accesses, "emulated": True}, 0
    )


def seen(*events: Event) -> tuple[AccessTally, ...]:
    return tally(Observation("end", events, {}, {}, 0.0), LEGEND)


def test_accesses_are_counted_by_place_size_kind_and_who_carried_them_out() -> None:
    events = (
        mmio(0x5018, 8, False, 3),
        mmio(0x5000, 8, False),
        nisv((0x5000, 8, False), (0x5020, 8, False)),
        mmio(0x5000, 4, True, 2),
        nisv((0x5008, 4, True)),
        mmio(0x6004, 4, True),
        mmio(0x7000, 1, True, 2),
        mmio(0x8000, 1, True),
        mmio(0x4FFC, 8, True),
        Event(0, "exit", "arm_nisv", {"fault_ipa": 0x5000}, 0),
        Event(0, "error", "ENOSYS", {"ioctl": "KVM_RUN"}, 0),
    )
    assert seen(*events) == (
        AccessTally(".data", "alias", "read", 8, False, 4),
        AccessTally(".data", "alias", "read", 8, True, 1),
        AccessTally(".data", "alias", "write", 4, False, 2),
        AccessTally(".data", "alias", "write", 4, True, 1),
        AccessTally(".data", "alias", "write", 8, False, 1),
        AccessTally(".data", "sum", "read", 8, True, 1),
        AccessTally(".bss", None, "write", 4, False, 1),
        AccessTally(None, None, "write", 1, False, 3),
    )


def test_nothing_left_the_guest() -> None:
    assert seen(Event(0, "exit", "hlt", {}, 0)) == ()
