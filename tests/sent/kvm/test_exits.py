"""The exit table, capabilities and ioctl numbers: against the header where it is there, and against
bytes packed by hand.
"""

from __future__ import annotations

import errno
import platform
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscen.errors import IoctlError
from kvmscen.load import names
from kvmscen.sent.header import exits, kvm_run, uapi
from kvmscen.sent.header.caps import CAPABILITIES, ON_VCPU

HEADER = Path("/usr/include/linux/kvm.h")
needs_header = pytest.mark.skipif(
    not HEADER.exists() or shutil.which("gcc") is None,
    reason="needs gcc and /usr/include/linux/kvm.h",
)
needs_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="compares the x86_64 build of the header"
)

# ioctls with a struct of another architecture: test_arm64.py.
HERE = [name for name in uapi.IOCTLS if not name.startswith("KVM_ARM_")]

SIZES = (
    'printf("arch %lu\\n", sizeof(struct kvm_guest_debug_arch));'
    'printf("debugreg %lu\\n", offsetof(struct kvm_guest_debug_arch, debugreg));'
)

# Where the member of the union is not called as the exit.
UNION = {
    "unknown": "hw",
    "exception": "ex",
    "internal_error": "internal",
    "ioapic_eoi": "eoi",
    "x86_rdmsr": "msr",
    "x86_wrmsr": "msr",
    "s390_reset": "",
    "loongarch_iocsr": "iocsr_io",
}


@cache
def defined() -> dict[str, int]:
    """Every KVM_ macro of the header that is a plain number by the compiler's word."""
    text = HEADER.read_text()
    names = re.findall(
        r"^#define\s+(KVM_(?:EXIT|CAP|MEM|INTERNAL_ERROR|SYSTEM_EVENT|MSR_EXIT|NOTIFY)_\w+)",
        text,
        re.M,
    )
    names += [name for name in HERE if re.search(rf"^#define\s+{name}\s", text, re.M)]
    body = "".join(
        f'printf("{name} %lu\\n", (unsigned long)({name}));' for name in dict.fromkeys(names)
    )
    return {name: int(value) for name, value in map(str.split, compiled(body).splitlines())}


@cache
def compiled(body: str) -> str:
    """What a C program with this body prints."""
    source = (
        "#include <stdio.h>\n#include <stddef.h>\n#include <linux/kvm.h>\nint main(void){"
        + body
        + "return 0;}\n"
    )
    binary = Path(f"/tmp/kvmscen-test-{abs(hash(body))}")
    try:
        subprocess.run(
            ["gcc", "-w", "-x", "c", "-", "-o", str(binary)],
            input=source,
            text=True,
            check=True,
            capture_output=True,
        )
        return subprocess.run([str(binary)], text=True, check=True, capture_output=True).stdout
    finally:
        binary.unlink(missing_ok=True)


# --- against the header ---------------------------------------------------------------------------


@needs_header
def test_exit_numbers() -> None:
    header = {
        name: n for name, n in defined().items() if re.fullmatch(r"KVM_EXIT_[A-Z0-9_]+", name)
    }
    ours = {row.constant: row.number for row in exits.EXITS}
    assert len(header) > 30
    both = header.keys() & ours.keys()
    assert {name: ours[name] for name in both} == {name: header[name] for name in both}
    # The header has constants of other kinds under the same prefix (KVM_EXIT_IO_IN,
    # KVM_EXIT_HYPERV_SYNIC).
    values = re.compile("KVM_EXIT_(IO_IN|IO_OUT|HYPERV_.*|XEN_.*)")
    assert {name for name in header.keys() - ours.keys() if not values.fullmatch(name)} == set()


@needs_header
def test_enumerations() -> None:
    header, seen = defined(), 0
    prefixes = {
        ("io", "direction"): "KVM_EXIT_IO_",
        ("internal_error", "suberror"): "KVM_INTERNAL_ERROR_",
        ("system_event", "type"): "KVM_SYSTEM_EVENT_",
        ("hyperv", "type"): "KVM_EXIT_HYPERV_",
        ("x86_rdmsr", "reason"): "KVM_MSR_EXIT_REASON_",
        ("x86_wrmsr", "reason"): "KVM_MSR_EXIT_REASON_",
        ("xen", "type"): "KVM_EXIT_XEN_",
        ("notify", "flags"): "KVM_NOTIFY_",
        ("memory_fault", "flags"): "KVM_MEMORY_EXIT_FLAG_",
    }
    for row in exits.EXITS:
        for field in row.fields:
            for name, value in field.names.items():
                constant = prefixes[row.name, field.name] + name.upper()
                if constant in header:
                    assert value == header[constant], constant
                    seen += 1
    assert seen > 15


@needs_header
def test_capabilities() -> None:
    header = {name: n for name, n in defined().items() if name.startswith("KVM_CAP_")}
    ours = {name: CAPABILITIES[name] for name in header.keys() & CAPABILITIES.keys()}
    assert ours == {name: header[name] for name in ours}
    assert len(ours) > 200
    assert {
        name
        for name in header.keys() - CAPABILITIES.keys()
        if header[name] in CAPABILITIES.values()
    } == set()


