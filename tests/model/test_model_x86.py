"""x86 guests on the model; with a /dev/kvm each is also run there, and both must tell the same
story.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import pytest
from model_machines import DEVICE, READONLY, mmio, x86

from kvmscen.model import facts
from kvmscen.model.predict import execute
from kvmscen.reports import json_report
from kvmscen.sent.executor.executor import Executor
from kvmscen.sent.kvm.fds import Kvm
from kvmscen.sent.machine import Action, Machine, Memslot, Step
from kvmscen.sent.observation import Observation

START = (
    "mov rbx, 0x5000; mov rsi, rbx; mov rdi, 0x5100; mov ecx, 3; mov eax, 0x77; mov rsp, "
    "0x1800; movups xmm0, [rip]; "
)
WATCHED = ((0x1000, 0x1000), (0x5000, 0x200), (0x8000, 64))
# Each leaves flags that are defined.
MEMORY = (
    *(
        "mov [rbx], rax",
        "mov [rbx], eax",
        "mov [rbx], ax",
        "mov [rbx], al",
        "mov rax, [rbx]",
        "mov ax, [rbx+3]",
        "mov al, [rbx+1]",
    ),
    *(
        "movzx eax, byte ptr [rbx]",
        "movsx rax, word ptr [rbx+8]",
        "xchg [rbx], eax",
        "lock xadd [rbx], eax",
        "xadd [rbx], ax",
    ),
    *(
        "lock cmpxchg [rbx], ecx",
        "cmpxchg [rbx], ecx",
        "lock add dword ptr [rbx], 1",
        "lock cmpxchg8b [rbx]",
        "movnti [rbx], eax",
    ),
    *(
        "movups [rbx], xmm0",
        "movups xmm0, [rbx+8]",
        "movdqa xmm0, [rbx]",
        "movdqa [rbx+16], xmm0",
        "movntdq [rbx], xmm0",
    ),
    *(
        "mov [rbx+0xffc], rax",
        "mov rax, [rbx+0xffc]",
        "mov [rbx+0xfff], ax",
        "rep movsq",
        "movsb",
        "rep stosb",
        "rep stosq",
    ),
    *(
        "rep lodsb",
        "std; rep stosb",
        "mov rsp, 0x5800; push rax",
        "mov rsp, 0x5800; call 0x80",
        "mov rsp, 0x5800; pop rax",
    ),
    *(
        "push qword ptr [rbx]",
        "pop qword ptr [rbx]",
        "bts dword ptr [rbx], 3",
        "bt dword ptr [rbx], 3",
        "btc [rbx], eax",
    ),
    *(
        "fld dword ptr [rbx]",
        "fnstcw [rbx]",
        "movd xmm0, [rbx]",
        "movq xmm0, [rbx]",
        "movss xmm0, [rbx]",
        "movq mm0, [rbx]",
    ),
    *("popcnt eax, [rbx]", "addps xmm0, [rbx]", "crc32 eax, byte ptr [rbx]", "lddqu xmm0, [rbx]"),
    *(
        "inc byte ptr [rbx]",
        "neg dword ptr [rbx]",
        "cmp [rbx], eax",
        "test [rbx], eax",
        "adc [rbx], eax",
    ),
    *(
        "cmovc eax, [rbx]",
        "scasb",
        "repne scasb",
        "repe scasb",
        "cmpsb",
        "repe cmpsb",
        "jmp [rbx]",
        "enter 16, 0",
    ),
    *("mov rdi, 0x1000; rep movsb", "mov rsi, 0x1000; rep movsb", "mov rsi, 0x1000; repe cmpsb"),
    *(
        "mov rbp, 0x5800; leave",
        "mov rsp, 0x5800; ret",
        "mov rsp, 0x5800; pushfq",
        "mov rdi, 0x8000; stosd",
        "mov eax, [0x8000]",
    ),
    *(
        "mov [0x8004], rax; mov rax, [0x8004]",
        "lock inc dword ptr [0x8000]",
        "mov [0x1ffc], rax",
        "mov rdi, 0x1ffc; mov rax, [rdi]",
    ),
    *(
        "mov [0x8ffc], rax",
        "mov [0x7ffc], rax",
        "movsxd rax, dword ptr [rbx]",
        "mov word ptr [rbx], 0x1234",
        "mov qword ptr [rbx], -1",
    ),
    *(
        "and dword ptr [rbx], 0xf",
        "mov rsi, rbx; mov rdi, 0x8000; movsw",
        "movaps xmm0, [rbx+8]",
        "prefetcht0 [rbx]",
    ),
    *("mov eax, [rbx]; mov ecx, [rbx+4]", "mov byte ptr [ebx], 1"),
)
PORTS = (
    *(
        "mov dx, 0x10; out dx, al",
        "out 0x20, eax",
        "in al, 0x20",
        "in eax, 0x30",
        "mov eax, -1; in ax, 0x30",
    ),
    *(
        "mov dx, 5; mov rsi, 0x8000; rep outsb",
        "mov dx, 5; mov rsi, 0x8000; outsd",
        "mov dx, 5; mov rdi, 0x1000; rep insb",
    ),
    *(
        "mov dx, 5; mov rdi, 0x1000; insw",
        "mov ecx, 0; rep insb",
        "out 0x20, al; inc eax; out 0x21, al",
    ),
)
LONG = (
    *(
        "ud2",
        "xor ecx, ecx; div ecx",
        "mov rax, 0x500000000; mov [rax], eax",
        "mov rax, 0x800000000000; mov [rax], eax",
    ),
    *(
        "mov rax, 0x7000; jmp rax",
        "mov rax, 0x500000000; jmp rax",
        "mov rax, cr0; hlt",
        "mov rax, cr8; hlt",
        "hlt",
        "cli; sti; hlt",
    ),
    *(
        "mov eax, 0x10; mov ds, eax; hlt",
        "mov eax, 0x33; mov ds, eax; hlt",
        "pushfq",
        "mov rsp, 0x1000; pushfq; pop rax; hlt",
    ),
    *(
        "mov eax, [0x5000]; ud2",
        "mov [0x5000], eax; mov rax, 0x500000000; mov [rax], eax",
        "mov [0x5000], eax; xor ecx, ecx; div ecx",
    ),
    *(
        "mov rax, 0x100; jmp rax",
        "nop",
        "mov byte ptr [rip+1], 5; mov al, 1; hlt",
        "a: mov [0x5000], al; inc al; jmp a",
    ),
)
PROTECTED = (
    *(
        "mov ebx, 0x5000; mov [ebx], eax; mov eax, [ebx]; mov [ebx], al; hlt",
        "mov eax, 0x10; mov ds, eax; mov es, eax; hlt",
    ),
    *(
        "mov esp, 0x5100; push eax; pop ecx; hlt",
        "ud2",
        "mov edi, 0x5000; mov ecx, 3; rep stosd; hlt",
        "mov eax, cr0; hlt",
    ),
    *(
        "mov dx, 4; mov ecx, 3; mov esi, 0x8000; rep outsd; hlt",
        "mov [0x90000000], eax; hlt",
        "mov eax, 0x33; mov ds, eax",
    ),
)
REAL = (
    *(
        "mov bx, 0x5000; mov [bx], ax; mov eax, [bx]; hlt",
        "mov bx, 0x500; mov ds, bx; mov [4], eax; hlt",
        "out 0x10, al; hlt",
    ),
    *(
        "mov si, 0x100; mov cx, 3; rep outsb; hlt",
        "mov di, 0x1000; mov cx, 3; rep insb; hlt",
        "push ax; hlt",
        "hlt",
    ),
    *("mov sp, 0x5100; push ax; hlt", "mov di, 0x5000; mov cx, 3; rep stosw; hlt", "nop"),
)
GUESTS = [
    *(("long", START + text + "; nop; hlt") for text in (*MEMORY, *PORTS)),
    *(("long", text) for text in LONG),
    *(("protected", text) for text in PROTECTED),
    *(("real", text) for text in REAL),
]


def story(seen: Observation) -> list[dict[str, Any]]:
    """Events, without what is a property of KVM's flavour: the pc at OUT and after a triple fault,
    internal_error's data.
    """
    out = []
    for event in seen.events:
        data = json_report.event_json(event)
        if data.get("exit") == "internal_error":
            data = {key: data[key] for key in ("exit", "suberror", "pc")}
        if data.get("exit") == "shutdown" or (data.get("exit") == "io" and data["direction"] == 1):
            del data["pc"]
        data.pop("data_offset", None)
        out.append(data)
    return out


@cache
def kvm() -> Executor | None:
    try:
        return Executor(Kvm(), "pvm") if os.uname().machine == "x86_64" else None
    except Exception:  # noqa: BLE001 whatever it raises is what is tested
        return None


@pytest.mark.kvm
@pytest.mark.parametrize(("mode", "text"), GUESTS)
def test_kvm_tells_the_same_story(mode: str, text: str) -> None:
    real = kvm()
    if real is None:
        pytest.skip("no usable /dev/kvm")
    machine = x86(
        text, mode, observe_memory=WATCHED, observe_regs=("xmm0",) if mode == "long" else ()
    )
    wanted = real.execute(machine)
    if wanted.events[-1].name == "shutdown":
        # What the registers are then depends on KVM's flavour.
        machine = machine._replace(observe_regs=())
    seen = execute(machine)
    assert seen.unpredicted is None
    assert story(seen) == story(wanted)
    assert (seen.stopped, seen.memory) == (wanted.stopped, wanted.memory)
    assert seen.regs == (wanted.regs if seen.events[-1].name != "shutdown" else {})


def told(seen: Observation) -> list[tuple[object, ...]]:
    return [(e.name or e.kind, *e.fields.values(), e.pc) for e in seen.events]


def test_stores_and_loads_of_each_width() -> None:
    seen = execute(
        x86(
            "mov rbx, 0x5000; mov eax, 0x11223344; mov [rbx], rax; mov [rbx+8], ax; mov [rbx+9], "
            "al; mov ecx, [rbx]; hlt"
        )
    )
    assert told(seen) == [
        ("mmio", 0x5000, True, 8, 0x11223344, 15),
        ("mmio", 0x5008, True, 2, 0x3344, 19),
        ("mmio", 0x5009, True, 1, 0x44, 22),
        ("mmio", 0x5000, False, 4, 22),
        ("hlt", 25),
    ]
    assert (seen.regs["rcx"], seen.stopped) == (0x11223344, "expected")


def test_fragments_of_wide_and_crossing_accesses() -> None:
    seen = execute(x86("movups [0x5000], xmm0; mov [0x5ffc], rax; hlt"))
    assert [(e.fields["phys_addr"], e.fields["len"]) for e in seen.events[:-1]] == [
        (0x5000, 8),
        (0x5008, 8),
        (0x5FFC, 4),
        (0x6000, 4),
    ]


def test_read_then_write_with_the_reply() -> None:
    script = (
        mmio(0x5000, False, reply={"data": 9}, observe_regs=("rax",)),
        mmio(0x5000, True, observe_regs=("rax", "rip")),
        Step("hlt"),
    )
    seen = execute(x86("mov eax, 5; mov rbx, 0x5000; xchg [rbx], eax; hlt", script=script))
    assert [e.regs for e in seen.events] == [{"rax": 5}, {"rax": 9, "rip": 14}, None]
    assert (seen.events[1].fields["data"], seen.regs["rax"]) == (5, 9)


def test_actions_wait_until_the_instruction_is_complete() -> None:
    act = (Action("set_regs", {"rax": 0x55}),)
    script = (mmio(0x5000, False, act, reply={"data": 9}), mmio(0x5000, True), mmio(0x5008, True))
    seen = execute(
        x86("mov eax, 5; mov rbx, 0x5000; xchg [rbx], eax; mov [rbx+8], eax; hlt", script=script)
    )
    assert [e.fields.get("data") for e in seen.events] == [None, 5, 0x55]


def test_the_limit_of_exits_cuts_an_instruction() -> None:
    seen = execute(x86("mov eax, 5; mov rbx, 0x5000; xchg [rbx], eax; hlt", exits=1))
    assert (seen.stopped, len(seen.events), seen.regs["rax"], seen.regs["rip"]) == (
        "exits",
        1,
        5,
        12,
    )


def test_ports() -> None:
    script = (
        Step("io", {"port": 0x20, "direction": 0}, reply={"data": 0xAB}),
        Step("io", observe_regs=("al",)),
        Step("hlt"),
    )
    seen = execute(x86("in al, 0x20; mov dx, 0x1234; out dx, al; hlt", script=script))
    assert seen.events[0].fields == {"direction": 0, "size": 1, "port": 0x20, "count": 1}
    assert seen.events[1].fields == {
        "direction": 1,
        "size": 1,
        "port": 0x1234,
        "count": 1,
        "data": 0xAB,
    }
    assert [e.pc for e in seen.events] == [0, 6, 8]
    assert seen.events[1].regs == {"al": 0xAB}


def test_rep_ins_is_one_exit_and_rep_outs_one_an_element() -> None:
    script = (Step("io", reply={"data": [1, 2, 3]}), Step("hlt"))
    seen = execute(
        x86(
            "mov dx, 5; mov edi, 0x1000; mov ecx, 3; rep insw; hlt",
            script=script,
            observe_memory=((0x1000, 6),),
        )
    )
    assert (seen.events[0].fields["count"], seen.memory[0x1000]) == (3, bytes((1, 0, 2, 0, 3, 0)))
    seen = execute(x86("mov dx, 5; mov esi, 0x8000; mov ecx, 3; rep outsb; hlt"))
    assert [e.fields.get("data") for e in seen.events] == [*READONLY[:3], None]


def test_a_read_only_slot() -> None:
    seen = execute(
        x86(
            "mov eax, [0x8000]; mov [0x8004], eax; lock inc dword ptr [0x8000]; hlt",
            observe_memory=((0x8000, 8),),
        )
    )
    value = int.from_bytes(READONLY[:4], "little")
    assert [(e.fields["phys_addr"], e.fields["data"]) for e in seen.events[:-1]] == [
        (0x8004, value),
        (0x8000, value + 1),
    ]
    assert seen.memory[0x8000] == READONLY[:8]


@pytest.mark.parametrize(
    "code",
    ["ud2", "int3", "xor ecx, ecx; div ecx", "mov rax, 0x500000000; mov [rax], al", "push rax"],
)
def test_an_exception_is_a_triple_fault(code: str) -> None:
    seen = execute(x86(code))
    assert ([e.name for e in seen.events], seen.stopped) == (["shutdown"], "expected")


@pytest.mark.parametrize(
    "code",
    [
        "addps xmm0, [0x5000]",
        "fld dword ptr [0x5000]",
        "movd xmm0, [0x5000]",
        "mov eax, 0x7000; jmp rax",
    ],
)
def test_what_kvm_does_not_emulate(code: str) -> None:
    seen = execute(x86(code))
    assert [(e.name, e.fields) for e in seen.events] == [("internal_error", {"suberror": 1})]


@pytest.mark.parametrize(
    ("code", "mode"),
    [
        *(
            ("rdtsc", "long"),
            ("cpuid", "long"),
            ("mov ecx, 0x10; rdmsr", "long"),
            ("mov cr3, rax", "long"),
            ("vmcall", "long"),
        ),
        *(
            ("ud2", "real"),
            ("int 0x10", "real"),
            ("mov bx, 0xffff; mov [bx], ax", "real"),
            ("pusha", "protected"),
        ),
        *(
            ("movbe [0x5000], eax", "long"),
            ("syscall", "long"),
            ("movups [0x5ff4], xmm0", "long"),
            ("mov cr0, eax", "protected"),
        ),
    ],
)
def test_it_says_why_it_does_not_predict(code: str, mode: str) -> None:
    regs = {"esp": 0x5100} if mode == "protected" else {}
    seen = execute(x86(code, mode, regs=regs))
    assert seen.unpredicted
    assert seen.events == ()


def test_what_lies_behind_a_stop_is_not_run() -> None:
    seen = execute(x86("out 0x10, al; inc rax; inc rax; hlt", script=(Step("io"),)))
    assert (seen.stopped, seen.regs["rax"], seen.regs["rip"]) == ("end", 0, 2)


def test_loops() -> None:
    assert told(execute(x86("jmp 0", timeout=50.0))) == [("timeout", 50.0, 0)]
    seen = execute(x86("mov ecx, 1000000; a: dec ecx; jnz a; hlt", timeout=20.0))
    assert (told(seen), seen.regs["rcx"]) == ([("hlt", 10)], 0)
    assert execute(x86("a: inc rax; jmp a", timeout=0.1)).stopped == "timeout"


def test_known_msrs_keep_what_is_written() -> None:
    seen = execute(
        x86("mov ecx, 0xc0000102; mov eax, 7; xor edx, edx; wrmsr; xor eax, eax; rdmsr; hlt")
    )
    assert (seen.unpredicted, seen.regs["rax"]) == (None, 7)


def test_a_slot_moves_under_the_guest() -> None:
    move = Action("set_memslot", {"slot": 1, "gpa": 0x5000, "size": 0x1000, "flags": 2})
    seen = execute(
        x86(
            "mov [0x5000], eax; mov eax, [0x5000]; mov ecx, [0x8000]; hlt",
            script=(mmio(then=(move,)), mmio(), Step("hlt")),
        )
    )
    assert [e.fields.get("phys_addr") for e in seen.events] == [0x5000, 0x8000, None]
    assert seen.regs["rax"] == int.from_bytes(READONLY[:4], "little")


def test_the_tables_are_a_slot() -> None:
    seen = execute(x86("hlt", memslots=(Memslot(0, 0, 0x2000), Memslot(3, 0xFFFC0000, 0x1000))))
    assert [e.name for e in seen.events] == ["EEXIST"]


def test_device_bytes_and_facts() -> None:
    machine: Machine = x86("mov rax, [0x5008]; hlt")
    assert execute(machine).regs["rax"] == int.from_bytes(DEVICE[8:16], "little")
    assert facts("x86_64").flavour is None
