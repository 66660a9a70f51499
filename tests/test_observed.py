"""What happened, as YAML that can be pasted: it loads again and is the same."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walked import walked

from kvmscen.author.observed import observed
from kvmscen.compile import Plan, plan, ready
from kvmscen.job.expectation import Expectation, Story
from kvmscen.judge.trial import Trial
from kvmscen.load import load_text, names
from kvmscen.results.result import Mismatch, Result
from kvmscen.sent.facts import Facts
from kvmscen.sent.header import exits, kvm_run
from kvmscen.sent.observation import Event, Observation

ARCHES = ("arm64", "x86_64")
HEAD = """\
arch: {}
memslots: [{{slot: 0, gpa: 0x10000, size: 0x1000}}]
limits: {{timeout: 60}}
sections: {{.text: 0x10000, .data: 0x5000}}
asm: |
  _start:
      nop
  .data
  counter: .quad 1, 2
  null: .quad 3
  a.b$c: .quad 4
"""


def planned(arch: str, expect: str) -> tuple[Plan, Expectation]:
    file = "a.yaml"
    (case,) = load_text(HEAD.format(arch) + expect, file).cases
    made = plan(file, case)
    expectation = ready(file, case, made, Facts(arch, None, {}), "kvm").expectation
    assert expectation is not None
    return made, expectation


LEGENDS = {arch: planned(arch, "final: {}\n")[0].legend for arch in ARCHES}


def pasted(
    arch: str, events: list[Event], written: str = "final: {}\n"
) -> tuple[str, Story, Observation]:
    expectation = planned(arch, written)[1]
    observation = Observation("end", walked(expectation.story, events), {}, {}, 0.1)
    result = Result(
        "a.yaml", "a", "default", 1, "", arch, "kvm", None, False, "PASS", observation=observation
    )
    text = observed(result, LEGENDS[arch], expectation)
    return text, planned(arch, text)[1].story, observation


def said(arch: str, events: list[Event]) -> str:
    expectation = planned(arch, "final: {}\n")[1]
    observation = Observation("end", walked(expectation.story, events), {}, {}, 0.1)
    result = Result(
        "a.yaml", "a", "default", 1, "", arch, "kvm", None, False, "PASS", observation=observation
    )
    return observed(result, LEGENDS[arch], expectation)


def mismatches(arch: str, story: Story, observation: Observation) -> tuple[Mismatch, ...]:
    """What differs where a host goes by that story."""
    seen = observation._replace(
        events=walked(
            story, (e._replace(at=None, ignored=False, done=0) for e in observation.events)
        )
    )
    trial = Trial(story, seen, LEGENDS[arch], arch, None)
    return trial.mismatches(trial.rows())


def holds(arch: str, events: list[Event]) -> str:
    """The YAML of these events, which must load as a story that holds all that they hold."""
    text, story, observation = pasted(arch, events)
    assert mismatches(arch, story, observation) == (), text
    steps = [step for step in story.steps or () for _ in range(step.repeat[0])]
    assert len(steps) == sum(event.times for event in events)
    for step, event in zip(steps, (e for e in events for _ in range(e.times)), strict=True):
        kept = dict(event.fields)
        if event.kind == "exit" and kvm_run.is_read(event.name, kept):
            kept.pop("data", None)
        if event.kind == "error":
            kept["errno"] = event.name
        if event.kind == "timeout":
            assert step.timeout == kept["timeout"]
        else:
            assert step.fields == kept
    return text


ADDRESSES = st.one_of(
    st.integers(0, (1 << 64) - 1), st.integers(0x4FF0, 0x5040), st.integers(0, 12)
)


@st.composite
def exit_events(draw: st.DrawFn, arch: str, name: str | None = None) -> Event:
    """An exit as the executor makes it, out of the bytes that KVM would write."""
    row = draw(st.sampled_from(names.offered(arch))) if name is None else exits.BY_NAME[name]
    union = bytearray(exits.UNION_SIZE)
    for field in exits.DEBUG_FIELDS[arch] if row.name == "debug" else row.fields:
        for n in range(field.length):
            if field.fmt == "8s":
                value: Any = draw(st.binary(min_size=8, max_size=8))
            elif field.names and bool(draw(st.booleans())):
                value = draw(st.sampled_from(sorted(field.names.values())))
            else:
                bits = 8 * struct.calcsize("=" + field.fmt)
                most = {"ndata": 16, "len": 8, "is_write": 1, "longmode": 1, "flags": 1}.get(
                    field.name, (1 << bits) - 1
                )
                value = min(draw(ADDRESSES), most) if most < 64 else draw(ADDRESSES) & most
            struct.pack_into(
                "=" + field.fmt, union, field.offset + n * (struct.calcsize("=" + field.fmt)), value
            )
    data = b""
    if row.name == "io":
        direction, size, count = (
            draw(st.integers(0, 1)),
            draw(st.sampled_from([1, 2, 4])),
            draw(st.integers(1, 5)),
        )
        struct.pack_into("=BB", union, 0, direction, size)
        struct.pack_into("=I", union, 4, count)
        data = draw(st.binary(min_size=size * count, max_size=size * count))
    if row.name == "mmio":
        struct.pack_into("=I", union, 16, draw(st.sampled_from([1, 2, 4, 8])))
    fields: dict[str, Any]
    made, fields = kvm_run.decode(row.number, bytes(union), lambda offset, length: data, arch)
    assert made == row.name
    reply: dict[str, Any] | None = None
    if kvm_run.is_read(made, fields) and draw(st.booleans()):
        bits = 8 * fields.get("len", fields.get("size", 8))
        number = st.integers(0, (1 << bits) - 1)
        if fields.get("count", 1) > 1:
            reply = {"data": draw(st.lists(number, min_size=2, max_size=max(2, fields["count"])))}
        else:
            reply = {"data": draw(number)}
    return Event(
        0,
        "exit",
        made,
        fields,
        draw(st.integers(0, 1 << 40)),
        reply=reply,
        times=draw(st.sampled_from([1, 1, 1, 2, 9])),
    )


@st.composite
def error_events(draw: st.DrawFn) -> Event:
    errno = draw(st.sampled_from(["ENOSYS", "EFAULT", "EHWPOISON", "EINVAL"]))
    fields: dict[str, Any] = {"ioctl": draw(st.sampled_from(names.IOCTLS))}
    if errno in ("EFAULT", "EHWPOISON") and draw(st.booleans()):
        fields["memory_fault"] = {
            "flags": draw(st.sampled_from([0, 8, 16])),
            "gpa": draw(ADDRESSES),
            "size": 0x1000,
        }
    return Event(0, "error", errno, fields, 4)


def timeout_events() -> st.SearchStrategy[Event]:
    seconds = st.sampled_from([0.05, 1.0, 5.0, 0.00001, 0.1234567, 2.5])
    return st.builds(
        lambda s, n: Event(0, "timeout", "", {"timeout": s}, 4, times=n), seconds, st.integers(1, 3)
    )


@pytest.mark.parametrize(
    ("arch", "name"), [(arch, row.name) for arch in ARCHES for row in names.offered(arch)]
)
def test_every_exit_round_trips(arch: str, name: str) -> None:
    @settings(max_examples=8, deadline=None)
    @given(exit_events(arch, name))
    def check(event: Event) -> None:
        holds(arch, [event])

    check()


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(ARCHES))
def test_any_run_round_trips(data: st.DataObject, arch: str) -> None:
    event = st.one_of(exit_events(arch), error_events())
    events = data.draw(st.lists(event, min_size=1, max_size=8))
    # A failing ioctl other than KVM_RUN ends the run, but where an `errno` in the scenario says
    # that it must fail.
    holds(
        arch,
        [
            e
            for n, e in enumerate(events)
            if e.fields.get("ioctl", "KVM_RUN") == "KVM_RUN" or n == len(events) - 1
        ],
    )


def test_a_failure_that_was_wanted_is_not_said_twice() -> None:
    failed = Event(0, "error", "EEXIST", {"ioctl": "KVM_SET_USER_MEMORY_REGION"}, None)
    text = pasted(
        "x86_64", [failed, Event(0, "exit", "hlt", {}, 4), Event(0, "exit", "hlt", {}, 5)]
    )[0]
    assert text.splitlines()[2:] == [
        "  # error: {ioctl: KVM_SET_USER_MEMORY_REGION, errno: EEXIST}",
        "  - hlt: {}",
        "    then: []",
        "  - hlt: {}",
    ]


def test_what_was_not_predicted_to_the_end_is_nothing_to_paste() -> None:
    seen = Observation("end", (), {}, {}, 0.1, unpredicted="it depends")
    result = Result(
        "a.yaml", "a", "b", 1, "", "arm64", "model", None, True, "SKIP", observation=seen
    )
    text = observed(result, LEGENDS["arm64"], Expectation(Story(())))
    assert (
        text == "# a.yaml, case b: nothing to paste, the model does not predict this: it depends\n"
    )


@settings(max_examples=20, deadline=None)
@given(timeout_events())
def test_timeouts_round_trip(event: Event) -> None:
    text, story, _ = pasted("x86_64", [event])
    assert [step.timeout for step in story.steps or ()] == [event.fields["timeout"]] * event.times
    assert "repeat" not in text


def test_exact_text() -> None:
    mmio = {"phys_addr": 0x5008, "is_write": True, "len": 8, "data": 10}
    read = {"phys_addr": 0x9000, "is_write": False, "len": 4}
    fault = {"flags": 8, "gpa": 0x5000, "size": 0x1000}
    events = [
        Event(0, "exit", "mmio", mmio, 4, times=3),
        Event(0, "exit", "mmio", read, 4, reply={"data": 0x1234}),
        Event(0, "exit", "system_event", {"type": 1, "ndata": 0, "flags": 0, "data": []}, 8),
        Event(0, "error", "EFAULT", {"ioctl": "KVM_RUN", "memory_fault": fault}, 8),
        Event(0, "timeout", "", {"timeout": 0.05}, 8, times=2),
        Event(0, "exit", "KVM_EXIT_99", {}, 8),
    ]
    assert pasted("arm64", events)[0] == (
        "# a.yaml, case default, observed on kvm\n"
        "expect:\n"
        "  - mmio: {phys_addr: counter + 8, is_write: true, len: 8, data: 0xa}\n"
        "    repeat: 3\n"
        "  - mmio: {phys_addr: 0x9000, is_write: false, len: 4}\n"
        "    reply: {data: 0x1234}\n"
        "  - system_event: {type: shutdown, ndata: 0, flags: 0, data: []}\n"
        "    then: []\n"
        "  - error: {ioctl: KVM_RUN, memory_fault: {flags: private, gpa: counter, size: 4096}, "
        "errno: EFAULT}\n"
        "    then: []\n"
        "  - timeout: 0.05\n"
        "  - timeout: 0.05\n"
        "  # KVM_EXIT_99: kvmscen does not know this exit\n"
    )


def test_an_access_of_a_read_shows_no_data() -> None:
    fields = {"error": 0, "reason": 4, "index": 0x10, "data": 0x77}
    text = holds(
        "x86_64", [Event(0, "exit", "x86_rdmsr", fields, 4, reply={"data": 5, "error": 1})]
    )
    assert (
        "- x86_rdmsr: {error: 0, reason: filter, index: 0x10}\n    reply: {data: 5, error: 1}\n"
        in text
    )


def test_nothing_happened() -> None:
    unknown = [Event(0, "exit", "KVM_EXIT_99", {}, 8, times=3)]
    nothing = "# nothing happened that can be expected\n"
    assert said("arm64", unknown).endswith(
        f"\n  # KVM_EXIT_99, 3 times: kvmscen does not know this exit\n{nothing}"
    )
    assert said("arm64", []) == f"# a.yaml, case default, observed on kvm\n{nothing}"
    skipped = Result("a.yaml", "a", "b", 1, "", "arm64", "model", None, True, "SKIP")
    assert observed(skipped, LEGENDS["arm64"], Expectation(Story(()))) == ""


def test_a_step_keeps_what_the_scenario_does_there() -> None:
    head = """\
