"""The executor where exits are timed: what it does when the loop of machine code cannot be, or
cannot do it alone.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from kvm_machines import machine

from kvmscen.errors import HostError
from kvmscen.sent.arch import of_machine
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.executor.executor import Executor
from kvmscen.sent.kvm.fds import Kvm
from kvmscen.sent.machine import Action, Machine
from kvmscen.sent.measure import Kind, Measure, TimedExit, Timing
from kvmscen.sent.observation import Observation
from kvmscen.sent.timing import loop

pytestmark = pytest.mark.kvm
ARCH = of_machine(os.uname().machine)
STORE = TimedExit("mmio", {"phys_addr": 0x5000, "is_write": True})


def timed(code: str, *kinds: Kind, **more: object) -> Observation:
    made = machine(code, timeout=20.0, measure=Measure(kinds, stall=2.0))
    return Executor(Kvm(), None).execute(made._replace(**more))  # type: ignore[arg-type]


def timing(seen: Observation) -> Timing:
    assert seen.timing is not None
    assert seen.stopped == "end", seen
    return seen.timing


def test_a_machine_that_is_to_be_timed_crosses_a_border() -> None:
    kinds = (
        Kind("a", STORE, None, 5, 1),
        Kind("b", STORE, TimedExit("io", {"port": 1}, {"data": 3}), 5, 0),
    )
    made = machine("hlt", measure=Measure(kinds, "python", 3.5))
    assert decode(Machine, encode(made)) == made
    assert (
        made.digest()
        == made._replace(
            measure=Measure((kinds[0]._replace(samples=9), kinds[1]), "native")
        ).digest()
    )
    assert made.digest() != made._replace(measure=Measure(kinds[:1], "python")).digest()
    assert made.digest() != made._replace(measure=None).digest()


def test_an_observation_that_was_timed_crosses_a_border() -> None:
    seen = timed("again: mov [rbx], rax; jmp again", Kind("store", STORE, None, 20, 5))
    assert decode(Observation, encode(seen)) == seen
    assert len(timing(seen).series["store"].ticks) == 20


# In a process of its own: a limit on what files may hold stays.
REFUSED = """
import resource, sys
sys.path[:0] = sys.argv[1:]
from test_timed import *
from test_timed import STORE, timed
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
seen = timed("again: mov [rbx], rax; jmp again", Kind("store", STORE, None, 20, 5))
print(seen.timing.loop, len(seen.timing.series["store"].ticks), seen.timing.why)
"""


def test_where_executable_memory_is_refused_python_does_it() -> None:
    here = os.path.dirname(__file__)
    command = [
        sys.executable,
        "-c",
        REFUSED,
        here,
        os.path.dirname(os.path.dirname(os.path.dirname(here))),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.stdout == "python 20 this machine gives no executable memory: File too large\n", (
        done.stderr
    )


@pytest.mark.skipif(ARCH != "x86_64", reason="the stuck counter is made of x86 code")
def test_a_counter_that_does_not_move_breaks_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the loop reads the counter it now sets both halves to 0: lfence and rdtsc, xor edx and
    # xor eax.
    stuck = loop.CODES[ARCH].replace(b"\x0f\xae\xe8\x0f\x31", b"\x31\xd2\x90\x31\xc0")
    monkeypatch.setitem(loop.CODES, ARCH, stuck)
    with pytest.raises(HostError, match="the counter of this machine's CPU does not move"):
        timed("again: mov [rbx], rax; jmp again", Kind("store", STORE, None, 20, 5))


def test_exits_that_only_python_knows_are_timed_too() -> None:
    # A list of addresses is no condition of the loop.
    place = TimedExit("mmio", {"phys_addr": {"in": [0x5000, 0x5008]}, "is_write": True})
    seen = timed(
        "again: mov [rbx], rax; mov [rbx + 8], rax; mov [rbx + 16], rax; jmp again",
        Kind("store", place, None, 30, 0),
    )
    assert timing(seen).loop == "native"
    assert len(timing(seen).series["store"].ticks) == 30


def test_an_access_across_the_end_of_a_section_is_counted_and_kept() -> None:
    # The section ends at 0x6000: the loop gives it to Python, which drops what lies behind.
    code = (
        "again: mov qword ptr [rbx + 0xffc], -1; mov eax, [rbx + 0xffc]; cmp eax, -1; jne bad; "
        "jmp again; bad: hlt"
    )
    seen = timed(
        code,
        Kind("store", TimedExit("mmio", {"is_write": True}), None, 30, 0),
        observe_memory=((0x5FFC, 4),),
    )
    assert len(timing(seen).series["store"].ticks) == 30
    assert seen.memory == {0x5FFC: b"\xff" * 4}


def test_what_is_coalesced_is_carried_out_between_samples() -> None:
    setup = (Action("register_coalesced_mmio", {"addr": 0x5000, "size": 8, "pio": 0}),)
    code = (
        "again: inc rax; mov [rbx], rax; mov [rbx + 8], rax; mov rcx, [rbx]; cmp rcx, rax; je "
        "again; hlt"
    )
    kind = Kind("store", TimedExit("mmio", {"phys_addr": 0x5008}), None, 200, 0)
    seen = timed(code, kind, setup=setup, observe_memory=((0x5000, 8),))
    assert len(timing(seen).series["store"].ticks) == 200
    assert int.from_bytes(seen.memory[0x5000], "little") >= 200
