"""Descriptors and mappings are owned and given back, and slots are as KVM has them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from kvm_machines import TABLES, act, machine, mmio

from kvmscen.errors import HostError, IoctlError
from kvmscen.sent.executor.building import build
from kvmscen.sent.executor.executor import Executor
from kvmscen.sent.executor.session import Session
from kvmscen.sent.kvm.fds import Kvm, Memory
from kvmscen.sent.kvm.slots import Slots, _kept
from kvmscen.sent.machine import Capability, Machine, Memslot, Step

pytestmark = pytest.mark.kvm


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    kvm = Kvm()
    yield kvm
    kvm.close()


def held() -> tuple[int, int, int]:
    """Open descriptors, mappings, and the address space in MiB."""
    maps = Path("/proc/self/maps").read_text()
    assert "kvm-vcpu" not in maps
    size = re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())
    assert size is not None
    return len(os.listdir("/proc/self/fd")), len(maps.splitlines()), int(size[1]) >> 10


HLT = Step("hlt")
GOOD = machine(
    "mov [rbx], al; hlt",
    (mmio(0x5000), HLT),
    memslots=(Memslot(0, 0, 0x2000), Memslot(1, 0x10000000, 64 << 20)),
)
ENDINGS = {
    "good": GOOD,
    "shutdown": machine("ud2"),
    "timeout": machine("jmp .", timeout=0.001),
    "no slot": machine("hlt", memslots=(Memslot(0, 0, 0x2000), Memslot(1, 0x1000, 64 << 20))),
    "no capability": machine(
        "hlt", enable=(Capability("KVM_CAP_X86_USER_SPACE_MSR", 188, (1 << 20,)),)
    ),
    "no registers": machine("hlt", regs={"cr4": 1 << 63}),
    "no action": machine("hlt", setup=(act("nonsense"),)),
    "grown": machine(
        "hlt",
        memslots=(Memslot(0, 0, 0x2000), Memslot(1, 0x10000000, 16 << 20)),
        setup=(
            act("delete_memslot", slot=1),
            act("set_memslot", slot=1, gpa=0x10000000, size=64 << 20, flags=0),
        ),
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_after_200_vms(kvm: Kvm, ending: str) -> None:
    executor = Executor(kvm, None)

    def times(count: int, machine: Machine) -> None:
        for _ in range(count):
            with pytest.raises(HostError) if ending == "no action" else nullcontext():
                executor.execute(machine)

    times(10, ENDINGS[ending])
    fds, maps, size = held()
    times(200 if ending == "good" else 40, ENDINGS[ending])
    now = held()
    assert now[0] == fds
    assert now[1] - maps < 8
    assert now[2] - size < 64


def test_what_a_guest_left_in_the_engines_slot_is_gone_in_the_next_vm(kvm: Kvm) -> None:
    executor, at = Executor(kvm, None), TABLES.at
    whole = ((at, TABLES.size),)
    before = executor.execute(machine("hlt", observe_memory=whole)).memory[at]
    code = "mov rdi, 0xfffc6018; mov rax, -1; mov ecx, 1021; rep stosq; hlt"
    spoiled = executor.execute(machine(code, observe_memory=whole))
    assert spoiled.stopped == "expected"
    assert spoiled.memory[at][0x6018:] == b"\xff" * 8 * 1021
    # The memory is the same, its bytes are not.
    assert [memory.size for memory in _kept] == [TABLES.size]
    assert executor.execute(machine("hlt", observe_memory=whole)).memory[at] == before
    # Two at a time do not share it.
    first, second = (Session(kvm, machine("hlt"), None) for _ in range(2))
    for one in (first, second):
        build(one, one.machine)
    first.slots.write(at, b"\xff" * TABLES.size)
    assert second.slots.read(at, TABLES.size) == before
    for one in (first, second):
        one.close()
    assert len(_kept) == 1


def test_closing_twice_harms_nobody(kvm: Kvm) -> None:
    vm = kvm.create_vm()
    vcpu = vm.create_vcpu(0)
    numbers = (vcpu.fd, vm.fd)
    for _ in range(2):
        vcpu.close()
        vm.close()
    # The numbers belong to others now.
    others = [os.open("/dev/null", os.O_RDONLY) for _ in numbers]
    vcpu.close()
    vm.close()
    for fd in others:
        os.close(fd)
    assert set(others) == set(numbers)


def test_a_closed_vm_is_gone_with_its_descriptor(kvm: Kvm) -> None:
    # An mmap.mmap(fd) would have kept the VM, and with it its name in debugfs and its memory.
    vm = kvm.create_vm()
    vcpu = vm.create_vcpu(0)
    vcpu.close()
    vm.close()
    kinds = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    ]
    assert [kind for kind in kinds if "kvm-v" in kind] == []


def test_descriptors_do_not_pass_to_children(kvm: Kvm) -> None:
    vm = kvm.create_vm()
    vcpu = vm.create_vcpu(0)
    assert [os.get_inheritable(d.fd) for d in (kvm, vm, vcpu)] == [False] * 3
    vcpu.close()
    vm.close()


def test_a_failing_ioctl_says_which_and_how(kvm: Kvm) -> None:
    vm = kvm.create_vm()
    try:
        with pytest.raises(IoctlError, match="KVM_CREATE_VCPU failed with EINVAL") as caught:
            vm.create_vcpu(100_000)
        assert (caught.value.ioctl, caught.value.errno) == ("KVM_CREATE_VCPU", "EINVAL")
    finally:
        vm.close()
    with pytest.raises(IoctlError, match="EBADF"):
        vm.create_vcpu(0)


def test_extensions(kvm: Kvm) -> None:
    assert kvm.check_extension(3) == 1  # KVM_CAP_USER_MEMORY
    assert kvm.check_extension(10) >= 32  # KVM_CAP_NR_MEMSLOTS
    assert kvm.check_extension(99_999) == 0
    assert kvm.check_extension(-1) == 0


def test_immediate_exit(kvm: Kvm) -> None:
    vm = kvm.create_vm()
    vcpu = vm.create_vcpu(0)
    vcpu.immediate_exit = 1
    assert (vcpu.immediate_exit, vcpu.run()) == (1, 4)
    assert vcpu.bytes_at(1, 1) == b"\1"
    assert vcpu.bytes_at(vcpu.run_size - 2, 10) == bytes(2)
    assert vcpu.bytes_at(vcpu.run_size + 4096, 10) == b""
    vcpu.close()
    vm.close()


def test_memory_is_there_when_it_is_touched() -> None:
    before = held()[2]
    memory = Memory(8 << 30)
    memory.write((8 << 30) - 4, b"last")
    assert memory.read((8 << 30) - 5, 5) == b"\0last"
    assert held()[2] - before >= 8 << 10
    memory.close()
    memory.close()
    assert held()[2] - before < 64


def test_memory_that_cannot_be_had_says_how_much() -> None:
    with pytest.raises(OSError, match="mmap of 4503599627370496 bytes: "):
        Memory(1 << 52)


# --- slots ----------------------------------------------------------------------------------------


@pytest.fixture
def slots(kvm: Kvm) -> Iterator[Slots]:
    vm = kvm.create_vm()
    slots = Slots(vm)
    yield slots
    vm.close()
    slots.close()


def test_bytes_of_slots(slots: Slots) -> None:
    slots.set(Memslot(0, 0, 0x1000))
    slots.set(Memslot(1, 0x1000, 0x2000))
    assert slots.write(0xFFE, b"ab")
    assert slots.write(0x1000, b"cd")
    # Neighbours are two slots: what crosses lies in none.
    assert not slots.write(0xFFF, b"xy")
    assert slots.read(0xFFF, 2) is None
    assert (slots.read(0xFFE, 2), slots.read(0x1000, 2), slots.read(0x2FFF, 1)) == (
        b"ab",
        b"cd",
        b"\0",
    )
    assert slots.read(0x3000, 1) is None
    assert not slots.write(0x3000, b"x")


def test_bytes_outlive_their_slot(slots: Slots) -> None:
    slots.set(Memslot(3, 0x4000, 0x2000))
    slots.write(0x5FFC, b"last")
    slots.delete(3)
    assert slots.read(0x5FFC, 4) is None
    assert not slots.write(0x5FFC, b"lost")
    slots.set(Memslot(3, 0x8000, 0x1000))
    assert slots.read(0x9FFC, 4) is None
    slots.delete(3)
    slots.set(Memslot(3, 0x8000, 0x4000))
    assert slots.read(0x9FFC, 4) == b"last"
    assert slots.read(0xBFFC, 4) == bytes(4)


def test_a_slot_moves_with_its_bytes(slots: Slots) -> None:
    slots.set(Memslot(0, 0, 0x1000))
    slots.write(0, b"moved")
    slots.set(Memslot(0, 0x7000, 0x1000))
    assert (slots.read(0, 5), slots.read(0x7000, 5)) == (None, b"moved")


def test_what_fails_changes_nothing(slots: Slots) -> None:
    slots.set(Memslot(0, 0, 0x1000))
    slots.set(Memslot(1, 0x1000, 0x1000))
    slots.write(0x1000, b"one")
    for wrong in (
        Memslot(1, 0, 0x1000),
        Memslot(1, 0x1000, 0x3000),
        Memslot(2, 0x1000, 0x1000),
        Memslot(1, 0x1000, 0x1000, 2),
    ):
        with pytest.raises(IoctlError):
            slots.set(wrong)
        assert slots.read(0x1000, 3) == b"one"
    with pytest.raises(IoctlError, match="EINVAL"):
        slots.delete(9)
    slots.delete(1)
    with pytest.raises(IoctlError, match="EINVAL"):
        slots.delete(1)
    with pytest.raises(IoctlError, match="EEXIST"):
        slots.set(Memslot(1, 0, 0x10000))
    slots.set(Memslot(1, 0x1000, 0x1000))
    assert slots.read(0x1000, 3) == b"one"
