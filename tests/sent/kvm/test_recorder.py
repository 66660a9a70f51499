"""What every host does with an event: recorded, folded, held against the script, counted."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from kvm_machines import act, machine, mmio

from kvmscen.errors import IoctlError
from kvmscen.sent.codec import encode
from kvmscen.sent.machine import Step
from kvmscen.sent.observation import Event, behind, follows, weight
from kvmscen.sent.script.recorder import Recorder

ENOSYS = 38


def write(data: int, at: int = 0x5000) -> dict[str, Any]:
    return {"phys_addr": at, "is_write": True, "len": 4, "data": data}


def nothing(step: Step) -> tuple[dict[str, int], dict[int, bytes]]:
    raise AssertionError("this step asks for nothing")


def test_equal_events_in_a_row_are_one() -> None:
    recorder = Recorder(machine(b"", None, exits=100))
    for data in (1, 1, 1, 2, 1, 1):
        recorder.take(0, "exit", "mmio", write(data), 4, nothing)
    assert [(event.fields["data"], event.times) for event in recorder.seen()] == [
        (1, 3),
        (2, 1),
        (1, 2),
    ]
    assert recorder.total == 6


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from(["mmio", "hlt"])),
        max_size=30,
    )
)
def test_nothing_is_lost_by_folding(events: list[tuple[int, int, str]]) -> None:
    recorder = Recorder(machine(b"", None, exits=1000))
    for data, pc, name in events:
        recorder.take(0, "exit", name, write(data) if name == "mmio" else {}, pc, nothing)
    seen = recorder.seen()
    unfolded = [(e.fields.get("data"), e.pc, e.name) for e in seen for _ in range(e.times)]
    assert unfolded == [(data if name == "mmio" else None, pc, name) for data, pc, name in events]
    assert all((a.fields, a.pc, a.name) != (b.fields, b.pc, b.name) for a, b in pairwise(seen))


def test_rounds_of_one_step_are_one_event_and_those_of_a_group_are_not() -> None:
    steps = (
        mmio(0x5000, repeat=(1, 5)),
        Step("group", repeat=(2, 2), steps=(mmio(0x6000),)),
        mmio(0x5000),
    )
    recorder = Recorder(machine(b"", steps, exits=100))
    for at in (0x5000, 0x5000, 0x5000, 0x6000, 0x6000, 0x5000, 0x5000):
        recorder.take(0, "exit", "mmio", write(1, at), 4, nothing)
    assert [(event.at, event.times) for event in recorder.seen()] == [
        (((0, 0),), 3),
        (((1, 0), (0, 0)), 1),
        (((1, 1), (0, 0)), 1),
        (((2, 0),), 1),
        (None, 1),
    ]


def test_what_was_observed_or_replied_keeps_events_apart() -> None:
    steps = (
        mmio(0x5000, reply={"data": 1}),
        mmio(0x5000, reply={"data": 2}),
        mmio(0x5000, observe_regs=("rax",)),
        mmio(0x5000),
    )
    recorder = Recorder(machine(b"", steps, exits=100))
    for _ in steps:
        recorder.take(0, "exit", "mmio", write(1), 4, lambda step: ({"rax": 5}, {}))
    assert [(event.reply, event.regs, event.memory) for event in recorder.events] == [
        ({"data": 1}, None, None),
        ({"data": 2}, None, None),
        (None, {"rax": 5}, None),
        (None, None, None),
    ]


def test_the_limit_of_exits() -> None:
    recorder = Recorder(machine(b"", None, exits=3))
    stops = [recorder.take(0, "exit", "mmio", write(1), 4, nothing).stop for _ in range(3)]
    assert stops == [None, None, "exits"]
    # An ending that comes with the last exit keeps its own reason.
    recorder = Recorder(machine(b"", (mmio(0x5000), Step("hlt")), exits=2))
    assert recorder.take(0, "exit", "mmio", write(1), 4, nothing).stop is None
    assert recorder.take(0, "exit", "hlt", {}, 4, nothing).stop == "expected"


def test_writes_into_devices_are_kept() -> None:
    recorder = Recorder(machine(b"", None))
    verdict = recorder.take(0, "exit", "mmio", write(0xAABBCCDD, 0x5FFE), 4, nothing)
    assert recorder.reply(verdict, "mmio", write(0xAABBCCDD, 0x5FFE)) == {}
    assert recorder.devices.read(0x5FFD, 4) == b"\0\xdd\xcc\0"


def test_failing_actions() -> None:
    def fail(action: object) -> None:
        raise IoctlError("KVM_SET_REGS", ENOSYS)

    def perform(errno: str | None, act_: Any, pc: int) -> str | None:
        recorder.prepare(0, [act("set_regs", errno)])
        return recorder.perform(0, lambda: pc, act_)

    recorder = Recorder(machine(b"", (Step("hlt"),)))
    assert perform(None, lambda action: None, 7) is None
    assert recorder.events == []
    assert perform("ENOSYS", fail, 7) is None
    assert perform("EINVAL", fail, 8) == "error"
    assert perform(None, fail, 9) == "error"
    # What should have failed and did not is an event too, and the run ends: what comes is of
    # another machine.
    assert perform("EINVAL", lambda action: None, 10) == "error"
    told = [(event.kind, event.name, event.pc, event.op) for event in recorder.events]
    assert told == [
        ("error", "ENOSYS", 7, "setup/0"),
        ("error", "ENOSYS", 8, "setup/0"),
        ("error", "ENOSYS", 9, "setup/0"),
        ("succeeded", "set_regs", 10, "setup/0"),
    ]
    assert recorder.detail("error") == "set_regs succeeded, and is written to fail with EINVAL"


def test_actions_are_counted_where_they_were_due() -> None:
    twice = mmio(
        0x5000,
        repeat=(1, 3),
        then=(act("set_regs"), act("delete_memslot", "ENOSYS"), act("set_regs")),
    )
    inner = Step("group", steps=(mmio(0x6000, then=(act("set_regs"),)),))
    recorder = Recorder(machine(b"", (twice, inner, Step("hlt")), exits=100))

    def fail(action: Any) -> None:
        if action.name == "delete_memslot":
            raise IoctlError("KVM_SET_USER_MEMORY_REGION", ENOSYS)

    def exit_at(at: int) -> None:
        recorder.take(0, "exit", "mmio", write(1, at), 4, nothing)

    exit_at(0x5000)
    exit_at(0x5000)  # as the second half of an access does, before the actions of the first
    assert recorder.perform(0, lambda: 4, fail) is None
    exit_at(0x6000)
    assert recorder.perform(0, lambda: 4, fail) is None
    assert [
        (event.kind, event.at, event.done, event.op, event.times) for event in recorder.seen()
    ] == [
        ("exit", ((0, 0),), 3, None, 1),
        ("exit", ((0, 1),), 3, None, 1),
        ("error", None, 0, "steps/0/then/1", 2),
        ("exit", ((1, 0), (0, 0)), 1, None, 1),
    ]


def test_a_wanted_failure_takes_no_step() -> None:
    step = Step("error", {"ioctl": "KVM_SET_REGS", "errno": "ENOSYS"}, then=())
    recorder = Recorder(machine(b"", (step, Step("hlt"))))
    assert recorder.failed(0, IoctlError("KVM_SET_REGS", ENOSYS), None, "ENOSYS") is None
    assert recorder.scripts[0].current() == step


def test_an_errno_without_a_name_keeps_its_number() -> None:
    assert IoctlError("KVM_RUN", 4711).errno == "4711"


def test_what_is_kept_of_the_events_is_limited_too() -> None:
    recorder = Recorder(machine(b"", None, exits=100_000))
    data = list(range(4096))
    stops: list[str | None] = []
    while not stops or stops[-1] is None:
        stops.append(
            recorder.take(
                0, "exit", "io", {"direction": 1, "data": [len(stops), *data]}, 4, nothing
            ).stop
        )
    assert stops[-1] == "exits"
    assert len(stops) < 2000
    assert str(recorder.detail("exits")).startswith(
        "what is kept of the exits (members, regs, memory, replies) is more than 64 MiB"
    )


@given(st.sampled_from(["regs", "memory", "reply"]))
def test_what_was_looked_at_and_answered_counts(what: str) -> None:
    more: dict[str, dict[str, Any]] = {
        "regs": {"regs": {f"r{n}": (1 << 64) - 1 for n in range(1000)}},
        "memory": {"memory": {0x1000: bytes(10_000)}},
        "reply": {"reply": {"data": [0xFFFFFFFF] * 1000}},
    }
    event = Event(0, "exit", "mmio", write(1), 4, **more[what])
    assert weight(event) > len(json.dumps(encode(event))) / 2
    assert weight(event) < 2 * len(json.dumps(encode(event))) + 100
    # Equal ones are one.
    recorder = Recorder(machine(b"", None, exits=100_000))
    for _ in range(1000):
        recorder.add(event)
    recorder.seen()
    assert recorder.weight == weight(event)


MEMBERS: dict[str, Any] = {
    "vcpu": (0, 1),
    "kind": ("exit", "error"),
    "name": ("mmio", "io"),
    "fields": ({"data": 1}, {"data": 2}),
    "pc": (16, None),
    "regs": (None, {"rax": 1}),
    "memory": (None, {0: b"1"}),
    "reply": (None, {"data": 1}),
    "times": (1, 2, 3),
    "op": (None, "setup/0"),
    "at": (None, ((0, 0),), ((0, 1),), ((0, 2),), ((1, 0),), ((0, 0), (0, 1)), ((0, 0), (0, 2))),
    "ignored": (False, True),
    "done": (0, 1),
}


@given(st.data())
def test_an_event_follows_where_nothing_but_its_round_differs(data: st.DataObject) -> None:
    assert tuple(MEMBERS) == Event._fields
    first = Event(*(data.draw(st.sampled_from(some)) for some in MEMBERS.values()))
    # The next is as expected, but for a few members.
    second = first._replace(times=1, at=behind(first.at, first.times))
    for name in data.draw(st.sets(st.sampled_from(sorted(MEMBERS)), max_size=2)):
        second = second._replace(**{name: data.draw(st.sampled_from(MEMBERS[name]))})
    wanted = first._replace(times=1, at=behind(first.at, first.times)) == second
    assert follows(first, second) == wanted
