"""`undecoded: emulate` on the model: what is recorded, what stops a run, what the host puts
right.
"""

from __future__ import annotations

from typing import Any

import pytest
from model_machines import NISV, arm64, assemble

from kvmscen.model.predict import execute
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.machine import Action, Bytes, Memslot, Step
from kvmscen.sent.observation import Observation

OFF = "mov w0, #0x84000000; add w0, w0, #8; hvc #0"


def run(
    code: str, script: tuple[Step, ...] | None = None, kernel: str | None = None, **more: Any
) -> Observation:
    more.setdefault("undecoded", "emulate")
    return execute(arm64("mov x10, #0x5000;" + code, script, enable=NISV, **more), kernel)


def parts(seen: Observation) -> list[list[tuple[int, int, bool, int]]]:
    events = [event for event in seen.events if event.name == "arm_nisv"]
    return [
        [(a["phys_addr"], a["len"], a["is_write"], a["data"]) for a in event.fields["accesses"]]
        for event in events
    ]


def test_an_access_is_recorded_with_its_parts_and_the_guest_goes_on() -> None:
    seen = run(
        "mov x11, #7; str x11, [x10, #8]!; ldp w12, w13, [x10], #-8; " + OFF,
        observe_memory=((0x5000, 16),),
    )
    assert parts(seen) == [[(0x5008, 8, True, 7)], [(0x5008, 4, False, 7), (0x500C, 4, False, 0)]]
    assert all(event.fields["emulated"] for event in seen.events[:2])
    assert [seen.regs[f"x{n}"] for n in (10, 12, 13)] == [0x5000, 7, 0]
    assert (seen.stopped, seen.events[-1].name) == ("expected", "system_event")
    assert seen.memory[0x5000] == bytes(range(1, 9)) + (7).to_bytes(8, "little")


def test_what_a_step_sees_is_from_before_the_access() -> None:
    script = (
        Step("arm_nisv", observe_regs=("x10", "pc"), observe_memory=((0x5000, 8),)),
        Step("system_event"),
    )
    seen = run("str xzr, [x10], #8; " + OFF, script, observe_memory=((0x5000, 8),))
    assert seen.events[0].regs == {"x10": 0x5000, "pc": 4}
    assert seen.events[0].memory == {0x5000: bytes(range(1, 9))}
    assert (seen.memory[0x5000], seen.regs["x10"]) == (bytes(8), 0x5008)


def test_the_last_steps_access_is_done_and_the_one_at_the_limit_is_not() -> None:
    code = "str xzr, [x10], #8; str xzr, [x10], #8"
    assert run(code, (Step("arm_nisv"),)).regs["x10"] == 0x5008
    seen = run(code, exits=1)
    assert (seen.stopped, seen.regs["x10"], seen.events[0].fields["emulated"]) == (
        "exits",
        0x5000,
        True,
    )


def test_a_part_in_a_slot_is_done_there_and_a_read_only_one_drops_writes() -> None:
    slots = (Memslot(0, 0, 0x1000), Memslot(1, 0x4000, 0x1000), Memslot(2, 0x6000, 0x1000, 2))
    code = "mov x11, #-1; sub x10, x10, #8; stp x11, x11, [x10]; ldp x12, x13, [x10]; " + OFF
    more: dict[str, Any] = {
        "memslots": slots,
        "image": (arm64("mov x10, #0x5000;" + code).image[0],),
    }
    seen = run(code, observe_memory=((0x4FF8, 8), (0x5000, 8)), **more)
    assert parts(seen)[0] == [(0x4FF8, 8, True, (1 << 64) - 1), (0x5000, 8, True, (1 << 64) - 1)]
    assert seen.memory == {0x4FF8: b"\xff" * 8, 0x5000: b"\xff" * 8}
    assert seen.regs["x12"] == seen.regs["x13"] == (1 << 64) - 1
    code = "mov x11, #-1; add x10, x10, #0xff8; stp x11, x11, [x10]; ldp x12, x13, [x10]; " + OFF
    more["image"] = (arm64("mov x10, #0x5000;" + code).image[0],)
    seen = run(code, **more)
    assert (seen.regs["x12"], seen.regs["x13"]) == ((1 << 64) - 1, 0)


@pytest.mark.parametrize(
    ("word", "errno", "why"),
    [
        (0xA400A940, "ENOSYS", "SVE"),  # ld1b {z0.b}, p2/z, [x10]
        (0xF8408D4A, "ENOSYS", "CONSTRAINED UNPREDICTABLE"),  # ldr x10, [x10, #8]!
    ],
)
def test_what_cannot_be_carried_out_ends_the_run_with_the_reason(
    word: int, errno: str, why: str
) -> None:
    script = (Step("arm_nisv", then=(Action("set_regs", {"pc": 8}), Action("emulate", {}))),)
    code = assemble("arm64", "mov x10, #0x5000; str xzr, [x10], #8") + word.to_bytes(4, "little")
    seen = execute(arm64(code, script, enable=NISV))
    assert (seen.stopped, seen.events[-1].kind, seen.events[-1].name) == ("error", "error", errno)
    assert seen.events[-1].fields["ioctl"] == "emulate"
    assert why in seen.events[-1].fields["reason"]
    assert why in (seen.detail or "")


