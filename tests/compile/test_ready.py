"""A case for one host: conditions, numbers in place of names, and what crosses to the host."""

from __future__ import annotations

from typing import Any

import pytest
from build_cases import ARM, DATA, FACTS, HLT, X86, errors, machine, made, steps, story

X = FACTS["x86_64"]
NISV = ARM + "asm: nop\nexpect: [arm_nisv]\nenable: [KVM_CAP_ARM_NISV_TO_USER]\n"


def skip(text: str, kind: str = "kvm", **facts: Any) -> str | None:
    arch = "arm64" if "arch: arm64" in text else "x86_64"
    return made(text, FACTS[arch]._replace(**facts), kind).skip


# --- conditions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "met", "unmet", "words"),
    [
        ("capabilities: [KVM_CAP_HLT]", {}, {"capabilities": {}}, "the host has no KVM_CAP_HLT"),
        (
            "capabilities: [KVM_CAP_HLT]",
            {},
            {"capabilities": {"KVM_CAP_HLT": 0}},
            "the host has no KVM_CAP_HLT",
        ),
        ('kernel: {from: "6.1"}', {}, {"kernel": "6.0.99"}, "kernel 6.0.99 is older than 6.1"),
        (
            'kernel: {from: "6.1.0"}',
            {"kernel": "6.1"},
            {"kernel": "5.10.0-rc1"},
            "kernel 5.10.0-rc1 is older than 6.1.0",
        ),
        (
            'kernel: {from: "6.4"}',
            {"kernel": "6.10.2"},
            {"kernel": "6.3.9"},
            "kernel 6.3.9 is older than 6.4",
        ),
        (
            'kernel: {before: "6.2"}',
            {"kernel": "6.1.200"},
            {"kernel": "6.2.0-rc1"},
            "kernel 6.2.0-rc1 is not before 6.2",
        ),
        (
            'kernel: {before: "6.2"}',
            {},
            {"kernel": None},
            "the condition is on the kernel, and this host has none of its own",
        ),
        ("kvm: svm", {}, {"flavour": "pvm"}, "KVM is pvm, not svm"),
        ("kvm: [svm, vmx]", {"flavour": "vmx"}, {"flavour": "pvm"}, "KVM is pvm, not svm or vmx"),
        ("kvm: svm", {}, {"flavour": None}, "KVM is of a flavour that cannot be told, not svm"),
        ("cpu: [avx]", {}, {"cpu": ("sse2",)}, "the CPU has no avx"),
    ],
)
def test_requires_and_when(
    condition: str, met: dict[str, Any], unmet: dict[str, Any], words: str
) -> None:
    requires = X86 + f"requires: {{{condition}}}\n" + HLT
    assert skip(requires, **met) is None
    assert skip(requires, **unmet) == words
    when = X86 + HLT + f"when: [{{{condition}, reason: so, expect: [shutdown]}}]\n"
    assert [step.kind for step in steps(when, X._replace(**met))] == ["shutdown"]
    if unmet == {"flavour": None}:
        return
    assert [step.kind for step in steps(when, X._replace(**unmet))] == ["hlt"]


def test_sve_is_told_where_qemu_has_a_cpu_with_it() -> None:
    arm = ARM + "asm: nop\nexpect: [{mmio: {}}]\n"
    other = ": add `,cpu=a64fx` to the host's name, as QEMU's a64fx has it"
    needs = "the host has no KVM_CAP_ARM_SVE, which the vCPU feature sve needs"
    for text, said in (
        ("features: [sve]\n", needs),
        ("requires: {capabilities: KVM_CAP_ARM_SVE}\n", "the host has no KVM_CAP_ARM_SVE"),
        ("requires: {cpu: sve}\n", "the CPU has no sve"),
    ):
        # Another machine's CPU is what it is.
        assert [skip(arm + text, kind) for kind in ("kvm", "ssh")] == [said, said]
    assert skip(arm + "requires: {cpu: sve}\n", "qemu") == "the CPU has no sve" + other
    qemu = (FACTS["arm64"])._replace(kind="qemu")
    assert made(arm + "features: [sve]\n", qemu, "qemu").skip == needs + other


