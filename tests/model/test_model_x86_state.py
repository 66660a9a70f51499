"""x86 guests that change what the model relies on: followed where it is sure, given up with the
reason where it is not.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from model_machines import assemble, mmio, x86

from kvmscen.model.predict import execute
from kvmscen.sent.machine import Action, Bytes, Machine, Memslot, Step, Vcpu

STACK = "mov rsp, 0x1800; "
GIVEN_UP = {
    "mov eax, 3; mov cr8, rax; xor eax, eax; mov cr8, rax": "mov cr8, rax at 0xb: lowering cr8 is "
    "a set_tpr exit of VMX and SVM",
    "mov rax, dr7": "mov rax, dr7",
    "mov dr7, rax": "mov dr7, rax",
    "mov cr4, rax": "mov cr4, rax",
    "mov cr0, rax": "mov cr0, rax",
    "mov ecx, 0xc0000082; mov edx, 0x12345678; wrmsr": "an address that is not canonical faults on "
    "Intel's CPUs only",
    "mov ecx, 0xc0000100; mov edx, 0x8000; wrmsr": "an address that is not canonical",
    "mov ecx, 0x174; mov edx, 1; wrmsr": "whether it keeps 64 bits differs",
    "mov ecx, 0xc0000080; mov eax, 0x400; wrmsr": "the guest changes its mode",
    "mov ecx, 0x1b; rdmsr": "rdmsr of 0x1b",
    "mov ecx, 0x277; wrmsr": "wrmsr of 0x277",
    STACK + "pushfq; or dword ptr [rsp], 0x100; popfq; nop": "the guest sets TF, by popfq",
    STACK
    + "push 0x10; push 0x1700; push 0x102; push 8; lea rax, [rip+3]; push rax; iretq": "the guest "
    "sets TF, by iretq",
    STACK
    + "push 0x18; lea rax, [rip+4]; push rax; retfq": "the guest goes to another code segment",
    "lgdt [0x1000]": "the model follows segments by the engine's own GDT only",
    "vmovups xmm0, [0x1000]": "without CR4.OSXSAVE it is undefined",
    "vaddps ymm0, ymm1, ymm2": "without CR4.OSXSAVE it is undefined",
    "andn eax, ecx, edx": "without CR4.OSXSAVE it is undefined",
    "fxsave [0x1000]": "fxsave",
    "ldmxcsr dword ptr [0x1000]": "ldmxcsr",
    "str ax": "str ax",
    "lmsw ax": "lmsw ax",
    "mov rdx, 0x500000001; cmpxchg edx, ecx": "whether rdx, which is not written, keeps its upper "
    "half",
    "mov [0xfffc0008], eax": "the guest changes its own tables",
    "xor eax, eax; mov ds, ax; mov ebx, ds": None,
}
FOLLOWED = {
    "mov rax, 0x700000000; cmpxchg dword ptr [0x1800], ecx; mov rbx, rax": 0x700000000,
    "mov rax, 0x700000000; mov rdx, 0x600000000; cmpxchg edx, ecx; mov rbx, rax": 0x700000000,
    "mov rax, 0x700000001; cmpxchg dword ptr [0x1800], ecx; mov rbx, rax": 0,
    "mov rax, 0x700000001; mov edx, 2; cmpxchg edx, ecx; mov rbx, rax": 2,
    "mov rax, 0x700000001; mov edx, 2; cmpxchg eax, edx; mov rbx, rax": 2,
    "mov rax, 0x700000000; cmpxchg qword ptr [0x1800], rcx; mov rbx, rax": 0,
    # In a loop it stops where upper halves are not 0 only.
    "mov edi, 3; a: xor eax, eax; cmpxchg dword ptr [0x1800], ecx; dec edi; mov rax, 0x700000000; "
    "cmpxchg dword ptr [0x1800], ecx; mov rbx, rax; jnz a": 0x700000000,
    "mov eax, 3; mov cr8, rax; mov eax, 5; mov cr8, rax; mov cr8, rax; mov rbx, cr8": 5,
    "mov ecx, 0xc0000101; mov eax, 0x1000; xor edx, edx; wrmsr; mov qword ptr [0x1010], 7; mov "
    "ebx, 0x10; mov rbx, gs:[rbx]": 7,
    "mov ecx, 0xc0000080; rdmsr; or eax, 1; wrmsr; rdmsr; mov ebx, eax": 0x501,
    "mov ecx, 0xc0000082; mov eax, 5; mov edx, 0xffff8000; wrmsr; rdmsr; mov ebx, edx": 0xFFFF8000,
    STACK + "push 0x40202; popfq; pushfq; pop rbx": 0x40202,
    STACK + "push 8; lea rax, [rip+4]; push rax; retfq; nop; mov ebx, 9": 9,
    "mov rax, cr0; mov ebx, eax": 0x80000033,
    "mov edi, 0x1010; movaps xmm0, [rdi]; addps xmm0, [rdi]; movups xmm0, [rdi+1]; mov ebx, 3": 3,
    "mov rbx, 0x1000; mov esi, [rbx]; mov edi, [rbx + 4]; mov esp, [rbx]; mov ebx, 4": 4,
    # A loop of one block: what is special in it stops each time.
    "mov ebx, 3; mov edi, 0x1010; a: movaps [rdi], xmm0; movsd xmm1, qword ptr [rdi]; dec ebx; jnz "
    "a; mov ebx, 6": 6,
    "mov edi, 3; a: mov ecx, 0xc0000101; mov eax, edi; xor edx, edx; wrmsr; "
    "inc ebx; dec edi; jnz a": 3,
    "sidt [0x1000]; movzx ebx, word ptr [0x1000]": 0,
}


@pytest.mark.parametrize("code", GIVEN_UP)
def test_what_depends_on_the_host_or_its_flavour_is_given_up(code: str) -> None:
    seen = execute(x86(code + "; hlt"))
    if GIVEN_UP[code] is None:
        assert (seen.unpredicted, seen.events[-1].name) == (None, "hlt")
    else:
        assert str(GIVEN_UP[code]) in (seen.unpredicted or "")
        assert seen.events == ()


@pytest.mark.parametrize("code", FOLLOWED)
def test_what_every_host_does_alike_is_followed(code: str) -> None:
    seen = execute(x86(code + "; hlt"))
    assert (seen.unpredicted, [event.name for event in seen.events], seen.regs["rbx"]) == (
        None,
        ["hlt"],
        FOLLOWED[code],
    )


SHUTDOWNS = (
    "mov eax, 0x13; mov cr8, rax",
    "mov edi, 0x1004; movaps xmm0, [rdi]",
    "mov edi, 0x1004; addps xmm0, [rdi]",
    "mov edi, 0x1008; movntdq [rdi], xmm0",
    "mov eax, 0x40; mov ds, ax",
    "mov rdi, 0x1234567812345678; mov eax, [rdi]",
    "ud2",
)


@pytest.mark.parametrize("code", SHUTDOWNS)
def test_an_exception_without_an_idt_is_a_shutdown(code: str) -> None:
    seen = execute(x86(code + "; hlt"))
    assert (seen.unpredicted, [event.name for event in seen.events], seen.regs) == (
        None,
        ["shutdown"],
        {},
    )


def test_registers_behind_a_shutdown_are_not_told() -> None:
    assert "kvm-amd has reset the vCPU" in (
        execute(x86("ud2", observe_regs=("rax",))).unpredicted or ""
    )
    step = Step("shutdown", observe_regs=("rax",))
    seen = execute(x86("ud2", script=(step,)))
    assert ("kvm-amd has reset the vCPU" in (seen.unpredicted or ""), seen.events) == (True, ())
    # Memory stays.
    seen = execute(x86("mov byte ptr [0x1000], 5; ud2", observe_memory=((0x1000, 1),)))
    assert (seen.unpredicted, seen.memory[0x1000]) == (None, b"\x05")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("ud2", "shutdown"),
        ("mov eax, 0x70000; jmp rax", "internal_error"),
        ("fld dword ptr [0x5000]", "internal_error"),
    ],
)
def test_another_entry_behind_an_end_is_given_up(code: str, name: str) -> None:
    seen = execute(x86(code, script=(Step(name, then=()), Step(name))))
    assert [event.name for event in seen.events] == [name]
    assert (seen.unpredicted or "").startswith(
        f"another KVM_RUN behind {'a shutdown' if name == 'shutdown' else name}"
    )
    # A host that sets registers on the way goes in again, too.
    action = Action("set_regs", {"rip": 0x100})
    seen = execute(x86(code, script=(Step(name, then=(action,)), Step("hlt"))))
    assert seen.unpredicted


def test_cr8_is_the_hosts_too() -> None:
    seen = execute(
        x86(
            "mov rbx, cr8; mov [0x5000], eax; mov rcx, cr8; hlt",
            regs={"cr8": 5},
            observe_regs=("cr8",),
        )
    )
    assert (seen.unpredicted, seen.regs["rbx"], seen.regs["cr8"]) == (None, 5, 5)
    steps = (mmio(then=(Action("set_regs", {"cr8": 7}),)), Step("hlt"))
    seen = execute(x86("mov [0x5000], eax; mov rcx, cr8; hlt", script=steps))
    assert (seen.unpredicted, seen.regs["rcx"]) == (None, 7)
    assert "cr8 is 0x10" in (execute(x86("hlt", regs={"cr8": 16})).unpredicted or "")


def test_flags_of_single_steps_are_given_up() -> None:
    assert "rflags is 0x102" in (execute(x86("hlt", regs={"rflags": 0x102})).unpredicted or "")
    assert execute(x86("nop; hlt", regs={"rflags": 0x202})).regs["rflags"] == 0x202


def test_the_base_of_fs_is_what_the_guest_wrote() -> None:
    code = "mov ecx, 0xc0000100; mov eax, 0x5000; xor edx, edx; wrmsr; mov ebx, fs:[0x10]; hlt"
    seen = execute(x86(code, observe_regs=("fs.base",)))
    assert (seen.unpredicted, seen.events[0].fields["phys_addr"], seen.regs["fs.base"]) == (
        None,
        0x5010,
        0x5000,
    )


def test_an_access_over_a_segments_end_in_real_mode() -> None:
    slots = (Memslot(0, 0, 0x2000), Memslot(1, 0x10000, 0x1000))
    code = b"\x67\x66\xa1\x00\x00\x01\x00\xf4"  # mov eax, [0x10000] by an address of 32 bits
    seen = execute(x86(code, "real", memslots=slots, image=(Bytes.at(0, code),)))
    assert "beyond the end of its segment" in (seen.unpredicted or "")


# --- user mode ------------------------------------------------------------------------------------


def user(code: str, **more: Any) -> Machine:
    """A vCPU at CPL 3 on tables of its own at 0x4000, which map the first 2 MiB to themselves."""
    tables = struct.pack("<Q4088xQ4088xQ4088x", 0x5007, 0x6007, more.pop("leaf", 0xE7))
    regs = {
        "cr3": 0x4000,
        "cs.selector": 0x2B,
        "cs.dpl": 3,
        "ss.selector": 0x23,
        "ss.dpl": 3,
        "rsp": 0x1800,
    }
    machine = x86(
        code,
        tables=None,
        image=(Bytes.at(0, assemble("long", code)), Bytes.at(0x4000, tables)),
        **more,
    )
    slots = (Memslot(0, 0, 0x2000), Memslot(1, 0x4000, 0x3000))
    vcpus = (
        Vcpu(
            0,
            "long",
            {**machine.vcpus[0].regs, **regs, **more.get("regs", {})},
            (),
            machine.vcpus[0].script,
        ),
    )
    return machine._replace(memslots=slots, vcpus=vcpus, devices=())


def test_user_mode() -> None:
    seen = execute(
        user("mov ecx, 0x20000; mov [rcx], rsp; mov ebx, [rcx+8]; push rax; mov [rcx], rsp; ud2")
    )
    assert seen.unpredicted is None
    assert [(event.name, event.fields.get("data")) for event in seen.events] == [
        ("mmio", 0x1800),
        ("mmio", None),
        ("mmio", 0x17F8),
        ("shutdown", None),
    ]


@pytest.mark.parametrize(
    "code",
    [
        "hlt",
        "cli",
        "mov rax, cr0",
        "mov rax, cr8",
        "mov cr8, rax",
        "rdmsr",
        "mov eax, [0x200000]",
        "lgdt [rsp]",
    ],
)
def test_what_user_mode_may_not_do_is_a_shutdown(code: str) -> None:
    before = "mov ecx, 0xc0000100; " if code == "rdmsr" else ""
    seen = execute(user(before + code + "; nop; nop"))
    assert (seen.unpredicted, [event.name for event in seen.events]) == (None, ["shutdown"])


def test_what_the_emulator_lacks_is_an_exception_of_user_mode() -> None:
    seen = execute(user("fld dword ptr [0x20000]"))
    assert (seen.unpredicted, [event.name for event in seen.events]) == (None, ["shutdown"])
    (note,) = seen.notes
    assert (
        "in user mode: #UD for the guest on VMX and SVM, predicted so, an internal_error on PVM"
        in note
    )


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            "pushfq; or dword ptr [rsp], 0x40000; popfq; mov eax, [rsp + 1]",
            "the guest sets AC in user mode",
        ),
        ("push fs", "what a selector is that nobody has loaded differs"),
        ("mov eax, es", "what a selector is that nobody has loaded differs"),
    ],
)
def test_what_flavours_differ_in_in_user_mode(code: str, why: str) -> None:
    seen = execute(user(code + "; ud2"))
    assert why in (seen.unpredicted or "")


def test_the_selectors_of_user_mode() -> None:
    seen = execute(
        user("mov ecx, 0x20000; mov eax, cs; mov [rcx], eax; mov eax, ss; mov [rcx], eax; ud2")
    )
    assert seen.unpredicted is None
    assert [event.fields.get("data", 0) & 3 for event in seen.events[:2]] == [3, 3]


def test_user_modes_ports_and_descriptors_are_given_up() -> None:
    assert "what ports user mode may use is in a TSS" in (
        execute(user("in al, 0x10")).unpredicted or ""
    )
    assert "sgdt" in (execute(user("sgdt [rsp-32]")).unpredicted or "")


def test_tables_that_map_elsewhere_are_given_up() -> None:
    assert "page tables map 0x0 to 0x200000" in (
        execute(user("nop", leaf=0x2000E7)).unpredicted or ""
    )
    assert "page tables lie in no slot (at 0x9000)" in (
        execute(user("nop", leaf=0x9007)).unpredicted or ""
    )
    assert "the guest changes its own tables" in (
        execute(user("mov [0x6000], eax")).unpredicted or ""
    )
    # Supervisor pages are not for user mode.
    assert [event.name for event in execute(user("nop", leaf=0xE3)).events] == ["shutdown"]
