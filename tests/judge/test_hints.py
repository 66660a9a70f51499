"""Hints: said of what they fit, and of nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from verdicts import (
    ENOSYS,
    HLT,
    MMIO,
    NISV,
    RIGHT,
    SHUTDOWN,
    TIMEOUT,
    job,
    judge,
    run,
    story,
)

from kvmscen.job.expectation import Expectation, Expected, Story
from kvmscen.job.legend import Legend, Line
from kvmscen.sent.observation import Event


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
