"""The action table, held against <linux/kvm.h> of each architecture by a compiler for it, and each
row as it is written.
"""

from __future__ import annotations

import platform
import shutil
import struct

import pytest
from cross_header import constants

from kvmscen.compile.resolve import FORMS as RESOLVED
from kvmscen.load import actions as written
from kvmscen.load import load_text, names
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.executor import building, session
from kvmscen.sent.header import actions
from kvmscen.sent.header.actions import ACTIONS, VALUE, Action, Member

STRUCTS = [row for row in ACTIONS if row.members]
GCC = {"arm64": "aarch64-linux-gnu-gcc", "riscv64": "riscv64-linux-gnu-gcc", "x86_64": "gcc"}


def compiler(arch: str) -> str:
    if shutil.which(GCC[arch]) is None or (arch == "x86_64" and platform.machine() != "x86_64"):
        pytest.skip(f"needs {GCC[arch]} of {arch}")
    return GCC[arch]


def places() -> list[tuple[Action, str]]:
    return [(row, arch) for row in STRUCTS for arch in ARCHES if row.of(arch) is not None]


@pytest.mark.parametrize(
    ("row", "arch"), places(), ids=lambda x: x if isinstance(x, str) else x.name
)
def test_members_are_the_headers(row: Action, arch: str) -> None:
    gcc = compiler(arch)
    # The debug registers of set_guest_debug are behind `arch` in its struct.
    paths = {
        m.name: m.name if m.offset < 8 or row.name != "set_guest_debug" else f"arch.{m.name}"
        for m in row.of(arch) or ()
    }
    # What is pointed to is written as `value`.
    paths |= {m.name: "addr" for m in row.of(arch) or () if m.fmt == VALUE}
    found = constants(gcc, *(f"offsetof(struct {row.struct}, {path})" for path in paths.values()))
    assert list(found.values()) == [member.offset for member in row.of(arch) or ()]
    for member in row.of(arch) or ():
        size = f"sizeof(((struct {row.struct} *)0)->{paths[member.name]})"
        assert constants(gcc, size)[size] == member.length * member.bits // 8


@pytest.mark.parametrize(
    ("row", "arch"), places(), ids=lambda x: x if isinstance(x, str) else x.name
)
def test_requests_and_flags_are_the_headers(row: Action, arch: str) -> None:
    gcc = compiler(arch)
    if row.size:
        assert constants(gcc, row.ioctl, f"sizeof(struct {row.struct})") == {
            row.ioctl: actions.REQUESTS[row.ioctl],
            f"sizeof(struct {row.struct})": row.size,
        }
    for member in row.of(arch) or ():
        full = {
            name: number for name, number in (member.names or {}).items() if name.startswith("KVM_")
        }
        short = {
            prefix + name.upper(): number
            for name, number in (member.names or {}).items()
            for prefix in (member.prefix,)
        }
        assert constants(gcc, *(full or short)) == (full or short)


def test_every_row_is_a_struct_or_has_code_of_its_own() -> None:
    own = {row.name for row in ACTIONS if not row.members}
    assert own == set(written.FORMS) == set(RESOLVED) == set(building.OWN)
    assert set(session.MORE) | set(written.CHECKS) <= {row.name for row in STRUCTS}
    assert not set(actions.BY_NAME) & set(names.LATER_ACTIONS)


def word(member: Member) -> str:
    """A value of a member as it may be written."""
    if member.names:
        return next(iter(member.names))
    if member.yes_no:
        return "true"
    return "[1]" if member.length > 1 else "1"


def flow(held: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in held.items()) + "}"


@pytest.mark.parametrize(
    ("row", "arch"), places(), ids=lambda x: x if isinstance(x, str) else x.name
)
def test_every_member_can_be_written(row: Action, arch: str) -> None:
    """Each with what must be there, alone and all together; and it arrives in the struct at its
    place.
    """
    members = row.of(arch) or ()
    tree: dict[str, dict[str, str] | str] = {}
    for member in members:
        outer, _, inner = member.name.partition(".")
        if inner:
            held = tree.setdefault(outer, {})
            assert isinstance(held, dict)
            held[inner] = word(member)
        else:
            tree[outer] = word(member)
    inside = [
        f"{key}: {held if isinstance(held, str) else flow(held)}" for key, held in tree.items()
    ]
    value = word(members[0]) if row.alone else "{" + ", ".join(inside) + "}"
    text = f"arch: {arch}\nasm: nop\nexpect: [mmio]\nsetup:\n  - {row.name}: {value}\n"
    action = load_text(text, "a.yaml").cases[0].setup[0]
    assert set(action.args) == {member.name for member in members}


def test_a_struct_has_its_members_at_their_places_and_zeros_elsewhere() -> None:
    row = actions.BY_NAME["ioeventfd"]
    made = actions.packed(row, row.members[""], {"addr": 0x1122, "len": 4, "flags": 2})
    assert bytes(made) == struct.pack("=QQIiI36x", 0, 0x1122, 4, 0, 2)


@pytest.mark.parametrize(
    ("number", "bits"),
    [(0x6020000000100000, 32), (0x6030000000100000, 64), (0x6040000000100054, 128)],
)
def test_the_width_of_a_register_is_in_its_id(number: int, bits: int) -> None:
    assert actions.reg_bits(number) == bits


def test_a_pointer_is_left_to_the_caller() -> None:
    member = Member("value", 0, VALUE)
    assert bytes(actions.packed(Action("a", "A", "", size=8), (member,), {"value": 7})) == bytes(8)


@pytest.mark.parametrize(
    ("arch", "action", "member", "number"),
    [
        ("x86_64", "ioeventfd: {addr: 0, len: 4, datamatch: -1}", "datamatch", 0xFFFFFFFF),
        ("x86_64", "ioeventfd: {addr: 0, len: 8, datamatch: -1}", "datamatch", 0xFFFFFFFFFFFFFFFF),
        ("arm64", "set_one_reg: {id: 0x6020000000100000, value: -1}", "value", 0xFFFFFFFF),
        ("arm64", "set_one_reg: {id: 0x6030000000100000, value: -2}", "value", 0xFFFFFFFFFFFFFFFE),
    ],
)
def test_a_member_is_as_wide_as_another_one_says(
    arch: str, action: str, member: str, number: int
) -> None:
    case = load_text(
        f"arch: {arch}\nasm: nop\nexpect: [mmio]\nsetup:\n  - {action}\n", "a.yaml"
    ).cases[0]
    assert case.setup[0].args[member].offset == number
