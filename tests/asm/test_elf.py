"""Linked executables: what becomes of good ones, and what is said of any others."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from effort import calls
from elf_files import BSS, DATA, EM, GOOD, SYMBOLS, TEXT, File, Part
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscen.asm import Executable, Line, Placement, Program, from_elf
from kvmscen.errors import ScenarioError


def read(raw: bytes, *placements: Placement, arch: str = "arm64", bits: int = 64) -> Program:
    return from_elf(arch, bits, Executable(raw, "a.elf", "s.yaml", 3, 6), placements)


def problem(raw: bytes, *placements: Placement, arch: str = "arm64", bits: int = 64) -> str:
    with pytest.raises(ScenarioError) as caught:
        read(raw, *placements, arch=arch, bits=bits)
    (found,) = caught.value.problems
    return str(found)


def test_sections_symbols_and_entry() -> None:
    program = read(GOOD.build())
    assert [(s.name, s.gpa, s.load, s.data, s.size, s.nobits) for s in program.sections] == [
        (".text", 0x1000, 0x1000, TEXT.data, 16, False),
        (".data", 0x5000, 0x5000, b"\1\2\3\4", 4, False),
        (".bss", 0x5004, 0x5004, b"", 16, True),
    ]
    # What two files have one of their own is nobody's.
    assert {name for name in program.symbols if name[0] != "_"} == {"main", "counter"}
    assert (program.entry, program.symbols["_start"], program.symbols["__bss_end"]) == (
        0x1000,
        0x1000,
        0x5014,
    )
    assert program.lines == (
        Line(0x1000, 16, 0, "main"),
        Line(0x5000, 2, 0, "counter"),
        Line(0x5002, 2, 0, "twice"),
        Line(0x5004, 16, 0, ".bss"),
    )


def test_the_entry_is_that_of_the_header() -> None:
    program = read(replace(GOOD, entry=0x1008, symbols=(("_start", 0x1000, 0x10, 1),)).build())
    assert (program.entry, program.symbols["_start"]) == (0x1008, 0x1000)


def test_bytes_are_loaded_at_the_physical_address() -> None:
    program = read(File((TEXT, replace(DATA, load=0x2000))).build())
    assert [(s.name, s.gpa, s.load) for s in program.sections] == [
        (".text", 0x1000, 0x1000),
        (".data", 0x5000, 0x2000),
    ]
    assert program.symbols["__data_load"] == 0x2000


def test_what_is_not_for_the_guest_is_left_out() -> None:
    parts = (
        TEXT,
        Part(".note.gnu.build-id", 0x400000, b"note", kind=7),
        Part(".comment", 0, b"gcc", flags=0),
    )
    assert [
        s.name
        for s in read(
            File((*parts, Part(".tbss", 0x1000, kind=8, flags=0x402, size=8))).build()
        ).sections
    ] == [".text"]


def test_without_sections_the_segments_count() -> None:
    program = read(File((TEXT, replace(DATA, at=0x4000, size=8), BSS), sections=False).build())
    assert [(s.name, s.gpa, s.data, s.size, s.nobits) for s in program.sections] == [
        ("segment0", 0x1000, TEXT.data, 16, False),
        ("segment1", 0x4000, b"\1\2\3\4" + bytes(4), 8, False),
        ("segment2", 0x5004, b"", 16, True),
    ]


def test_32_bit_code_comes_in_either_class() -> None:
    for wide, machine in ((False, "i386"), (True, "x86_64")):
        raw = File((TEXT, DATA), SYMBOLS, machine=EM[machine], wide=wide).build()
        assert read(raw, arch="x86_64", bits=32).symbols["counter"] == 0x5000
        assert read(raw, arch="x86_64", bits=16).entry == 0x1000
    narrow = File((TEXT,), machine=EM["i386"], wide=False).build()
    assert (
        problem(narrow, arch="x86_64")
        == "s.yaml:3:6: `a.elf` is for i386, the scenario for x86_64 in long mode"
    )


def test_sections_may_say_again_where_they_are() -> None:
    raw = File((TEXT, replace(DATA, load=0x2000), BSS)).build()
    read(
        raw,
        Placement(".text", 0x1000),
        Placement(".data", 0x5000, load=0x2000),
        Placement(".bss", after=".data", align=4),
    )
    read(raw, Placement(".rodata", 0x9000))

    def said(placement: Placement) -> str:
        return problem(raw, placement._replace(file="s.yaml", line=9, column=3))

    remedy = "link it there, or leave the key out"
    text = "s.yaml:9:3: section .text of the executable is at 0x1000"
    assert said(Placement(".text", 0x2000)) == f"{text}, it is not at 0x2000: {remedy}"
    assert said(Placement(".text", after=".data")) == f"{text}, it is not behind .data: {remedy}"
    assert said(Placement(".text", after=".gone")) == f"{text}, it is not behind .gone: {remedy}"
    assert (
        said(Placement(".text", align=0x2000)) == f"{text}, it is not aligned to 0x2000: {remedy}"
    )
    assert (
        said(Placement(".text", load=0x3000))
        == f"{text}, it is loaded at 0x1000, not at 0x3000: {remedy}"
    )
    assert (
        said(Placement("mine", 0))
        == "s.yaml:9:3: section mine is not there: the executable has .text, .data, .bss"
    )


def words(count: int) -> tuple[Part, ...]:
    return tuple(Part(f"s{n}", 0x1000 + 16 * n, b"1") for n in range(count))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is no ELF file: a linked executable is meant, asm takes sources"),
        (b"nop\n", "is no ELF file: a linked executable is meant, asm takes sources"),
        (b"\0\1\2", "is no ELF file: a linked executable is meant"),
        (b"\x7fELF", "is damaged, or cut off"),
        (GOOD.build()[:60], "is damaged, or cut off"),
        (GOOD.build()[:100], "is damaged, or cut off"),
        (GOOD.build()[:-10], "is damaged, or cut off"),
        (replace(GOOD, machine=EM["x86_64"]).build(), "is for x86_64, the scenario for arm64"),
        (replace(GOOD, machine=EM["riscv64"]).build(), "is for riscv64, the scenario for arm64"),
        (replace(GOOD, machine=40).build(), "is for 32-bit Arm, the scenario for arm64"),
        (replace(GOOD, machine=22).build(), "is for S390, the scenario for arm64"),
        (replace(GOOD, wide=False).build(), "is for 32-bit arm64, the scenario for arm64"),
        (replace(GOOD, order=2).build(), "is big-endian, arm64 is little-endian here"),
        (replace(GOOD, kind=1).build(), "is not linked yet: link it, as with ld -Ttext 0x1000 "
                                        "-Tdata 0x5000"),
        (replace(GOOD, kind=3).build(), "is a shared object or a position-independent executable: "
                                        "link it with -static"),
        (replace(GOOD, kind=4).build(), "is a core dump"),
        (replace(GOOD, kind=0xFE00).build(), "is of the type"),
        (replace(GOOD, segments=(3,)).build(), "is dynamically linked, and nothing loads libraries "
                                               "in the guest"),
        (replace(GOOD, segments=(2,)).build(), "is dynamically linked"),
        (replace(GOOD, segments=(0,) * 300).build(), "has more than 4096 sections or 256 segments"),
        (replace(GOOD, header={60: b"\xff\xff"}).build(), "has more than 4096 sections or 256 "
                                                          "segments"),
        (replace(GOOD, header={58: b"\1\0"}).build(), "its table of sections is not all there"),
        (replace(GOOD, header={62: b"\x77\0"}).build(), "is damaged"),
        (replace(GOOD, header={40: b"\xff" * 8}).build(), "is damaged"),
        (replace(GOOD, header={32: b"\xff" * 8}).build(), "is damaged"),
        (File((Part("x" * 2000, 0, b"1"),)).build(), "a name in it has no end, or more than 1024 "
                                                     "characters"),
        (File((TEXT,), (("y" * 2000, 0, 0x12, 1),)).build(), "a name in it has no end, or more "
                                                             "than 1024 characters"),
        (File((TEXT, Part("", 0x2000, b"1"))).build(), "has a section without a name"),
        (File((TEXT, replace(TEXT, at=0x2000))).build(), "has two sections called .text: name them "
                                                         "apart"),
        (File((replace(TEXT, size=0x10000),)).build(), "is cut off: section .text ends behind the "
                                                       "end of the file"),
        (File((replace(TEXT, size=0x1000001),)).build(), "has a section .text of 0x1000001 bytes; "
                                                         "it may have 16 MiB"),
        (File((replace(BSS, size=1 << 60),)).build(), "it may have 16 MiB"),
        (File((replace(BSS, at=(1 << 64) - 8),)).build(), "has a section .bss that ends behind the "
                                                          "last address"),
        (File((replace(TEXT, load=(1 << 64) - 8),)).build(), "has a section .text that ends behind "
                                                             "the last address"),
        (
            File(tuple(Part(f"b{n}", n << 24, kind=8, size=1 << 24) for n in range(5))).build(),
            "together they may have 64 MiB",
        ),
        (File((TEXT, replace(DATA, at=0x100C))).build(), "that overlap: .data (0x100c-0x100f) and "
                                                         ".text (0x1000-0x100f)"),
        (File((TEXT, replace(DATA, load=0x1008))).build(), "overlap: the load address of .data "
                                                           "(0x1008-0x100b) and"),
        (File(words(300), loaded=False).build(), "has more than 256 sections with an address"),
        (File((Part(".comment", 0, b"x", flags=0),)).build(), "has nothing that is loaded"),
        (File((TEXT,), (("a", 0, 0, 1),) * 70000).build(), "has more than 65,536 symbols"),
    ],
)  # fmt: skip
def test_message(raw: bytes, message: str) -> None:
    found = problem(raw)
    assert found.startswith("s.yaml:3:6: `a.elf` ")
    assert message in found
    assert "\n" not in found


def survives(raw: bytes, arch: str) -> None:
    try:
        program = read(raw, arch=arch)
    except ScenarioError as error:
        said = str(error)
    else:
        said = ""
        assert all(s.nobits or len(s.data) == s.size for s in program.sections)
    assert "\n" not in said


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged(data: st.DataObject) -> None:
    raw = bytearray(GOOD.build())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.sampled_from((0, 1, 2, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
    survives(bytes(raw[: data.draw(st.integers(1, len(raw)) | st.just(len(raw)))]), "arm64")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(tail: bytes) -> None:
    survives(b"\x7fELF\2\1\1" + tail, "arm64")


def test_a_file_that_is_all_one_string_is_soon_refused() -> None:
    # Thousands of names that each go on for megabytes.
    symbols = tuple(("", 0, 0x12, 1) for _ in range(60000))
    raw = bytearray(File((TEXT, Part("blob", 0, b"A" * (8 << 20), flags=0)), symbols).build())
    start = raw.index(bytes(24) + b"\0\0\0\0")
    for index in range(60000):
        raw[start + 24 * index : start + 24 * index + 4] = (1000 + index).to_bytes(4, "little")
    made = calls(lambda: survives(bytes(raw), "arm64"))
    assert made < 1_000_000


def test_the_files_made_by_hand_are_elf_files() -> None:
    # Were they not, the tests above would show nothing.
    elf = ELFFile(io.BytesIO(GOOD.build()))
    names = [section.name for section in elf.iter_sections()]
    assert names == ["", ".text", ".data", ".bss", ".symtab", ".strtab", ".shstrtab"]
    assert [segment["p_vaddr"] for segment in elf.iter_segments()] == [0x1000, 0x5000, 0x5004]
