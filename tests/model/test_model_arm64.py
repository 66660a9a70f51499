"""arm64 guests on the model: which accesses exit, how, and what the guest finds afterwards."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_machines import DEVICE, NISV, READONLY, arm64, mmio

from kvmscen.model import facts
from kvmscen.model.predict import execute
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.machine import Action, Bytes, Capability, Machine, Memslot, Step, Vcpu
from kvmscen.sent.observation import Observation

sys.path.insert(0, str(Path(__file__).parent.parent / "arch"))
from arm64_forms import FAILING_EXCLUSIVE, INVALID, MISSING, VALID, assemble

FOUNDING = "mov x2, #0x5000; str xzr, [x2]; str xzr, [x2, #8]; str xzr, [x2], #8"
SIMD_ON = [0xD2A00601, 0xD5181041, 0xD5033FDF]  # mov x1, #3 << 20; msr cpacr_el1, x1; isb


def told(seen: Observation) -> list[tuple[object, ...]]:
    """Events in short: name, telling fields, pc."""
    out: list[tuple[object, ...]] = []
    for event in seen.events:
        values = tuple(
            v
            for k, v in event.fields.items()
            if k not in ("ndata", "flags", "data") or event.name == "mmio"
        )
        out.append((event.name or event.kind, *values, event.pc))
    return out


def test_the_founding_question() -> None:
    seen = execute(arm64(FOUNDING))
    assert told(seen) == [
        ("mmio", 0x5000, True, 8, 0, 4),
        ("mmio", 0x5008, True, 8, 0, 8),
        ("ENOSYS", "KVM_RUN", 12),
    ]
    assert (seen.stopped, seen.unpredicted, seen.regs["x2"]) == ("error", None, 0x5000)
    assert seen.events[2].kind == "error"
    assert decode(Observation, encode(seen)) == seen


def test_the_founding_question_with_the_capability() -> None:
    seen = execute(arm64(FOUNDING, enable=NISV))
    assert told(seen)[2] == ("arm_nisv", 0x47, 0x5000, 12)
    assert seen.stopped == "expected"
    assert told(execute(arm64("mov x2, #0x5000; ldr w1, [x2], #4", enable=NISV))) == [
        ("arm_nisv", 0x07, 0x5000, 4)
    ]
    assert told(execute(arm64("mov x2, #0x5000; str xzr, [x2, #8]!", enable=NISV))) == [
        ("arm_nisv", 0x47, 0x5008, 4)
    ]


@pytest.mark.parametrize(
    ("address", "iss"),
    [(0x5000, 0x47), (0x1FF000, 0x47), (0x200000, 0x46), (0x3FFFF000, 0x46), (0x40000000, 0x45)],
)
def test_the_level_of_the_fault(address: int, iss: int) -> None:
    seen = execute(arm64("str xzr, [x2], #8", enable=NISV, regs={"x2": address}))
    assert seen.events[0].fields == {"esr_iss": iss, "fault_ipa": address}


@pytest.mark.skipif(MISSING, reason="no aarch64-linux-gnu-as")
def test_every_form_of_load_and_store(tmp_path: Path) -> None:
    for (text, (size, write, _, _, reg)), word in zip(
        VALID.items(), assemble(list(VALID), tmp_path), strict=True
    ):
        seen = execute(form(word))
        if text.startswith(("stlur", "ldapur")):
            assert (seen.unpredicted or "").endswith(
                "is an instruction that not every CPU has (at 0xc)"
            ), text
            continue
        assert seen.unpredicted is None, text
        event, stop = seen.events
        assert (event.name, event.fields["len"], event.fields["is_write"], event.pc) == (
            "mmio",
            size,
            write,
            12,
        ), text
        assert stop.kind == "timeout", text
        if write:
            assert event.fields["data"] == (
                0x1122334455667788 & (1 << 8 * size) - 1 if reg == 3 else 0
            ), text
        else:
            at = event.fields["phys_addr"] - 0x5000
            assert seen.regs["x3"] == int.from_bytes(bytes(0x100)[at : at + size], "little"), text
    for (text, iss), word in zip(INVALID.items(), assemble(list(INVALID), tmp_path), strict=True):
        seen = execute(form(word))
        if text.startswith("dc "):
            # With the MMU off memory is Device memory, where it is an alignment fault.
            assert (seen.unpredicted is None, seen.events) == (False, ()), text
            continue
        assert told(seen) == [("ENOSYS", "KVM_RUN", 12)], text
        seen = execute(form(word, NISV))
        assert [(e.name, e.fields["esr_iss"]) for e in seen.events] == [("arm_nisv", iss)], text
        assert seen.events[0].fields["fault_ipa"] & ~0x1F == 0x5100, text
        assert seen.regs["x2"] == 0x5100, text
    for text, word in zip(
        FAILING_EXCLUSIVE, assemble(list(FAILING_EXCLUSIVE), tmp_path), strict=True
    ):
        seen = execute(form(word))
        assert (seen.regs["x5"], [e.kind for e in seen.events]) == (1, ["timeout"]), text


# What is aligned enough with the MMU off, and what is not: registers are 0x808 at most, in a slot;
# 0x4800 more is outside.
ALIGNED = (
    "ldr w1, [x2, #4]; ldrh w1, [x2, #6]; ldrb w1, [x2, #7]; str x1, [x2, #-8]!; ldp x3, x4, [x2, "
    "#8]; stp w3, w4, [x2, #4]",
    "ldur q1, [x2, #8]; ldr d1, [x2]; ldp s1, s2, [x2, #4]; ldp d1, d2, [x2]; stp q1, q2, [x4, "
    "#32]",
    "ld1 {v0.2d}, [x2]; ld1 {v0.16b}, [x3]; st1 {v0.s}[1], [x2]; ld2 {v0.8h, v1.8h}, [x2]; ld1r "
    "{v0.8b}, [x3]",
    "ldxr x1, [x2]; stxr w5, x1, [x2]; ldar w1, [x2]; prfm pldl1keep, [x3]; prfm pldl1keep, [sp, "
    "#8]",
    "mov sp, x4; ldr w1, [sp, #4]; str x1, [sp, #-16]!; ldp x3, x5, [sp], #16; mov sp, x2; add sp, "
    "sp, #8; ldrb w1, [sp]",
)
MISALIGNED = {
    "ldr w1, [x3]": "an unaligned access to 0x801 with the MMU off",
    "ldrh w1, [x3]": "an unaligned access to 0x801 with the MMU off",
    "stur x1, [x2, #4]": "an unaligned access to 0x80c with the MMU off",
    "ldp x5, x6, [x7]": "an unaligned access to 0x804 with the MMU off",
    "ldpsw x5, x6, [x3]": "an unaligned access to 0x801 with the MMU off",
    "ldr q1, [x2]": "an unaligned access to 0x808 with the MMU off",
    "stp q1, q2, [x2, #16]!": "an unaligned access to 0x818 with the MMU off",
    "ld1 {v0.8h}, [x3]": "an unaligned access to 0x801 with the MMU off",
    "ld2 {v0.s, v1.s}[1], [x2]; ld2 {v0.d, v1.d}[1], [x7]": "an unaligned access to 0x804 with the "
    "MMU off",
    "dc zva, x4": "dc zva with the MMU off",
    "dc zva, x8": "dc zva with the MMU off",
    "ldr x1, [x8, #4]!": "an unaligned access to 0x5004 with the MMU off",
    "stp x1, x2, [x9]": "an unaligned access to 0x5004 with the MMU off",
    "ldr q1, [x8, #8]": "an unaligned access to 0x5008 with the MMU off",
    "mov sp, x2; ldr w1, [sp, #8]": "an access by sp, which is 0x808",
    "mov sp, x4; stp x1, x3, [sp, #-8]!; ldr x1, [sp]": "an access by sp, which is 0x7f8",
    "mov sp, x9; str w1, [sp]": "an access by sp, which is 0x5004",
    "mrs x5, sctlr_el1; orr x5, x5, #2; msr sctlr_el1, x5; ldr w1, [x3]": "an unaligned access to "
    "0x801 with the MMU off",
}
ALIGNMENT_REGS = {
    "x2": 0x808,
    "x3": 0x801,
    "x4": 0x800,
    "x7": 0x804,
    "x8": 0x5000,
    "x9": 0x5004,
    "cpacr_el1": 3 << 20,
}


@pytest.mark.parametrize("code", ALIGNED)
def test_accesses_that_are_aligned(code: str) -> None:
    seen = execute(
        arm64(code + "; mov w0, #8; movk w0, #0x8400, lsl #16; hvc #0", regs=ALIGNMENT_REGS)
    )
    assert (seen.unpredicted, [event.name for event in seen.events]) == (None, ["system_event"])


@pytest.mark.parametrize("code", MISALIGNED)
def test_accesses_that_are_not_aligned(code: str) -> None:
    seen = execute(arm64(code + "; b .", regs=ALIGNMENT_REGS))
    what = "an SP alignment fault" if " sp, which" in MISALIGNED[code] else "an alignment fault"
    assert seen.unpredicted == f"{MISALIGNED[code]}: a CPU of silicon takes {what}"
    assert seen.events == ()


def test_sp_is_not_looked_at_where_the_guest_says_so() -> None:
    code = (
        "mrs x5, sctlr_el1; and x5, x5, #0xfffffffffffffff7; msr sctlr_el1, x5; isb; mov sp, "
        "x2; ldr x1, [sp]; b ."
    )
    seen = execute(arm64(code, regs=ALIGNMENT_REGS))
    assert (seen.unpredicted, [event.kind for event in seen.events]) == (None, ["timeout"])


def form(word: int, enable: tuple[Capability, ...] = ()) -> Machine:
    """SIMD on, then the one instruction on x2 = 0x5100, then a loop."""
    code = b"".join(w.to_bytes(4, "little") for w in (*SIMD_ON, word, 0x14000000))
    regs = {"x2": 0x5100, "x3": 0x1122334455667788, "x4": 16}
    return arm64(code, regs=regs, enable=enable, devices=())


def test_loads_read_the_section_the_reply_or_zero() -> None:
    code = (
        "mov x2, #0x5000; ldr w1, [x2]; ldrb w3, [x2, #5]; ldrh w4, [x2, #6]; "
        "mov x2, #0x6000; ldr x5, [x2]; ldr x6, [x2, #8]; str x6, [x2]"
    )
    script = (mmio(), mmio(), mmio(), mmio(), mmio(reply={"data": 0x55AA}), mmio(0x6000, True))
    seen = execute(arm64(code, script))
    assert [seen.regs[f"x{n}"] for n in (1, 3, 4, 5, 6)] == [0x04030201, 6, 0x0807, 0, 0x55AA]
    assert seen.events[-1].fields["data"] == 0x55AA
    assert seen.stopped == "end"


def test_a_write_into_a_section_outside_the_slots_is_kept() -> None:
    seen = execute(
        arm64(
            "mov x2, #0x5000; mov w1, #0x1234; strh w1, [x2, #2]; ldr w3, [x2]; wfi",
            observe_memory=((0x5000, 4),),
        )
    )
    assert seen.regs["x3"] == 0x12340201
    assert seen.memory == {0x5000: bytes((1, 2, 0x34, 0x12))}


def test_sign_extension_is_predicted_only_where_kernels_agree() -> None:
    code = "mov x2, #0x5000; ldrsb x1, [x2]; wfi"
    assert (
        execute(arm64(code, (mmio(reply={"data": 0x7F}), Step("timeout", timeout=0.01)))).regs["x1"]
        == 0x7F
    )
    seen = execute(arm64(code, (mmio(reply={"data": 0x80}),)))
    assert "7.2" in (seen.unpredicted or "")


def test_registers_of_a_step_are_those_before_the_load_is_complete() -> None:
    script = (
        mmio(observe_regs=("x1", "pc"), observe_memory=((0, 4),)),
        mmio(observe_regs=("x1", "w1")),
    )
    seen = execute(
        arm64("mov x2, #0x5000; ldr w1, [x2]; str w1, [x2]", script, regs={"x1": 0xFFFFFFFFFF})
    )
    assert seen.events[0].regs == {"x1": 0xFFFFFFFFFF, "pc": 4}
    assert seen.events[0].memory == {0: arm64("mov x2, #0x5000").image[0].data}
    assert seen.events[1].regs == {"x1": 0x04030201, "w1": 0x04030201}
    assert seen.regs["pc"] == 12  # the last step's store is completed before the end


def test_read_only_slots() -> None:
    code = "mov x2, #0x8000; ldr w1, [x2]; str wzr, [x2, #4]; ldr w3, [x2, #4]; str xzr, [x2], #8"
    seen = execute(arm64(code, enable=NISV, observe_memory=((0x8000, 8),)))
    assert told(seen) == [("mmio", 0x8004, True, 4, 0, 8)]
    assert "permission fault" in str(seen.unpredicted)
    assert seen.regs["x3"] == int.from_bytes(READONLY[4:8], "little")
    assert seen.memory[0x8000] == READONLY[:8]


def test_then_skips_an_undecoded_access_and_goes_on() -> None:
    skip = (Action("set_regs", {"pc": 16, "x2": 0x5020}),)
    script = (mmio(), mmio(), Step("error", {"errno": "ENOSYS"}, then=skip), mmio(0x5020, True))
    seen = execute(arm64(FOUNDING + "; str xzr, [x2]", script))
    assert (seen.stopped, seen.events[-1].fields["phys_addr"]) == ("end", 0x5020)


def test_entering_again_after_enosys_repeats_it() -> None:
    seen = execute(arm64(FOUNDING, (Step("error", then=(), repeat=(1, 9)),), exits=6))
    assert (seen.events[-1].name, seen.events[-1].times, seen.stopped) == ("ENOSYS", 4, "exits")


def test_host_actions_write_code_and_registers() -> None:
    patch = Action("write_memory", {"gpa": 8, "data": "a100 80d2".replace(" ", "")})  # mov x1, #5
    code = "mov x2, #0x5000; str xzr, [x2]; mov x1, #1; str x1, [x2]"
    seen = execute(arm64(code, (mmio(then=(patch, Action("set_regs", {"w3": 7}))), mmio())))
    assert (seen.events[1].fields["data"], seen.regs["x3"]) == (5, 7)


def test_self_modifying_code_is_seen() -> None:
    # The store writes `mov x5, #7` over `mov x5, #1`, which was executed before.
    code = (
        "mov w1, #0x00e5; movk w1, #0xd280, lsl #16; mov x2, #0; nop; mov x5, #1; cbnz x6, #0x24; "
        "mov x6, #1;"
        "str w1, [x2, #0x10]; b #0x10; mov x2, #0x5000; str x5, [x2]; wfi"
    )
    assert execute(arm64(code)).events[0].fields["data"] == 7


class TestSlots:
    MOVE = "mov x2, #0x5000; mov x3, #0x4000; str x2, [x3]; ldr x1, [x3]; wfi"

    def test_a_slot_that_appears_takes_the_accesses(self) -> None:
        script = (
            mmio(
                0x4000,
                True,
                (Action("set_memslot", {"slot": 2, "gpa": 0x4000, "size": 0x1000, "flags": 0}),),
            ),
            mmio(),
        )
        seen = execute(arm64(self.MOVE, script))
        assert [e.kind for e in seen.events] == ["exit", "timeout"]

    def test_a_deleted_slot_keeps_its_bytes(self) -> None:
        back = {"slot": 2, "gpa": 0x6000, "size": 0x1000, "flags": 0}
        script = (mmio(0x4000, False, (Action("set_memslot", back),), reply={"data": 9}), mmio())
        slots = (Memslot(0, 0, 0x1000), Memslot(2, 0x4000, 0x1000))
        machine = arm64(
            "mov x3, #0x4000; mov w1, #5; str w1, [x3]; mov x2, #0x5000; str xzr, [x2]; ldr w4, "
            "[x3];"
            "mov x6, #0x6000; ldr w5, [x6]; wfi",
            (mmio(0x5000, True, (Action("delete_memslot", {"slot": 2}),)), *script),
            memslots=slots,
        )
        seen = execute(machine)
        assert [e.fields.get("phys_addr") for e in seen.events] == [0x5000, 0x4000, None]
        assert (seen.regs["x4"], seen.regs["x5"]) == (9, 5)

    def test_a_slot_moves_with_its_bytes(self) -> None:
        move = Action("set_memslot", {"slot": 1, "gpa": 0x9000, "size": 0x1000, "flags": 2})
        seen = execute(
            arm64(
                "mov x2, #0x5000; str xzr, [x2]; mov x3, #0x9000; ldr w1, [x3]; wfi",
                (mmio(then=(move,)), mmio()),
            )
        )
        assert seen.regs["x1"] == int.from_bytes(READONLY[:4], "little")

    @pytest.mark.parametrize(
        ("slot", "errno"),
        [
            (Memslot(3, 0x800, 0x1000), "EINVAL"),
            (Memslot(3, 0x10000, 0x800), "EINVAL"),
            (Memslot(3, 0x10000, 0), "EINVAL"),
            (Memslot(3, 0, 0x1000), "EEXIST"),
            (Memslot(3, 0x10000, 0x1000, 0x40), "EINVAL"),
            (Memslot(1, 0x8000, 0x2000, 2), "EINVAL"),
            (Memslot(1, 0x8000, 0x1000, 0), "EINVAL"),
            (Memslot(32767, 0x10000, 0x1000), "EINVAL"),
            (Memslot(3, 1 << 40, 0x1000), "EFAULT"),
        ],
    )
    def test_kvm_refuses(self, slot: Memslot, errno: str) -> None:
        slots = (Memslot(0, 0, 0x1000), Memslot(1, 0x8000, 0x1000, 2), slot)
        seen = execute(arm64("wfi", memslots=slots))
        assert told(seen) == [(errno, "KVM_SET_USER_MEMORY_REGION", None)]
        assert (seen.stopped, seen.regs) == ("error", {})
        wanted = Memslot(slot.slot, slot.gpa, slot.size, slot.flags, errno)
        seen = execute(arm64("wfi", memslots=(*slots[:2], wanted)))
        assert [e.name or e.kind for e in seen.events] == [errno, "timeout"]

    def test_deleting_a_slot_that_is_not_there(self) -> None:
        seen = execute(arm64("wfi", setup=(Action("delete_memslot", {"slot": 9}),)))
        assert (told(seen), seen.stopped) == (
            [("EINVAL", "KVM_SET_USER_MEMORY_REGION", 0)],
            "error",
        )

    def test_no_slot_at_all_is_not_predicted(self) -> None:
        assert execute(arm64("wfi", memslots=(), image=())).unpredicted


class TestPsci:
    def test_shutdown(self) -> None:
        code = "mov w0, #8; movk w0, #0x8400, lsl #16; hvc #0; mov x6, #1"
        seen = execute(arm64(code))
        assert [(e.name, e.fields["type"], e.pc) for e in seen.events] == [("system_event", 1, 12)]
        assert (seen.regs["x6"], seen.stopped) == (0, "expected")

    def test_what_depends_on_the_kernel_is_not_predicted(self) -> None:
        assert execute(arm64("mov w0, #0x84000000; hvc #0")).unpredicted

    def test_reset(self) -> None:
        seen = execute(arm64("mov w0, #9; movk w0, #0x8400, lsl #16; hvc #0"))
        assert [(e.name, e.fields["type"]) for e in seen.events] == [("system_event", 2)]

    def test_cpu_off_sleeps_for_good(self) -> None:
        code = "mov w0, #2; movk w0, #0x8400, lsl #16; hvc #0; mov x2, #0x5000; str xzr, [x2]"
        seen = execute(arm64(code, (Step("timeout", timeout=0.01, then=()), mmio())))
        assert told(seen) == [("timeout", 0.01, 12), ("timeout", 1.0, 12)]

    def test_a_call_that_kvm_does_not_know(self) -> None:
        seen = execute(arm64("mov w0, #0x1234; hvc #0; mov x2, #0x5000; str x0, [x2]", (mmio(),)))
        assert seen.events[0].fields["data"] == 2**64 - 1

    def test_without_the_feature_nobody_answers(self) -> None:
        seen = execute(
            arm64(
                "mov w0, #8; movk w0, #0x8400, lsl #16; hvc #0; mov x2, #0x5000; str x0, [x2]",
                (mmio(),),
                features=(),
            )
        )
        assert seen.events[0].fields["data"] == 2**64 - 1

    def test_what_depends_on_the_host(self) -> None:
        assert execute(
            arm64("mov w0, #1; movk w0, #0x8000, lsl #16; mov w1, #0x8000; hvc #0")
        ).unpredicted


class TestWaiting:
    @pytest.mark.parametrize(("code", "pc"), [("wfi", 4), ("b #0", 0), ("nop; b #4", 4)])
    def test_the_run_times_out_without_waiting(self, code: str, pc: int) -> None:
        start = time.monotonic()
        seen = execute(arm64(code, timeout=600.0))
        assert told(seen) == [("timeout", 600.0, pc)]
        assert seen.stopped == "timeout"
        assert time.monotonic() - start < 600

    def test_a_busy_loop_ends_at_the_timeout(self) -> None:
        start = time.monotonic()
        seen = execute(arm64("add x1, x1, #1; b #0", timeout=0.1))
        assert (seen.stopped, seen.events[0].kind) == ("timeout", "timeout")
        assert time.monotonic() - start > 0.05

    @pytest.mark.parametrize(
        "code", ["mov w0, #0x1234; hvc #0; b #0", "adr x1, #0; br x1", "adr x1, #4; nop; br x1"]
    )
    def test_loops_of_every_kind_end(self, code: str) -> None:
        assert execute(arm64(code, timeout=0.1)).stopped == "timeout"

    def test_a_timeout_step_pushes_on(self) -> None:
        script = (Step("timeout", timeout=0.05, then=(Action("set_regs", {"pc": 4}),)), mmio())
        seen = execute(arm64("b #0; mov x2, #0x5000; str xzr, [x2]", script))
        assert told(seen) == [("timeout", 0.05, 0), ("mmio", 0x5000, True, 8, 0, 8)]
        assert seen.stopped == "end"

    @given(st.floats(0.001, 4.9))
    @settings(max_examples=200, deadline=None)
    def test_the_time_of_a_step_is_told_as_it_is_written(self, seconds: float) -> None:
        seen = execute(arm64("b #0", (Step("timeout", timeout=seconds),), timeout=10.0))
        assert told(seen) == [("timeout", seconds, 0)]

    def test_a_million_exits(self) -> None:
        seen = execute(arm64("mov x2, #0x5000; str xzr, [x2]; b #4", exits=500, timeout=30.0))
        assert (seen.stopped, [e.times for e in seen.events]) == ("exits", [500])

    def test_a_powered_off_vcpu(self) -> None:
        assert told(execute(arm64("nop", features=("power_off", "psci_0_2")))) == [
            ("timeout", 1.0, 0)
        ]


class TestUnpredicted:
    @pytest.mark.parametrize(
        "code",
        [
            "svc #0",
            "brk #0",
            "smc #0",
            "mrs x0, midr_el1",
            "mrs x0, cntvct_el0",
            "mov x0, #0x5000; br x0",
            "mov x2, #0x5000; ldr q0, [x2]",
            "mov x2, #0x5001; str x3, [x2]",
            "mov x2, #0x10000000000; str x3, [x2]",
        ],
    )
    def test_it_says_why(self, code: str) -> None:
        seen = execute(arm64(code))
        assert seen.unpredicted
        assert seen.events == ()

    def test_what_came_before_is_kept(self) -> None:
        seen = execute(arm64("mov x2, #0x5000; str xzr, [x2]; mrs x0, midr_el1"))
        assert len(seen.events) == 1
        assert "identification register" in (seen.unpredicted or "")
        assert (
            execute(
                arm64("mov x2, #0x5000; str xzr, [x2]; mrs x0, midr_el1", (mmio(),))
            ).unpredicted
            is None
        )

    def test_unknown_capabilities_and_features(self) -> None:
        assert execute(arm64("wfi", enable=(Capability("KVM_CAP_ARM_MTE", 205),))).unpredicted
        assert execute(arm64("wfi", features=("sve",))).unpredicted
        two = (Vcpu(0, "el1", {}, ()), Vcpu(1, "el1", {}, ()))
        assert execute(arm64("wfi", vcpus=two)).unpredicted

    def test_a_capability_that_cannot_be_enabled(self) -> None:
        seen = execute(arm64("wfi", enable=(Capability("KVM_CAP_READONLY_MEM", 81),)))
        assert told(seen) == [("EINVAL", "KVM_ENABLE_CAP", None)]


def test_vectors_outside_the_slots_loop() -> None:
    seen = execute(arm64("mov x0, #0x5000; msr vbar_el1, x0; mov x1, #0x6000; br x1"))
    assert (seen.stopped, told(seen)) == ("timeout", [("timeout", 1.0, 0x5200)])


def test_the_vcpu_number_that_kvm_gives() -> None:
    assert execute(arm64("mrs x0, mpidr_el1; wfi")).regs["x0"] == 0x80000000


def test_stack_pointers_and_views() -> None:
    machine = arm64(
        "mov x3, sp; wfi",
        regs={"sp_el1": 0x800, "sp_el0": 0x400, "w1": 5, "lr": 6},
        observe_regs=("w30", "q0", "cpacr_el1"),
    )
    seen = execute(machine)
    assert [
        seen.regs[n] for n in ("x3", "sp_el0", "sp_el1", "x1", "x30", "w30", "q0", "cpacr_el1")
    ] == [
        0x800,
        0x400,
        0x800,
        5,
        6,
        6,
        0,
        0,
    ]
    assert seen.regs["pstate"] == 0x3C5


def test_no_state_leaks_from_run_to_run() -> None:
    first = execute(
        arm64(
            "mov x9, #9; mov w1, #7; mov x2, #0x800; str w1, [x2]; wfi",
            observe_memory=((0x800, 4),),
        )
    )
    second = execute(arm64("wfi", observe_memory=((0x800, 4),)))
    assert (first.memory[0x800], second.memory[0x800]) == (b"\7\0\0\0", bytes(4))
    assert second.regs["x9"] == second.regs["x1"] == 0
    again = [encode(execute(arm64(FOUNDING))) | {"elapsed": 0} for _ in range(3)]
    assert again[0] == again[1] == again[2]


def test_facts() -> None:
    known = facts("arm64")
    assert (known.kernel, known.flavour, known.page_size) == (None, None, 4096)
    assert {"KVM_CAP_ARM_NISV_TO_USER", "KVM_CAP_READONLY_MEM", "KVM_CAP_ARM_PSCI_0_2"} <= set(
        known.capabilities
    )


def test_image_beyond_one_page_and_device_bytes() -> None:
    machine = arm64(
        "mov x2, #0x5000; ldr x1, [x2, #0x20]; wfi",
        image=(Bytes.at(0, arm64("mov x2, #0x5000; ldr x1, [x2, #0x20]; wfi").image[0].data),),
    )
    assert execute(machine).regs["x1"] == int.from_bytes(DEVICE[0x20:0x28], "little")


@pytest.mark.parametrize(
    ("word", "stored", "old"),
    [
        (0xB8204041, 5, 0xFFFFFFF0),  # ldsmax w0, w1, [x2]
        (0xB8205041, 0xFFFFFFF0, 0xFFFFFFF0),  # ldsmin
        (0x78204041, 0xFFFF0005, 0xFFF0),  # ldsmaxh
        (0x38205041, 0xFFFFFFF0, 0xF0),  # ldsminb
        (0xF8204041, 0xFFFFFFF0, 0xFFFFFFF0),  # ldsmax x0, x1, [x2]: positive
        (0xB8206041, 0xFFFFFFF0, 0xFFFFFFF0),  # ldumax
    ],
)
def test_signed_atomics_compare_with_the_sign(word: int, stored: int, old: int) -> None:
    code = b"".join(
        instruction.to_bytes(4, "little")
        for instruction in (word, 0xF9400043, 0xF9000083, 0x14000000)
    )  # ldr x3, [x2]; str x3, [x4]; b .
    image = (Bytes.at(0, code), Bytes.at(0x800, b"\xf0\xff\xff\xff"))
    seen = execute(arm64(code, regs={"x0": 5, "x2": 0x800, "x4": 0x5000}, image=image))
    assert (seen.events[0].fields["data"], seen.regs["x1"]) == (stored, old)
