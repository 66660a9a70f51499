"""Registers out of struct kvm_run are those that KVM_GET_REGS gives, and what is remembered of a
fresh vCPU is so for each.
"""

from __future__ import annotations

import ctypes
import random
import signal
from collections.abc import Iterator

import pytest
from kvm_machines import act, machine, mmio

from kvmscen.sent.executor import alarm
from kvmscen.sent.executor.building import build
from kvmscen.sent.executor.executor import Executor
from kvmscen.sent.executor.session import Session
from kvmscen.sent.header import uapi
from kvmscen.sent.kvm import x86_64
from kvmscen.sent.kvm.fds import Kvm
from kvmscen.sent.machine import Action, Capability, Machine, Step
from kvmscen.sent.observation import Observation

pytestmark = pytest.mark.kvm
EINTR = 4


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    kvm = Kvm()
    yield kvm
    kvm.close()


@pytest.fixture
def syncing(kvm: Kvm) -> Kvm:
    if not kvm.sync_regs:
        pytest.skip("this KVM has no KVM_CAP_SYNC_REGS")
    return kvm


# What changes registers, in the middle of instructions and at their ends.
PIECES = (
    "mov [rbx], rax",
    "mov [rbx + 4], cx",
    "mov rdx, [rbx + 8]",
    "movzx esi, byte ptr [rbx + 3]",
    "mov [rbx + 0xffc], rax",
    "xchg [rbx], rdi",
    "lock cmpxchg [rbx], rcx",
    "add [rbx], r9",
    "inc byte ptr [rbx + 1]",
    "out 0x42, al",
    "out 0x43, eax",
    "in eax, 0x44",
    "in al, 0x45",
    "push rax; pop r11",
    "add r8, rax",
    "imul rax, rax, 0x5851f42d",
    "xor rcx, rax",
    "stc",
    "cld; lea rsi, [rip]; mov dx, 0x46; mov ecx, 3; rep outsb",
    "mov rdi, rbx; mov ecx, 2; rep stosq",
    "mov rsi, rbx; lea rdi, [rsp - 64]; mov ecx, 2; rep movsb",
)


def guest(seed: int) -> Machine:
    """A guest of random instructions that ends with HLT; its steps look at registers and set
    some.
    """
    choose = random.Random(seed)
    names = [name for name in x86_64.GENERAL if name not in ("rip", "rflags", "rbx", "rsp")]
    code = "; ".join([*choose.choices(PIECES, k=12), "hlt"])
    regs = {name: choose.getrandbits(64) for name in names}
    deeds = [
        (Action("set_regs", {choose.choice(names): choose.getrandbits(64)}),),
        (act("set_regs", eax=1, r9=2, cr2=3),),
        (act("write_memory", gpa=0x5000, data="0102"),),
        (),
        None,
    ]
    steps = [
        Step(
            choose.choice(("mmio", "io")),
            repeat=(0, choose.choice((1, 3))),
            then=choose.choice(deeds),
            observe_regs=choose.choice(((), ("rax", "cx", "cr0", "rip"), x86_64.GENERAL)),
        )
        for _ in range(6)
    ]
    return machine(code, (*steps, Step("hlt")), regs=regs, timeout=5.0)


GUESTS = {
    **{f"random {seed}": guest(seed) for seed in range(12)},
    "a triple fault": machine("ud2"),
    "an endless loop": machine("inc rax; jmp .", timeout=0.05),
    "a timeout step": machine(
        "mov [rbx], rax; jmp .",
        (
            mmio(0x5000),
            Step("timeout", timeout=0.02, then=(act("set_regs", rip=0, rax=7),)),
            mmio(0x5000),
        ),
    ),
    "an action that fails": machine(
        "mov [rbx], rax; hlt",
        (mmio(0x5000, then=(act("set_regs", "EINVAL", cr4=1 << 63),)), Step("hlt")),
    ),
    "a local APIC": machine(
        "mov [rbx], rax; hlt",
        (mmio(0x5000, observe_regs=("apic_base", "rax")),),
        enable=(Capability("KVM_CAP_SPLIT_IRQCHIP", 121, (24,)),),
        observe_regs=("apic_base", "cr8"),
    ),
    "real mode": machine("mov [bx], ax; out 0x42, al; hlt", mode="real", regs={"rax": 0x1234}),
    "protected mode": machine("mov [ebx], eax; in al, 0x42; hlt", mode="protected"),
}


def without_time(seen: Observation) -> Observation:
    return seen._replace(elapsed=0.0)


