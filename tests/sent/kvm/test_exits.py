"""The exit table, capabilities and ioctl numbers: against the header, where it is there."""

from __future__ import annotations

import errno
import platform
import re
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path

import pytest

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


# --- the tables themselves ------------------------------------------------------------------------


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


def test_an_errno_is_called_as_linux_calls_it() -> None:
    # Python has ENOTSUP for EOPNOTSUPP, and EDEADLOCK for EDEADLK.
    names_known = [name for name in names.ERRNOS if hasattr(errno, name)]
    assert len(names_known) > 100
    assert [
        IoctlError("KVM_RUN", getattr(errno, name)).errno for name in names_known
    ] == names_known
