"""The verdict: which status when, with which reason and hint."""

from __future__ import annotations

from typing import Any

import pytest
from walked import walked

from kvmscen.job.expectation import Expectation, Expected, MemoryExpected, Story
from kvmscen.job.job import Job
from kvmscen.job.legend import Legend, Line
from kvmscen.judge.verdict import judge as judge_walked
from kvmscen.results.result import Result
from kvmscen.sent.machine import Machine, Memslot, Sealed, Vcpu
from kvmscen.sent.observation import Event, Observation

MMIO = Event(0, "exit", "mmio", {"phys_addr": 0x5000, "is_write": True, "len": 8, "data": 0}, 4)
ENOSYS = Event(0, "error", "ENOSYS", {"ioctl": "KVM_RUN"}, 12)
HLT = Event(0, "exit", "hlt", {}, 8)
SHUTDOWN = Event(0, "exit", "shutdown", {}, 8)
TIMEOUT = Event(0, "timeout", "", {"timeout": 5.0}, 8)
NISV = Event(0, "exit", "arm_nisv", {"esr_iss": 0x47, "fault_ipa": 0x5000}, 12)


def story(*kinds: str, **more: Any) -> Story:
    return Story(tuple(Expected(kind, 10 + n, 5) for n, kind in enumerate(kinds)), **more)


RIGHT, WRONG = story("mmio", "hlt"), story("mmio", "error")


def job(expectation: Expectation, arch: str = "arm64") -> Job:
    plan = Vcpu(0, {"arm64": "el1", "x86_64": "long", "riscv64": "s"}[arch], {}, (), ())
    text = Machine(arch, (Memslot(0, 0, 0x1000),), (), (), (plan,)).seal("a:default").text
    sealed = Sealed("a:default", text, "sha256:00", arch, 5.0)
    return Job(
        "a.yaml",
        "a",
        "default",
        1,
        "",
        arch,
        "kvm",
        "6.1",
        None,
        False,
        None,
        sealed,
        expectation,
        Legend({}, ()),
    )


def run(*events: Event, stopped: str = "end", **more: Any) -> Observation:
    return Observation(stopped, events, more.pop("regs", {}), more.pop("memory", {}), 0.25, **more)


def judge(job: Job, seen: Observation) -> Result:
    """The verdict on events that took the steps which they take on a host."""
    assert job.expectation is not None
    story = job.expectation.xfail or job.expectation.story
    return judge_walked(job, seen._replace(events=walked(story, seen.events)))


@pytest.mark.parametrize(
    ("expectation", "events", "status", "reason"),
    [
        (Expectation(RIGHT), [MMIO, HLT], "PASS", None),
        (Expectation(RIGHT), [MMIO, TIMEOUT], "FAIL", None),
        (Expectation(RIGHT, None, "a newer kernel"), [MMIO, HLT], "PASS", None),
        (Expectation(RIGHT, WRONG, "a bug"), [MMIO, ENOSYS], "XFAIL", "a bug"),
        (
            Expectation(RIGHT, WRONG, "a bug"),
            [MMIO, HLT],
            "XPASS",
            "the known wrong outcome is gone: a bug",
        ),
        # Wrong in another way than is known.
        (Expectation(RIGHT, WRONG, "a bug"), [MMIO, MMIO, ENOSYS], "FAIL", None),
        (Expectation(RIGHT, WRONG, "a bug"), [TIMEOUT], "FAIL", None),
        (
            Expectation(RIGHT, RIGHT, "the same"),
            [MMIO, HLT],
            "XPASS",
            "the known wrong outcome is gone: the same",
        ),
    ],
)
def test_status(
    expectation: Expectation, events: list[Event], status: str, reason: str | None
) -> None:
    stopped = "timeout" if TIMEOUT in events else "expected"
    found = judge(job(expectation), run(*events, stopped=stopped))
    assert (found.status, found.reason) == (status, reason)
    assert (found.elapsed, found.machine, found.kernel) == (0.25, "sha256:00", "6.1")
    assert bool(found.mismatches) == (status == "FAIL")
    # What is as it should be needs no rows.
    assert len(found.rows) >= (len(events) if status == "FAIL" else 0)
    assert bool(found.rows) == (status == "FAIL")
    if status == "FAIL":
        # What is shown is held against what should be, not against what is known to be wrong.
        assert not any("error" in row.expected for row in found.rows)


def test_a_crash_is_an_error_even_where_all_was_seen() -> None:
    found = judge(
        job(Expectation(RIGHT)),
        run(MMIO, HLT, stopped="crash", detail="the agent ended by SIGSEGV"),
    )
    assert (found.status, found.reason) == ("ERROR", "the agent ended by SIGSEGV")
    assert judge(job(Expectation(RIGHT)), run(stopped="crash")).reason


def test_what_the_model_cannot_predict_is_skipped() -> None:
    found = judge(job(Expectation(RIGHT)), run(MMIO, HLT, unpredicted="a guest exception"))
    assert (found.status, found.reason) == (
        "SKIP",
        "the model does not predict this: a guest exception",
    )


def test_limits_are_mismatches() -> None:
    assert judge(job(Expectation(RIGHT)), run(MMIO, HLT, stopped="exits")).status == "FAIL"
    assert (
        judge(job(Expectation(Story(None))), run(MMIO, TIMEOUT, stopped="timeout")).status == "FAIL"
    )
    assert judge(job(Expectation(Story(None))), run(HLT, stopped="expected")).status == "PASS"


