"""What every host does with an event: recorded, folded, held against the script, counted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from kvm_machines import act, machine, mmio

from kvmscen.errors import IoctlError
from kvmscen.kvm.recorder import Recorder
from kvmscen.machine import Step

ENOSYS = 38


def write(data: int, at: int = 0x5000) -> dict[str, Any]:
    return {"phys_addr": at, "is_write": True, "len": 4, "data": data}


def nothing(step: Step) -> tuple[dict[str, int], dict[int, bytes]]:
    raise AssertionError("this step asks for nothing")


def test_equal_events_in_a_row_are_one() -> None:
    recorder = Recorder(machine(b"", None, exits=100))
    for data in (1, 1, 1, 2, 1, 1):
        recorder.take(0, "exit", "mmio", write(data), 4, nothing)
    assert [(event.fields["data"], event.count) for event in recorder.events] == [(1, 3), (2, 1), (1, 2)]
    assert recorder.total == 6


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from(["mmio", "hlt"])), max_size=30))
def test_nothing_is_lost_by_folding(events: list[tuple[int, int, str]]) -> None:
    recorder = Recorder(machine(b"", None, exits=1000))
    for data, pc, name in events:
        recorder.take(0, "exit", name, write(data) if name == "mmio" else {}, pc, nothing)
    unfolded = [(e.fields.get("data"), e.pc, e.name) for e in recorder.events for _ in range(e.count)]
    assert unfolded == [(data if name == "mmio" else None, pc, name) for data, pc, name in events]
    assert all(
        (a.fields, a.pc, a.name) != (b.fields, b.pc, b.name) for a, b in zip(recorder.events, recorder.events[1:], strict=False)
    )


def test_what_was_observed_or_replied_keeps_events_apart() -> None:
    steps = (mmio(0x5000, reply={"data": 1}), mmio(0x5000, reply={"data": 2}), mmio(0x5000, observe_regs=("rax",)), mmio(0x5000))
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

    recorder = Recorder(machine(b"", (Step("hlt"),)))
    assert recorder.perform(0, act("set_regs"), 7, lambda action: None) is None
    assert recorder.events == []
    assert recorder.perform(0, act("set_regs", "ENOSYS"), 7, fail) is None
    assert recorder.perform(0, act("set_regs", "EINVAL"), 8, fail) == "error"
    assert recorder.perform(0, act("set_regs"), 9, fail) == "error"
    # The first one, which did not fail, counts too.
    told = [(event.name, event.pc, event.op) for event in recorder.events]
    assert told == [("ENOSYS", 7, "actions/1"), ("ENOSYS", 8, "actions/2"), ("ENOSYS", 9, "actions/3")]


def test_a_wanted_failure_takes_no_step() -> None:
    step = Step("error", {"ioctl": "KVM_SET_REGS", "errno": "ENOSYS"}, then=())
    recorder = Recorder(machine(b"", (step, Step("hlt"))))
    assert recorder.failed(0, IoctlError("KVM_SET_REGS", ENOSYS), None, "ENOSYS") is None
    assert recorder.scripts[0].current() == step


def test_an_errno_without_a_name_keeps_its_number() -> None:
    assert IoctlError("KVM_RUN", 4711).errno == "4711"