def test_a_flavour_that_is_not_told_leaves_no_guess() -> None:
    text = X86 + HLT + "when:\n  - {kernel: {before: '5.0'}, kvm: svm, reason: a, expect: [intr]}\n"
    assert skip(text, flavour=None) is None
    text += "  - {kvm: pvm, reason: b, expect: [shutdown]}\n"
    say = "what is expected is conditional on KVM being pvm, and its flavour cannot be told here"
    assert skip(text, flavour=None) == say
    assert skip(text, flavour="vmx") is None
    assert skip(text, "model", flavour=None, predicted=True) is None
    text = text.replace(
        "  - {kvm: pvm",
        "  - {cpu: [], kernel: {from: '5.0'}, reason: first, expect: [hlt]}\n  - {kvm: pvm",
    )
    assert skip(text, flavour=None) is None


def test_kind_of_host() -> None:
    text = X86 + "requires: {host: [kvm, ssh]}\n" + HLT
    assert skip(text) is None
    assert skip(text, "ssh") is None
    assert skip(text, "model") == "the host is model, not kvm or ssh"


def test_a_skip_has_no_machine() -> None:
    found = made(X86 + "requires: {kvm: vmx}\n" + HLT)
    assert (found.machine, found.expectation) == (None, None)


def test_the_first_overlay_that_holds_applies() -> None:
    text = (
        X86
        + HLT
        + (
            "final: {regs: {rax: 1}}\nwhen:\n"
            "  - {kvm: pvm, reason: a, expect: [shutdown]}\n"
            "  - {kvm: svm, reason: b, final: {regs: {rbx: 2}}}\n"
            "  - {kvm: svm, reason: c, expect: [intr]}\n"
        )
    )
    told = story(text)
    assert [step.kind for step in told.steps or ()] == ["hlt"]
    assert told.regs == {"rbx": 2}
    assert machine(text).observe_regs == ("rbx",)
    told = story(text, X._replace(flavour="pvm"))
    assert [step.kind for step in told.steps or ()] == ["shutdown"]
    assert told.regs == {"rax": 1}
    assert story(text, X._replace(flavour="vmx")).regs == {"rax": 1}


def test_xfail_looks_at_both_outcomes() -> None:
    text = (
        X86
        + DATA
        + (
            "expect:\n  - {hlt: {}, regs: {rax: 1}, memory: {counter: 1}, then: []}\n  - hlt\n"
            "final: {regs: {rax: 1}, memory: {counter: {u8: 1}}}\n"
            "when:\n  - kvm: svm\n    xfail: true\n    reason: a bug\n"
            "    expect:\n      - {hlt: {}, regs: {rbx: 1}, memory: {counter: {u32: 1}}}\n"
            "    final: {regs: {rbx: 2}, memory: {counter: {u32: 1}}}\n"
        )
    )
    found = made(text)
    assert found.machine is not None
    assert found.expectation is not None
    assert found.expectation.xfail is not None
    assert found.expectation.reason == "a bug"
    assert found.expectation.story.regs == {"rax": 1}
    assert found.expectation.xfail.regs == {"rbx": 2}
    script = found.machine.vcpus[0].script
    assert script is not None
    # What is done follows the known outcome, what is looked at both.
    assert [step.then for step in script] == [None]
    assert set(script[0].observe_regs) == {"rax", "rbx"}
    assert script[0].observe_memory == ((0x9000, 8),)
    assert set(found.machine.observe_regs) == {"rax", "rbx"}
    assert found.machine.observe_memory == ((0x9000, 4),)
    # Where it does not apply nothing of it is looked at.
    plain = machine(text, X._replace(flavour="vmx"))
    assert plain.observe_regs == ("rax",)
    assert plain.observe_memory == ((0x9000, 1),)


# --- capabilities and pages -----------------------------------------------------------------------


def test_a_vcpu_feature_that_the_host_lacks() -> None:
    text = f"{NISV}features: [psci_0_2, sve]\n"
    lacks = "the host has no KVM_CAP_ARM_SVE, which the vCPU feature sve needs"
    known = {"KVM_CAP_ARM_NISV_TO_USER": 1, "KVM_CAP_ARM_PSCI_0_2": 1}
    assert skip(text, capabilities=known) == lacks
    assert skip(text, capabilities={**known, "KVM_CAP_ARM_SVE": 1}) is None
    failing = text.replace("[arm_nisv]", "[error: {ioctl: KVM_ARM_VCPU_INIT, errno: EINVAL}]")
    assert failing != text
    assert skip(failing, capabilities=known) is None


