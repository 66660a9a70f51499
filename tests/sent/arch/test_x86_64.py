"""x86: registers and their views, the engine's tables walked as the CPU walks them, and the sizes
that others rely on.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvmscen.sent.arch import of_machine, x86_64
from kvmscen.sent.arch.registers import base, get, put

GIB = 1 << 30
wholes = st.integers(0, 2**64 - 1)


# --- registers ------------------------------------------------------------------------------------


def test_every_register_has_its_views() -> None:
    for n, letter in enumerate("abcd"):
        views = {name: row for name, row in x86_64.REGISTERS.items() if row.of == f"r{letter}x"}
        assert {(name, row.bits, row.shift, row.zeroes) for name, row in views.items()} == {
            (f"e{letter}x", 32, 0, True),
            (f"{letter}x", 16, 0, False),
            (f"{letter}l", 8, 0, False),
            (f"{letter}h", 8, 8, False),
        }, n
    for n in range(8, 16):
        assert {name for name, row in x86_64.REGISTERS.items() if row.of == f"r{n}"} == {
            f"r{n}d",
            f"r{n}w",
            f"r{n}b",
        }
    for name in ("si", "di", "sp", "bp"):
        assert {view for view, row in x86_64.REGISTERS.items() if row.of == f"r{name}"} == {
            f"e{name}",
            name,
            f"{name}l",
        }
    assert {view for view, row in x86_64.REGISTERS.items() if row.of == "rip"} == {
        "pc",
        "eip",
        "ip",
    }


def test_views_are_of_registers_that_are_there() -> None:
    for name, row in x86_64.REGISTERS.items():
        whole = base(x86_64.REGISTERS, name)
        assert x86_64.REGISTERS[whole].of == ""
        assert row.shift + row.bits <= x86_64.REGISTERS[whole].bits
    assert set(x86_64.GENERAL) <= set(x86_64.REGISTERS)
    assert set(x86_64.OWN_TABLES) <= set(x86_64.REGISTERS)


@given(st.sampled_from([name for name, row in x86_64.REGISTERS.items() if row.of]), wholes, wholes)
def test_what_is_written_to_a_view_is_read_from_it(name: str, before: int, value: int) -> None:
    row = x86_64.REGISTERS[name]
    values = {row.of: before & ((1 << x86_64.REGISTERS[row.of].bits) - 1)}
    kept = values[row.of]
    put(x86_64.REGISTERS, values, name, value)
    mask = (1 << row.bits) - 1
    assert get(x86_64.REGISTERS, values, name) == value & mask
    rest = ~(mask << row.shift)
    assert values[row.of] & rest == (0 if row.zeroes else kept & rest)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("al", 0x11223344556677FF),
        ("ah", 0x112233445566FF88),
        ("ax", 0x112233445566FFFF),
        ("eax", 0xFFFFFFFF),
        ("rax", 0xFFFFFFFFFFFFFFFF),
    ],
)
def test_writes_of_each_width(name: str, after: int) -> None:
    values = {"rax": 0x1122334455667788}
    put(x86_64.REGISTERS, values, name, -1)
    assert values == {"rax": after}


# --- tables ---------------------------------------------------------------------------------------


def walk(raw: bytes, at: int, address: int) -> int | None:
    """The physical address of a linear one through PML4, PDPT and PD as the CPU does it; None where
    it faults.
    """
    table = at
    for level in (39, 30, 21):
        assert at <= table <= at + len(raw) - 4096, "an entry points outside the engine's slot"
        assert table % 4096 == 0
        entry: int = struct.unpack_from("<Q", raw, table - at + (address >> level & 511) * 8)[0]
        if not entry & 1:
            return None
        assert entry & 0x22 == 0x22, "writable, and accessed already"
        table = entry & 0x000FFFFFFFFFF000
        if level == 21:
            assert entry & 0xC0 == 0xC0, "a page of 2 MiB, dirty already"
            return table | address & 0x1FFFFF
        assert not entry & 0x80, "PVM has no pages of 1 GiB"
    raise AssertionError


places = st.sampled_from([x86_64.TABLES_AT, 0x40000000, 0x1000])
far = st.builds(
    lambda n, m: n * GIB + m,
    st.integers(4, 2**17 - 1),
    st.integers(0, GIB - 1).map(lambda n: n & ~0xFFF),
)
span_lists = st.lists(st.tuples(far, st.sampled_from([1, 0x1000, GIB, 3 * GIB])), max_size=4).map(
    tuple
)


@settings(max_examples=40, deadline=None)
@given(places, span_lists, st.lists(st.integers(0, 2**47 - 1), max_size=20))
@example(x86_64.TABLES_AT, ((4 * GIB - 0x1000, 0x2000),), [4 * GIB, 4 * GIB - 1])
@example(0x1000, ((6 * GIB - 0x1000, 0x1000),), [])
@example(0x1000, ((512 * GIB, 0x1000), (511 * GIB, GIB + 1)), [512 * GIB])
def test_tables_map_each_address_to_itself(
    at: int, spans: tuple[tuple[int, int], ...], others: list[int]
) -> None:
    raw = x86_64.tables(at, spans)
    assert len(raw) == x86_64.tables_size(spans)
    assert len(raw) % 4096 == 0
    inside = [0, 0x1FFFFF, 0x200000, GIB, at, at + len(raw) - 1, 4 * GIB - 1]
    inside += [
        address for start, size in spans for address in (start, start + size - 1, start + size // 2)
    ]
    for address in inside:
        assert walk(raw, at, address) == address
    used = {address // GIB for start, size in spans for address in range(start, start + size, GIB)}
    used |= {(start + size - 1) // GIB for start, size in spans} | {0, 1, 2, 3}
    # And what lies right before and behind.
    others = [*others, *(start + size for start, size in spans), *(start - 1 for start, _ in spans)]
    for address in [address for address in others if address < 1 << 47]:
        assert walk(raw, at, address) == (address if address // GIB in used else None)


def test_the_engines_slot_is_below_four_gibibytes_without_spans() -> None:
    assert x86_64.tables_size(()) == x86_64.TABLES_SIZE == 0x8000
    assert x86_64.tables_size(((0x1000, 0x1000),)) == 0x8000
    assert x86_64.TABLES_AT + x86_64.TABLES_SIZE <= 4 * GIB
    assert x86_64.tables_size(((4 * GIB, 1),)) == 0x9000
    # Another PDPT from 512 GiB on.
    assert x86_64.tables_size(((512 * GIB, 1),)) == 0xA000


# --- GDT and boot state ---------------------------------------------------------------------------


def descriptor(raw: bytes, selector: int) -> x86_64.Segment:
    """A segment descriptor of the GDT, taken apart (Intel SDM 3, 3.4.5)."""
    d = struct.unpack_from("<Q", raw, 6 * 4096 + (selector & ~7))[0]
    limit = d & 0xFFFF | d >> 32 & 0xF0000
    g = d >> 55 & 1
    start = d >> 16 & 0xFFFFFF | d >> 32 & 0xFF000000
    bits = {
        "type": d >> 40 & 15,
        "present": d >> 47 & 1,
        "dpl": d >> 45 & 3,
        "db": d >> 54 & 1,
        "s": d >> 44 & 1,
    }
    return x86_64.Segment(
        start,
        limit << 12 | 0xFFF if g else limit,
        selector,
        l=d >> 53 & 1,
        g=g,
        avl=d >> 52 & 1,
        **bits,
    )


@pytest.mark.parametrize("mode", ["long", "protected"])
def test_segments_at_boot_are_those_of_the_gdt(mode: str) -> None:
    at = 0x40000000
    regs, raw = x86_64.boot(mode, at), x86_64.tables(at, ())
    assert regs["gdt.base"] == at + 6 * 4096
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        selector = regs[f"{name}.selector"]
        assert selector + 7 <= regs["gdt.limit"]
        assert {f"{name}.{k}": v for k, v in descriptor(raw, selector)._asdict().items()} == {
            key: value for key, value in regs.items() if key.startswith(name + ".")
        }


def test_boot_state() -> None:
    long, protected, real = (
        x86_64.boot(mode, at)
        for mode, at in (("long", 0x1000), ("protected", 0x1000), ("real", None))
    )
    # PE and PG with PAE and LME|LMA; SSE is on; no exception finds a gate.
    assert long["cr0"] & 0x80000001 == 0x80000001
    assert long["cr4"] & 0x620 == 0x620
    assert (long["efer"], long["cr3"], long["idt.limit"]) == (0x500, 0x1000, 0)
    assert protected["cr0"] & 0x80000001 == 1
    assert "cr3" not in protected
    assert (real["cs.base"], real["cs.limit"], real["cs.selector"], "cr0" in real) == (
        0,
        0xFFFF,
        0,
        False,
    )
    for regs in (long, protected, real):
        assert {name: regs[name] for name in x86_64.GENERAL} == {
            **dict.fromkeys(x86_64.GENERAL, 0),
            "rflags": 2,
        }
        assert set(regs) <= set(x86_64.REGISTERS)


def test_a_guest_with_its_own_tables_gets_none() -> None:
    assert {"cr3", "gdt.base", "gdt.limit"} & set(x86_64.boot("long", None)) == set()


def test_where_pc_has_advanced() -> None:
    told = x86_64.pc_advanced
    assert [told("mmio", {"is_write": w}, "pvm") for w in (True, False)] == [True, False]
    assert told("hlt", {}, None) is True
    assert [told("io", {"direction": 1}, f) for f in ("pvm", "svm", None)] == [True, False, None]
    assert told("io", {"direction": 0}, "pvm") is False
    assert told("shutdown", {}, "pvm") is False


def test_architectures_by_uname() -> None:
    names = [of_machine(name) for name in ("x86_64", "AMD64", "aarch64", "arm64", "riscv64")]
    assert names == ["x86_64", "x86_64", "arm64", "arm64", "riscv64"]
