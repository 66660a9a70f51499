"""The loop of machine code, called for real: it needs this machine's own CPU."""

from __future__ import annotations

import ctypes
import itertools
import os

import pytest

from kvmscen.errors import HostError
from kvmscen.sent.arch import of_machine
from kvmscen.sent.kvm.fds import Kvm
from kvmscen.sent.timing import loop
from kvmscen.sent.timing.loop import RECORD, KnownExit

ARCH = of_machine(os.uname().machine)
pytestmark = pytest.mark.kvm


@pytest.fixture
def kvm() -> Kvm:
    return Kvm()


def opened(code: bytes | None = None) -> loop.Loop:
    return loop.Loop(loop.CODES[ARCH] if code is None else code)


def masks(entry: loop.Entry) -> list[int]:
    return [mask for _, _, mask in RECORD.iter_unpack(entry.take())]


def test_the_code_is_never_writable_and_executable_at_once() -> None:
    made = opened()
    with open("/proc/self/maps") as maps:
        (line,) = (line for line in maps if int(line.split("-")[0], 16) == made.at)
    assert line.split()[1] == "r-xp"
    made.close()


def test_records_until_they_are_full(kvm: Kvm) -> None:
    blank = ctypes.create_string_buffer(4096)
    entry = opened().entry(
        kvm.fd, ctypes.addressof(blank), [KnownExit(0, 1, ())], None, 100, "KVM_GET_API_VERSION"
    )
    assert entry() == 0
    taken = list(RECORD.iter_unpack(entry.take()))
    assert len(taken) == 100
    assert all(start <= end for start, end, _ in taken)
    assert [a[1] <= b[0] for a, b in itertools.pairwise(taken)] == [True] * 99
    assert entry.last == taken[-1][:2]
    assert entry() == 0
    assert len(masks(entry)) == 100


def test_an_ioctl_that_fails_is_its_errno(kvm: Kvm) -> None:
    blank = ctypes.create_string_buffer(4096)
    assert opened().entry(-1, ctypes.addressof(blank), [KnownExit(0, 1, ())], None, 10)() == -9
    # KVM_RUN is no ioctl of /dev/kvm itself.
    assert opened().entry(kvm.fd, ctypes.addressof(blank), [KnownExit(0, 1, ())], None, 10)() < 0


def test_every_row_that_fits_sets_its_bit_and_others_come_back(kvm: Kvm) -> None:
    blank = ctypes.create_string_buffer(4096)
    ctypes.c_uint32.from_buffer(blank, 8).value = 6
    ctypes.c_uint64.from_buffer(blank, 32).value = 0x5008
    address, whole = 32, (1 << 64) - 1
    rows = [
        KnownExit(6, 1, [(address, whole, 0x5008, 0x5008)]),
        KnownExit(6, 2, [(address, whole, 0x5000, 0x5FFF)]),
        KnownExit(6, 4, [(address, 0xFF0, 0, 0)]),
        KnownExit(6, 8, [(address, whole, 0x5009, 0x5FFF)]),
        KnownExit(6, 16, [(address, whole, 0, 0x5007)]),
        KnownExit(2, 32, ()),
        KnownExit(6, 64, [(address, whole, 0x5008, 0x5008), (52, 0xFF, 1, 1)]),
    ]
    entry = opened().entry(kvm.fd, ctypes.addressof(blank), rows, None, 1, "KVM_GET_API_VERSION")
    assert entry() == 0
    assert masks(entry) == [1 | 2 | 4]
    ctypes.c_uint64.from_buffer(blank, 32).value = 0x6010
    assert entry() == 1
    assert masks(entry) == []
    assert entry.last[0] <= entry.last[1]


def test_a_ring_that_is_not_empty_comes_back(kvm: Kvm) -> None:
    blank, ring = ctypes.create_string_buffer(4096), (ctypes.c_uint32 * 2)(3, 4)
    made = opened().entry(
        kvm.fd,
        ctypes.addressof(blank),
        [KnownExit(0, 1, ())],
        ctypes.addressof(ring),
        5,
        "KVM_GET_API_VERSION",
    )
    assert made() == 1
    ring[0] = 4
    assert made() == 0


def test_replies_and_sections(kvm: Kvm) -> None:
    blank, held = ctypes.create_string_buffer(8192), ctypes.create_string_buffer(b"abcdefgh", 8)
    words = {
        name: ctypes.c_uint64.from_buffer(blank, at)
        for name, at in {"address": 32, "data": 40}.items()
    }
    length = ctypes.c_uint32.from_buffer(blank, 48)
    base = ctypes.addressof(held) - 0x5000

    def once(action: int, value: int = 0, place: int = 0) -> int:
        row = KnownExit(0, 1, (), action, value, place)
        return opened().entry(
            kvm.fd, ctypes.addressof(blank), [row], None, 1, "KVM_GET_API_VERSION"
        )()

    assert once(loop.REPLY, 0x1122334455667788, 40) == 0
    assert words["data"].value == 0x1122334455667788
    words["data"].value = 4096
    assert once(loop.REPLY_AT, 0x99, 40) == 0
    assert blank.raw[4096] == 0x99
    words["address"].value, length.value = 0x5002, 4
    words["data"].value = 0
    assert once(loop.TO_GUEST, base, 0x5008) == 0
    assert blank.raw[40:48] == b"cdef\0\0\0\0"
    ctypes.memmove(ctypes.addressof(blank) + 40, b"WXYZ", 4)
    assert once(loop.FROM_GUEST, base, 0x5008) == 0
    assert held.raw == b"abWXYZgh"
    # What crosses the end of the section is for Python.
    words["address"].value = 0x5005
    assert once(loop.FROM_GUEST, base, 0x5008) == 1
    assert held.raw == b"abWXYZgh"


def test_the_rate_is_that_of_a_counter(kvm: Kvm) -> None:
    assert 1e6 < loop.Clock(opened(), kvm).hz() < 1e11


@pytest.mark.skipif(ARCH != "x86_64", reason="the stuck counter is made of x86 code")
def test_a_counter_that_does_not_move_is_told(kvm: Kvm) -> None:
    rdtsc, nothing = b"\x0f\x31", b"\x31\xc0"  # xor eax, eax
    stuck = loop.CODES[ARCH].replace(b"\x0f\xae\xe8" + rdtsc, b"\x31\xd2\x90" + nothing)
    assert stuck.count(nothing) >= 2
    with pytest.raises(HostError, match="the counter of this machine's CPU does not move"):
        loop.Clock(opened(stuck), kvm).hz()


def test_an_architecture_without_a_loop_says_so() -> None:
    assert loop.opened("vax") == "there is no timing loop for vax"
