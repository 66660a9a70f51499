"""What is made of records, and which exits the loop of machine code takes by itself."""

from __future__ import annotations

from kvmscen.sent.machine import Bytes
from kvmscen.sent.measure import Kind, Series, TimedExit
from kvmscen.sent.script.interpreter import Devices
from kvmscen.sent.timing import loop, measuring
from kvmscen.sent.timing.tally import BROKEN, Tallies

PIO, OTHER, STORE = (
    TimedExit("io", {"port": 0x10}),
    TimedExit("io", {"port": 0x11}),
    TimedExit("mmio", {"phys_addr": 0x5000}),
)


def series(kind: Kind, *held: tuple[int, int, int]) -> Series:
    """Of records that come in two parts, cut anywhere: it makes no difference."""
    cuts = []
    for cut in range(len(held) + 1):
        made = Tallies((kind,))
        made.feed(held[:cut])
        made.add(b"".join(loop.RECORD.pack(*record) for record in held[cut:]))
        cuts.append(made.series()[kind.name])
    assert cuts == [cuts[0]] * len(cuts)
    return cuts[0]


def test_a_sample_is_one_kvm_run() -> None:
    kind = Kind("pio", PIO, None, 5, 1)
    made = series(kind, (0, 10, 1), (12, 20, 1), (21, 30, 0), (33, 40, 1), (41, 50, 1))
    assert made.ticks == (8, 7, 9)
    assert (made.came, made.ends, made.begins, made.broken) == (4, 4, 0, 0)
    assert (made.kvm, made.user) == (8.5, 1)
    # With what user space does behind each; the last has nothing behind it.
    assert made.whole == (9, 8)


def test_what_a_signal_broke_off_is_no_sample() -> None:
    kind = Kind("pio", PIO, None, 5, 0)
    made = series(kind, (0, 10, 1), (12, 20, BROKEN), (21, 30, 1), (33, 40, 1))
    assert made.ticks == (10, 7)
    assert (made.came, made.ends, made.broken) == (2, 3, 1)


def test_a_span_goes_from_the_entry_after_one_exit_to_the_return_with_the_other() -> None:
    kind = Kind("ram", OTHER, PIO, 5, 0)
    to, since = 1, 2
    made = series(
        kind,
        (0, 10, to),  # without its beginning
        (12, 20, since),
        (25, 40, to),
        (42, 50, since),
        (51, 60, since),  # begins anew
        (61, 65, 0),
        (68, 80, to),
        (81, 82, since),
        (83, 84, BROKEN),
        (85, 90, to),
    )
    assert made.ticks == made.whole == (15, 19)
    assert (made.came, made.ends, made.begins, made.broken) == (2, 4, 4, 1)
    assert (made.kvm, made.user) == ((15 + 16) / 2, 3 / 2)


def test_a_span_may_begin_and_end_with_the_same_exit() -> None:
    kind = Kind("round", PIO, PIO, 5, 0)
    assert series(kind, (0, 10, 1), (12, 20, 1), (25, 40, 1)).ticks == (8, 15)


def test_what_is_missing() -> None:
    kinds = (Kind("ram", OTHER, PIO, 2, 1), Kind("pio", PIO, None, 5, 0))
    made = Tallies(kinds)
    assert made.missing == 5
    made.feed([(n, n + 1, made.of["pio"].to) for n in range(10)])
    assert (made.of["pio"].missing, made.missing) == (0, 3)
    made.feed([(20, 21, made.of["ram"].to)])
    assert made.missing == 2
    # What has all its samples reads no more, however long the others take.
    assert len(made.of["pio"].samples) == 10
    made.feed([(30, 31, made.of["pio"].to)])
    assert len(made.of["pio"].samples) == 10
    assert made.exits == 12


# --- rows -----------------------------------------------------------------------------------------


def rows(place: TimedExit, *devices: Bytes) -> list[loop.KnownExit]:
    return measuring.rows_of([place], Devices(devices), "x86_64")


def test_a_store_into_a_section_is_kept_by_the_loop() -> None:
    (row,) = rows(
        TimedExit("mmio", {"phys_addr": 0x5008, "is_write": True}), Bytes.at(0x5000, bytes(16))
    )
    assert (row.reason, row.action, row.place) == (6, loop.FROM_GUEST, 0x5010)
    assert (32, (1 << 64) - 1, 0x5008, 0x5008) in row.conditions
    assert (52, 0xFF, 1, 1) in row.conditions


def test_an_access_of_either_direction_is_two_rows_and_one_bit() -> None:
    made = rows(STORE, Bytes.at(0x5000, bytes(16)))
    assert [row.action for row in made] == [loop.TO_GUEST, loop.FROM_GUEST]
    assert {row.bit for row in made} == {1}


def test_addresses_in_and_beside_a_section() -> None:
    made = rows(
        TimedExit("mmio", {"phys_addr": {"min": 0x4000, "max": 0x5FFF}, "is_write": False}),
        Bytes.at(0x5000, bytes(16)),
    )
    assert [(row.action, row.conditions[0][2:]) for row in made] == [
        (loop.REPLY, (0x4000, 0x4FFF)),
        (loop.TO_GUEST, (0x5000, 0x500F)),
        (loop.REPLY, (0x5010, 0x5FFF)),
    ]


def test_a_reply_goes_before_the_section() -> None:
    (row,) = rows(
        TimedExit("mmio", {"phys_addr": 0x5000, "is_write": False}, {"data": 7}),
        Bytes.at(0x5000, bytes(16)),
    )
    assert (row.action, row.value, row.place) == (loop.REPLY, 7, 40)


def test_of_several_places_the_one_with_a_reply_answers() -> None:
    plain, written = (
        TimedExit("io", {"port": 0x10}),
        TimedExit("io", {"port": 0x10, "direction": 0}, {"data": 7}),
    )
    made = measuring.rows_of([written, plain], Devices(()), "x86_64")
    assert [row.value for row in made if row.action == loop.REPLY_AT] == [0, 7]
    kinds = (Kind("a", written, None, 1, 0), Kind("b", plain, None, 1, 0))
    assert Tallies(kinds).answering(0b11) == written
    assert Tallies(kinds).answering(0b10) == plain
    assert Tallies(kinds).answering(0) is None


def test_an_in_is_answered_where_kvm_run_says() -> None:
    (row,) = rows(TimedExit("io", {"port": 0x10, "direction": 0}, {"data": 7}))
    assert (row.action, row.value, row.place) == (loop.REPLY_AT, 7, 40)
    assert (36, 0xFFFFFFFF, 1, 1) in row.conditions


def test_what_the_loop_cannot_do_is_left_to_python() -> None:
    assert rows(TimedExit("x86_rdmsr", {"index": 5})) == []
    assert rows(TimedExit("mmio", {"phys_addr": {"in": [1, 2]}})) == []
    assert rows(TimedExit("arm_nisv", {})) == []
    assert rows(TimedExit("io", {"direction": {"min": 0, "max": 1}})) == []
    assert rows(TimedExit("io", {"port": 0x10, "direction": 1, "data": 7})) == []
