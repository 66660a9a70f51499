"""Expected against observed: what passes, what each difference is called, and how few differences
there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, product
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from walked import walked

from kvmscen.job.expectation import Expected, MemoryExpected, Story
from kvmscen.job.legend import Legend, Line
from kvmscen.judge.align import aligned
from kvmscen.judge.trial import Trial
from kvmscen.results.result import Mismatch, StoryRow
from kvmscen.sent.header import exits
from kvmscen.sent.observation import Event, Observation

MANY = 100_000
LEGEND = Legend(
    {"counter": 0x5000}, (Line(0, 4, 6, "str xzr, [x2]"), Line(4, 4, 7, "str xzr, [x2, #8]"))
)


def mmio(at: int = 0x5000, data: int | None = 0, **more: Any) -> Event:
    fields: dict[str, Any] = {"phys_addr": at, "is_write": data is not None, "len": 8}
    if data is not None:
        fields["data"] = data
    return Event(0, "exit", "mmio", fields, 4, **more)


def out(port: int, data: int = 0, **more: Any) -> Event:
    return Event(
        0,
        "exit",
        "io",
        {"direction": 1, "size": 1, "port": port, "count": 1, "data": data},
        4,
        **more,
    )


def error(errno: str, **fields: Any) -> Event:
    return Event(0, "error", errno, {"ioctl": "KVM_RUN", **fields}, 4)


def late(seconds: float, **more: Any) -> Event:
    return Event(0, "timeout", "", {"timeout": seconds}, 4, **more)


HLT = Event(0, "exit", "hlt", {}, 8)


def step(event: Event, line: int = 10, **more: Any) -> Expected:
    """The step that an event fits, with all of its members."""
    if event.kind == "timeout":
        return Expected("timeout", line, 5, timeout=event.fields["timeout"], **more)
    if event.kind == "error":
        fields: dict[str, Any] = {**event.fields, "errno": event.name}
        return Expected("error", line, 5, fields=fields, where=("ioctl", "errno"), **more)
    where = tuple(key for key in exits.BY_NAME[event.name].where if key in event.fields)
    return Expected(event.name, line, 5, fields=dict(event.fields), where=where, **more)


def group(*steps: Expected, repeat: tuple[int, int]) -> Expected:
    return Expected("group", 9, 5, repeat=repeat, steps=steps)


def judged(
    steps: Iterable[Expected] | None, events: Iterable[Event], stopped: str = "end", **more: Any
) -> tuple[tuple[StoryRow, ...], tuple[Mismatch, ...]]:
    observed = {key: more.pop(key) for key in ("seen_regs", "seen_memory") if key in more}
    story = Story(None if steps is None else tuple(steps), **more)
    seen = Observation(
        stopped,
        walked(story, events),
        observed.get("seen_regs", {}),
        observed.get("seen_memory", {}),
        0.1,
    )
    trial = Trial(story, seen, LEGEND, "arm64", None)
    rows = trial.rows()
    # Each event is in one row, in order, and `judge` pairs them so.
    shown = [row for row in rows if row.observed]
    assert len(shown) == len(trial.trace) == sum(event.times for event in seen.events)
    for event, row in zip((traced.event for traced in trial.trace), shown, strict=True):
        kind = event.name if event.kind == "exit" else event.kind
        assert row.observed.startswith(f"{kind}: ")
    return rows, trial.mismatches(rows)


def marks(steps: Iterable[Expected] | None, events: Iterable[Event], **more: Any) -> str:
    return "".join(row.mark for row in judged(steps, events, **more)[0])


# --- one difference -------------------------------------------------------------------------------

A, B, C = mmio(0x5000), mmio(0x5008), mmio(0x5010)


@pytest.mark.parametrize(
    ("expected", "observed", "want"),
    [
        ([A, B, C], [A, B, C], "   "),
        ([A, B, C], [out(1), A, B, C], "+   "),
        ([A, B, C], [A, B, out(1), C], "  + "),
        ([A, B, C], [A, B, C, out(1)], "   +"),
        ([A, B, C], [B, C], "-  "),
        ([A, B, C], [A, C], " - "),
        ([A, B, C], [A, B], "  -"),
        ([A, B, C], [A, mmio(0x5008, 5), C], " ! "),
        ([A, B, C], [A, mmio(0x6000), C], " ! "),
        ([A, B, C], [A, mmio(0x5008, None), C], " ! "),
        ([A, B, C], [A, error("ENOSYS")], " !-"),
        ([A, B, error("EFAULT")], [A, B, error("ENOSYS")], "  !"),
        ([A, B, HLT], [A, B, HLT, HLT], "   +"),
        ([A, A, A], [A, A], "  -"),
        ([A, B, A, B], [B, A, B], "-   "),
        ([A, B, A, B, C], [A, B, B, C], "  -  "),
        ([], [A], "+"),
        ([A], [], "-"),
        ([], [], ""),
    ],
)
def test_marks(expected: list[Event], observed: list[Event], want: str) -> None:
    assert marks(map(step, expected), observed) == want


def test_mismatches_count_written_steps() -> None:
    steps = [
        step(A, 10, repeat=(3, 3)),
        step(B, 11),
        group(step(C, 13), step(A, 14), repeat=(2, 2)),
        step(HLT, 15),
    ]
    _, found = judged(steps, [A, A, A, mmio(0x5008, 1), C, A, mmio(0x5010, 9), A, out(7)])
    assert [(m.step, m.line, m.expected is None, m.observed is None) for m in found] == [
        (2, 11, False, False),
        (3, 13, False, False),
        (5, 15, False, False),
    ]
    _, found = judged(steps, [A, A, A, B, C, A, C, A, out(7), HLT])
    assert found == (
        Mismatch(0, 0, None, "io: {direction: out, size: 1, port: 7, count: 1, data: 0}"),
    )
    _, found = judged(steps, [A, A, B, C, A, C, A, HLT])
    assert [(m.step, m.line, m.observed) for m in found] == [(1, 10, None)]


def test_what_differs_is_named() -> None:
    wanted = Expected(
        "mmio",
        10,
        5,
        fields={"phys_addr": 0x5000, "is_write": 1, "len": 4, "data": {"mask": 0xF, "value": 1}},
        where=("phys_addr", "is_write"),
        regs={"x1": 1, "x2": {"min": 5}},
        memory=(
            MemoryExpected(0x5000, "u32", [1, 2]),
            MemoryExpected(0x5100, "hex", "0102"),
            MemoryExpected(0x7000, "u8", [1]),
        ),
    )
    seen = mmio(
        0x5000,
        0x21,
        regs={"x1": 2, "x2": 5},
        memory={0x5000: bytes([1, 0, 0, 0, 3, 0, 0, 0]), 0x5100: b"\1\2"},
    )
    rows, _ = judged([wanted], [seen])
    assert rows[0].mark == "!"
    assert rows[0].differs == ("len", "regs.x1", "memory.counter", "memory.0x7000")
    assert "memory: {counter: {u32: [1, 3]}}" in rows[0].observed
    assert rows[0].source == "7: str xzr, [x2, #8]"


def test_another_kind_has_nothing_to_compare() -> None:
    rows, found = judged([step(A)], [error("ENOSYS")])
    assert rows[0].differs == ("exit",)
    assert len(found) == 1


def test_only_what_is_written_is_compared() -> None:
    assert marks([Expected("mmio", 1, 1)], [mmio(0x1234, 99)]) == " "
    assert (
        marks(
            [Expected("error", 1, 1, fields={"errno": "EFAULT"}, where=("errno",))],
            [error("EFAULT")],
        )
        == " "
    )
    assert marks([Expected("error", 1, 1)], [error("EIO")]) == " "
    # A read has no data of its own.
    assert marks([Expected("mmio", 1, 1, fields={"data": 0})], [mmio(0x5000, None)]) == "!"


def test_memory_fault_is_compared_by_its_members() -> None:
    fault = {"gpa": 0x1000, "size": 0x1000, "flags": 8}
    seen = error("EFAULT", memory_fault=fault)
    wanted = {"errno": "EFAULT", "memory_fault": {"gpa": {"min": 1}, "flags": 8}}
    assert marks([Expected("error", 1, 1, fields=wanted)], [seen]) == " "
    wanted["memory_fault"] = {"gpa": 0x2000}
    assert judged([Expected("error", 1, 1, fields=wanted)], [seen])[0][0].differs == (
        "memory_fault",
    )
    assert marks([Expected("error", 1, 1, fields=wanted)], [error("EFAULT")]) == "!"


# --- ignored, timeouts, the end -------------------------------------------------------------------


def test_ignored_exits_are_shown_where_they_were() -> None:
    ignore = (
        Expected("io", 3, 5, fields={"port": 0x3F8}),
        Expected("mmio", 3, 5, fields={"phys_addr": 0x9000, "data": 1}),
    )
    uart, device = out(0x3F8, times=3), mmio(0x9000, 1)
    steps = [step(A), step(B), step(HLT)]
    assert (
        marks(steps, [uart, A, uart, device, B, uart, HLT, uart], ignore=ignore)
        == "~~~ ~~~~ ~~~ ~~~"
    )
    assert judged(steps, [uart, A, B, HLT], ignore=ignore)[1] == ()
    assert marks(steps, [A, uart, HLT], ignore=ignore) == " ~~~- "
    # Not one of those: the data is another.
    assert marks(steps, [A, B, mmio(0x9000, 2), HLT], ignore=ignore) == "  + "
    assert marks([], [uart], ignore=ignore) == "~~~"


def test_timeouts() -> None:
    assert marks([step(late(0.05)), step(A)], [late(0.05), A]) == "  "
    assert marks([step(late(0.05)), step(A)], [A]) == "- "
    assert marks([step(A)], [A, late(5.0)], stopped="timeout") == " +"
    # The run's own limit came before the step's time was over.
    rows, found = judged([step(late(10.0))], [late(5.0)], stopped="timeout")
    assert rows[0].differs == ("timeout",)
    assert len(found) == 1


def test_without_steps_only_the_end_is_compared() -> None:
    rows, found = judged(None, [A, B, HLT])
    assert [row.mark for row in rows] == [" ", " ", " "]
    assert found == ()
    for stopped, words in (("timeout", "time limit"), ("exits", "limit of exits")):
        _, found = judged(None, [A], stopped=stopped, line=20)
        assert len(found) == 1
        assert found[0].line == 20
        assert words in (found[0].observed or "")


def test_the_limit_of_exits_is_a_mismatch_even_where_all_steps_hold() -> None:
    assert len(judged([step(A)], [A], stopped="exits")[1]) == 1


def test_final() -> None:
    regs = {"x1": 1, "x2": {"mask": 0xFF, "value": 2}, "x3": {"in": [1, 2]}}
    memory = (
        MemoryExpected(0x5000, "u32", [1, {"min": 100}]),
        MemoryExpected(0x5008, "hex", "00ff"),
    )
    good: dict[str, Any] = {
        "seen_regs": {"x1": 1, "x2": 0x102, "x3": 2},
        "seen_memory": {0x5000: b"\1\0\0\0\xff\0\0\0", 0x5008: b"\0\xff"},
    }
    assert judged([], [], regs=regs, memory=memory, **good)[1] == ()
    bad: dict[str, Any] = {
        "seen_regs": {"x1": 2, "x2": 0x102},
        "seen_memory": {0x5000: b"\1\0\0\0\x01\0\0\0"},
    }
    _, found = judged([], [], regs=regs, memory=memory, line=30, **bad)
    assert [(m.step, m.line, m.expected, m.observed) for m in found] == [
        (0, 30, "final x1: 1", "final x1: 2"),
        (0, 30, "final x3: {in: [1, 2]}", "final x3: nothing"),
        (0, 30, "final counter: {u32: [1, {min: 0x64}]}", "final counter: {u32: [1, 1]}"),
        (0, 30, 'final counter + 8: {hex: "00ff"}', "final counter + 8: no memory there"),
    ]


def test_two_checks_at_one_address() -> None:
    memory = (MemoryExpected(0x5000, "u32", [1]), MemoryExpected(0x5000, "hex", "0100000002"))
    assert judged([], [], memory=memory, seen_memory={0x5000: b"\1\0\0\0\2"})[1] == ()
    assert len(judged([], [], memory=memory, seen_memory={0x5000: b"\1\0\0\0\3"})[1]) == 1
    # Shorter than what is checked is not enough.
    assert len(judged([], [], memory=memory, seen_memory={0x5000: b"\1\0\0\0"})[1]) == 1


# --- repeats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repeat", "count", "want"),
    [
        ((3, 3), 3, 0),
        ((3, 3), 2, 1),
        ((3, 3), 4, 1),
        ((1, 3), 1, 0),
        ((1, 3), 3, 0),
        ((1, 3), 0, 1),
        ((1, 3), 4, 1),
        ((0, 2), 0, 0),
        ((0, 2), 3, 1),
        ((2, 5), 0, 2),
    ],
)
@pytest.mark.parametrize("before", [[], [C]])
@pytest.mark.parametrize("after", [[], [B]])
def test_repeat(
    repeat: tuple[int, int], count: int, want: int, before: list[Event], after: list[Event]
) -> None:
    steps = [*map(step, before), step(A, repeat=repeat), *map(step, after)]
    assert len(judged(steps, [*before, *[A] * count, *after])[1]) == want
    in_group = [*map(step, before), group(step(A), repeat=repeat), *map(step, after)]
    assert len(judged(in_group, [*before, *[A] * count, *after])[1]) == want


def test_a_group_is_whole() -> None:
    steps = [group(step(A), step(B), repeat=(0, 2)), step(HLT)]
    assert marks(steps, [HLT]) == " "
    assert marks(steps, [A, B, HLT]) == "   "
    assert marks(steps, [A, B, A, B, HLT]) == "     "
    # Once begun it must be finished, and its end alone is not a round of it.
    assert len(judged(steps, [A, HLT])[1]) == 1
    assert len(judged(steps, [B, HLT])[1]) == 1
    assert len(judged(steps, [A, B, B, HLT])[1]) == 1
    assert len(judged(steps, [A, B, A, HLT])[1]) == 1
    assert len(judged(steps, [A, B, A, B, A, B, HLT])[1]) == 2


def test_groups_in_groups() -> None:
    steps = [group(step(A), group(step(B), step(C), repeat=(1, 2)), repeat=(2, 2)), step(HLT)]
    assert marks(steps, [A, B, C, A, B, C, B, C, HLT]).strip() == ""
    assert len(judged(steps, [A, B, C, A, B, C, C, HLT])[1]) == 1
    assert len(judged(steps, [A, B, C, B, C, A, C, HLT])[1]) == 1


def test_series() -> None:
    series = Expected(
        "mmio",
        1,
        1,
        fields={
            "phys_addr": {"from": 0x5000, "step": 8},
            "is_write": 1,
            "data": {"from": 10, "step": -2},
        },
        where=("phys_addr", "is_write"),
        repeat=(0, 4),
    )
    right = [mmio(0x5000 + 8 * n, 10 - 2 * n) for n in range(4)]
    for count in range(5):
        assert judged([series, step(HLT)], [*right[:count], HLT])[1] == ()
    # A later round does not stand for the first one.
    assert len(judged([series, step(HLT)], [right[2], HLT])[1]) == 1
    assert len(judged([series, step(HLT)], [right[0], right[2], HLT])[1]) == 1
    assert len(judged([series, step(HLT)], [*right, right[0], HLT])[1]) == 1
    # In a group the rounds are the group's.
    once = Expected("mmio", 1, 1, fields=series.fields, where=series.where)
    assert (
        judged([group(once, step(B), repeat=(3, 3))], [right[0], B, right[1], B, right[2], B])[1]
        == ()
    )
    assert (
        len(
            judged([group(once, step(B), repeat=(3, 3))], [right[0], B, right[0], B, right[2], B])[
                1
            ]
        )
        == 1
    )


def test_what_an_optional_step_took_the_next_one_has_not() -> None:
    # Another alignment would satisfy all members; the host's way does not.
    rows, found = judged([step(A, repeat=(0, 3)), step(A, 11), step(B, 12)], [A, B])
    assert [(row.mark, row.line) for row in rows] == [(" ", 10), ("+", 0), ("-", 11), ("-", 12)]
    assert len(found) == 3
    assert len(judged([group(step(A), step(B), step(HLT), repeat=(0, 1)), step(C)], [A, C])[1]) == 1


# --- many events ----------------------------------------------------------------------------------

ODD = out(0x99)
HALF = MANY // 2


@pytest.mark.parametrize(
    ("steps", "events", "want"),
    [
        ([step(A, repeat=(MANY, MANY))], [mmio(times=MANY)], 0),
        ([step(A, repeat=(MANY, MANY))], [mmio(times=HALF), ODD, mmio(times=HALF)], 1),
        ([step(A, repeat=(MANY, MANY))], [mmio(times=HALF), mmio(data=5), mmio(times=HALF - 1)], 1),
        ([step(A, repeat=(MANY, MANY)), step(B)], [mmio(times=MANY - 1), B], 1),
        ([step(A, repeat=(1, MANY)), step(B)], [mmio(times=HALF), ODD, mmio(times=HALF - 9), B], 1),
        ([step(A, repeat=(MANY, MANY))], [mmio(data=5, times=MANY)], MANY),
        ([step(A, repeat=(MANY, MANY))], [], MANY),
        ([step(A)], [mmio(times=MANY)], MANY - 1),
        (
            [step(mmio(8 * (n % 7), n)) for n in range(2000)],
            [mmio(8 * (n % 5), 3 * n + 1) for n in range(2000)],
            None,
        ),
    ],
    ids=range(9),
)
def test_long_stories_end_soon(
    steps: list[Expected], events: list[Event], want: int | None
) -> None:
    # What takes the square of these numbers does not end.
    _, found = judged(steps, events)
    assert want is None or len(found) == want


# --- any story ------------------------------------------------------------------------------------

Leaf = tuple[str, int, tuple[int, int]]
_repeats = st.sampled_from([(1, 1), (1, 1), (2, 2), (0, 1), (0, 2), (1, 3)])
_any_event = st.one_of(
    st.builds(mmio, st.sampled_from([0x5000, 0x5008, 0x6000]), st.sampled_from([None, 0, 1, 2])),
    st.builds(out, st.sampled_from([0x10, 0x3F8]), st.integers(0, 2)),
    st.builds(error, st.sampled_from(["ENOSYS", "EFAULT"])),
    st.just(HLT),
    st.builds(late, st.just(0.5)),
)
_events = st.lists(_any_event, max_size=12)


@given(_events)
def test_a_story_made_of_its_events_passes(events: list[Event]) -> None:
    rows, found = judged(map(step, events), events)
    assert found == ()
    assert {row.mark for row in rows} <= {" "}


@given(_events.filter(bool), st.data())
def test_one_change_is_one_difference(events: list[Event], data: st.DataObject) -> None:
    steps = list(map(step, events))
    at = data.draw(st.integers(0, len(events) - 1))
    deed = data.draw(st.sampled_from(["delete", "insert", "change"]))
    other = data.draw(_any_event)
    changed = list(events)
    if deed == "delete":
        del changed[at]
    elif deed == "insert":
        changed.insert(at, other)
    else:
        changed[at] = other
    _, found = judged(steps, changed)
    assert len(found) == (0 if changed == events else 1)


@st.composite
def _stories(draw: st.DrawFn, depth: int = 1) -> list[Expected]:
    out: list[Expected] = []
    for _ in range(draw(st.integers(0, 3))):
        repeat = draw(_repeats)
        if depth and draw(st.booleans()):
            if inner := draw(_stories(depth - 1)):
                out.append(group(*inner, repeat=repeat))
        else:
            out.append(step(mmio(0x1000 * draw(st.integers(0, 3))), repeat=repeat))
    return out


def told(steps: Sequence[Expected]) -> Iterator[list[Expected]]:
    """Every way in which a story may go, as its single steps."""
    if not steps:
        yield []
        return
    first, rest = steps[0], steps[1:]
    low, high = first.repeat
    for n in range(low, high + 1):
        for rounds in (
            product(told(first.steps), repeat=n) if first.kind == "group" else [([first],) * n]
        ):
            for more in told(rest):
                yield [*chain(*rounds), *more]


def distance(steps: Sequence[Expected], events: Sequence[Event]) -> float:
    """What the cheapest alignment costs, by the plain table: 1 alone, 1.5 the same exit
    elsewhere.
    """
    row = [float(n) for n in range(len(events) + 1)]
    for i, step in enumerate(steps):
        last, row = row, [i + 1.0]
        for j, event in enumerate(events):
            same = 0.0 if step.fields["phys_addr"] == event.fields["phys_addr"] else 1.5
            row.append(min(last[j] + same, last[j + 1] + 1, row[j] + 1))
    return row[-1]


@settings(max_examples=300, deadline=None)
@given(_stories(), st.lists(st.integers(0, 3), max_size=7))
def test_no_alignment_is_cheaper(steps: list[Expected], at: list[int]) -> None:
    ways = list(islice(told(steps), 400))
    assume(len(ways) < 400)
    events = [mmio(0x1000 * n) for n in at]
    story = Story(tuple(steps))
    trial = Trial(
        story, Observation("end", walked(story, events), {}, {}, 0.1), LEGEND, "arm64", None
    )
    pairs = aligned(trial.course, trial.trace, trial.differences)
    assert pairs is not None
    cost = 0.0
    for slot, traced in pairs:
        cost += (
            1.0
            if slot is None or traced is None
            else 1.5 * bool(trial.differences(slot, traced.event))
        )
    assert cost == min(distance(way, events) for way in ways)
    # What the host's way satisfies, the cheapest alignment does too; not the other way round.
    assert cost == 0 or judged(steps, events)[1] != ()
