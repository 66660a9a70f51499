"""What struct kvm_run holds of an exit: against bytes packed by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscen.sent.header import exits, kvm_run


def nothing(offset: int, length: int) -> bytes:
    raise AssertionError("no exit but io reads outside the union")


def decode(
    number: int, raw: bytes, data_at: Any = nothing, arch: str = "x86_64"
) -> tuple[str, dict[str, Any]]:
    return kvm_run.decode(number, raw.ljust(exits.UNION_SIZE, b"\0"), data_at, arch)


@pytest.mark.parametrize("row", exits.EXITS, ids=lambda row: row.name)
def test_each_row_reads_the_bytes_that_it_writes(row: exits.Exit) -> None:
    if row.name in ("io", "debug"):
        return
    raw, told = bytearray(exits.UNION_SIZE), {}
    for n, field in enumerate(row.fields):
        size = struct.calcsize("=" + field.fmt)
        value: Any = (
            [(n << 4) + i + 1 for i in range(field.length)]
            if field.length > 1
            else n + 1 + (size > 1) * 0x100
        )
        if field.name == "ndata":
            value = 3
        if field.name in ("len", "is_write"):
            value = {"len": 8, "is_write": 1}[field.name]
        told[field.name] = value
        data = kvm_run.encode(field, value)
        raw[field.offset : field.offset + len(data)] = data
    if row.name == "hypercall":
        told["longmode"] = told["flags"] & 0xFFFFFFFF  # one place
    if row.name == "system_event":
        told["flags"] = told["data"][0]  # one place
    if "ndata" in told:
        told["data"] = told["data"][:3]
    assert decode(row.number, bytes(raw)) == (row.name, told)


def test_mmio_by_hand() -> None:
    write = struct.pack("=QQIB", 0x5000, 0x1122334455667788, 4, 1)
    assert decode(6, write) == (
        "mmio",
        {"phys_addr": 0x5000, "is_write": True, "len": 4, "data": 0x55667788},
    )
    # What a read's bytes are is nobody's business: KVM left the last exit's there.
    read = struct.pack("=QQIB", 0x5000, 0x1122334455667788, 4, 0)
    assert decode(6, read) == ("mmio", {"phys_addr": 0x5000, "is_write": False, "len": 4})


def test_io_by_hand() -> None:
    def page(offset: int, length: int) -> bytes:
        assert (offset, length) == (0x1000, 6)
        return b"\1\2\3\4\5\6"

    out = struct.pack("=BBHIQ", 1, 2, 0x3F8, 3, 0x1000)
    expected = {"direction": 1, "size": 2, "port": 0x3F8, "count": 3, "data": [0x201, 0x403, 0x605]}
    assert decode(2, out, page) == ("io", expected)
    single = struct.pack("=BBHIQ", 1, 4, 0xCF8, 1, 0x1000)
    assert decode(2, single, lambda o, n: b"\1\2\3\4")[1]["data"] == 0x04030201
    assert "data" not in decode(2, struct.pack("=BBHIQ", 0, 2, 0x3F8, 3, 0x1000))[1]


def test_internal_error_has_as_many_data_as_ndata_says() -> None:
    raw = struct.pack("=II16Q", 1, 2, *range(100, 116))
    assert decode(17, raw) == ("internal_error", {"suberror": 1, "ndata": 2, "data": [100, 101]})
    assert len(decode(17, struct.pack("=II16Q", 1, 4000, *range(16)))[1]["data"]) == 16


def test_debug_is_the_architectures() -> None:
    raw = struct.pack("=IIQQQ", 1, 0, 0x1234, 0xFFFF0FF0, 0x400)
    assert decode(4, raw) == (
        "debug",
        {"exception": 1, "pc": 0x1234, "dr6": 0xFFFF0FF0, "dr7": 0x400},
    )
    raw = struct.pack("=IIQ", 0xD2000000, 1, 0x4000)
    assert decode(4, raw, lambda offset, length: b"\1\0", "arm64")[1] == {
        "hsr": 0xD2000000,
        "hsr_high": 1,
        "far": 0x4000,
    }


def test_what_kvm_did_not_write_is_not_there() -> None:
    def flags(value: int) -> Callable[[int, int], bytes]:
        return lambda offset, length: value.to_bytes(length, "little")

    # arm64: far at watchpoints alone (their EC is 0x34 or 0x35), hsr_high where a flag says so.
    step = struct.pack("=IIQ", 0xCA000022, 7, 0x1234)
    assert decode(4, step, flags(0), "arm64") == ("debug", {"hsr": 0xCA000022})
    assert decode(4, step, flags(1), "arm64") == ("debug", {"hsr": 0xCA000022, "hsr_high": 7})
    # x86: dr6 and dr7 are not those of a #BP; dr7 is not written by a step that KVM emulates.
    assert decode(4, struct.pack("=IIQQQ", 3, 0, 0x10, 0x4000, 0x400))[1] == {
        "exception": 3,
        "pc": 0x10,
    }
    stepped = struct.pack("=IIQQQ", 1, 0, 0x10, 0x4000, kvm_run.UNTOUCHED)
    assert decode(4, stepped)[1] == {"exception": 1, "pc": 0x10, "dr6": 0x4000}
    # arm_sea: gva and gpa only where they are known.
    sea = struct.pack("=QQQQ", 0, 0x400, 0x1111, 0x2222)
    assert decode(41, sea, arch="arm64")[1] == {"flags": 0, "esr": 0x400}
    sea = struct.pack("=QQQQ", 1, 0, 0x1111, 0x2222)
    assert decode(41, sea, arch="arm64")[1] == {"flags": 1, "esr": 0, "gva": 0x1111, "gpa": 0x2222}


def test_a_reason_without_a_row_keeps_its_number() -> None:
    assert decode(4711, b"") == ("KVM_EXIT_4711", {})


@given(
    st.integers(0, 60),
    st.binary(min_size=256, max_size=256),
    st.sampled_from(["x86_64", "arm64", "riscv64"]),
)
def test_no_bytes_of_kvm_run_break_the_reader(number: int, raw: bytes, arch: str) -> None:
    name, members = kvm_run.decode(
        number, raw, lambda offset, length: b"abcdefgh"[: max(0, length)], arch
    )
    known = exits.BY_NUMBER.get(number)
    assert name == (known.name if known else f"KVM_EXIT_{number}")
    if known:
        assert set(members) <= {field.name for field in exits.fields_of(name, arch)}


@given(st.binary(max_size=24), st.sampled_from([1, 2, 4]))
def test_elements(raw: bytes, size: int) -> None:
    values = kvm_run.elements(raw, size)
    listed = values if isinstance(values, list) else [values]
    assert len(listed) == -(-len(raw) // size)
    assert b"".join(v.to_bytes(size, "little") for v in listed)[: len(raw)] == raw
