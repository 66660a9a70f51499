"""Where vCPUs begin."""

from __future__ import annotations

import pytest
from build_cases import FILE, HLT, X86, case, errors, machine, planned

from kvmscen.compile import plan
from kvmscen.errors import ScenarioError
from kvmscen.scenario import Place, Section


def test_without_start_the_text_begins() -> None:
    made = planned(
        X86 + "sections: {.text: 0x2000}\nasm: |\n  one: nop\n  two: hlt\nexpect: [hlt]\n"
    )
    assert made.entry == 0x2000
    made = planned(X86 + "asm: |\n  one: nop\n  _start: hlt\nexpect: [hlt]\n")
    assert made.entry == 1


def test_no_program_at_all() -> None:
    empty = case(X86 + HLT)._replace(asm=None)
    made = plan(FILE, empty)
    assert (made.sections, made.image, made.symbols, made.entry) == ((), (), {}, 0)
    with pytest.raises(ScenarioError, match="5:3: sections without a program: write asm"):
        plan(FILE, empty._replace(sections=(Section(".text", Place(5, 3), 0),)))


def test_start_outside_every_slot() -> None:
    text = X86 + "sections: {.text: 0x8000}\n" + HLT
    (found,) = errors(text)
    assert found.startswith("3:19: the first instruction is at 0x8000, outside every memslot")
    assert errors(text.replace("asm: hlt", 'asm: "_start: hlt"'))[0].startswith(
        "3:19: _start is at 0x8000"
    )
    for pc in ("pc", "rip", "eip"):
        assert errors(text + f"regs: {{{pc}: 0x8000}}\n") == []
    assert errors("arch: x86_64\n" + HLT)[0].startswith(
        "2:6: there is no memslot for the program to run in"
    )


def test_real_mode_begins_low() -> None:
    slots = "arch: x86_64\nmode: real\nmemslots: [{slot: 0, gpa: 0x8000, size: 0x10000}]\n"
    assert errors(slots + "sections: {.text: 0xfff0}\n" + HLT) == []
    assert "must lie below 0x10000" in errors(slots + "sections: {.text: 0x10000}\n" + HLT)[0]
    assert errors(slots + "regs: {ip: 0, cs: 0x1000}\nsections: {.text: 0x10000}\n" + HLT) == []


@pytest.mark.parametrize("name", ["pc", "rip", "eip", "ip"])
def test_a_pc_that_is_written_stays(name: str) -> None:
    vcpu = machine(X86 + f"regs: {{{name}: 0x10}}\n" + HLT).vcpus[0]
    assert vcpu.regs == {name: 0x10}
