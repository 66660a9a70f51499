"""A case for one host: conditions, numbers in place of names, and what crosses to the host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from build_cases import ARM, FACTS, HLT, X86, errors, machine, made
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscen.asm import absent
from kvmscen.job.expectation import Expected, MemoryExpected, Story
from kvmscen.load import names
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.facts import Facts
from kvmscen.sent.header import exits
from kvmscen.sent.machine import Machine

X = FACTS["x86_64"]
NISV = ARM + "asm: nop\nexpect: [arm_nisv]\nenable: [KVM_CAP_ARM_NISV_TO_USER]\n"
DATA = (
    "sections: {.data: 0x9000}\nasm: |\n  _start:\n      hlt\n  .data\n  counter: .quad 1, 2\n "
    " high = 0x123456789a\n"
)


def story(text: str, facts: Facts | None = None) -> Story:
    found = made(text, facts)
    assert found.expectation is not None
    return found.expectation.story


def steps(text: str, facts: Facts | None = None) -> tuple[Expected, ...]:
    told = story(text, facts).steps
    assert told is not None
    return told


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


# --- numbers --------------------------------------------------------------------------------------


def test_symbols_stand_wherever_an_expression_may() -> None:
    text = (
        X86
        + DATA
        + (
            "regs: {rax: counter, cr8: counter - 0x9000}\n"
            "setup:\n  - set_regs: {rbx: counter + 1}\n  - write_memory: {counter: counter + 8, "
            "0x10: {u16: [counter]}}\n"
            "  - set_memslot: {slot: 2, gpa: counter + 0x17000, size: 0x1000}\n"
            "ignore: [mmio: {phys_addr: {in: [counter + 16]}}]\n"
            "expect:\n"
            "  - mmio: {phys_addr: {mask: 0xf000, value: counter}, is_write: true, len: 8, data: "
            "high}\n"
            "    regs: {rcx: counter + 2, rdx: {min: counter, max: counter + 4}}\n"
            "    memory: {counter + 8: counter, counter: {u16: [counter, {in: [counter, 1]}]}}\n"
            "  - mmio: {phys_addr: {from: counter, step: -8}, is_write: false}\n    repeat: 2\n    "
            "reply: counter + 3\n"
            "  - io: {port: counter, data: [counter, 1], size: 2, count: 2}\n"
            "    then: [set_regs: {rax: counter + 4}]\n"
            "  - error: {errno: EFAULT, memory_fault: {gpa: counter, size: 4096}}\n"
            "final: {regs: {rax: counter + 5}, memory: {counter + 8: {u64: [counter]}}}\n"
        )
    )
    found = made(text)
    box, expectation = found.machine, found.expectation
    assert box is not None
    assert expectation is not None
    at = 0x9000
    assert box.vcpus[0].regs == {"rax": at, "cr8": 0, "rip": 0}
    assert [dict(a.args) for a in box.setup] == [
        {"rbx": at + 1},
        {"gpa": at, "data": (at + 8).to_bytes(8, "little").hex()},
        {"gpa": 16, "data": "0090"},
        {"slot": 2, "gpa": 0x20000, "size": 0x1000},
    ]
    assert box.ignore[0].where == {"phys_addr": {"in": [at + 16]}}
    mmio, read, io, error = expectation.story.steps or ()
    assert mmio.fields == {
        "phys_addr": {"mask": 0xF000, "value": at},
        "is_write": 1,
        "len": 8,
        "data": 0x123456789A,
    }
    assert mmio.regs == {"rcx": at + 2, "rdx": {"min": at, "max": at + 4}}
    assert mmio.memory == (
        MemoryExpected(at + 8, "u64", [at]),
        MemoryExpected(at, "u16", [at, {"in": [at, 1]}]),
    )
    assert read.fields["phys_addr"] == {"from": at, "step": -8}
    assert io.fields == {"port": at, "data": [at, 1], "size": 2, "count": 2}
    assert error.fields == {"errno": "EFAULT", "memory_fault": {"gpa": at, "size": 4096}}
    script = box.vcpus[0].script
    assert script is not None
    assert script[1].reply == {"data": at + 3}
    assert script[2].then is not None
    assert script[2].then[0].args == {"rax": at + 4}
    assert expectation.story.regs == {"rax": at + 5}
    assert box.observe_memory == ((at + 8, 8),)


@pytest.mark.parametrize(
    ("step", "value"),
    [
        ("mmio: {len: 1, data: -1}", 0xFF),
        ("mmio: {len: 2, data: -2}", 0xFFFE),
        ("mmio: {len: 8, data: -1}", (1 << 64) - 1),
        ("mmio: {len: 4, data: zero - 1}", 0xFFFFFFFF),
        ("io: {size: 2, data: -1}", 0xFFFF),
        ("io: {size: 2, data: zero - 2}", 0xFFFE),
        ("mmio: {data: zero - 1}", (1 << 64) - 1),
        ("io: {size: 1, data: [5]}", 5),
    ],
)
def test_two_s_complement_at_the_width(step: str, value: int) -> None:
    text = X86 + f'asm: "zero = 0; hlt"\nexpect: [{step}]\n'
    assert steps(text)[0].fields["data"] == value


def test_replies_and_registers_have_their_own_width() -> None:
    text = X86 + (
        'asm: "zero = 0; hlt"\nregs: {al: -1, eax: zero - 1}\nexpect:\n'
        "  - mmio: {phys_addr: 0x9000, is_write: false, len: 2}\n    reply: zero - 1\n"
        "  - io: {port: 1, direction: in, size: 1, count: 2}\n    reply: [-1, zero - 2]\n"
        "  - x86_rdmsr: {index: -1}\n    reply: {data: zero - 1, error: 1}\n"
    )
    box = machine(text)
    assert box.vcpus[0].regs == {"al": 0xFF, "eax": 0xFFFFFFFF, "rip": 0}
    script = box.vcpus[0].script
    assert script is not None
    assert [step.reply for step in script] == [
        {"data": 0xFFFF},
        {"data": [0xFF, 0xFE]},
        {"data": (1 << 64) - 1, "error": 1},
    ]
    assert script[2].where == {"index": 0xFFFFFFFF}


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        (
            "mmio: {len: 4, data: high}",
            "high is 0x123456789a, which does not fit in 32 bits: 0xffffffff is the most",
        ),
        (
            "io: {port: high}",
            "high is 0x123456789a, which does not fit in 16 bits: 0xffff is the most",
        ),
        (
            "io: {size: 1, data: [1, high]}",
            "high is 0x123456789a, which does not fit in 8 bits: 0xff is the most",
        ),
        (
            "mmio: {phys_addr: {in: [1, hihg]}}",
            "symbol hihg is not defined in the program: did you mean high?",
        ),
        (
            "mmio: {phys_addr: qqqq + 8}",
            "symbol qqqq is not defined in the program: write one of its labels, or a number",
        ),
        (
            "{mmio: {}, regs: {eax: high + 1}}",
            "high + 1 is 0x123456789b, which does not fit in 32 bits: 0xffffffff is the most",
        ),
        (
            "{mmio: {}, memory: {high: {u8: [high]}}}",
            "high is 0x123456789a, which does not fit in 8 bits: 0xff is the most",
        ),
        (
            "{mmio: {phys_addr: 1, is_write: false, len: 2}, reply: high}",
            "high is 0x123456789a, which does not fit in 16 bits: 0xffff is the most",
        ),
        (
            "{mmio: {}, then: [set_regs: {ax: high}]}",
            "high is 0x123456789a, which does not fit in 16 bits: 0xffff is the most",
        ),
        (
            "{mmio: {}, then: [write_memory: {higg: 1}]}",
            "symbol higg is not defined in the program: did you mean high?",
        ),
    ],
)
def test_what_does_not_resolve(step: str, wrong: str) -> None:
    head = X86 + 'asm: "high = 0x123456789a; hlt"\n'
    name = re.search(r"\b(high|hihg|higg|qqqq)\b", wrong)
    assert name is not None
    # In an overlay that no host here takes, it is as wrong, and told once.
    for line in (f"expect: [{step}]", f"when: [{{kvm: pvm, reason: so, expect: [{step}]}}]"):
        assert errors(f"{head}{line}\n") == [f"4:{line.rindex(name[0]) + 1}: {wrong}"]


def test_timeouts_that_the_run_cannot_wait_for() -> None:
    text = (
        X86
        + "asm: hlt\nexpect:\n  - timeout: 2\n  - {steps: [timeout: 1], repeat: 2}\n  - timeout: "
        "1.5\n"
    )
    assert errors(text) == [
        "7:5: the timeouts up to here take 5.5 s, and the whole run may take 5 s: write `limits: "
        "{timeout: 10.5}`"
    ]
    assert errors(text + "limits: {timeout: 10.5}\n") == []
    assert errors(X86 + "asm: hlt\nexpect: [timeout: 5]\n") == []


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


# --- what crosses ---------------------------------------------------------------------------------

SECRET = 0x5EC2E7
NEVER = ("data", "len", "regs", "memory")


def members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from members(inner)
    if isinstance(value, list):
        for inner in value:
            yield from members(inner)


@pytest.mark.parametrize(
    ("arch", "name"), [(arch, row.name) for arch in FACTS for row in names.offered(arch)]
)
def test_only_the_telling_members_cross(arch: str, name: str) -> None:
    """Each member of each exit, one at a time: it is in the script if it tells where, and nowhere
    at all if not.
    """
    if lacks := absent(arch):
        pytest.skip(lacks)
    head = f"arch: {arch}\nmemslots: [{{slot: 0, gpa: 0, size: 0x4000}}]\nasm: nop\n"
    row = exits.BY_NAME[name]
    for field in names.members(name, arch).values():
        if name == "x86_rdmsr" and field.name == "data":
            continue
        # Two hexadecimal digits that are found again.
        number = SECRET & ((1 << min(names.bits(field), 64)) - 1)
        if field.name in names.FLAGS or field.name == "accesses":
            continue
        written = f"[{number:#x}]" if field.length > 1 else f"{number:#x}"
        text = head + f"expect:\n  - {name}: {{{field.name}: {written}}}\n    then: []\n"
        box = machine(text)
        assert box.vcpus[0].script is not None
        crossed = encode(box.vcpus[0].script[0])
        assert steps(text)[0].fields[field.name] in (number, [number])
        if field.name in row.where:
            assert crossed.pop("where") == {field.name: number}
        assert crossed == {"exit": name, "then": []}


def test_what_an_emulated_access_should_be_does_not_cross() -> None:
    part = f"{{phys_addr: {SECRET:#x}, len: 8, is_write: true, data: {{in: [{SECRET:#x}]}}}}"
    text = (
        ARM + f"asm: nop\nundecoded: emulate\nexpect:\n  - arm_nisv: {{emulated: true, accesses: "
        f"[{part}]}}\n"
    )
    box = machine(text)
    assert box.undecoded == "emulate"
    assert [cap.name for cap in box.enable] == ["KVM_CAP_ARM_NISV_TO_USER"]
    assert box.vcpus[0].script is not None
    assert encode(box.vcpus[0].script[0]) == {"exit": "arm_nisv"}
    assert steps(text)[0].fields["accesses"] == [
        {"phys_addr": SECRET, "len": 8, "is_write": 1, "data": {"in": [SECRET]}}
    ]
    assert decode(Machine, encode(box)) == box


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_that_should_be_seen_crosses(data: st.DataObject) -> None:
    """Secrets in every place where something is held against: none of them is in the Machine, but
    for where to look.
    """
    number = st.just(SECRET)
    matcher = st.one_of(
        number, number.map(lambda n: {"in": [n]}), number.map(lambda n: {"mask": n, "value": n})
    )
    regs = st.dictionaries(st.sampled_from(["x1", "w2", "pc"]), matcher, max_size=2)
    memory = st.dictionaries(
        st.sampled_from(["0x100", "counter"]),
        st.one_of(
            matcher, st.builds(lambda m: {"u32": [m]}, matcher), st.just({"hex": f"{SECRET:06x}"})
        ),
        max_size=2,
    )
    step = st.fixed_dictionaries(
        {
            "mmio": st.fixed_dictionaries(
                {},
                optional={
                    "phys_addr": st.just(16),
                    "is_write": st.just(True),
                    "len": matcher,
                    "data": matcher,
                },
            )
        },
        optional={"regs": regs, "memory": memory, "repeat": st.integers(1, 3)},
    )
    group = st.builds(
        lambda inner: {"steps": inner, "repeat": 2}, st.lists(step, min_size=1, max_size=2)
    )
    tree = {
        "expect": data.draw(st.lists(st.one_of(step, group), min_size=1, max_size=3)),
        "final": data.draw(st.fixed_dictionaries({}, optional={"regs": regs, "memory": memory})),
        "when": [
            {
                "kvm": data.draw(st.sampled_from(["vhe", "nvhe"])),
                "xfail": True,
                "reason": "so",
                "expect": data.draw(st.lists(step, min_size=1)),
            }
        ],
    }
    program = "sections: {.data: 0x9000}\nasm: |\n  _start: nop\n  .data\n  counter: .quad 1\n"
    text = ARM + program + "".join(f"{key}: {json.dumps(value)}\n" for key, value in tree.items())
    box = machine(text)
    sent = json.dumps(encode(box))
    assert str(SECRET) not in sent
    assert f"{SECRET:06x}" not in sent
    assert box.vcpus[0].script is not None
    script = [encode(step) for step in box.vcpus[0].script]
    assert not {key for key, _ in members(script)} & set(NEVER)
    assert {key for key, value in members(script) if key == "where" for key in value} <= {
        "phys_addr",
        "is_write",
    }
    assert decode(Machine, json.loads(sent)) == box


def test_the_digest_is_of_the_guest_and_not_of_what_is_expected() -> None:
    sent = machine(X86 + HLT)
    assert (
        machine(X86 + "asm: hlt\nexpect: [shutdown, hlt]\nfinal: {regs: {rax: 1}}\n").digest()
        == sent.digest()
    )
    assert machine(X86 + "asm: nop\nexpect: [hlt]\n").digest() != sent.digest()
    assert machine(X86 + HLT + "regs: {rax: 1}\n").digest() != sent.digest()


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
        == "only entries of `when` have something to check, and none of them applies here"
    )
    assert skip(text, flavour="vmx") is None
