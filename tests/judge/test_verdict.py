"""The verdict: which status when, with which reason and hint."""

from __future__ import annotations

import pytest
from verdicts import (
    ENOSYS,
    HLT,
    MMIO,
    RIGHT,
    TIMEOUT,
    WRONG,
    job,
    judge,
    run,
    story,
)

from kvmscen.job.expectation import Expectation, MemoryExpected, Story
from kvmscen.sent.observation import Event


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
