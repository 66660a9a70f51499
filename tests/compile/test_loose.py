"""A known wrong outcome that the right one satisfies too is noted."""

from __future__ import annotations

import pytest
from build_cases import HLT, X86

from kvmscen.compile import plan
from kvmscen.compile.loose import loose
from kvmscen.load import load_text

BASE = "expect:\n  - io: {port: 0x10, data: 5}\n    regs: {rax: 1}\n  - hlt\n"


@pytest.mark.parametrize(
    ("entry", "noted"),
    [
        ("expect: [{io: {port: 0x10}}, hlt]", True),
        ("expect: [{io: {}, regs: {rax: 1}}, hlt]", True),
        ("final: {regs: {rbx: 1}}", False),
        ("expect: [{io: {port: 0x10, data: 6}}, hlt]", False),
        ("expect: [{io: {port: 0x10, size: 1}}, hlt]", False),
        ("expect: [{io: {port: 0x10}}]", False),
        ("expect: [{io: {port: 0x10}, repeat: 2}, hlt]", False),
        ("expect: [{io: {port: 0x10}, then: []}, hlt]", False),
        ("expect: null", True),
    ],
)
def test_entries(entry: str, noted: bool) -> None:
    text = (
        X86
        + HLT.partition("expect")[0]
        + BASE
        + f"when: [{{kvm: pvm, xfail: true, reason: so, {entry}}}]\n"
    )
    (case,) = load_text(text, "a.yaml").cases
    notes = list(loose("a.yaml", case, plan("a.yaml", case)))
    assert [note.line for note in notes] == ([text.count("\n")] if noted else [])
    # Where it is not known to be wrong, an entry may ask less.
    (case,) = load_text(text.replace("xfail: true, ", ""), "a.yaml").cases
    assert list(loose("a.yaml", case, plan("a.yaml", case))) == []
