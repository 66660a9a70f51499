"""An engine and the memory of its guest end with the run, without the garbage collector; and
registers read together are those read one by one.
"""

from __future__ import annotations

import gc
import mmap
from collections.abc import Iterator
from contextlib import suppress

import pytest
from model_machines import NISV, arm64, assemble, mmio, x86
from unicorn import Uc  # type: ignore[attr-defined]

from kvmscen.errors import HostError
from kvmscen.model.arm64.guest import Arm64
from kvmscen.model.predict import execute
from kvmscen.sent.machine import Bytes, Machine, Memslot

# Keystone knows no LSE atomics: ldsmax w2, w3, [x1] of the slot.
LDSMAX = assemble("arm64", "mov x1, #0x800") + 0xB8224023.to_bytes(4, "little")
MACHINES = {
    "arm64": arm64("mov x1, #0x5000; str x1, [x1]; ldr x2, [x1]; hvc #0"),
    "arm64 undecoded": arm64("mov x1, #0x5000; stp x1, x2, [x1]; hvc #0", enable=NISV),
    "arm64 carried out": arm64(
        "mov x1, #0x5000; ldp x1, x2, [x1]; hvc #0", enable=NISV, undecoded="emulate"
    ),
    "arm64 alone": arm64(LDSMAX, enable=NISV, undecoded="emulate"),
    "arm64 unpredicted": arm64("mov x1, #0x800; msr vbar_el1, xzr; svc #0"),
    "arm64 endless": arm64("b .", timeout=0.05),
    "arm64 misaligned": arm64("mov x1, #0x801; ldr x1, [x1]; hvc #0"),
    "x86": x86("mov rbx, 0x5000; mov [rbx], rax; mov rax, [rbx]; hlt"),
    "x86 both": x86("mov rbx, 0x5000; add [rbx], rax; xchg [rbx], rcx; hlt"),
    "x86 ports": x86("out 0x42, al; in eax, 0x43; hlt", "real"),
    "x86 tables": x86("mov rbx, 0xfffc0000; mov [rbx], rax; hlt"),
    "x86 shutdown": x86("ud2"),
    "x86 cut": x86("mov rbx, 0x5000; lock add [rbx], rax; hlt", exits=1),
    "no slot": arm64("hvc #0", memslots=(), image=()),
    "a slot too much": arm64("hvc #0", memslots=(Memslot(0, 0, 0x1000), Memslot(1, 0, 0x1000))),
    "too large": arm64("hvc #0", memslots=(Memslot(0, 0, 1 << 30),)),
}


@pytest.fixture
def by_counting() -> Iterator[None]:
    """Nothing ends but by its last holder."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> tuple[int, int]:
    """Engines and mappings that somebody still holds."""
    kinds = [type(one) for one in gc.get_objects()]
    engines = sum(issubclass(kind, Uc) for kind in kinds)
    return engines, sum(issubclass(kind, mmap.mmap) for kind in kinds)


@pytest.mark.parametrize("name", MACHINES)
def test_nothing_of_an_engine_stays(by_counting: None, name: str) -> None:
    before = alive()
    for _ in range(3):
        with suppress(HostError):
            execute(MACHINES[name])
    assert alive() == before


def test_what_is_predicted_is_the_same_time_after_time() -> None:
    first = {name: seen(machine) for name, machine in MACHINES.items() if name != "too large"}
    for name, events in first.items():
        assert seen(MACHINES[name]) == events


def seen(machine: Machine) -> object:
    return execute(machine)._replace(elapsed=0.0)


def test_registers_read_together_are_those_read_one_by_one() -> None:
    regs = {f"x{n}": (0x9E3779B97F4A7C15 * (n + 1)) % (1 << 64) for n in range(31)}
    regs |= {"sp_el0": 3 << 60, "sp_el1": 5 << 60, "fpcr": 0x400000, "v5": 7 << 120, "pc": 0x10}
    guest = Arm64(arm64("hvc #0", regs=regs))
    guest.create_vm()
    for slot in guest.machine.memslots:
        guest.set_memslot(slot)
    guest.boot_vcpu(guest.plan)
    together = guest.read_wholes([*guest.GENERAL, *regs])
    assert together == {name: guest.read_whole(name) for name in together}
    assert {name: together[name] for name in regs} == regs
    assert guest.read_wholes(["x1"]) == {"x1": regs["x1"]}
    guest.close()


def test_a_step_reads_registers_at_its_exit() -> None:
    names = ("x0", "w1", "x30", "pc", "pstate", "sp")
    step = mmio(0x5000, True, observe_regs=names[:5])
    code = "mov x30, #9; movn x1, #0; mov x2, #0x5000; str x1, [x2]; hvc #0"
    machine = arm64(code, (step,), devices=(Bytes.at(0x5000, b"", 0x1000),))
    regs = execute(machine).events[0].regs
    assert regs == {"x0": 0, "w1": 0xFFFFFFFF, "x30": 9, "pc": 0xC, "pstate": 0x3C5}
