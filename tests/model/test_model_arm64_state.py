"""arm64 guests that change what the model relies on: followed where it is sure, given up with the
reason where it is not.
"""

from __future__ import annotations

import pytest
from model_machines import arm64, assemble

from kvmscen.model.arm64 import system
from kvmscen.model.predict import execute
from kvmscen.sent.arch import arm64_tables
from kvmscen.sent.machine import Bytes, Machine, Memslot, Tables

EE, M = 1 << 25, 1 << 0
SCTLR = 0xC50078
OFF = "movz w0, #0x8400, lsl #16; movk w0, #8; hvc #0"
TELL = "str x0, [x2, #0x500]; " + OFF
AT = 0x3FF0000
GIVEN_UP = {
    "at s1e1r, x2; mrs x0, par_el1": "what `at` leaves in par_el1 depends on the CPU",
    "at s12e1r, x2": "what `at` leaves",
    "at s1e0w, x2": "what `at` leaves",
    "mov x0, #1; msr cntv_ctl_el0, x0; wfi": "the guest arms a timer at 0x4",
    "mov x0, #3; msr cntp_ctl_el0, x0": "the guest arms a timer at 0x4",
    "mrs x0, cntvct_el0": "reads a register of the timer (s3_3_c14_c0_2)",
    "mrs x0, cntv_ctl_el0": "reads a register of the timer",
    "mrs x0, pmccntr_el0": "reads a register of the PMU",
    "msr pmcr_el0, x0": "writes a register of the PMU",
    "mrs x0, s3_0_c12_c12_0": "reads a register of the GIC",
    "msr s3_0_c4_c6_0, x0": "writes a register of the GIC",
    "mrs x0, mdscr_el1": "reads a debug register",
    "msr mdscr_el1, x0": "writes a debug register",
    "msr oslar_el1, x0": "writes a debug register",
    "mrs x0, midr_el1": "reads an identification register",
    "mrs x0, ctr_el0": "reads an identification register",
    "msr s3_0_c15_c2_0, x0": "writes a system register (s3_0_c15_c2_0)",
    "mov x0, #0x2000; orr x0, x0, #8; msr sctlr_el1, x0": "sctlr_el1 is 0x2008: the model knows no "
    "pointer authentication",
    "mov x0, #0x80000; msr sctlr_el1, x0": "sctlr_el1 is 0x80000",
    "mrs x0, sctlr_el1; orr x0, x0, #1; msr sctlr_el1, x0": "tcr_el1 is 0x0: the model knows "
    "granules of 4 KiB",
    "mov x0, #0x300000; msr cpacr_el1, x0; mov x0, #0x1f00; msr fpcr, x0": "fpcr is 0x1f00",
    "mov x0, #-1; msr esr_el1, x0": "esr_el1 is written 0xffffffffffffffff at 0x4: what is kept of "
    "its reserved bits differs",
    "mov x0, #0x10000000; msr cpacr_el1, x0": "cpacr_el1 is written 0x10000000",
    "mov x0, #0x80; msr vbar_el1, x0": "vbar_el1 is 0x80",
    "msr elr_el1, x2; mov x0, #0x3c0; msr spsr_el1, x0; eret": "the guest leaves EL1 (pstate "
    "0x3c0)",
    "msr elr_el1, x2; movz x0, #0x20, lsl #16; add x0, x0, #5; msr spsr_el1, x0; eret": "pstate is "
    "0x200005",
    "mov x0, #6; br x0": "pc 0x6 is not aligned",
    "mov x0, #6; msr elr_el1, x0; mov x0, #0x3c5; msr spsr_el1, x0; eret": "pc 0x6 is not aligned",
    "mov x0, #0; sub x0, x0, #1; dc civac, x0": "what the system instruction 0xd50b7e20 does",
}
FOLLOWED = {
    "nop; yield; sev; sevl; wfe; wfe; isb; dsb sy; dmb ish; clrex; mov x0, #1": 1,
    "mov x0, #0; msr cntv_ctl_el0, x0; msr cntv_tval_el0, x2; msr cntp_cval_el0, x2; mov x0, #2": 2,
    "ic iallu; ic ivau, x2; dc cvac, x2; dc civac, x2; dc ivac, x2; tlbi vmalle1; tlbi vae1is, x2; "
    "dc isw, x2; mov x0, #3": 3,
    "msr spsel, #0; mov x0, #0x900; mov sp, x0; msr spsel, #1; mrs x0, sp_el0": 0x900,
    "mrs x0, currentel": 4,
    "mrs x0, mpidr_el1": 1 << 31,
    "mrs x0, daif; msr daifclr, #15; mrs x1, daif; sub x0, x0, x1": 0x3C0,
    "msr tpidr_el0, x2; mrs x0, tpidr_el0": 0x800,
    "mov x1, #-1; msr nzcv, x1; mrs x0, nzcv": 0xF0000000,
    "mov w1, #-1; msr esr_el1, x1; mrs x0, esr_el1": 0xFFFFFFFF,
    "mov x0, #0x300000; msr cpacr_el1, x0; movz x0, #0x300, lsl #16; "
    "msr fpcr, x0; mrs x0, fpcr": 0x3000000,
    "adr x1, #20; msr elr_el1, x1; mov x1, #0x3c4; msr spsr_el1, x1; eret; mrs x0, spsel": 0,
}


