"""The kvm host end to end: this machine's /dev/kvm through the agent, and what happens when the
agent dies.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvmscen.errors import HostError, UsageError
from kvmscen.hosts import host
from kvmscen.hosts.kvm import KvmHost
from kvmscen.hosts.process.children import ChildExecutor
from kvmscen.sent.machine import Action, Bytes, Machine, Memslot, Sealed, Step, Tables, Vcpu

HLT, SPIN, STORE = b"\xf4", b"\xeb\xfe", b"\x88\x03\xf4"  # hlt; jmp .; mov [rbx], al and hlt


def machine(code: bytes, timeout: float = 2.0, **more: Any) -> Sealed:
    vcpu = Vcpu(0, "long", {"rip": 0, "rbx": 0x5000, "rax": 7}, (), None)
    slots, image, tables = (
        (Memslot(0, 0, 0x1000),),
        (Bytes.at(0, code),),
        Tables(0xFFFC0000, 0x8000, 509),
    )
    return Machine(
        "x86_64", slots, image, (), (vcpu,), tables=tables, timeout=timeout, **more
    ).seal("a case")


def test_names() -> None:
    assert isinstance(host("kvm"), KvmHost)
    for wrong in ("kvm:x", "kvm@6.1", "KVM", "vmware", ""):
        with pytest.raises(UsageError, match="there is no host"):
            host(wrong)


@pytest.fixture
def kvm() -> Iterator[KvmHost]:
    made = KvmHost("kvm")
    made.start()
    made.wait()
    yield made
    made.close()


@pytest.fixture
def executor(kvm: KvmHost) -> Iterator[ChildExecutor]:
    made = kvm.executor()
    yield made
    made.close()


@pytest.mark.kvm
def test_facts_and_runs(kvm: KvmHost, executor: ChildExecutor) -> None:
    assert [(facts.arch, facts.kernel) for facts in kvm.facts] == [("x86_64", os.uname().release)]
    for _ in range(3):
        seen = executor.execute(machine(STORE))
        assert [(event.name, event.pc) for event in seen.events] == [("mmio", 2), ("hlt", 3)]
        assert dict(seen.events[0].fields) == {
            "phys_addr": 0x5000,
            "is_write": True,
            "len": 1,
            "data": 7,
        }
        assert seen.stopped == "expected"


@pytest.mark.kvm
def test_a_second_executor_is_another_process(kvm: KvmHost, executor: ChildExecutor) -> None:
    other = kvm.executor()
    try:
        seen = [either.execute(machine(HLT)).stopped for either in (executor, other)]
        assert seen == ["expected", "expected"]
        assert executor.child.process_id != other.child.process_id
    finally:
        other.close()


@pytest.mark.kvm
def test_a_large_machine_and_a_large_observation(executor: ChildExecutor) -> None:
    data = os.urandom(1 << 20)
    vcpu = Vcpu(0, "long", {"rip": 0}, (), None)
    slots, image = (
        (Memslot(0, 0, 0x1000), Memslot(1, 0x100000, 1 << 20)),
        (Bytes.at(0, HLT), Bytes.at(0x100000, data)),
    )
    large = Machine(
        "x86_64",
        slots,
        image,
        (),
        (vcpu,),
        tables=Tables(0xFFFC0000, 0x8000, 509),
        observe_memory=((0x100000, 1 << 20),),
    )
    assert executor.execute(large.seal("large")).memory == {0x100000: data}


@pytest.mark.kvm
def test_an_agent_that_is_killed_is_a_host_error_and_the_next_machine_runs(
    executor: ChildExecutor,
) -> None:
    assert executor.execute(machine(HLT)).stopped == "expected"
    pid = executor.child.process_id
    assert pid is not None
    threading.Timer(0.2, lambda: os.kill(pid, signal.SIGKILL)).start()
    with pytest.raises(HostError, match="the agent of kvm was ended by SIGKILL"):
        executor.execute(machine(SPIN, timeout=600))
    assert executor.execute(machine(STORE)).stopped == "expected"
    assert executor.child.process_id != pid


@pytest.mark.kvm
def test_an_agent_that_a_fault_ends_says_where_it_was(executor: ChildExecutor) -> None:
    assert executor.execute(machine(HLT)).stopped == "expected"
    pid = executor.child.process_id
    assert pid is not None
    threading.Timer(0.5, lambda: os.kill(pid, signal.SIGSEGV)).start()
    place = (
        r"in run \(kvmscen/sent/kvm/fds.py:\d+\), called by _enter "
        r"\(kvmscen/sent/executor/runner.py:\d+\), called by .*\)"
    )
    with pytest.raises(HostError, match=f"^the agent of kvm was ended by SIGSEGV {place}$"):
        executor.execute(machine(SPIN, timeout=20))
    assert executor.execute(machine(STORE)).stopped == "expected"


@pytest.mark.kvm
def test_no_slot_maps_more_than_the_memory_behind_it(executor: ChildExecutor) -> None:
    # Size 0 deletes the slot; one of that number may then have any size.
    size = 4 << 20
    setup = (Action("set_memslot", {"slot": 1, "gpa": 0x100000, "size": size, "flags": 0}),)
    slots = (Memslot(0, 0, 0x1000), Memslot(1, 0x100000, 0x1000), Memslot(1, 0x100000, 0))
    image, vcpu = (
        (Bytes.at(0, HLT), Bytes.at(0x100000, b"kept")),
        Vcpu(0, "long", {"rip": 0}, (), None),
    )
    more: dict[str, Any] = {"setup": setup, "observe_memory": ((0x100000, size),)}
    seen = executor.execute(
        Machine(
            "x86_64", slots, image, (), (vcpu,), tables=Tables(0xFFFC0000, 0x8000, 509), **more
        ).seal("slots")
    )
    assert seen.stopped == "expected"
    assert seen.memory[0x100000] in (b"kept".ljust(size, b"\0"), bytes(size))


@pytest.mark.kvm
def test_an_agent_that_hangs_is_a_host_error(
    executor: ChildExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmscen.hosts.process.children.GRACE", 0.3)
    assert executor.execute(machine(HLT)).stopped == "expected"
    pid = executor.child.process_id
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(HostError, match="did not answer in time"):
        executor.execute(machine(HLT, timeout=0.2))
    assert executor.execute(machine(HLT)).stopped == "expected"


@pytest.mark.kvm
def test_close_ends_a_run_in_another_thread(executor: ChildExecutor) -> None:
    executor.execute(machine(HLT))
    threading.Timer(0.2, executor.close).start()
    with pytest.raises(HostError, match="the agent of kvm was stopped"):
        executor.execute(machine(SPIN, timeout=600))


@pytest.mark.kvm
def test_what_the_agent_cannot_do_is_a_host_error(executor: ChildExecutor) -> None:
    with pytest.raises(HostError, match="does not run arm64"):
        executor.execute(Machine("arm64", (), (), (), (Vcpu(0, "el1", {}),)).seal("other"))
    with pytest.raises(HostError, match="Machine has no arch"):
        executor.execute(Sealed("wrong", "{}", "sha256:0", "x86_64", 1.0))
    more = {"ignore": (Step("hlt"),), "exits": 5}
    # And it is still the same agent, which still runs guests.
    pid = executor.child.process_id
    assert executor.execute(machine(HLT + SPIN, timeout=0.1, **more)).stopped == "timeout"
    assert executor.child.process_id == pid


@pytest.mark.kvm
def test_the_timeout_is_the_guests_not_the_agents(executor: ChildExecutor) -> None:
    seen = executor.execute(machine(SPIN, timeout=0.2))
    assert (seen.stopped, [event.kind for event in seen.events], seen.events[0].pc) == (
        "timeout",
        ["timeout"],
        0,
    )


@pytest.mark.kvm
def test_an_agent_ends_when_we_do() -> None:
    # Its input ends with the process that holds it, however that one ends.
    code = (
        "import os, signal; from kvmscen.hosts.kvm import KvmHost\n"
        "h = KvmHost('kvm'); h.start(); h.wait(); e = h.executor(); print(e.child.process_id, "
        "flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    end = time.monotonic() + 120
    while alive(pid):
        assert time.monotonic() < end, f"agent {pid} is still there"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False