@pytest.mark.parametrize("name", GUESTS)
def test_a_run_is_the_same_with_the_capability_and_without(syncing: Kvm, name: str) -> None:
    with_it = without_time(Executor(syncing, None).execute(GUESTS[name]))
    other = Kvm()
    other.sync_regs = 0
    try:
        without = without_time(Executor(other, None).execute(GUESTS[name]))
    finally:
        other.close()
    assert with_it.events
    if "endless" in name:
        # Where the time is over differs from run to run.
        assert with_it.stopped == without.stopped == "timeout"
    else:
        assert with_it == without


@pytest.mark.parametrize("name", [name for name in GUESTS if "random" in name])
def test_what_is_synced_is_what_kvm_gives(syncing: Kvm, name: str) -> None:
    session = Session(syncing, GUESTS[name], None)
    try:
        assert build(session, session.machine) is None
        vcpu, exits = session.first, 0
        assert not vcpu.synced  # nothing ran yet
        while vcpu.exit_reason != 5 and exits < 200:
            assert vcpu.run() == 0
            assert vcpu.synced
            pc, synced = x86_64.pc(vcpu), x86_64.read(vcpu, x86_64.GENERAL)
            assert vcpu.synced
            buffer = (ctypes.c_char * uapi.REGS_X86)()
            vcpu.ioctl("KVM_GET_REGS", buffer)
            assert not vcpu.synced  # another ioctl may have changed them
            assert x86_64.read(vcpu, x86_64.GENERAL) == synced
            assert pc == x86_64.pc(vcpu) == synced["rip"]
            exits += 1
        assert exits > 1
    finally:
        session.close()


def test_nothing_is_synced_behind_a_run_that_failed_or_a_write(syncing: Kvm) -> None:
    session = Session(syncing, machine("mov [rbx], rax; mov [rbx], rcx; hlt"), None)
    try:
        assert build(session, session.machine) is None
        vcpu = session.first
        assert (vcpu.run(), vcpu.synced) == (0, True)
        x86_64.write(vcpu, {"rcx": 5})
        assert not vcpu.synced
        assert x86_64.read(vcpu, ("rcx",)) == {"rcx": 5}
        assert (vcpu.run(), vcpu.synced) == (0, True)
        assert x86_64.read(vcpu, ("rcx",)) == {"rcx": 5}
        vcpu.immediate_exit = 1
        assert (vcpu.run(), vcpu.synced) == (EINTR, False)
    finally:
        session.close()


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("mode", ["real", "long"])
def test_the_special_registers_of_a_fresh_vcpu_are_always_the_same(
    kvm: Kvm, mode: str, number: int
) -> None:
    executor = Executor(kvm, None)

    def fresh() -> bytes:
        vm = kvm.create_vm()
        vcpu = vm.create_vcpu(number)
        try:
            if mode != "real":
                vcpu.ioctl("KVM_SET_CPUID2", x86_64._supported_cpuid(kvm))
            sregs = (ctypes.c_char * uapi.SREGS_X86)()
            vcpu.ioctl("KVM_GET_SREGS", sregs)
            return bytes(sregs)
        finally:
            vcpu.close()
            vm.close()

    seen = {fresh()}
    for name in ("random 1", "a triple fault", "a local APIC", "real mode", "protected mode"):
        executor.execute(GUESTS[name])
        seen.add(fresh())
    assert len(seen) == 1
    remembered = x86_64._fresh.get((number, mode == "real"))
    assert remembered in (None, *seen)
    assert number or remembered is not None


def test_a_capability_may_make_them_others(kvm: Kvm) -> None:
    executor = Executor(kvm, None)
    plain = machine("hlt", observe_regs=("apic_base",))
    first = executor.execute(plain).regs["apic_base"]
    other = executor.execute(GUESTS["a local APIC"]).regs["apic_base"]
    assert executor.execute(plain).regs["apic_base"] == first
    assert executor.execute(GUESTS["a local APIC"]).regs["apic_base"] == other


def test_the_alarm_stays_and_does_nothing_between_runs(kvm: Kvm) -> None:
    before = signal.getsignal(signal.SIGALRM)
    try:
        # Whoever has set another handler meanwhile has no run that never ends by it.
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        executor = Executor(kvm, None)
        for _ in range(2):
            assert executor.execute(machine("jmp .", timeout=0.02)).stopped == "timeout"
            assert signal.getsignal(signal.SIGALRM) is alarm._handle
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
            signal.raise_signal(signal.SIGALRM)
        assert executor.execute(machine("hlt", timeout=5.0)).stopped == "expected"
    finally:
        signal.signal(signal.SIGALRM, before)
