"""Where the engine's own page tables lie."""

from __future__ import annotations

import pytest
from build_cases import ARM, FILE, HLT, PROGRAM, X86, case, errors, machine, planned
from hypothesis import given
from hypothesis import strategies as st

from kvmscen.asm import Section as Assembled
from kvmscen.compile.resolve import Resolver
from kvmscen.compile.tables import place_tables
from kvmscen.sent.arch import x86_64
from kvmscen.sent.machine import Memslot


def test_tables_lie_high_and_avoid_what_is_there() -> None:
    assert planned(X86 + HLT).tables == (0xFFFC0000, 0x8000)
    slot = (
        "arch: x86_64\nmemslots: [{{slot: 0, gpa: 0, size: 0x1000}}, {{slot: 1, gpa: {:#x}, "
        "size: 0x1000}}]\n"
    )
    assert planned(slot.format(0xFFFC8000) + HLT).tables == (0xFFFC0000, 0x8000)
    # Three pages below them are Intel's.
    assert planned(slot.format(0xFFFBB000) + HLT).tables == (0xFFFC0000, 0x8000)
    for at in (0xFFFC7000, 0xFFFC0000, 0xFFFBD000):
        tables = planned(slot.format(at) + HLT).tables
        assert tables is not None
        assert tables[0] + tables[1] <= at
        assert not tables[0] & 0xFFFF
    # A section outside every slot is there too.
    tables = planned(X86 + "sections: {.data: 0xfffc0000}\n" + PROGRAM).tables
    assert tables == (0xFFFB0000, 0x8000)


RANGES = st.lists(
    st.tuples(st.integers(0xFFF0_0000 >> 12, (1 << 20) - 1), st.integers(1, 64)).map(
        lambda r: (r[0] << 12, r[1] << 12)
    ),
    max_size=20,
)


@given(RANGES, RANGES)
def test_tables_touch_nothing(
    slots: list[tuple[int, int]], sections: list[tuple[int, int]]
) -> None:
    written = case(X86 + HLT)
    assembled = [
        Assembled(f".s{n}", at, at, b"", size, True) for n, (at, size) in enumerate(sections)
    ]
    taken = [Memslot(n, at, size) for n, (at, size) in enumerate(slots)]
    found, spans = place_tables(Resolver(FILE, {}), written, taken, assembled)
    assert found is not None
    at, size = found
    assert size == x86_64.tables_size(spans)
    assert 0 < at <= 0xFFFC0000
    for other, length in (*slots, *sections):
        assert other + length <= at - x86_64.TSS_BELOW or at + size <= other


def test_above_4_gib() -> None:
    made = planned(X86 + "sections: {.data: 0x100000000}\n" + PROGRAM)
    assert made.spans == ((0x100000000, 16),)
    assert made.tables == (0xFFFC0000, 0x9000)
    # In 32-bit mode nothing of it can be reached.
    text = X86 + "mode: protected\nsections: {.data: 0x100000000}\n" + PROGRAM.replace("rbx", "ebx")
    made = planned(text)
    assert (made.spans, made.tables) == ((), (0xFFFC0000, 0x8000))
    assert errors(X86 + "sections: {.data: 0x7fffffffffe0}\n" + PROGRAM) == []
    (found,) = errors(X86 + "sections: {.data: 0x800000000000}\n" + PROGRAM)
    assert found.startswith(
        "3:19: section .data (0x800000000000-0x80000000000f) ends above 0x7fffffffffff, the last "
        "address"
    )
    assert errors(X86 + "regs: {cr3: 0x1000}\nsections: {.data: 0x800000000000}\n" + PROGRAM) == []


def test_slots_that_come_later_are_kept_free() -> None:
    high = "{set_memslot: {slot: 508, gpa: 0xfffc0000, size: 0x1000}}"
    further = "{set_memslot: {slot: 507, gpa: counter + 0x0, size: 0x1000}}"
    text = X86 + f"sections: {{.data: 0x200000000}}\nsetup: [{high}]\n" + PROGRAM
    text += f"when: [{{kvm: pvm, reason: so, expect: [{{hlt: {{}}, then: [{further}]}}]}}]\n"
    made = machine(text)
    assert made.tables is not None
    assert made.tables.at + made.tables.size <= 0xFFFC0000
    assert made.tables.slot == 506
    assert made.tables.spans == ((0x200000000, 0x1000), (0x200000000, 16))
    # One that must fail takes no part.
    failing = text.replace(high, high[:-1] + ", errno: EEXIST}")
    made = machine(failing)
    assert made.tables is not None
    assert (made.tables.at, made.tables.slot) == (0xFFFC0000, 508)


@pytest.mark.parametrize(
    "regs", ["{cr3: 0x1000}", "{gdt: {base: 0x1000, limit: 0x17}}", "{gdt: {limit: 7}}"]
)
def test_own_tables(regs: str) -> None:
    assert planned(X86 + f"regs: {regs}\n" + HLT).tables is None
    assert machine(X86 + f"regs: {regs}\n" + HLT).tables is None


def test_no_tables_where_none_are_used() -> None:
    assert planned(X86 + "mode: real\n" + HLT).tables is None
    assert planned(ARM + "asm: nop\nexpect: [mmio]\n").tables is None
    # Other registers do not turn them off.
    assert planned(X86 + "regs: {cr0: 0x33, cr4: 0x620}\n" + HLT).tables is not None


def test_number_of_the_engines_slot() -> None:
    tables = machine(X86 + HLT).tables
    assert tables is not None
    assert tables.slot == 508
    taken = X86.replace("slot: 0", "slot: 508")
    tables = machine(taken + HLT).tables
    assert tables is not None
    assert tables.slot == 507
