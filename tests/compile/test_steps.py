"""Steps: numbers in place of names, and what of them crosses to the host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from build_cases import ARM, DATA, FACTS, HLT, X86, errors, machine, made, steps
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscen.asm import absent
from kvmscen.job.expectation import MemoryExpected
from kvmscen.load import names
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.header import exits
from kvmscen.sent.machine import Machine

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
