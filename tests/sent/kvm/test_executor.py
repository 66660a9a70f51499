"""The executor on this machine's real /dev/kvm. What PVM and hardware do differently is left out,
or asked of the flavour.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kvm_machines import READONLY, TABLES, act, assemble, machine, mmio, story, told

from kvmscen.errors import HostError
from kvmscen.sent.agent.main import facts
from kvmscen.sent.arch.x86_64 import KVM_REGS
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.executor.executor import Executor
from kvmscen.sent.header.caps import CAPABILITIES
from kvmscen.sent.kvm.fds import Kvm
from kvmscen.sent.machine import Action, Bytes, Capability, Machine, Memslot, Step, Tables
from kvmscen.sent.observation import Observation

pytestmark = pytest.mark.kvm
Run = Callable[[Machine], Observation]
HLT = Step("hlt")


@pytest.fixture(scope="module")
def kvm() -> Iterator[Kvm]:
    kvm = Kvm()
    yield kvm
    kvm.close()


@pytest.fixture(scope="module")
def run(kvm: Kvm) -> Run:
    executor = Executor(kvm, facts(kvm).flavour)

    def execute(machine: Machine) -> Observation:
        # As it crosses the border, so that what does not survive JSON shows here.
        seen = executor.execute(decode(Machine, encode(machine)))
        assert decode(Observation, encode(seen)) == seen
        return seen

    return execute


# --- modes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "word"), [("long", "rax"), ("protected", "eax"), ("real", "ax")])
def test_modes(run: Run, mode: str, word: str) -> None:
    base = "bx" if mode == "real" else "ebx" if mode == "protected" else "rbx"
    seen = run(
        machine(
            f"mov {word}, 0x1234; mov [{base}], {word}; mov {word}, [{base} + 8]; hlt",
            (*[Step("mmio")] * 2, HLT),
            mode,
        )
    )
    width = {"rax": 8, "eax": 4, "ax": 2}[word]
    value = int.from_bytes(bytes(range(9, 9 + width)), "little")
    assert story(seen) == [("w", 0x5000, width, 0x1234), ("r", 0x5008, width), ("hlt",)]
    assert seen.stopped == "expected"
    assert seen.regs["rax"] == value
    end = len(
        assemble(mode, f"mov {word}, 0x1234; mov [{base}], {word}; mov {word}, [{base} + 8]; hlt")
    )
    assert seen.regs["rip"] == end == seen.events[-1].pc


def test_the_engines_gdt_holds_what_the_segments_say(run: Run) -> None:
    # Reloading each segment register from the GDT must change nothing; cs by a far return.
    for mode, selector in (("long", 8), ("protected", 0x18)):
        wide, pop = ("rax", "retfq") if mode == "long" else ("eax", "retf")
        code = (
            f"mov ax, 0x10; mov ds, ax; mov es, ax; mov ss, ax; push {selector}; mov {wide}, "
            f"0x100; push {wide}; {pop}"
        )
        at = assemble(
            mode,
            "mov byte ptr [0x5000], 1; hlt"
            if mode == "protected"
            else "mov byte ptr [rbx], 1; hlt",
        )
        seen = run(
            machine(
                assemble(mode, code),
                (Step("mmio"), HLT),
                mode,
                image=(Bytes.at(0, assemble(mode, code)), Bytes.at(0x100, at)),
            )
        )
        assert story(seen) == [("w", 0x5000, 1, 1), ("hlt",)], mode


def test_sse_is_on_in_long_mode(run: Run) -> None:
    seen = run(
        machine(
            "movups xmm1, [rbx]; movups [rbx + 0x10], xmm1; hlt",
            (*[Step("mmio")] * 4, HLT),
            observe_regs=("xmm1",),
        )
    )
    low, high = (int.from_bytes(bytes(range(n, n + 8)), "little") for n in (1, 9))
    assert story(seen) == [
        ("r", 0x5000, 8),
        ("r", 0x5008, 8),
        ("w", 0x5010, 8, low),
        ("w", 0x5018, 8, high),
        ("hlt",),
    ]
    assert seen.regs["xmm1"] == high << 64 | low


def test_real_mode_segments(run: Run) -> None:
    # ds 0x450 and an offset of 0xb00 is 0x5000.
    seen = run(
        machine(
            "mov al, [0xb00]; hlt",
            (Step("mmio"), HLT),
            "real",
            {"ds": 0x450},
            observe_regs=("ds.base", "al"),
        )
    )
    assert story(seen) == [("r", 0x5000, 1), ("hlt",)]
    assert (seen.regs["ds.base"], seen.regs["al"]) == (0x4500, 1)


# --- accesses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "register", "width"),
    [("byte", "al", 1), ("word", "ax", 2), ("dword", "eax", 4), ("qword", "rax", 8)],
)
@pytest.mark.parametrize("offset", [0, 3])
def test_each_width(run: Run, word: str, register: str, width: int, offset: int) -> None:
    code = (
        f"mov {word} ptr [rbx + {offset}], {register}; mov rcx, -1; mov rax, -1; mov "
        f"{register}, {word} ptr [rbx + {offset}]; hlt"
    )
    script = (
        Step("mmio"),
        Step("mmio", reply={"data": 0x8877665544332211 & ((1 << 8 * width) - 1)}),
        HLT,
    )
    seen = run(machine(code, script, regs={"rax": 0xA1A2A3A4A5A6A7A8}))
    stored = 0xA1A2A3A4A5A6A7A8 & ((1 << 8 * width) - 1)
    assert story(seen) == [
        ("w", 0x5000 + offset, width, stored),
        ("r", 0x5000 + offset, width),
        ("hlt",),
    ]
    answered = 0x8877665544332211 & ((1 << 8 * width) - 1)
    kept = 0 if width >= 4 else -1 << 8 * width & (1 << 64) - 1
    assert seen.regs["rax"] == kept | answered
    assert seen.events[1].reply == {"data": answered}


def test_a_device_holds_its_bytes(run: Run) -> None:
    code = (
        "mov eax, [rbx + 2]; mov dword ptr [rbx + 4], 0x99887766; mov rcx, [rbx]; mov rdx, "
        "[rbx + 0x2000]; hlt"
    )
    seen = run(machine(code, (*[Step("mmio")] * 4, HLT), observe_memory=((0x5000, 10),)))
    assert seen.regs["rax"] == 0x06050403
    assert seen.regs["rcx"] == 0x9988776604030201
    # Outside of every section: zero, not what the last exit left in kvm_run.
    assert seen.regs["rdx"] == 0
    assert seen.memory == {0x5000: bytes.fromhex("0102030466778899") + b"\x09\x0a"}


def test_a_reply_is_seen_when_the_instruction_is_complete(run: Run) -> None:
    script = (
        mmio(0x5000, False, reply={"data": 7}, observe_regs=("rax",)),
        Step("io", observe_regs=("rax", "al")),
    )
    seen = run(machine("mov rax, [rbx]; out 0x10, al; hlt", script, regs={"rax": 0x55}))
    assert [event.regs for event in seen.events] == [{"rax": 0x55}, {"rax": 7, "al": 7}]
    assert (seen.stopped, seen.regs["rax"]) == ("end", 7)


def test_the_last_steps_reply_is_seen_at_the_end(run: Run) -> None:
    seen = run(machine("mov rax, [rbx]; hlt", (mmio(0x5000, False, reply={"data": 7}),)))
    assert (seen.stopped, seen.regs["rax"], seen.regs["rip"]) == ("end", 7, 3)


def test_exchange_reads_then_writes(run: Run) -> None:
    seen = run(
        machine(
            "mov eax, 0x77; xchg [rbx], eax; hlt",
            (mmio(0x5000, False, reply={"data": 0x42}), mmio(0x5000), HLT),
        )
    )
    assert story(seen) == [("r", 0x5000, 4), ("w", 0x5000, 4, 0x77), ("hlt",)]
    assert seen.regs["rax"] == 0x42


def test_a_page_crossing_store_is_two_exits(run: Run) -> None:
    store = "mov rax, 0x8877665544332211; mov [rbx - 3], rax; hlt"
    seen = run(machine(store, (Step("mmio"), Step("mmio"), HLT)))
    assert story(seen) == [("w", 0x4FFD, 3, 0x332211), ("w", 0x5000, 5, 0x8877665544), ("hlt",)]
    # The first half is the last step: completing it yields the other, which is an event too.
    seen = run(machine(store, (mmio(0x4FFD),), observe_memory=((0x5000, 5),)))
    assert story(seen) == [("w", 0x4FFD, 3, 0x332211), ("w", 0x5000, 5, 0x8877665544)]
    assert (seen.stopped, seen.memory) == ("end", {0x5000: bytes.fromhex("4455667788")})
    # An action waits until both halves are out.
    image = (Bytes.at(0, assemble("long", store)), Bytes.at(0x100, b"\xf4"))
    script = (mmio(0x4FFD, then=(act("set_regs", rip=0x100),)), mmio(0x5000), HLT)
    seen = run(machine(store, script, image=image))
    assert story(seen) == [("w", 0x4FFD, 3, 0x332211), ("w", 0x5000, 5, 0x8877665544), ("hlt",)]
    assert seen.events[-1].pc == 0x101


def test_the_actions_of_both_halves_are_done_in_order(run: Run) -> None:
    store = "mov rax, 0x8877665544332211; mov [rbx - 3], rax; hlt"
    first = mmio(
        0x4FFD, then=(act("write_memory", gpa=0x100, data="f4"), act("set_regs", rcx=1, rdx=1))
    )
    second = mmio(0x5000, then=(act("set_regs", rcx=2, rip=0x100),))
    seen = run(machine(store, (first, second, HLT)))
    assert [event.pc for event in seen.events][2:] == [0x101]
    assert (seen.regs["rcx"], seen.regs["rdx"]) == (2, 1)


def test_the_limit_of_exits_is_not_passed_by_the_other_half(run: Run) -> None:
    seen = run(machine("mov rax, 0x8877665544332211; mov [rbx - 3], rax; hlt", exits=1))
    assert (len(seen.events), seen.stopped) == (1, "exits")


def test_across_the_end_of_a_slot_only_the_rest_exits(run: Run) -> None:
    code = "mov rax, 0x8877665544332211; mov [rbx], rax; hlt"
    seen = run(
        machine(code, (Step("mmio"), HLT), regs={"rbx": 0x1FFC}, observe_memory=((0x1FFC, 4),))
    )
    assert story(seen) == [("w", 0x2000, 4, 0x88776655), ("hlt",)]
    assert seen.memory == {0x1FFC: bytes.fromhex("11223344")}


def test_ports(run: Run) -> None:
    code = "mov eax, 0x11223344; out 0x80, al; mov dx, 0x3f8; out dx, ax; out dx, eax; "
    code += "in al, dx; in ax, 0x40; mov ecx, eax; in eax, dx; hlt"
    out, into = ({"direction": n} for n in (1, 0))
    replies = [Step("io", into, reply={"data": n}) for n in (0xAA, 0xBBCC, 0xDDEEFF00)]
    seen = run(machine(code, (*[Step("io", out)] * 3, *replies, HLT)))
    assert story(seen) == [
        *[("out", 0x80, 1, 0x44), ("out", 0x3F8, 2, 0x3344), ("out", 0x3F8, 4, 0x11223344)],
        *[("in", 0x3F8, 1, 1), ("in", 0x40, 2, 1), ("in", 0x3F8, 4, 1), ("hlt",)],
    ]
    assert (seen.regs["rcx"], seen.regs["rax"]) == (0x1122BBCC, 0xDDEEFF00)


def test_string_output(run: Run) -> None:
    code = "mov esi, 0x1000; mov ecx, 4; mov dx, 0x3f8; rep outsb; hlt"
    parts = (Bytes.at(0, assemble("long", code)), Bytes.at(0x1000, b"abcd"))
    seen = run(
        machine(code, (Step("io", {"port": 0x3F8, "direction": 1}, (1, 4)), HLT), image=parts)
    )
    assert story(seen)[-1] == ("hlt",)
    sent: list[int] = []
    for event in seen.events[:-1]:
        data = event.fields["data"]
        sent += data if isinstance(data, list) else [data]
    assert bytes(sent) == b"abcd"


def test_string_input(run: Run) -> None:
    code = "mov edi, 0x1000; mov ecx, 4; mov dx, 0x3f8; rep insb; hlt"
    seen = run(
        machine(
            code,
            (Step("io", reply={"data": [0x61, 0x62, 0x63, 0x64]}), HLT),
            observe_memory=((0x1000, 6),),
        )
    )
    assert story(seen)[0] == ("in", 0x3F8, 1, 4)
    assert seen.memory == {0x1000: b"abcd\0\0"}
    # A reply that is too short is filled with zeros, not with what the page held; one that is too
    # long is cut.
    for data, stored in ((0x7A, b"z\0\0\0\0\0"), ([1, 2, 3, 4, 5, 6], b"\1\2\3\4\0\0")):
        seen = run(
            machine(code, (Step("io", reply={"data": data}), HLT), observe_memory=((0x1000, 6),))
        )
        assert seen.memory == {0x1000: stored}


def test_an_access_takes_as_much_of_a_reply_as_it_is_wide(run: Run) -> None:
    wide = {"data": 0x1122334455667788}
    seen = run(
        machine(
            "in al, 0x60; mov cl, [rbx]; hlt",
            (Step("io", reply=wide), Step("mmio", reply=wide), HLT),
        )
    )
    assert (seen.stopped, seen.regs["rax"], seen.regs["rcx"]) == ("expected", 0x88, 0x88)


def test_timeouts_repeat(run: Run) -> None:
    seen = run(
        machine(
            "jmp .",
            (Step("timeout", timeout=0.02, repeat=(3, 3), then=()), Step("timeout", timeout=0.04)),
        )
    )
    assert [(event.fields["timeout"], event.times) for event in seen.events] == [
        (0.02, 3),
        (0.04, 1),
    ]
    assert (seen.stopped, seen.elapsed >= 0.1) == ("end", True)


def test_a_read_only_slot(run: Run) -> None:
    code = "mov eax, [rbx]; mov dword ptr [rbx], 0x55; mov ecx, [rbx]; hlt"
    slots, image = (
        (Memslot(0, 0, 0x2000), Memslot(1, 0x8000, 0x1000, READONLY)),
        (Bytes.at(0, assemble("long", code)), Bytes.at(0x8000, b"ROMS")),
    )
    seen = run(
        machine(
            code,
            (mmio(0x8000), HLT),
            regs={"rbx": 0x8000},
            memslots=slots,
            image=image,
            observe_memory=((0x8000, 4),),
        )
    )
    assert story(seen) == [("w", 0x8000, 4, 0x55), ("hlt",)]
    assert seen.regs["rax"] == seen.regs["rcx"] == int.from_bytes(b"ROMS", "little")
    assert seen.memory == {0x8000: b"ROMS"}


def test_a_hole_between_slots(run: Run) -> None:
    slots = (Memslot(0, 0, 0x2000), Memslot(1, 0x3000, 0x1000))
    code = (
        "mov byte ptr [rbx - 1], 1; mov byte ptr [rbx], 2; mov byte ptr [rbx + 0xfff], 3; mov "
        "byte ptr [rbx + 0x1000], 4; hlt"
    )
    seen = run(
        machine(
            code,
            (*[Step("mmio")] * 2, HLT),
            regs={"rbx": 0x2000},
            memslots=slots,
            observe_memory=((0x3000, 1), (0x1FFF, 1)),
        )
    )
    assert story(seen) == [("w", 0x2000, 1, 2), ("w", 0x2FFF, 1, 3), ("hlt",)]
    assert seen.memory == {0x1FFF: b"\1", 0x3000: b"\4"}


def test_a_guest_that_writes_over_itself(run: Run) -> None:
    # The instruction after the store is `hlt` in the image, and `out 0x10, al` when it is fetched.
    code = assemble("long", "mov word ptr [rip + 0], 0x10e6") + b"\xf4\x90\xf4"
    assert story(run(machine(code, (Step("io"), HLT)))) == [("out", 0x10, 1, 0), ("hlt",)]
    wipe = "xor edi, edi; mov ecx, 0x2000; rep stosb"
    seen = run(machine(wipe, regs={"rax": 0xF4}))
    assert seen.stopped == "expected"
    assert story(seen)[-1] == ("hlt",)


# --- endings --------------------------------------------------------------------------------------


def test_a_triple_fault(run: Run) -> None:
    seen = run(machine("ud2", (Step("shutdown"),)))
    assert (story(seen), seen.stopped, seen.events[0].pc) == ([("shutdown",)], "expected", 0)


def test_an_ending_exit_that_no_step_names(run: Run) -> None:
    seen = run(machine("hlt", (mmio(0x5000),)))
    assert (story(seen), seen.stopped) == ([("hlt",)], "expected")


def test_hlt_is_entered_again_with_an_empty_then(run: Run) -> None:
    seen = run(machine("hlt; hlt; inc rax; hlt", (Step("hlt", repeat=(2, 2), then=()), HLT)))
    assert [event.pc for event in seen.events] == [1, 2, 6]
    assert seen.regs["rax"] == 1


def test_nothing_runs_when_there_is_nothing_to_see(run: Run) -> None:
    seen = run(machine("inc rax; hlt", ()))
    assert (seen.stopped, seen.events, seen.regs["rip"], seen.regs["rax"]) == ("end", (), 0, 0)


def test_no_script_records_everything(run: Run) -> None:
    seen = run(machine("mov ecx, 40; l: mov [rbx], ecx; loop l; hlt"))
    assert len(seen.events) == 41
    assert seen.stopped == "expected"


def test_sixteen_extras(run: Run) -> None:
    seen = run(machine("l: mov [rbx], ecx; inc ecx; jmp l", (mmio(0x6000),)))
    assert (len(seen.events), seen.stopped) == (16, "extra")


def test_ignored_exits_are_answered_and_recorded(run: Run) -> None:
    code = "mov ecx, 20; l: in al, 0x60; loop l; mov [rbx], al; hlt"
    more: dict[str, Any] = {
        "ignore": (Step("io", {"port": 0x60}),),
        "observe_memory": ((0x5000, 1),),
    }
    seen = run(machine(code, (mmio(0x5000), HLT), regs={"rax": 0xFF}, **more))
    assert [(told(e), e.times) for e in seen.events] == [
        (("in", 0x60, 1, 1), 20),
        (("w", 0x5000, 1, 0), 1),
        (("hlt",), 1),
    ]


def test_an_endless_loop_ends_with_the_time(run: Run) -> None:
    start = time.monotonic()
    seen = run(machine("nop; jmp .", (HLT,), timeout=0.2))
    assert time.monotonic() - start > 0.19
    assert (story(seen), seen.stopped, seen.events[0].pc) == ([("timeout", 0.2)], "timeout", 1)


def test_a_million_exits_end_with_the_limit(run: Run) -> None:
    seen = run(machine("mov ecx, 1000000; l: mov [rbx], al; loop l; hlt", exits=3000, timeout=20.0))
    assert (seen.stopped, [(event.times, event.name) for event in seen.events]) == (
        "exits",
        [(3000, "mmio")],
    )
    # So too when every exit is a step's, and when each differs from the one before.
    seen = run(
        machine("l: mov [rbx], ecx; inc ecx; jmp l", (mmio(0x5000, repeat=(1, 10**6)),), exits=100)
    )
    assert (seen.stopped, len(seen.events), seen.regs["rcx"]) == ("exits", 100, 99)


def test_exits_that_never_end_end_with_the_time(run: Run) -> None:
    seen = run(machine("l: mov [rbx], al; jmp l", exits=10**9, timeout=0.2))
    assert seen.stopped == "timeout"
    assert [event.kind for event in seen.events] == ["exit", "timeout"]


# --- timeouts as steps ----------------------------------------------------------------------------


def test_a_timeout_step_pushes_the_guest_on(run: Run) -> None:
    wait = Step("timeout", timeout=0.05, then=(act("set_regs", rip=2),), observe_regs=("rip",))
    seen = run(machine("jmp .; mov [rbx], al; hlt", (wait, mmio(0x5000), HLT), regs={"rax": 9}))
    assert story(seen) == [("timeout", 0.05), ("w", 0x5000, 1, 9), ("hlt",)]
    assert (seen.events[0].regs, seen.events[0].pc) == ({"rip": 0}, 0)


def test_an_exit_within_the_time_is_no_timeout(run: Run) -> None:
    seen = run(machine("mov [rbx], al; jmp .", (Step("timeout", timeout=0.1), HLT), timeout=0.3))
    # The exit is extra; then nothing happens for as long as the step says.
    assert story(seen) == [("w", 0x5000, 1, 0), ("timeout", 0.1), ("timeout", 0.3)]
    assert seen.stopped == "timeout"


def test_a_timeout_that_did_not_come_is_forgotten(run: Run) -> None:
    seen = run(
        machine(
            "mov [rbx], al; jmp .",
            (Step("timeout", timeout=0.05, repeat=(0, 1)), mmio(0x5000), HLT),
            timeout=0.3,
        )
    )
    assert (story(seen), seen.stopped) == ([("w", 0x5000, 1, 0), ("timeout", 0.3)], "timeout")
    assert seen.elapsed > 0.29


def test_a_timeout_is_the_last_step(run: Run) -> None:
    seen = run(machine("jmp .", (Step("timeout", timeout=0.05),)))
    assert (story(seen), seen.stopped) == ([("timeout", 0.05)], "end")


def test_as_many_exits_as_come_and_then_nothing(run: Run) -> None:
    story_told = (
        mmio(0x5000, repeat=(1, 10)),
        Step("timeout", timeout=0.05, then=(act("set_regs", rip=0x100),)),
        HLT,
    )
    image = (
        Bytes.at(0, assemble("long", "mov ecx, 3; l: mov [rbx], al; loop l; jmp .")),
        Bytes.at(0x100, b"\xf4"),
    )
    seen = run(machine(b"", story_told, image=image))
    assert [(told(e)[0], e.times) for e in seen.events] == [("w", 3), ("timeout", 1), ("hlt", 1)]
    assert seen.stopped == "expected"


# --- actions --------------------------------------------------------------------------------------


def test_actions_on_slots(run: Run) -> None:
    # Port 0x10 asks for the next action; 0x3000 is read before, between and after.
    code = "l: out 0x10, al; mov eax, [rbx]; mov dword ptr [rbx], 0x22222222; jmp l"
    ask: dict[str, Any] = {"port": 0x10}
    script = (
        Step("io", ask, then=(act("write_memory", gpa=0x3000, data="11111111"),)),
        Step("io", ask, then=(act("delete_memslot", slot=1),)),
        mmio(0x3000, False, reply={"data": 7}),
        mmio(0x3000),
        Step(
            "io",
            ask,
            then=(act("set_memslot", slot=1, gpa=0x3000, size=0x1000, flags=0),),
            observe_regs=("eax",),
        ),
        Step(
            "io",
            ask,
            then=(act("set_memslot", slot=1, gpa=0x4000, size=0x1000, flags=0),),
            observe_regs=("eax",),
        ),
        mmio(0x3000, False),
        mmio(0x3000),
        Step("io", ask),
    )
    slots = (Memslot(0, 0, 0x2000), Memslot(1, 0x3000, 0x1000))
    observed: dict[str, Any] = {"observe_memory": ((0x4000, 4),)}
    seen = run(machine(code, script, regs={"rbx": 0x3000}, memslots=slots, **observed))
    assert [told(event)[0] for event in seen.events] == [
        "out",
        "out",
        "r",
        "w",
        "out",
        "out",
        "r",
        "w",
        "out",
    ]
    # Deleted and added again, the slot has its bytes; moved, it has them at the other address.
    assert [event.regs for event in seen.events if event.regs] == [{"eax": 7}, {"eax": 0x22222222}]
    assert seen.events[1].fields["data"] == 0x11
    assert seen.memory == {0x4000: bytes.fromhex("22222222")}


def test_a_slot_may_grow_once_it_is_deleted(run: Run) -> None:
    grow = (
        act("delete_memslot", slot=1),
        act("set_memslot", slot=1, gpa=0x3000, size=0x3000, flags=0),
    )
    slots, code = (
        (Memslot(0, 0, 0x2000), Memslot(1, 0x3000, 0x1000)),
        "out 0x10, al; mov eax, [rbx]; mov [rbx + 0x2000], eax; hlt",
    )
    image = (Bytes.at(0, assemble("long", code)), Bytes.at(0x3000, b"kept"))
    seen = run(
        machine(
            code,
            (Step("io", then=grow), HLT),
            regs={"rbx": 0x3000},
            memslots=slots,
            image=image,
            observe_memory=((0x5000, 4),),
        )
    )
    assert story(seen) == [("out", 0x10, 1, 0), ("hlt",)]
    assert seen.memory == {0x5000: b"kept"}


def test_no_guest_gets_more_memory_than_its_limit(run: Run) -> None:
    slots, quarter = (Memslot(0, 0, 0x2000),), 0x4000000
    four = [act("set_memslot", slot=n, gpa=n << 28, size=quarter, flags=0) for n in (1, 2, 3, 4)]
    # The scenario is held to the limit when it is read; whatever a Machine says, the executor holds
    # to it too.
    for setup in (four, [act("set_memslot", "EINVAL", slot=1, gpa=1 << 28, size=1 << 30, flags=0)]):
        with pytest.raises(HostError, match="256 MiB in all is the limit"):
            run(machine("hlt", (HLT,), memslots=slots, setup=tuple(setup)))
    with pytest.raises(HostError, match="256 MiB in all is the limit"):
        run(machine("hlt", (HLT,), memslots=(*slots, Memslot(1, 1 << 28, 1 << 30, errno="EINVAL"))))
    # One number is one memory, however often it is deleted and set again.
    again = []
    for n in range(8):
        again += [
            act("set_memslot", slot=1, gpa=n + 1 << 28, size=0xE000000, flags=0),
            act("delete_memslot", slot=1),
        ]
    assert run(machine("hlt", (HLT,), memslots=slots, setup=tuple(again))).stopped == "expected"


def test_a_slot_that_grows_takes_what_was_touched_of_it(run: Run) -> None:
    grow = [
        act("delete_memslot", slot=1),
        act("set_memslot", slot=1, gpa=0x10000000, size=0xF000000, flags=0),
    ]
    slots = (Memslot(0, 0, 0x2000), Memslot(1, 0x10000000, 0x8000000))
    image = (Bytes.at(0, assemble("long", "hlt")), Bytes.at(0x17FFFFF0, b"end"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = run(
        machine(
            "hlt",
            (HLT,),
            memslots=slots,
            image=image,
            setup=tuple(grow),
            observe_memory=((0x17FFFFF0, 3),),
        )
    )
    assert seen.memory == {0x17FFFFF0: b"end"}
    # In KiB: the 128 MiB that nobody touched were not copied.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


def test_memory_is_written_in_slots_and_devices(run: Run) -> None:
    writes = (
        act("write_memory", gpa=0x1000, data="aabb"),
        act("write_memory", gpa=0x5004, data="ccddeeff"),
    )
    seen = run(
        machine(
            "mov ax, [0x1000 + rcx]; mov edx, [rbx + 4]; hlt",
            (mmio(0x5004, False), HLT),
            setup=writes,
        )
    )
    assert (seen.regs["rax"], seen.regs["rdx"]) == (0xBBAA, 0xFFEEDDCC)


def test_registers_are_set_by_name_and_by_view(run: Run) -> None:
    whole = 0x1122334455667788
    cases = {
        "al": (0xFF, 0x11223344556677FF),
        "ah": (0xFF, 0x112233445566FF88),
        "ax": (0xFFFF, 0x112233445566FFFF),
        "eax": (0xFFFFFFFF, 0xFFFFFFFF),
        "rax": (1, 1),
    }
    for name, (value, after) in cases.items():
        seen = run(
            machine(
                "hlt; hlt",
                (Step("hlt", then=(Action("set_regs", {name: value}),)), HLT),
                regs={"rax": whole},
                observe_regs=(name,),
            )
        )
        assert (seen.regs["rax"], seen.regs[name]) == (after, value)


def test_every_register_reads_as_it_was_set(run: Run) -> None:
    general = {
        name: 0x0101010101010101 * n
        for n, name in enumerate(KVM_REGS, 1)
        if name not in ("rip", "rsp", "rflags")
    }
    wide = {f"xmm{n}": (n + 1) << 120 | n + 5 for n in range(16)}
    other = {"fs.base": 0x1000, "gs.base": 0x1230, "cr2": 0x4321, "cr8": 3, "rflags": 0x2 | 0x800}
    seen = run(
        machine("hlt", (HLT,), regs={**general, **wide, **other}, observe_regs=(*wide, *other))
    )
    assert {name: seen.regs[name] for name in (*general, *wide, *other)} == {
        **general,
        **wide,
        **other,
    }


def test_the_guest_sees_cr8(run: Run) -> None:
    # KVM_RUN takes it from struct kvm_run.
    step = Step("hlt", then=(act("set_regs", cr8=5),), observe_regs=("cr8",))
    seen = run(machine("mov rax, cr8; hlt; mov rcx, cr8; hlt", (step, HLT), regs={"cr8": 3}))
    assert (seen.regs["rax"], seen.regs["rcx"], seen.events[0].regs) == (3, 5, {"cr8": 3})


def test_xmm_registers_before_and_after(run: Run) -> None:
    value = 0x0F0E0D0C0B0A09080706050403020100
    later = (act("set_regs", xmm2=value),)
    code = "movups xmm1, xmm0; hlt; movups xmm3, xmm2; hlt"
    seen = run(
        machine(
            code,
            (Step("hlt", then=later), HLT),
            regs={"xmm0": value + 1},
            observe_regs=("xmm0", "xmm1", "xmm2", "xmm3"),
        )
    )
    assert [seen.regs[f"xmm{n}"] for n in range(4)] == [value + 1, value + 1, value, value]


def test_memory_and_registers_at_an_exit(run: Run) -> None:
    # As KVM gives them there, before the instruction is completed; the device has what this very
    # store brought it.
    step = mmio(
        0x5000,
        observe_regs=("rip", "al", "cs.selector"),
        observe_memory=((0x1000, 2), (0x5000, 2), (0x9000, 2)),
    )
    seen = run(
        machine(
            "mov byte ptr [0x1000 + rcx], 0xee; mov [rbx], al; mov byte ptr [0x1000 + rcx], 0xdd; "
            "hlt",
            (step, HLT),
        )
    )
    event = seen.events[0]
    assert event.regs is not None
    assert event.memory is not None
    assert (event.regs["rip"], event.regs["al"], event.regs["cs.selector"]) == (event.pc, 0, 8)
    assert event.memory[0x1000] == b"\xee\0"
    assert event.memory[0x9000] == b""


def test_failing_slots(run: Run) -> None:
    overlap = Memslot(1, 0x1000, 0x1000, errno="EEXIST")
    seen = run(machine("hlt", (HLT,), memslots=(Memslot(0, 0, 0x2000), overlap)))
    assert (story(seen), seen.stopped) == (
        [("EEXIST", "KVM_SET_USER_MEMORY_REGION"), ("hlt",)],
        "expected",
    )
    for wrong in (
        Memslot(1, 0x3800, 0x1000),
        Memslot(1, 0x3000, 0x800),
        Memslot(1, 0x3000, 0x1000, 0x40),
        Memslot(70000, 0x3000, 0x1000),
    ):
        seen = run(machine("hlt", (HLT,), memslots=(Memslot(0, 0, 0x2000), wrong)))
        assert (story(seen), seen.stopped) == ([("EINVAL", "KVM_SET_USER_MEMORY_REGION")], "error")
    # Another errno than the wanted one ends the run.
    seen = run(
        machine(
            "hlt",
            (HLT,),
            memslots=(Memslot(0, 0, 0x2000), Memslot(1, 0x1000, 0x1000, errno="EINVAL")),
        )
    )
    assert (story(seen), seen.stopped) == ([("EEXIST", "KVM_SET_USER_MEMORY_REGION")], "error")


@pytest.mark.parametrize("size", [1 << 43, 1 << 44, 1 << 52, (1 << 64) - 0x1000], ids=hex)
def test_a_slot_larger_than_anything_is_kvms_to_refuse(run: Run, size: int) -> None:
    slots = (Memslot(0, 0, 0x2000), Memslot(1, 0x100000, size, errno="EINVAL"))
    seen = run(machine("hlt", (HLT,), memslots=slots))
    assert (story(seen), seen.stopped) == (
        [("EINVAL", "KVM_SET_USER_MEMORY_REGION"), ("hlt",)],
        "expected",
    )
    again = (
        act("delete_memslot", slot=1),
        act("set_memslot", "EINVAL", slot=1, gpa=0x3000, size=size, flags=0),
    )
    seen = run(
        machine(
            "hlt", (HLT,), memslots=(Memslot(0, 0, 0x2000), Memslot(1, 0x3000, 0x1000)), setup=again
        )
    )
    assert (story(seen), seen.stopped) == (
        [("EINVAL", "KVM_SET_USER_MEMORY_REGION"), ("hlt",)],
        "expected",
    )


def test_failing_actions(run: Run) -> None:
    bad = (
        act("delete_memslot", "EINVAL", slot=7),
        act("set_memslot", "EEXIST", slot=3, gpa=0x1000, size=0x1000, flags=0),
    )
    seen = run(machine("hlt; hlt", (Step("hlt", then=bad), HLT)))
    failed = [("EINVAL", "KVM_SET_USER_MEMORY_REGION"), ("EEXIST", "KVM_SET_USER_MEMORY_REGION")]
    assert (story(seen), seen.stopped) == ([("hlt",), *failed, ("hlt",)], "expected")
    seen = run(machine("hlt; hlt", (Step("hlt", then=(act("delete_memslot", slot=7),)), HLT)))
    assert (story(seen), seen.stopped) == ([("hlt",), failed[0]], "error")
    seen = run(machine("hlt", (HLT,), setup=(act("delete_memslot", slot=7),)))
    assert (story(seen), seen.stopped) == ([failed[0]], "error")


def test_a_failing_action_may_be_a_step(run: Run) -> None:
    step = Step("error", {"ioctl": "KVM_SET_USER_MEMORY_REGION", "errno": "EINVAL"})
    seen = run(machine("hlt; hlt", (Step("hlt", then=(act("delete_memslot", slot=7),)), step)))
    assert seen.stopped == "error"
    assert [event.kind for event in seen.events] == ["exit", "error"]


def test_registers_that_kvm_refuses_are_an_error_event(run: Run) -> None:
    for regs in ({"cr4": 1 << 63}, {"efer": 1 << 62}, {"cr0": 1 << 40}):
        seen = run(machine("hlt", (HLT,), regs=regs))
        assert (story(seen), seen.stopped) == ([("EINVAL", "KVM_SET_SREGS")], "error"), regs
    seen = run(
        machine("hlt; hlt", (Step("hlt", then=(act("set_regs", "EINVAL", cr4=1 << 63),)), HLT))
    )
    assert (story(seen), seen.stopped) == (
        [("hlt",), ("EINVAL", "KVM_SET_SREGS"), ("hlt",)],
        "expected",
    )


def test_the_last_steps_actions_are_done(run: Run) -> None:
    done = (
        act("set_regs", rax=5),
        act("write_memory", gpa=0x1000, data="abcd"),
        act("delete_memslot", "EINVAL", slot=7),
    )
    for exit, code in (("hlt", "hlt"), ("io", "out 0x10, al; hlt"), ("timeout", "jmp .")):
        seen = run(
            machine(code, (Step(exit, timeout=0.02, then=done),), observe_memory=((0x1000, 2),))
        )
        assert (seen.stopped, seen.regs["rax"], seen.memory) == ("end", 5, {0x1000: b"\xab\xcd"})
        assert [event.kind for event in seen.events][1:] == ["error"]
    seen = run(machine("hlt", (Step("hlt", then=(act("delete_memslot", slot=7),)),)))
    assert seen.stopped == "error"


def test_no_action_is_done_behind_the_limit(run: Run) -> None:
    seen = run(
        machine("mov [rbx], al; hlt", (mmio(0x5000, then=(act("set_regs", rcx=5),)), HLT), exits=1)
    )
    assert (seen.stopped, seen.regs["rcx"]) == ("exits", 0)


# --- capabilities ---------------------------------------------------------------------------------


def cap(name: str, *args: int, errno: str | None = None) -> Capability:
    return Capability(name, CAPABILITIES[name], args, False, errno)


def test_enabling_a_capability_wrongly(run: Run) -> None:
    wrong = cap("KVM_CAP_X86_USER_SPACE_MSR", 1 << 20)
    seen = run(machine("hlt", (HLT,), enable=(wrong,)))
    assert (story(seen), seen.stopped, seen.events[0].pc) == (
        [("EINVAL", "KVM_ENABLE_CAP")],
        "error",
        None,
    )
    seen = run(
        machine("hlt", (HLT,), enable=(cap("KVM_CAP_X86_USER_SPACE_MSR", 1 << 20, errno="EINVAL"),))
    )
    assert (story(seen), seen.stopped) == ([("EINVAL", "KVM_ENABLE_CAP"), ("hlt",)], "expected")
    later = Action("enable", encode(wrong), errno="EINVAL")
    assert story(run(machine("hlt", (HLT,), setup=(later,)))) == [
        ("EINVAL", "KVM_ENABLE_CAP"),
        ("hlt",),
    ]


def test_unknown_msrs_leave_for_user_space(run: Run) -> None:
    code = (
        "mov ecx, 0x12345678; mov edx, 0x11; mov eax, 0x22; wrmsr; rdmsr; mov esi, eax; mov "
        "edi, edx; rdmsr; hlt"
    )
    script = (
        Step("x86_wrmsr", {"index": 0x12345678}),
        Step("x86_rdmsr", {"index": 0x12345678}, reply={"data": 0xAAAABBBBCCCCDDDD}),
        Step("x86_rdmsr"),
        HLT,
    )
    seen = run(machine(code, script, enable=(cap("KVM_CAP_X86_USER_SPACE_MSR", 2),)))
    assert [event.name for event in seen.events] == ["x86_wrmsr", "x86_rdmsr", "x86_rdmsr", "hlt"]
    assert dict(seen.events[0].fields) == {
        "error": 0,
        "reason": 2,
        "index": 0x12345678,
        "data": 0x1100000022,
    }
    assert (seen.regs["rsi"], seen.regs["rdi"]) == (0xCCCCDDDD, 0xAAAABBBB)
    # With no reply a read is answered with zero.
    assert (seen.regs["rax"], seen.regs["rdx"]) == (0, 0)


@pytest.mark.parametrize(("instruction", "exit"), [("rdmsr", "x86_rdmsr"), ("wrmsr", "x86_wrmsr")])
def test_an_msr_refused_by_user_space_is_a_fault(run: Run, instruction: str, exit: str) -> None:
    script = (Step(exit, reply={"error": 1}), Step("shutdown"))
    seen = run(
        machine(
            f"mov ecx, 0x12345678; {instruction}; hlt",
            script,
            enable=(cap("KVM_CAP_X86_USER_SPACE_MSR", 2),),
        )
    )
    assert ([event.name for event in seen.events], seen.stopped) == ([exit, "shutdown"], "expected")


def test_without_the_capability_an_unknown_msr_is_a_fault(run: Run) -> None:
    assert story(run(machine("mov ecx, 0x12345678; rdmsr; hlt"))) == [("shutdown",)]


# --- where things lie -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "at", [0x1_0000_0000, 0x1_4000_0000, 0x80_0000_0000, 0x7F_C000_0000], ids=hex
)
def test_above_four_gibibytes(run: Run, at: int) -> None:
    code = "mov rax, [rbx]; mov rcx, [rbx + 0x3000]; mov [rbx + 0x1000], rcx; hlt"
    spans = ((at, 0x1000), (at + 0x3000, 8))
    seen = run(
        machine(
            code,
            (mmio(at + 0x3000, False), mmio(at + 0x1000), HLT),
            regs={"rbx": at},
            memslots=(Memslot(0, 0, 0x2000), Memslot(1, at, 0x1000)),
            image=(Bytes.at(0, assemble("long", code)), Bytes.at(at, b"far away")),
            devices=(Bytes.at(at + 0x3000, b"a device"),),
            tables=Tables(TABLES.at, 0x10000, TABLES.slot, spans),
        )
    )
    assert seen.regs["rax"].to_bytes(8, "little") == b"far away"
    device = int.from_bytes(b"a device", "little")
    assert story(seen) == [("r", at + 0x3000, 8), ("w", at + 0x1000, 8, device), ("hlt",)]


def test_what_is_not_mapped_faults(run: Run) -> None:
    assert story(run(machine("mov rax, [rbx]; hlt", regs={"rbx": 0x1_0000_0000}))) == [
        ("shutdown",)
    ]


@pytest.mark.parametrize("mode", ["long", "protected"])
def test_the_engines_slot_elsewhere(run: Run, mode: str) -> None:
    at = 0x40000000
    top = Memslot(1, 0xFFFC0000, 0x10000)
    code = "mov eax, [0xfffc0000 + ecx]; mov ax, 0x10; mov ds, ax; mov byte ptr [ebx], 5; hlt"
    image = (Bytes.at(0, assemble(mode, code)), Bytes.at(0xFFFC0000, b"mine"))
    observed: dict[str, Any] = {"observe_regs": ("cr3", "gdt.base"), "observe_memory": ((at, 8),)}
    slots, tables = (Memslot(0, 0, 0x2000), top), Tables(at, 0x8000, 400)
    seen = run(
        machine(
            code, (mmio(0x5000), HLT), mode, memslots=slots, image=image, tables=tables, **observed
        )
    )
    assert story(seen) == [("w", 0x5000, 1, 5), ("hlt",)]
    assert seen.regs["gdt.base"] == at + 0x6000
    assert seen.regs["cr3"] == (at if mode == "long" else 0)
    assert seen.memory[at] == (at + 0x1000 | 0x63).to_bytes(8, "little")


def test_elapsed_is_the_time_of_this_run(run: Run) -> None:
    start = time.monotonic()
    seen = run(machine("jmp .", (Step("timeout", timeout=0.1),)))
    assert 0.1 <= seen.elapsed <= time.monotonic() - start
