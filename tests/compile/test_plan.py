"""Layout: where sections, entry and the engine's own tables lie."""

from __future__ import annotations

import pytest
from build_cases import HLT, PROGRAM, X86, errors, planned

from kvmscen.sent.machine import Bytes


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
