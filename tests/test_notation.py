"""Steps and events in the scenario's own notation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscen.job.expectation import Expected, MemoryExpected
from kvmscen.job.legend import Legend
from kvmscen.job.notation import Notation, seen
from kvmscen.load import load_text
from kvmscen.load.scalars import resolve
from kvmscen.sent.header import exits
from kvmscen.sent.machine import seconds
from kvmscen.sent.observation import Event

SYMBOLS = {
    "counter": 0x5000,
    "b": 0x5010,
    "a": 0x5010,
    "__data_start": 0x5000,
    "high": 0xFFFF_0000_0000,
    "null": 0x100,
    "1b": 0x200,
}
NOTATION = Notation(Legend(SYMBOLS, ()), "x86_64")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0x5000, "counter"),
        (0x5008, "counter + 8"),
        (0x4FFF, "0x4fff"),
        (0x5010, "a"),
        (0x5011, "a + 1"),
        (0x600F, "a + 4095"),
        (0x6010, "0x6010"),
        (0, "0"),
        (0x100, "0x100"),
        (0x208, "0x208"),
        (0xFFFF_0000_0010, "high + 16"),
        ((1 << 64) - 1, "0xffffffffffffffff"),
    ],
)
def test_addresses(value: int, text: str) -> None:
    assert NOTATION.address(value) == text


@pytest.mark.parametrize(
    ("name", "key", "value", "text"),
    [
        ("io", "direction", 1, "out"),
        ("io", "direction", 7, "7"),
        ("system_event", "type", 3, "crash"),
        ("system_event", "type", {"in": [1, 2]}, "{in: [shutdown, reset]}"),
        ("mmio", "is_write", True, "true"),
        ("mmio", "is_write", 0, "false"),
        ("mmio", "len", 16, "16"),
        ("mmio", "data", 16, "0x10"),
        ("mmio", "phys_addr", {"min": 0x5000, "max": 0x5008}, "{min: counter, max: counter + 8}"),
        ("io", "data", [1, 20], "[1, 0x14]"),
        ("mmio", "data", {"from": 9, "step": -16}, "{from: 9, step: -0x10}"),
        ("error", "errno", "ENOSYS", "ENOSYS"),
        (
            "error",
            "memory_fault",
            {"gpa": 0x5000, "size": 10, "flags": 8},
            "{gpa: counter, size: 10, flags: private}",
        ),
    ],
)
def test_values(name: str, key: str, value: object, text: str) -> None:
    assert NOTATION.value(name, key, value) == text


def test_both_sides_read_alike() -> None:
    """The same thing has one notation, whichever side it stands on: no difference is seen where
    none is.
    """
    fields = {"phys_addr": 0x5008, "is_write": 1, "len": 8}
    step = Expected(
        "mmio",
        1,
        1,
        fields=fields,
        regs={"rax": 5},
        memory=(MemoryExpected(0x5000, "u16", [1]), MemoryExpected(0x9000, "hex", "00ff")),
    )
    observed = {"phys_addr": 0x5008, "is_write": True, "len": 8, "data": 7}
    event = Event(
        0, "exit", "mmio", observed, 4, {"rax": 5, "rbx": 6}, {0x5000: b"\1\0", 0x9000: b"\0\xff"}
    )
    text = (
        "mmio: {phys_addr: counter + 8, is_write: true, len: 8}, regs: {rax: 5}, memory: "
        "{counter: {u16: [1]}}"
    )
    text += ', memory: {0x9000: {hex: "00ff"}}'
    assert NOTATION.expected(step) == NOTATION.event(event, step) == text
    assert (
        NOTATION.event(event) == "mmio: {phys_addr: counter + 8, is_write: true, len: 8, data: 7}"
    )
    # What was not read is not shown as if it were empty; where it was looked for, and no memory is,
    # it is.
    assert NOTATION.event(Event(0, "exit", "hlt", {}, 4), step) == "hlt: {}"
    looked = Event(0, "exit", "hlt", {}, 4, {}, {0x5000: b"", 0x9000: b""})
    assert (
        NOTATION.event(looked, step)
        == 'hlt: {}, memory: {counter: {u16: []}}, memory: {0x9000: {hex: ""}}'
    )
    assert (
        NOTATION.event(Event(0, "exit", "mmio", observed, 4), Expected("mmio", 1, 1)) == "mmio: {}"
    )


def test_memory_seen_is_as_long_as_its_check() -> None:
    memory = {0x5000: bytes(range(8))}
    assert seen(MemoryExpected(0x5000, "u16", [0, 0]), memory) == MemoryExpected(
        0x5000, "u16", [0x0100, 0x0302]
    )
    assert seen(MemoryExpected(0x5000, "hex", "0000"), memory) == MemoryExpected(
        0x5000, "hex", "0001"
    )
    assert seen(MemoryExpected(0x6000, "u8", [0]), memory) == MemoryExpected(0x6000, "u8", [])


@given(st.floats(1e-9, 600))
def test_seconds_load(value: float) -> None:
    number, wrong = resolve(seconds(value))
    assert wrong is None
    assert isinstance(number, (int, float))
    assert abs(number - value) < 1e-9


def test_every_name_of_a_value_loads_as_that_value() -> None:
    for row in exits.EXITS:
        for field in row.fields:
            for number in field.names.values() if not row.archs or "x86_64" in row.archs else ():
                text = NOTATION.value(row.name, field.name, number)
                assert text in field.names
                if row.name == "memory_fault":
                    continue
                (case,) = load_text(
                    f"arch: x86_64\nasm: hlt\nexpect:\n  - {row.name}: {{{field.name}: {text}}}\n",
                    "a",
                ).cases
                assert case.expect is not None
                value = case.expect[0].fields[field.name]
                assert getattr(value, "offset", None) == number


def test_a_symbol_of_the_compilers_own_comes_last() -> None:
    notation = Notation(Legend({".LANCHOR0": 0x5000, "table": 0x5000, ".L4": 0x5010}, ()), "arm64")
    assert notation.address(0x5000) == "table"
    assert notation.address(0x5014) == ".L4 + 4"