def test_a_capability_that_the_host_lacks() -> None:
    assert skip(NISV) is None
    assert skip(NISV, capabilities={}) == "the host has no KVM_CAP_ARM_NISV_TO_USER"
    # Unless its failure is what is asked.
    for expect in (
        "[error: {ioctl: KVM_ENABLE_CAP, errno: EINVAL}]",
        "[{steps: [error: {ioctl: KVM_ENABLE_CAP}], repeat: 1}]",
    ):
        assert skip(NISV.replace("[arm_nisv]", expect), capabilities={}) is None
    overlay = (
        NISV + "when: [{kvm: vhe, reason: so, expect: [error: {ioctl: KVM_ENABLE_CAP, errno: "
        "EINVAL}]}]\n"
    )
    assert skip(overlay, capabilities={}, flavour="vhe") is None
    assert (
        skip(overlay, capabilities={}, flavour="nvhe") == "the host has no KVM_CAP_ARM_NISV_TO_USER"
    )
    failing = NISV.replace(
        "[KVM_CAP_ARM_NISV_TO_USER]", "[{cap: KVM_CAP_ARM_NISV_TO_USER, errno: EINVAL}]"
    )
    assert skip(failing, capabilities={}) is None
    later = NISV.replace("enable: [KVM_CAP", "setup: [enable: KVM_CAP")
    assert later != NISV
    assert skip(later, capabilities={}) == "the host has no KVM_CAP_ARM_NISV_TO_USER"


def test_larger_pages() -> None:
    assert skip(ARM + "asm: nop\nexpect: [mmio]\n", page_size=0x4000) is None
    small = ARM.replace("0x4000", "0x1000") + "asm: nop\nexpect: [mmio]\n"
    assert skip(small, page_size=0x4000) == "slot 0 is not aligned to this host's pages of 16 KiB"
    assert (
        skip(
            small.replace("0x1000}", "0x1000}, {slot: 1, gpa: 0x11000, size: 1, errno: EINVAL}"),
            page_size=0x1000,
        )
        is None
    )
    later = (
        ARM
        + "setup: [set_memslot: {slot: 1, gpa: 0x11000, size: 0x1000}]\nasm: nop\nexpect: [mmio]\n"
    )
    assert skip(later, page_size=0x10000) == "slot 0 is not aligned to this host's pages of 64 KiB"
    assert skip(later, page_size=0x4000) == "slot 1 is not aligned to this host's pages of 16 KiB"


# --- what must fail -------------------------------------------------------------------------------


def test_what_must_fail_is_told_by_the_op_of_its_ioctl() -> None:
    text = (
        "arch: x86_64\nmemslots:\n  - {slot: 0, gpa: 0, size: 0x1000}\n  - {slot: 1, gpa: 0x123, "
        "size: 0x1000, errno: EINVAL}\n"
        "enable:\n  - {cap: KVM_CAP_HYPERV_SYNIC, errno: EINVAL}\n  - {cap: KVM_CAP_HALT_POLL, "
        "errno: EPERM}\n"
        "setup:\n  - {set_memslot: {slot: 2, gpa: 0, size: 0x1000}, errno: EEXIST}\n  - set_regs: "
        "{rax: 1}\n"
        "  - {set_regs: {cr0: 1}, errno: EINVAL}\n  - {delete_memslot: 9, errno: EINVAL}\n"
        "asm: hlt\nexpect:\n"
        "  - {io: {}, then: [{enable: KVM_CAP_HALT_POLL, errno: EBUSY}, {set_regs: {rax: 1}}]}\n"
        "  - {mmio: {}, repeat: 3, then: [{delete_memslot: 9, errno: ENOENT}]}\n"
    )
    told = story(text)
    built = {op: (deed.errno, deed.line) for op, deed in told.built.items() if deed.errno}
    assert built == {
        "memslots/1": ("EINVAL", 4),
        "enable/0": ("EINVAL", 6),
        "enable/1": ("EPERM", 7),
    }
    assert [deed.errno for deed in told.setup] == ["EEXIST", None, "EINVAL", "EINVAL"]
    assert [[deed.errno for deed in step.then or ()] for step in steps(text)] == [
        ["EBUSY", None],
        ["ENOENT"],
    ]
    # No step stands for them.
    script = machine(text).vcpus[0].script
    assert script is not None
    assert [step.exit for step in script] == ["io", "mmio"]
    assert [action.errno for action in machine(text).setup] == ["EEXIST", None, "EINVAL", "EINVAL"]


# --- limits, defaults -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "exits", "timeout"),
    [
        ("", 1001, 5.0),
        ("limits: {exits: 7}\n", 7, 5.0),
        ("limits: {timeout: 0.5}\n", 1001, 0.5),
    ],
)
def test_limits(more: str, exits: int, timeout: float) -> None:
    box = machine(X86 + HLT + more)
    assert (box.exits, box.timeout) == (exits, timeout)