def test_final_memory_is_reported_in_the_unit_that_was_asked_for() -> None:
    wanted = story(
        "hlt",
        regs={"x2": 1},
        memory=(
            MemoryExpected(0x5000, "u32", [1, 100]),
            MemoryExpected(0x5000, "hex", "01"),
            MemoryExpected(0x6000, "u8", [0]),
        ),
        line=20,
    )
    found = judge(
        job(Expectation(wanted)), run(HLT, regs={"x2": 1}, memory={0x5000: b"\1\0\0\0\x64\0\0\0"})
    )
    assert found.memory == {0x5000: {"u32": [1, 100], "hex": "01"}}
    assert [m.line for m in found.mismatches] == [20]


# --- hints ----------------------------------------------------------------------------------------


def hint_of(*events: Event, arch: str = "arm64", expected: Story = RIGHT, **more: Any) -> str:
    found = judge(job(Expectation(expected), arch), run(*events, **more))
    assert found.status == "FAIL"
    return found.hint or ""


def test_enosys_on_arm64() -> None:
    text = hint_of(MMIO, ENOSYS)
    assert "ISV = 0" in text
    assert "KVM_CAP_ARM_NISV_TO_USER" in text
    assert "ENOSYS" in text
    whole = judge(job(Expectation(RIGHT)), run(MMIO, ENOSYS, stopped="error"))
    assert "unknown" not in str((whole.hint, whole.reason, whole.rows, whole.mismatches)).lower()
    # Also where it came beside the step and not in its place, as the exit of a step with `then` was
    # completed.
    on = Story((Expected("mmio", 10, 5), Expected("hlt", 11, 5, then=())))
    assert hint_of(MMIO, HLT, ENOSYS, expected=on) == text
    assert hint_of(MMIO, ENOSYS, arch="x86_64") == ""
    assert hint_of(MMIO, ENOSYS._replace(fields={"ioctl": "KVM_ENABLE_CAP"})) == ""


def test_the_first_unexpected_event_that_is_known_is_told() -> None:
    assert "triple fault" in hint_of(MMIO, MMIO, SHUTDOWN, arch="x86_64")
    # An outcome that was expected needs no explanation.
    assert hint_of(ENOSYS, expected=story("error", "hlt")) == ""
    assert judge(job(Expectation(story("error"))), run(ENOSYS)).hint is None


@pytest.mark.parametrize(("rsp", "said"), [(0, True), ((1 << 64) - 8, True), (0x8000, False)])
def test_a_triple_fault_without_a_stack(rsp: int, said: bool) -> None:
    assert ("without a stack" in hint_of(SHUTDOWN, arch="x86_64", regs={"rsp": rsp})) == said


def test_other_hints() -> None:
    emulation = Event(0, "exit", "internal_error", {"suberror": 1, "ndata": 0, "data": []}, 4)
    assert "emulator" in hint_of(emulation, arch="x86_64")
    assert hint_of(emulation._replace(fields={"suberror": 3}), arch="x86_64") == ""
    assert "endless loop" in hint_of(MMIO, TIMEOUT, stopped="timeout")
    assert "endless loop" in hint_of(TIMEOUT, expected=Story(None), stopped="timeout")
    assert "memslot" in hint_of(ENOSYS._replace(name="ENOSPC"))
    assert "guest_memfd" in hint_of(ENOSYS._replace(name="EFAULT"))


def test_what_kvm_refuses_on_riscv64() -> None:
    refused = ENOSYS._replace(name="EOPNOTSUPP")
    assert "not atomic" in hint_of(refused, arch="riscv64")
    assert "misaligned" in hint_of(ENOSYS._replace(name="EIO"), arch="riscv64")
    assert hint_of(refused, arch="arm64") == ""
    assert hint_of(refused._replace(fields={"ioctl": "KVM_ENABLE_CAP"}), arch="riscv64") == ""


@pytest.mark.parametrize(
    ("text", "iss", "said"),
    [
        ("ldadd x0, x1, [x2]", 0x47, True),
        ("again: casal w0, w1, [x2]", 0x47, True),
        ("STSMAXLH w0, [x2]", 0x47, True),
        ("swpb w0, w1, [x2]", 0x47, True),
        ("caspa x0, x1, x2, x3, [x4]", 0x47, True),
        ("str x0, [x2], #8", 0x47, False),
        ("ldadd x0, x1, [x2]", 0x4F, False),  # a permission fault: it may be read there
        ("ldadd x0, x1, [x2]", 0x6, False),
    ],
)
def test_an_atomic_that_is_tried_as_a_write(text: str, iss: int, said: bool) -> None:
    wanted = Story((Expected("arm_nisv", 10, 5, fields={"esr_iss": 7}),))
    made = job(Expectation(wanted))._replace(legend=Legend({}, (Line(12, 4, 8, text),)))
    found = judge(
        made, run(NISV._replace(fields={"esr_iss": iss, "fault_ipa": 0x5000}), stopped="expected")
    )
    assert [row.differs for row in found.rows] == [("esr_iss",)]
    assert ("-smp 1" in (found.hint or "")) == said


def test_an_arm_nisv_that_repeats() -> None:
    once = Story((Expected("arm_nisv", 10, 5, then=()), Expected("hlt", 11, 5)))
    assert "repeats for ever" in hint_of(NISV, NISV, expected=once)
    assert "repeats for ever" in hint_of(NISV._replace(regs={"x0": 1}), NISV, expected=once)
    assert "repeats for ever" in hint_of(NISV._replace(times=2), expected=once)
    assert hint_of(NISV, NISV._replace(pc=16), expected=once) == ""
    assert hint_of(NISV, expected=RIGHT) == ""
