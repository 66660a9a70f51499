"""Layout: where sections, entry and the engine's own tables lie."""

from __future__ import annotations

import pytest
from build_cases import ARM, FILE, HLT, X86, case, errors, machine, planned
from hypothesis import given
from hypothesis import strategies as st

from kvmscen.asm import Section as Assembled
from kvmscen.compile import plan
from kvmscen.compile.plan import _tables
from kvmscen.compile.resolve import Resolver
from kvmscen.errors import ScenarioError
from kvmscen.scenario import Place, Section
from kvmscen.sent.arch import x86_64
from kvmscen.sent.machine import Bytes, Memslot

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


def test_sections_inside_and_outside() -> None:
    made = planned(X86 + "sections: {.text: 0x1000, .data: 0x9000, .bss: 0x2000}\n" + PROGRAM)
    text = next(s for s in made.sections if s.name == ".text")
    assert made.image == (Bytes.at(0x1000, text.data),)
    assert made.devices == (Bytes.at(0x9000, b"\1" + bytes(7) + b"\2" + bytes(7)),)
    assert (made.symbols["counter"], made.symbols["room"], made.entry) == (0x9000, 0x2000, 0x1000)
    assert made.legend.lines[0] == (0x1000, 7, 6, "mov rbx, 5")


def test_sections_not_named_follow_each_other_from_the_first_slot() -> None:
    slots = (
        "arch: x86_64\nmemslots: [{slot: 3, gpa: 0x8000, size: 0x1000}, {slot: 0, gpa: 0, "
        "size: 0x1000}]\n"
    )
    made = planned(slots + PROGRAM)
    assert [s.name for s in sorted(made.sections, key=lambda s: s.gpa)] == [
        ".text",
        ".data",
        ".bss",
    ]
    assert made.entry == 0x8000
    # .bss in a slot needs no bytes.
    assert len(made.image) == 2
    assert made.devices == ()


def test_bss_outside_is_a_device_of_zeros() -> None:
    made = planned(X86 + "sections: {.bss: 0x9000}\n" + PROGRAM)
    assert made.devices == (Bytes.at(0x9000, b"", 24),)


def test_a_slot_that_must_fail_holds_nothing() -> None:
    slots = (
        "arch: x86_64\nmemslots: [{slot: 7, gpa: 0x123, size: 0x10, errno: EINVAL}, {slot: 0, "
        "gpa: 0x1000, size: 0x1000}]\n"
    )
    made = planned(slots + HLT)
    assert made.entry == 0x1000
    assert [slot.errno for slot in made.memslots] == ["EINVAL", None]


def test_load_elsewhere() -> None:
    made = planned(X86 + "sections: {.data: {at: 0x9000, load: 0x2000}}\n" + PROGRAM)
    data = b"\1" + bytes(7) + b"\2" + bytes(7)
    assert Bytes.at(0x2000, data) in made.image
    # Until the guest copies them, there are zeros at its address.
    assert Bytes.at(0x9000, b"", 16) in made.devices
    assert (made.symbols["__data_load"], made.symbols["__data_start"]) == (0x2000, 0x9000)
    inside = planned(X86 + "sections: {.data: {at: 0x3000, load: 0x2000}}\n" + PROGRAM)
    assert inside.devices == ()
    assert Bytes.at(0x2000, data) in inside.image
    assert errors(X86 + "sections: {.data: {at: 0x3000, load: 0x8000}}\n" + PROGRAM) == [
        "3:19: section .data is loaded at 0x8000, which is in no slot: load it into one"
    ]


@pytest.mark.parametrize(
    ("at", "edge"),
    [
        ("0x3ff8", "0x3ff8-0x4007"),
        ("{at: 0x1000, load: 0x3ff8}", "0x3ff8-0x4007"),
        ("0x7ff8", "0x7ff8-0x8007"),
    ],
)
def test_straddling_names_both(at: str, edge: str) -> None:
    slots = (
        "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x4000}, {slot: 5, gpa: 0x8000, "
        "size: 0x1000}]\n"
    )
    (found,) = errors(slots + f"sections: {{.data: {at}}}\n" + PROGRAM)
    slot = "slot 5 (0x8000-0x8fff)" if at == "0x7ff8" else "slot 0 (0x0-0x3fff)"
    assert found.startswith("3:")
    assert f"section .data ({edge}) crosses the edge of {slot}: place it wholly inside" in found


def test_two_slots_side_by_side_are_two() -> None:
    slots = (
        "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x1000}, {slot: 1, gpa: 0x1000, "
        "size: 0x1000}]\n"
    )
    assert "crosses the edge of slot 0" in errors(slots + "sections: {.data: 0xff8}\n" + PROGRAM)[0]


# --- the entry ------------------------------------------------------------------------------------


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


# --- the engine's tables --------------------------------------------------------------------------


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
    found, spans = _tables(Resolver(FILE, {}), written, taken, assembled)
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