def test_limit_of_exits_is_above_the_scripts_own_sum() -> None:
    text = (
        X86 + "asm: hlt\nexpect: [{mmio: {}, repeat: {min: 1, max: 50}}, {repeat: 10, steps: [io, "
        "{mmio: {}, repeat: 4}]}]\n"
    )
    assert machine(text).exits == 50 + 10 * 5 + 1000
    assert machine(text.replace("max: 50", "max: 99000")).exits == 100_000
    # That of the overlay which applies.
    overlay = X86 + HLT + "when: [{kvm: svm, reason: so, expect: [{io: {}, repeat: 500}]}]\n"
    assert machine(overlay).exits == 1500


def test_vcpu_defaults() -> None:
    vcpu = machine(X86 + HLT).vcpus[0]
    assert (vcpu.id, vcpu.mode, vcpu.regs, vcpu.features) == (0, "long", {"rip": 0}, ())
    vcpu = machine(ARM + "asm: nop\nexpect: [mmio]\n").vcpus[0]
    assert (vcpu.mode, vcpu.regs, vcpu.features) == ("el1", {"pc": 0}, ("psci_0_2",))
    assert machine(ARM + "asm: nop\nexpect: [mmio]\nfeatures: []\n").vcpus[0].features == ()
    assert len(machine(ARM + "asm: nop\nexpect: [mmio]\n").vcpus[0].script or ()) == 1
    assert machine(ARM + "asm: nop\nfinal: {}\n").vcpus[0].script is None


# --- steps that a host cannot tell apart ----------------------------------------------------------


def test_steps_that_are_not_told_apart_are_refused_at_the_second() -> None:
    text = (
        X86 + "asm: hlt\nexpect:\n"
        "  - io: {direction: in, port: 0x64}\n    reply: 1\n    repeat: {min: 0, max: 10}\n"
        "  - io: {direction: in, port: 0x64}\n    reply: 0\n"
        "  - repeat: {min: 1, max: 3}\n    steps:\n      - mmio: {}\n        repeat: {min: 1, max: "
        "2}\n"
        "  - hlt\n"
    )
    line = text.splitlines().index("  - io: {direction: in, port: 0x64}") + 1
    found = errors(text)
    assert [place(error) for error in found] == [(line + 3, 5), (line + 7, 9)]
    assert f"the step of line {line} may still come here" in found[0]
    assert "by port and direction alone" in found[0]
    assert "next round of either" in found[1]
    assert errors(text.replace("{min: 0, max: 10}", "10").replace("{min: 1, max: 2}", "2")) == []
    # In an entry of `when` too, whether or not it applies.
    overlay = (
        X86
        + HLT
        + "when: [{kvm: vmx, reason: so, expect: [{hlt: {}, repeat: {min: 0, max: 1}, then: []}, "
        "hlt]}]\n"
    )
    assert len(errors(overlay)) == 1


def place(error: str) -> tuple[int, int]:
    line, column, _ = error.split(":", 2)
    return int(line), int(column)


# --- when -----------------------------------------------------------------------------------------


def test_an_entry_of_when_takes_away_and_changes_how_ioctls_end() -> None:
    text = (
        X86 + "asm: hlt\nexpect: [hlt]\nfinal: {regs: {rax: 1}}\n"
        "setup: [{set_memslot: {slot: 5, gpa: 0, size: 0x1000}, errno: EEXIST}]\n"
        "when: [{kvm: svm, reason: so, final: null, errno: {setup/0: EINVAL}}, {kvm: vmx, reason: "
        "so, expect: null}]\n"
    )
    box, told = machine(text), story(text)
    assert [action.errno for action in box.setup] == ["EINVAL"]
    assert [deed.errno for deed in told.setup] == ["EINVAL"]
    assert (told.regs, told.steps is None, box.observe_regs) == ({}, False, ())
    other = (FACTS["x86_64"])._replace(flavour="vmx")
    assert (story(text, other).regs, story(text, other).steps) == ({"rax": 1}, None)
    assert [deed.errno for deed in story(text, other).setup] == ["EEXIST"]


def test_where_only_when_has_something_to_check_and_none_applies() -> None:
    text = X86 + "asm: hlt\nwhen: [{kvm: vmx, reason: so, expect: [hlt]}]\n"
    assert (
        skip(text)
        == "only entries of `when` have something to check, and none of those applies here"
    )
    assert skip(text, flavour="vmx") is None
