"""What people read of runs that puzzle them: tests/cases/report, on real KVM, each with the words
that it must have.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvmscen.judge.exceptions import last_exception
from kvmscen.sent.observation import Observation

ROOT = Path(__file__).resolve().parent.parent.parent
CASES = ROOT / "tests" / "cases" / "report"
Result = dict[str, Any]


def results(
    tmp_path: Path, *arguments: str, env: dict[str, str] | None = None
) -> tuple[dict[str, Result], str]:
    """The results of a run by `file stem` or `stem:case`, and the text report."""
    report = tmp_path / "report.json"
    argv = [sys.executable, "-m", "kvmscen", "run", *arguments, "--report", f"json={report}"]
    done = subprocess.run(argv, cwd=CASES, capture_output=True, text=True, timeout=600, env=env)
    assert report.exists(), done.stderr
    found = json.loads(report.read_text())["results"]
    return {f"{r['scenario']}:{r['case']}".removesuffix(":default"): r for r in found}, done.stdout


def files(*stems: str) -> list[str]:
    return [f"{stem}.yaml" for stem in stems]


# --- x86_64 on this machine's KVM -----------------------------------------------------------------

SREGS = {
    "sregs": "EFER.LMA (bit 10) must be: efer 0x100 lacks it",
    "sregs:pae": "CR4.PAE (bit 5) must be: cr4 0x600 lacks it",
    "sregs:vmxe": "CR4.VMXE only where the CPU",
    "sregs:lma": "EFER.LMA (bit 10) is set, so EFER.LME (bit 8) and CR0.PG (bit 31) must be",
    "sregs:csl": "cs.l is set, so the vCPU must be in long mode",
    "sregs:nw": "CR0.NW (bit 29) is set without CR0.CD (bit 30)",
    "sregs:pe": "CR0.PG (bit 31) is set without CR0.PE (bit 0)",
    "sregs:apic": "apic_base 0xfee00001 has reserved bits (0x1) set",
    "sregs:cr3": "cr3 0xf0000000000000 has bits above",
    "sregs:bit": "bit 15 of CR4",
    "sregs:setup": "CR4.PAE (bit 5) must be: cr4 0x0 lacks it",
    "sregs:real": "EFER.LMA (bit 10) is set, so CR0.PG (bit 31) must be",
}
X86 = {
    "call": "line 8 (call there) needs a stack, and rsp is 0x0",
    "push": "line 8 (push rax) needs a stack, and rsp is 0x0",
    "call32": "there is no stack: its pointer is 0 at the start, and line 9 (call there) goes "
    "below it",
    "bug-hint-idt": "The IDT is the scenario's own",
    "forgot-hlt": "the guest ran off the end of slot 0 (at 0x1000): end it with `hlt`",
    "in-data-x86": "`counter` lies in slot 0, where no access exits: place .data outside every "
    "slot",
    "final-top:b": "`final` is the scenario's (line 12), and the case has none: write its own, or "
    "`final: null`",
}


@pytest.mark.kvm
def test_hints(tmp_path: Path) -> None:
    stems = dict.fromkeys(name.partition(":")[0] for name in (*SREGS, *X86))
    found, _ = results(tmp_path, *files(*stems), "--on", "kvm")
    wanted = {**SREGS, **X86}
    assert {name: found[name]["status"] for name in wanted} == dict.fromkeys(wanted, "FAIL")
    if "svm" in str(found["call"].get("kvm")):
        del wanted["call"], wanted["push"]  # the vCPU is reset by then
    assert [
        (name, found[name]["hint"])
        for name, text in wanted.items()
        if text not in (found[name]["hint"] or "")
    ] == []
    # No more is said than was seen.
    assert "kvmscen's IDT is empty" not in found["bug-hint-idt"]["hint"]


@pytest.mark.kvm
def test_an_action_that_should_fail_is_told_at_its_line(tmp_path: Path) -> None:
    found, text = results(tmp_path, "bug-errno-line.yaml", "--on", "kvm")
    assert found["bug-errno-line"]["status"] == "FAIL"
    assert 12 in [m["line"] for m in found["bug-errno-line"]["mismatches"]]
    assert "at 12: {set_regs: {cr4: 0x620}, errno: EINVAL}" in text
    assert "13" not in [line.split()[1] for line in text.splitlines() if line.startswith("  !")]


@pytest.mark.kvm
def test_what_was_not_read_does_not_differ(tmp_path: Path) -> None:
    found, text = results(tmp_path, "bug-extra-memory.yaml", "--on", "kvm")
    (mismatch,) = found["bug-extra-memory"]["mismatches"]
    assert mismatch["observed"] == "io: {port: 0x10}"
    assert "differs: port\n" in text


@pytest.mark.kvm
def test_replies_that_were_not_given_are_told(tmp_path: Path) -> None:
    found, text = results(tmp_path, "bug-replies-derail.yaml", "--on", "kvm")
    assert found["bug-replies-derail"]["status"] == "FAIL"
    assert text.count("differs: reply") == 2
    # Wrapped, in a column of its own.
    assert "the reply 5 was not given" in " ".join(text.split())


@pytest.mark.kvm
def test_a_flood_is_capped_and_each_round_has_its_own_value(tmp_path: Path) -> None:
    _, text = results(tmp_path, "report-flood.yaml", "--on", "kvm")
    assert len(text.splitlines()) < 100
    assert "data: 0x12a}" in text
    assert "{from" not in text
    # At the width of the access: the last round is 300 - 2 * 299.
    assert "data: 0xfffffed6}" in text
    assert "287 more that differ" in text


@pytest.mark.kvm
def test_observed_keeps_matchers_and_addresses_as_they_are_written(tmp_path: Path) -> None:
    _, text = results(tmp_path, "observed-matchers.yaml", "--on", "kvm", "--observed")
    assert "    regs: {rax: {min: 1}, pc: {in: [x, _start]}}\n" in text
    assert "      0x800: {u32: [{mask: 0xff, value: 0x34}]}\n" in text
    assert "  # observed: data 0x34, rax 0x1234, pc x, 0x800: {u32: [0x1234]}\n" in text


@pytest.mark.kvm
def test_when_takes_the_final_state_away(tmp_path: Path) -> None:
    found, _ = results(tmp_path, "when-final-null.yaml", "--on", "kvm")
    assert found["when-final-null"]["status"] == "PASS"


def test_an_action_that_comes_later_is_told(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "kvmscen", "check", "not-yet-alone.yaml"]
    done = subprocess.run(argv, cwd=CASES, capture_output=True, text=True, timeout=600)
    assert (
        "not-yet-alone.yaml:7:9: not yet: the action `create_irqchip`" in done.stdout + done.stderr
    )


def test_exceptions_of_riscv64() -> None:
    at = {"pc": 0, "stvec": 0, "scause": 2, "sepc": 0x80000002, "stval": 0x02007053}
    seen = Observation("error", (), {}, {}, 0.1, exception=at)
    found = last_exception("riscv64", seen)
    assert found is not None
    assert (found.at, found.what) == (
        0x80000002,
        "an illegal instruction: floating point is off at the start (`sstatus: 0x2000` sets FS)",
    )
    # A guest that handled its exception and then went astray is not told of that exception.
    assert last_exception("riscv64", seen._replace(exception={**at, "pc": 0x5000})) is None
    assert (
        last_exception("riscv64", seen._replace(exception={**at, "pc": 0x5000, "stvec": 0x5000}))
        is not None
    )
    assert last_exception("x86_64", seen) is None
    assert last_exception("riscv64", seen._replace(exception=None)) is None


# --- arm64 in a Linux that QEMU boots -------------------------------------------------------------

ARM64 = {
    "hint-guest-exception": "at line 7: movi v0.16b, #0: a SIMD&FP instruction, which "
    "CPACR_EL1.FPEN traps",
    "hint-guest-exception-2": "at line 8: movi v0.16b, #0: a SIMD&FP instruction, which "
    "CPACR_EL1.FPEN traps",
    "in-data": "`counter` lies in slot 0, where no access exits: place .data outside every slot",
    "forgot-end-arm": "It ran on behind line 9: str  xzr, [x2]: end it with PSCI SYSTEM_OFF",
    "arm-exceptions": "The guest ran off the end of slot 0 (at 0x1000)",
    "arm-exceptions:stack": "its pointer is 0 at the start, and line 16 (stp x29, x30, [sp, "
    "#-16]!) goes below it",
    "arm-exceptions:jump": "The guest went to 0x50000, where no memslot is",
    "arm-exceptions:svc": "at line 26: svc #0: svc (ESR_EL1 0x56000000, ELR_EL1 0x4); a second run",
    "arm-exceptions:brk": "at line 30: brk #0: brk",
    "arm-exceptions:wfi": "A guest that is done must say so: end it with PSCI SYSTEM_OFF",
    "arm-exceptions:handler": "the guest was still running: an endless loop",
    "arm-exceptions:own": "svc #0: svc (ESR_EL1 0x56000000, ELR_EL1 0x10010)",
    "hlt-of-arm64": "Arm64's hlt is for a debugger: end it with PSCI SYSTEM_OFF",
}


@pytest.mark.qemu
def test_hints_of_arm64(qemu_arm64: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    name, environment = qemu_arm64
    stems = dict.fromkeys(stem.partition(":")[0] for stem in ARM64)
    found, _ = results(tmp_path, *files(*stems), "--on", name, env=environment)
    assert {stem: found[stem]["status"] for stem in ARM64} == dict.fromkeys(ARM64, "FAIL")
    assert [
        (stem, found[stem]["hint"])
        for stem, text in ARM64.items()
        if text not in (found[stem]["hint"] or "")
    ] == []


@pytest.mark.qemu
def test_what_arm64_did_not_write_and_steps_between_exclusives(
    qemu_arm64: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    name, environment = qemu_arm64
    found, _ = results(
        tmp_path, "debug-stale-far.yaml", "step-excl.yaml", "--on", name, env=environment
    )
    stale = found["debug-stale-far"]
    assert stale["status"] == "FAIL"
    assert not any("far" in event for event in stale["events"])
    # ldxr, the step to stxr, what that wrote beside what ldxr read, then ldp.
    kinds = [event.get("exit") for event in found["step-excl"]["events"]]
    assert kinds[:4] == ["debug", "arm_nisv", "debug", "arm_nisv"]
    assert [part["is_write"] for part in found["step-excl"]["events"][1]["accesses"]] == [
        False,
        True,
    ]
