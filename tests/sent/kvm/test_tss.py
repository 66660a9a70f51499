"""Where the three pages lie that KVM needs on Intel: in nobody's way."""

from __future__ import annotations

from kvmscen.sent.kvm.x86_64 import tss_at
from kvmscen.sent.machine import Action, Bytes, Machine, Memslot, Step, Tables, Vcpu

BARE = Machine("x86_64", (Memslot(0, 0, 0x1000),), (), (), (Vcpu(0, "real", {}),))
USUAL = 0xFFFBC000


def later(gpa: int, size: int, errno: str | None = None) -> Action:
    return Action("set_memslot", {"slot": 1, "gpa": gpa, "size": size, "flags": 0}, errno=errno)


def test_below_the_tables() -> None:
    assert tss_at(BARE._replace(tables=Tables(0xFFF00000, 0x8000, 9))) == 0xFFEFC000


def test_at_the_usual_place_without_tables() -> None:
    assert tss_at(BARE) == USUAL
    beside = (
        Memslot(0, USUAL - 0x1000, 0x1000),
        Memslot(1, USUAL + 0x3000, 0x1000),
        Memslot(2, USUAL, 0x1000, errno="EEXIST"),
    )
    assert tss_at(BARE._replace(memslots=beside)) == USUAL


def test_lower_where_something_lies_there() -> None:
    last = (Memslot(0, USUAL + 0x2000, 0x1000), Memslot(1, 0xFFFA0000, 0x10000))
    assert tss_at(BARE._replace(memslots=last)) == 0xFFFB0000
    assert tss_at(BARE._replace(devices=(Bytes.at(USUAL, b"\0"),))) == 0xFFFB0000
    assert tss_at(BARE._replace(setup=(later(USUAL, 0x1000),))) == 0xFFFB0000
    assert tss_at(BARE._replace(setup=(later(USUAL, 0x1000, "EINVAL"),))) == USUAL
    inner = Step("group", steps=(Step("hlt", then=(later(USUAL, 0x1000),)),))
    assert tss_at(BARE._replace(vcpus=(Vcpu(0, "real", {}, (), (inner,)),))) == 0xFFFB0000