@pytest.mark.parametrize("code", GIVEN_UP)
def test_what_depends_on_the_cpu_or_the_host_is_given_up(code: str) -> None:
    seen = execute(arm64(f"{code}; {TELL}", regs={"x2": 0x800}))
    assert GIVEN_UP[code] in (seen.unpredicted or "")
    assert seen.events == ()


@pytest.mark.parametrize("code", FOLLOWED)
def test_what_every_cpu_does_alike_is_followed(code: str) -> None:
    seen = execute(arm64(f"{code}; mov x2, #0x5000; {TELL}", regs={"x2": 0x800}))
    assert seen.unpredicted is None
    assert [(event.name, event.fields.get("data")) for event in seen.events] == [
        ("mmio", FOLLOWED[code]),
        ("system_event", [0]),
    ]


# Instructions of extensions, and beside each one that every CPU has.
EXTENSIONS = {
    "retaa": 0xD65F0BFF,
    "pacia x0, x1": 0xDAC10020,
    "pacga": 0x9AC23020,
    "ldraa x0, [x1]": 0xF8200420,
    "rmif": 0xBA018422,
    "setf8 w1": 0x3A00082D,
    "irg": 0x9AC21020,
    "stg": 0xD9200820,
    "add z0.d, z1.d, z2.d": 0x04E20020,
    "aese": 0x4E284820,
    "sha1c": 0x5E020020,
    "fjcvtzs": 0x1E7E0020,
    "fadd h0, h1, h2": 0x1EE22820,
    "fadd v0.8h, v1.8h, v2.8h": 0x4E421420,
    "udot": 0x6E829420,
    "sqrdmlah": 0x6E828420,
}
EVERYWHERE = {
    "ret": 0xD65F03C0,
    "rbit x0, x1": 0xDAC00020,
    "udiv x0, x1, x2": 0x9AC20820,
    "crc32b w0, w1, w2": 0x1AC24020,
    "ldadd x0, x1, [x2]": 0xF8200041,
    "ccmp": 0xFA420022,
    "fadd s0, s1, s2": 0x1E222820,
    "fcvt s0, h1": 0x1EE24020,
    "add v0.8h, v1.8h, v2.8h": 0x4E628420,
    "addp d0, v1.2d": 0x5EF1B820,
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_what_only_some_cpus_have_is_given_up(name: str) -> None:
    code = EXTENSIONS[name].to_bytes(4, "little") + assemble("arm64", OFF)
    seen = execute(arm64(code, regs={"cpacr_el1": 3 << 20}))
    assert (seen.unpredicted or "").startswith(
        f"{EXTENSIONS[name]:#010x} is an instruction that not every CPU has"
    )


def test_what_every_cpu_has_does_not_stop() -> None:
    assert [name for name, word in EVERYWHERE.items() if system.stops(word)] == []


def test_an_instruction_that_unicorn_lacks_is_no_undefined_one() -> None:
    word = 0x19000441.to_bytes(
        4, "little"
    )  # cpyfp [x1]!, [x0]!, x2!: memory copies came after Unicorn's CPU
    assert "Unicorn does not know the instruction 0x19000441" in (
        execute(arm64(word)).unpredicted or ""
    )
    # One that is undefined for ever: the guest's vectors lie in no slot, so that it hangs there.
    seen = execute(arm64(bytes.fromhex("01000000"), regs={"vbar_el1": 0x40000000}))
    assert (seen.unpredicted, [event.kind for event in seen.events]) == (None, ["timeout"])


@pytest.mark.parametrize(("fpen", "traps"), [(0, True), (1, False), (2, True), (3, False)])
def test_simd_traps_by_cpacr(fpen: int, traps: bool) -> None:
    seen = execute(
        arm64(f"fmov d0, x2; {OFF}", regs={"cpacr_el1": fpen << 20, "vbar_el1": 0x40000000})
    )
    assert [event.name for event in seen.events] == ([""] if traps else ["system_event"])


def test_what_an_endless_exception_leaves_is_not_told() -> None:
    seen = execute(arm64("brk #1", regs={"vbar_el1": 0x40000000}, observe_regs=("esr_el1",)))
    assert "esr_el1: the guest takes one exception after another" in (seen.unpredicted or "")
    seen = execute(arm64("brk #1", regs={"vbar_el1": 0x40000000}))
    assert (seen.unpredicted, seen.regs["pc"]) == (None, 0x40000200)


# --- byte order -----------------------------------------------------------------------------------


def test_a_big_endian_guest() -> None:
    code = (
        "str w0, [x2]; strh w0, [x2, #4]; strb w0, [x2, #6]; str x0, [x2, #8]; ldr w7, [x2, "
        "#16]; ldrh w8, [x2, #20]; "
    )
    code += "str w7, [x5]; ldrb w9, [x5]; " + OFF
    seen = execute(
        arm64(
            code,
            regs={"x0": 0x0102030405060708, "x2": 0x5000, "x5": 0x800, "sctlr_el1": SCTLR | EE},
        )
    )
    assert seen.unpredicted is None
    assert [event.fields.get("data") for event in seen.events[:4]] == [
        0x08070605,
        0x0807,
        8,
        0x0807060504030201,
    ]
    # The section holds 1, 2, 3, ...
    assert (seen.regs["x7"], seen.regs["x8"], seen.regs["x9"]) == (0x11121314, 0x1516, 0x11)


def test_a_guest_that_becomes_big_endian() -> None:
    code = "mrs x3, sctlr_el1; orr x3, x3, #0x2000000; msr sctlr_el1, x3; isb; str w0, [x2]; " + OFF
    seen = execute(arm64(code, regs={"x0": 1, "x2": 0x5000}))
    assert (seen.unpredicted, seen.events[0].fields["data"]) == (None, 0x1000000)
    seen = execute(identity("str w0, [x2]", {"sctlr_el1": SCTLR | EE | M}))
    assert "a big-endian guest with the MMU on" in (seen.unpredicted or "")


# --- the MMU --------------------------------------------------------------------------------------


def identity(code: str, regs: dict[str, int], tables: int = AT) -> Machine:
    """A vCPU as `mmu: identity` starts it."""
    spans = ((0, 0x1000), (0x5000, 0x1000))
    where = Tables(tables, arm64_tables.tables_size(spans), 509, spans)
    return arm64(f"{code}; {OFF}", regs={**arm64_tables.boot(tables), **regs}, tables=where)


MAPPED = {
    "str w0, [x2, #1]": None,  # Normal memory, outside the slots
    "str w0, [x3, #5]": "an unaligned access to 0x40000005 with the MMU on, to what its tables "
    "call Device memory",
    "ldr x0, [x3, #4]": "an unaligned access to 0x40000004 with the MMU on",
    "ldp w0, w1, [x3, #4]": None,
    "dc zva, x3": "dc zva with the MMU on, to what its tables call Device memory",
    "ldr x0, [x4, #4]": None,
    "ldar w0, [x5]": "an unaligned access to 0xffa by an exclusive, atomic or ordered instruction",
    "ldxr x0, [x5]": "an unaligned access to 0xffa by an exclusive",
    "str x0, [x5]": "the access to 0xffa lies partly in a slot",
    "ldr x0, [x5]": "the access to 0xffa lies partly in a slot",
    "stp x0, x1, [x6]": "a part of the access to 0xff8 lies in a slot",
    "str x0, [x7]": None,  # in no slot, and a read-only one,
    "str x0, [x8]": "the guest changes its own tables",
    "msr ttbr0_el1, x2": "ttbr0_el1 changes while the MMU is on",
    "msr mair_el1, x2": "mair_el1 changes while the MMU is on",
    "mrs x0, tcr_el1; msr tcr_el1, x0": None,
}
REGS = {
    "x2": 0x5000,
    "x3": 0x40000000,
    "x4": 0x800,
    "x5": 0xFFA,
    "x6": 0xFF8,
    "x7": 0x7FFC,
    "x8": AT + 8,
    "cpacr_el1": 3 << 20,
}


@pytest.mark.parametrize("code", MAPPED)
def test_with_the_mmu_on(code: str) -> None:
    seen = execute(identity(code, REGS))
    if MAPPED[code] is None:
        assert (seen.unpredicted, seen.stopped) in ((None, "expected"), (None, "error"))
    else:
        assert (seen.unpredicted or "").startswith(str(MAPPED[code]))


# From 2 GiB on up to the end of the tables, and beyond it.
@pytest.mark.parametrize("shift", range(31, 40))
@pytest.mark.parametrize("code", ["str x0, [x2]", "ldr x0, [x2]"])
def test_high_addresses_with_the_mmu_on(code: str, shift: int) -> None:
    at = (1 << shift) + 0x800  # whose lower half is an address of the slot
    seen = execute(identity(code, {"x0": 9, "x2": at}))
    if at < arm64_tables.REACH:
        assert (seen.unpredicted, seen.events[0].name, seen.events[0].fields["phys_addr"]) == (
            None,
            "mmio",
            at,
        )
    else:
        assert "the guest takes an exception of its own" in (seen.unpredicted or "")


def test_code_that_is_not_mapped_to_itself_is_given_up() -> None:
    # One block of 1 GiB at 0x40000000, mapped to 0; the guest jumps there.
    table = (0x705).to_bytes(8, "little") * 2
    regs = {
        "mair_el1": 0xFF,
        "tcr_el1": 0x80190019,
        "ttbr0_el1": 0x6000,
        "ttbr1_el1": 0x6000,
        "sctlr_el1": SCTLR | M,
    }
    slots = (Memslot(0, 0, 0x1000), Memslot(1, 0x6000, 0x1000))
    code = "br x2; " + OFF
    image = (Bytes.at(0, assemble("arm64", code)), Bytes.at(0x6000, table))
    seen = execute(arm64(code, regs={**regs, "x2": 0x40000004}, memslots=slots, image=image))
    assert "map its code at 0x40000004 to another address" in (seen.unpredicted or "")
    seen = execute(arm64(code, regs={**regs, "x2": 4}, memslots=slots, image=image))
    assert (seen.unpredicted, seen.events[0].name) == (None, "system_event")


def test_a_pair_over_a_slots_end_is_carried_out_whole_where_it_is_emulated() -> None:
    enable = arm64("nop").enable
    machine = identity("stp x0, x1, [x6]", {**REGS, "x0": 5, "x1": 7})
    from model_machines import NISV

    machine = machine._replace(
        enable=(*enable, *NISV), undecoded="emulate", observe_memory=((0xFF8, 8),)
    )
    seen = execute(machine)
    assert seen.unpredicted is None
    assert (seen.events[0].fields["fault_ipa"], seen.memory[0xFF8]) == (
        0x1000,
        (5).to_bytes(8, "little"),
    )