ignore: [{io: {port: 0x3f8}}]
setup:
  - {set_memslot: {slot: 0, gpa: 0x9001, size: 0x1000}, errno: EINVAL}
"""
    written = """\
expect:
  - mmio: {phys_addr: counter, is_write: false, len: {in: [4, 8]}}
    reply: counter + 8
    regs: {rax: 1, rbx: {min: 2}, pc: counter}
    memory: {"null": {u8: [1, {mask: 0xf0, value: 0x10}]}, counter: {text: "ab"}}
    then:
      - write_memory: {counter: 5, a.b$c: {text: "a\\"b\\x00\\u263a"}}
      - {delete_memslot: 1, errno: EINVAL}
    repeat: 2
  - hlt: {}
    then: []
  - hlt
"""
    serial = {"direction": 1, "size": 1, "port": 0x3F8, "count": 1, "data": 0x41}
    regs = {"rax": 3, "rbx": 0x77, "pc": 0x5008}
    failed = Event(0, "error", "EINVAL", {"ioctl": "KVM_SET_USER_MEMORY_REGION"}, 4)
    read = {"phys_addr": 0x5000, "is_write": False, "len": 8}
    seen = Event(
        0, "exit", "mmio", read, 4, regs, {0x5000: b"xy", 0x5010: b"\x07\x1f"}, {"data": 0x5008}
    )
    events = [
        failed._replace(op="setup/0"),
        Event(0, "exit", "io", serial, 4, times=7),
        seen,
        # Two addresses are two actions of the Machine.
        failed._replace(op="steps/0/then/2"),
        seen,
        failed._replace(op="steps/0/then/2"),
        Event(0, "exit", "hlt", {}, 5, times=2),
    ]
    text, _, observation = pasted("x86_64", events, head + written)
    assert text == (
        "# a.yaml:16, case default, observed on kvm\n"
        "expect:\n"
        "  # observed: len 8, rbx 0x77, counter + 16: {u8: [7, 0x1f]}\n"
        "  - mmio: {phys_addr: counter, is_write: false, len: {in: [4, 8]}}\n"
        "    regs: {rax: 3, rbx: {min: 2}, pc: counter + 8}\n"
        "    memory:\n"
        "      counter + 16: {u8: [7, {mask: 0xf0, value: 0x10}]}\n"
        '      counter: {hex: "7879"}\n'
        "    reply: counter + 8\n"
        "    then:\n"
        '      - write_memory: {counter: 5, a.b$c: {text: "a\\"b\\x00\u263a"}}\n'
        "      - {delete_memslot: 1, errno: EINVAL}\n"
        "    repeat: 2\n"
        "  - hlt: {}\n"
        "    then: []\n"
        "  - hlt: {}\n"
    )
    assert mismatches("x86_64", planned("x86_64", head + text)[1].story, observation) == ()