def test_emulating_an_instruction_that_accesses_something_else() -> None:
    code = assemble(
        "arm64", "mov x10, #0x5000; mov x11, #0x7000; str xzr, [x10], #8; ldp x1, x2, [x11]"
    )
    script = (
        Step(
            "arm_nisv", then=(Action("set_regs", {"pc": 12}), Action("emulate", {}, errno="EFAULT"))
        ),
        Step("arm_nisv"),
    )
    seen = execute(arm64(code, script, enable=NISV))
    assert "0x7000" in seen.events[1].fields["reason"]
    assert [event.name for event in seen.events] == ["arm_nisv", "EFAULT", "arm_nisv"]


def test_exclusives_have_one_monitor_in_slots_and_outside() -> None:
    code = (
        "mov x11, #0x800; ldxr x1, [x11]; ldxr x2, [x10]; stxr w3, x10, [x11]; ldxr x4, [x11]; "
        "stxr w5, x10, [x11];"
        "ldxrb w6, [x10]; stxrb w7, w10, [x10]; " + OFF
    )
    seen = run(code, observe_memory=((0x800, 8), (0x5000, 2)))
    assert [seen.regs[f"x{n}"] for n in (4, 5, 6, 7)] == [0, 0, 1, 0]
    assert seen.memory == {0x800: (0x5000).to_bytes(8, "little"), 0x5000: b"\0\2"}
    # The store-exclusive has no exit of its own.
    assert [len(accesses) for accesses in parts(seen)] == [1, 2]


def test_signs_are_put_right_where_the_kernel_loses_them() -> None:
    code = (
        "mov w11, #-128; strb w11, [x10]; ldrsb x12, [x10]; ldrsb w13, [x10]; ldrsb xzr, [x10];"
        + OFF
    )
    old, new, none = (run(code, kernel=kernel) for kernel in ("6.1", "7.2", None))
    for seen in (old, new, none):
        assert (seen.unpredicted, seen.regs["x12"], seen.regs["x13"]) == (
            None,
            (1 << 64) - 128,
            0xFFFFFF80,
        )
    assert new.notes == none.notes == ()
    assert "(2 replies)" in old.notes[0]
    assert [event.fields.get("corrected", False) for event in old.events[:3]] == [False, True, True]
    assert decode(Observation, encode(old)) == old


def test_esr_iss_is_left_out_where_it_cannot_be_known() -> None:
    slots = (Memslot(0, 0, 0x1000), Memslot(1, 0x40000000, 0x1000))
    seen = run(
        "mov x10, #0x40000000; str xzr, [x10, #8]; add x10, x10, #0x2000; str xzr, [x10], #8;"
        + OFF,
        memslots=slots,
    )
    assert seen.unpredicted is None
    assert "esr_iss" not in seen.events[0].fields


def test_dc_zva_stops_the_guest_where_it_stands() -> None:
    # Unicorn goes on for a while behind its abort.
    word = (0xD50B742A).to_bytes(4, "little")  # dc zva, x10
    mmu = {
        "sctlr_el1": 0xC5107D,
        "mair_el1": 0xFF04,
        "tcr_el1": 0x280803519,
        "ttbr0_el1": 0x6000,
        "ttbr1_el1": 0x6000,
    }
    code = (
        assemble("arm64", "mov x10, #0x5000")
        + word
        + assemble("arm64", "add x11, x11, #1; mov x12, #0x800; " + OFF)
    )
    table = (0x705 | 1 << 10).to_bytes(8, "little")  # one block of 1 GiB, Normal memory
    slots = (Memslot(0, 0, 0x1000), Memslot(1, 0x6000, 0x1000))
    more: dict[str, Any] = {
        "memslots": slots,
        "regs": mmu,
        "observe_memory": ((0x5000, 72),),
        "undecoded": "emulate",
    }
    machine = arm64(code, enable=NISV, **more)
    machine = machine._replace(image=(machine.image[0], Bytes.at(0x6000, table)))
    seen = execute(machine)
    assert parts(seen) == [[(0x5000, 64, True, 0)]]
    assert (seen.unpredicted, seen.regs["x11"]) == (None, 1)
    assert seen.memory[0x5000][:64] == bytes(64)


def test_casp_is_no_exclusive() -> None:
    word = (0x48247D46).to_bytes(4, "little")  # casp x4, x5, x6, x7, [x10]
    code = assemble("arm64", "mov x10, #0x5000") + word + assemble("arm64", OFF)
    seen = execute(arm64(code, enable=NISV, undecoded="emulate"))
    assert [len(accesses) for accesses in parts(seen)] == [2]