def test_capability_numbers_are_each_for_one() -> None:
    assert len(set(CAPABILITIES.values())) == len(CAPABILITIES)
    assert set(CAPABILITIES) >= ON_VCPU


@needs_header
@needs_x86
def test_guest_debug() -> None:
    flags = uapi.GUESTDBG["x86_64"]
    body = "".join(
        f'printf("{name} %lu\\n", (unsigned long)({name}));'
        for name in (*flags, "KVM_SET_GUEST_DEBUG")
    )
    found = {
        name: int(value) for name, value in map(str.split, compiled(body + SIZES).splitlines())
    }
    assert {name: found[name] for name in flags} == flags
    assert found["KVM_SET_GUEST_DEBUG"] == uapi.set_guest_debug("x86_64")
    assert (found["arch"], {"debugreg": (found["debugreg"], 8)}) == uapi.GUEST_DEBUG["x86_64"]


@needs_header
@needs_x86
def test_ioctl_numbers_and_flags() -> None:
    header = defined()
    assert {name: header[name] for name in HERE} == {name: uapi.IOCTLS[name] for name in HERE}
    flags = {name: value for name, value in uapi.MEM_FLAGS.items() if name in header}
    assert flags == {name: header[name] for name in flags}
    assert len(flags) >= 2
    names = {
        "REGS_X86": "kvm_regs",
        "SREGS_X86": "kvm_sregs",
        "XSAVE": "kvm_xsave",
        "CPUID_ENTRY": "kvm_cpuid_entry2",
    }
    body = "".join(
        f'printf("{ours} %zu\\n", sizeof(struct {theirs}));' for ours, theirs in names.items()
    )
    for line in compiled(body).splitlines():
        ours, size = line.split()
        assert getattr(uapi, ours) == int(size), ours


@needs_header
def test_places_of_members_in_struct_kvm_run() -> None:
    known, body = defined(), 'printf("union - %zu 0\\n", offsetof(struct kvm_run, hw));'
    for row in exits.EXITS:
        for field in row.fields if row.constant in known else ():
            inside = UNION.get(row.name, row.name)
            if (row.name, field.name) == ("hypercall", "flags"):
                continue  # younger than some headers
            path = f"{inside}.{field.name}".lstrip(".")
            body += (
                f'printf("{row.name} {field.name} %zu %zu\\n", offsetof(struct kvm_run, {path}),'
                f"sizeof(((struct kvm_run *)0)->{path}));"
            )
    lines = [line.split() for line in compiled(body).splitlines()]
    assert lines[0] == ["union", "-", str(exits.UNION), "0"]
    assert len(lines) > 60
    for name, member, offset, size in lines[1:]:
        field = next(f for f in exits.BY_NAME[name].fields if f.name == member)
        assert (name, member, field.offset + exits.UNION) == (name, member, int(offset))
        assert (name, member, size_of(field)) == (name, member, int(size))


def size_of(field: exits.Field) -> int:
    return struct.calcsize("=" + (f"{field.length}{field.fmt}" if field.length > 1 else field.fmt))


@needs_header
@needs_x86
def test_places_of_debug_members() -> None:
    body = "".join(
        f'printf("{f.name} %zu %zu\\n", offsetof(struct kvm_debug_exit_arch, {f.name}),'
        f"sizeof(((struct kvm_debug_exit_arch *)0)->{f.name}));"
        for f in exits.DEBUG_FIELDS["x86_64"]
    )
    ours = [(f.name, f.offset, struct.calcsize("=" + f.fmt)) for f in exits.DEBUG_FIELDS["x86_64"]]
    assert ours == [
        (name, int(at), int(size)) for name, at, size in map(str.split, compiled(body).splitlines())
    ]


# --- against bytes packed by hand -----------------------------------------------------------------


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


def test_the_table_is_sound() -> None:
    assert len(exits.BY_NAME) == len(exits.BY_NUMBER) == len(exits.EXITS)
    for row in exits.EXITS:
        names = [field.name for field in exits.fields_of(row.name, (*row.archs, "x86_64")[0])]
        assert len(set(names)) == len(names)
        assert set(row.where) | set(row.reply) <= set(names), row.name
        for field in row.fields:
            assert field.offset + size_of(field) <= exits.UNION_SIZE
        # What a read waits for must be a member that user space writes.
        reads = [kvm_run.is_read(row.name, {"direction": 0, "is_write": False})]
        assert not any(reads) or row.reply, row.name


@given(st.binary(max_size=24), st.sampled_from([1, 2, 4]))
def test_elements(raw: bytes, size: int) -> None:
    values = kvm_run.elements(raw, size)
    listed = values if isinstance(values, list) else [values]
    assert len(listed) == -(-len(raw) // size)
    assert b"".join(v.to_bytes(size, "little") for v in listed)[: len(raw)] == raw


def test_an_errno_is_called_as_linux_calls_it() -> None:
    # Python has ENOTSUP for EOPNOTSUPP, and EDEADLOCK for EDEADLK.
    names_known = [name for name in names.ERRNOS if hasattr(errno, name)]
    assert len(names_known) > 100
    assert [
        IoctlError("KVM_RUN", getattr(errno, name)).errno for name in names_known
    ] == names_known
