"""Cases out of YAML text, for the tests of build."""

from __future__ import annotations

from kvmscen.compile import Plan, plan, ready
from kvmscen.compile.ready import Ready
from kvmscen.errors import ScenarioError
from kvmscen.job.expectation import Expected, Story
from kvmscen.load import load_text
from kvmscen.scenario import Case
from kvmscen.sent.facts import Facts
from kvmscen.sent.machine import Machine

FILE = "a.yaml"
FACTS = {
    "x86_64": Facts(
        "x86_64",
        "6.1.0-18-amd64",
        {"KVM_CAP_NR_MEMSLOTS": 509, "KVM_CAP_HLT": 1},
        4096,
        "svm",
        ("sse2", "avx"),
    ),
    "riscv64": Facts("riscv64", "7.2.13", {"KVM_CAP_NR_MEMSLOTS": 509}, 4096, None, ("i", "m")),
    "arm64": Facts(
        "arm64",
        "6.6.1-v8+",
        {"KVM_CAP_ARM_NISV_TO_USER": 1, "KVM_CAP_NR_MEMSLOTS": 509},
        4096,
        "nvhe",
        ("fp",),
    ),
}
X86 = "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x4000}]\n"
ARM = "arch: arm64\nmemslots: [{slot: 0, gpa: 0, size: 0x4000}]\n"
PROGRAM = """\
asm: |
  _start:
      mov rbx, 5
      hlt
  .data
  counter: .quad 1, 2
  .bss
  room: .skip 24
expect: [hlt]
"""
DATA = (
    "sections: {.data: 0x9000}\nasm: |\n  _start:\n      hlt\n  .data\n  counter: .quad 1, 2\n "
    " high = 0x123456789a\n"
)
HLT = "asm: hlt\nexpect: [hlt]\n"


def case(text: str) -> Case:
    (made,) = load_text(text, FILE).cases
    return made


def planned(text: str) -> Plan:
    return plan(FILE, case(text))


def made(text: str, facts: Facts | None = None, kind: str = "kvm") -> Ready:
    written = case(text)
    return ready(FILE, written, plan(FILE, written), facts or FACTS[written.arch], kind)


def machine(text: str, facts: Facts | None = None, kind: str = "kvm") -> Machine:
    found = made(text, facts, kind)
    assert found.skip is None
    assert found.machine is not None
    return found.machine


def errors(text: str) -> list[str]:
    """`line:column: message` of everything that plan or ready finds wrong."""
    written = case(text)
    try:
        ready(FILE, written, plan(FILE, written), FACTS[written.arch], "kvm")
    except ScenarioError as error:
        return [f"{p.line}:{p.column}: {p.message}" for p in error.problems]
    return []


def story(text: str, facts: Facts | None = None) -> Story:
    found = made(text, facts)
    assert found.expectation is not None
    return found.expectation.story


def steps(text: str, facts: Facts | None = None) -> tuple[Expected, ...]:
    told = story(text, facts).steps
    assert told is not None
    return told
