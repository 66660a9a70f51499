"""The `qemu` hosts: real packages, a real QEMU, a real kernel with KVM inside. The prepared host
lies in the user's cache.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvmscen.errors import HostError
from kvmscen.hosts.process.child import Child
from kvmscen.hosts.process.children import ChildExecutor
from kvmscen.hosts.qemu import first_guest
from kvmscen.hosts.qemu import host as machines
from kvmscen.hosts.qemu.cpio import Archive
from kvmscen.hosts.qemu.host import QemuHost
from kvmscen.sent.machine import Bytes, Machine, Memslot, Sealed, Vcpu

ROOT = Path(__file__).resolve().parent.parent.parent
Prepared = tuple[str, dict[str, str]]


def kvmscen(
    *arguments: object, env: dict[str, str] | None = None, seconds: float = 600
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "kvmscen", *map(str, arguments)]
    return subprocess.run(
        argv,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=env,
        stdin=subprocess.DEVNULL,
    )


def run(tmp_path: Path, environment: dict[str, str], *arguments: object) -> list[dict[str, Any]]:
    """The results of a run."""
    report = tmp_path / "report.json"
    done = kvmscen("run", *arguments, "--report", f"json={report}", env=environment)
    results = json.loads(report.read_text())["results"]
    assert results, done.stdout + done.stderr
    return list(results)


# --- what runs on a prepared host -----------------------------------------------------------------


@pytest.mark.qemu
def test_the_founding_scenario(qemu_arm64: Prepared, tmp_path: Path) -> None:
    name, environment = qemu_arm64
    results = run(tmp_path, environment, "scenarios/arm64-mmio.yaml", "--on", name)
    told = [
        [event.get("exit", event.get("error")) for event in result["events"]]
        for result in results[:2]
    ]
    assert told == [["mmio", "mmio", "ENOSYS"], ["mmio", "mmio", "arm_nisv"]]
    assert {(result["status"], result["host"], result["predicted"]) for result in results} == {
        ("PASS", name, False)
    }
    assert all(result["kernel"].startswith("6.1.") for result in results)


@pytest.mark.qemu
def test_every_arm64_scenario_is_as_the_model_says(qemu_arm64: Prepared, tmp_path: Path) -> None:
    name, environment = qemu_arm64
    files = sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / "scenarios").glob("arm64-*.yaml")
    )
    results = run(tmp_path, environment, *files, "--on", name, "--on", "model@6.1")
    told: dict[tuple[str, str], dict[bool, str]] = {}
    for result in results:
        told.setdefault((result["scenario"], result["case"]), {})[result["predicted"]] = result[
            "status"
        ]
    assert len(told) > 380
    assert {status for statuses in told.values() for status in statuses.values()} == {
        "PASS",
        "XFAIL",
        "SKIP",
    }
    # What the machine's CPU or the model lacks is skipped there; what both ran came out alike.
    ran = [statuses for statuses in told.values() if "SKIP" not in statuses.values()]
    assert len(ran) > 380
    assert [statuses for statuses in ran if statuses[True] != statuses[False]] == []


@pytest.mark.qemu
def test_a_prepared_host_runs_what_this_machine_cannot(
    qemu_arm64: Prepared, tmp_path: Path
) -> None:
    # Twice: timeouts end on a machine that goes on from a snapshot, which does not hold its EL2
    # timer.
    for _ in range(2):
        results = run(tmp_path, qemu_arm64[1], "scenarios/arm64-loop.yaml")
        assert {(result["status"], result["host"].partition("@")[0]) for result in results} == {
            ("PASS", "qemu:arm64")
        }


@pytest.mark.qemu
def test_prepared_hosts_are_listed(qemu_arm64: Prepared) -> None:
    name, environment = qemu_arm64
    row = next(
        line.split()
        for line in kvmscen("host", "list", env=environment).stdout.splitlines()
        if line.startswith(f"{name} ")
    )
    assert row[1].startswith("6.1.")
    assert row[3] == "MB"
    # One for each shape of machine that has run: this file uses it with and without -j.
    assert int(row[-1]) >= 1
    assert any(
        line.startswith("qemu:arm64@")
        for line in kvmscen("hosts", env=environment).stdout.splitlines()
    )


# --- what breaks ----------------------------------------------------------------------------------

SPIN, FATAL = b"\x00\x00\x00\x14", 0.25  # b .


def machine(timeout: float = 0.05) -> Sealed:
    """A guest that runs until the time is over."""
    vcpu = Vcpu(0, "el1", {"pc": 0}, ("psci_0_2",), None)
    return Machine(
        "arm64", (Memslot(0, 0, 0x1000),), (Bytes.at(0, SPIN),), (), (vcpu,), timeout=timeout
    ).seal("a case")


# The agent as it is, but a guest with this limit makes the kernel crash.
INIT = f"""#!/usr/bin/python3 -IS
import sys
sys.path.insert(0, "/kvmscen.zip")
from kvmscen.sent.agent import init
from kvmscen.sent.executor.executor import Executor
run = Executor.execute
def execute(self, machine):
    if machine.timeout == {FATAL}:
        with open("/proc/sysrq-trigger", "w") as trigger:
            trigger.write("c")
    return run(self, machine)
Executor.execute = execute
init.main()
"""


@pytest.fixture
def fragile(qemu_arm64: Prepared, monkeypatch: pytest.MonkeyPatch) -> Iterator[QemuHost]:
    """A host whose kernel crashes on request; it is booted, since what it boots is not what its
    snapshot is of.
    """
    name, environment = qemu_arm64
    monkeypatch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
    archive = Archive()
    archive.file("init", INIT.encode(), 0o755)
    made = machines.image

    def image(*arguments: Any) -> Any:
        found = made(*arguments)
        return found._replace(initrd=(*found.initrd, archive.finish()))

    monkeypatch.setattr(machines, "image", image)
    monkeypatch.setattr("kvmscen.hosts.qemu.snapshot.find", lambda entry, image: None)
    monkeypatch.setattr("kvmscen.hosts.qemu.snapshot.wanted", lambda board: False)
    host = QemuHost(name)
    host.start()
    yield host
    host.close()


@pytest.mark.qemu
def test_a_kernel_that_panics_is_a_finding_and_the_next_case_runs(fragile: QemuHost) -> None:
    fragile.wait()
    executor = fragile.executor()
    try:
        with pytest.raises(HostError) as caught:
            executor.execute(machine(FATAL))
        first, *console = str(caught.value).splitlines()
        assert (
            first
            == f"a probable finding: the kernel of {fragile.name} panicked: sysrq triggered crash"
        )
        assert any("sysrq: Trigger a crash" in line for line in console)
        assert any("Call trace:" in line for line in console)
        assert executor.execute(machine()).stopped == "timeout"
    finally:
        executor.close()


@pytest.fixture
def executor(qemu_arm64: Prepared, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChildExecutor]:
    name, environment = qemu_arm64
    monkeypatch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
    host = QemuHost(name)
    host.start()
    host.wait()
    executor = host.executor()
    assert executor.execute(machine()).stopped == "timeout"
    yield executor
    executor.close()


@pytest.mark.qemu
def test_a_machine_that_hangs_is_a_finding_and_the_next_case_runs(executor: ChildExecutor) -> None:
    os.kill(executor.child.process_id or 0, signal.SIGSTOP)
    with pytest.raises(
        HostError,
        match=r"^a probable finding: the kernel of qemu:arm64@6.1 hangs: it did not answer in time",
    ):
        executor.execute(machine())
    assert executor.execute(machine()).stopped == "timeout"


@pytest.mark.qemu
def test_a_qemu_that_dies_is_told_and_the_next_case_runs(executor: ChildExecutor) -> None:
    os.kill(executor.child.process_id or 0, signal.SIGKILL)
    with pytest.raises(HostError, match=r"the machine of qemu:arm64@6.1 was ended by SIGKILL"):
        executor.execute(machine())
    assert executor.execute(machine()).stopped == "timeout"


LIMIT = """summary: A store, and nothing else.
arch: arm64
memslots: [{slot: 0, gpa: 0, size: 0x1000}]
asm: |
  _start: mov x1, #0x5000
      str xzr, [x1]
limits: {timeout: 1}
expect:
  - mmio: {phys_addr: 0x5000}
cases:
  b: {summary: another}
  c: {summary: a third}
"""


@pytest.mark.qemu
def test_a_limit_is_not_lost_to_what_comes_from_the_disk(
    qemu_arm64: Prepared, tmp_path: Path
) -> None:
    """A machine that was just restored reads its kernel's memory page by page: the first guest had
    no second left.
    """
    name, environment = qemu_arm64
    (tmp_path / "limit.yaml").write_text(LIMIT)
    for memory in Path(environment["XDG_CACHE_HOME"]).glob(
        "kvmscen/qemu/machines/arm64@6.1/snapshots/*/memory"
    ):
        with memory.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    done = kvmscen(
        "run",
        tmp_path / "limit.yaml",
        "--on",
        name,
        "--report",
        f"json={tmp_path / 'out.json'}",
        env=environment,
    )
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [(result["status"], result["reason"]) for result in results] == [("PASS", None)] * 3, (
        done.stdout + done.stderr
    )


@pytest.mark.qemu
def test_the_first_guest_of_a_restored_machine_is_thrown_away(
    qemu_arm64: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, environment = qemu_arm64
    monkeypatch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
    asked: list[str] = []
    ask = Child.ask

    def recorded(self: Child, body: str, seconds: float) -> dict[str, Any]:
        reply = ask(self, body, seconds)
        asked.append(body)
        assert "observation" in reply
        return reply

    monkeypatch.setattr(Child, "ask", recorded)
    host = QemuHost(name)
    host.start()
    host.wait()
    executor = host.executor()
    try:
        for _ in range(2):
            assert executor.execute(machine()).stopped == "timeout"
    finally:
        executor.close()
    own = [
        '"machine":' + sealed.text
        for sealed in (first_guest.machine("arm64").seal("the first guest"), machine(), machine())
    ]
    assert asked == own


@pytest.mark.qemu
def test_a_snapshot_that_is_of_no_use_is_not_used(
    qemu_arm64: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, environment = qemu_arm64
    monkeypatch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
    host = QemuHost(name, eager=False)
    host.start()
    host.wait()
    child = host.child()
    assert child.saved is not None
    (tmp_path / "memory").write_bytes(child.saved.memory.read_bytes())
    (tmp_path / "state").write_bytes(b"no state of any machine")
    child.saved = child.saved._replace(memory=tmp_path / "memory", state=tmp_path / "state")
    try:
        assert child.wait_hello(5)["facts"][0]["arch"] == "arm64"
        assert child.saved is None
    finally:
        child.close()


@pytest.mark.qemu
def test_no_qemu_outlives_a_kvmscen_that_is_killed(qemu_arm64: Prepared) -> None:
    name, environment = qemu_arm64
    code = (
        "import sys, time; from kvmscen.hosts.qemu.host import QemuHost; host = "
        "QemuHost(sys.argv[1]); host.start(); host.wait();"
        "print(host._first.process_id, flush=True); time.sleep(100)"
    )
    argv = [sys.executable, "-c", code, name]
    process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    machine = int(process.stdout.readline())
    while not Path(f"/proc/{machine}/comm").read_text().startswith("qemu"):
        time.sleep(0.01)
    # It reads no input in this state, so its end would not reach it.
    os.kill(machine, signal.SIGSTOP)
    process.kill()
    process.wait()
    for _ in range(200):
        if (
            not Path(f"/proc/{machine}").exists()
            or "State:\tZ" in Path(f"/proc/{machine}/status").read_text()
        ):
            return
        time.sleep(0.05)
    os.kill(machine, signal.SIGKILL)
    raise AssertionError("QEMU was still there")


# --- names, and nothing prepared ------------------------------------------------------------------


def test_a_host_that_is_not_prepared_says_how() -> None:
    done = kvmscen("run", "scenarios/arm64-mmio.yaml", "--on", "qemu:arm64@6.1")
    assert done.returncode == 3
    assert (
        done.stderr
        == "kvmscen: host qemu:arm64@6.1 is not prepared: kvmscen host prepare qemu:arm64@6.1\n"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qemu:arm", "there is no host 'qemu:arm'; qemu hosts are qemu:arm64"),
        (
            "qemu:arm64@six",
            "a KERNEL is a series as 6.1, newest, or the path of an image, not 'six'",
        ),
        ("qemu:arm64@6.1,cpus=3", "options are cpu=NAME, not 'cpus=3'"),
        ("qemu:arm64,cpu=", "options are cpu=NAME, not 'cpu'"),
        ("qemu:arm64,cpu=max", "cpu=max: QEMU's max is not usable for arm64"),
    ],
)
def test_names_that_are_none(name: str, said: str) -> None:
    done = kvmscen("run", "scenarios/arm64-mmio.yaml", "--on", name)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_list_of_nothing() -> None:
    done = kvmscen("host", "list")
    assert (done.returncode, done.stdout) == (
        0,
        "no host is prepared (kvmscen host prepare qemu:arm64)\n",
    )
    assert kvmscen("host", "remove", "qemu:arm64@6.1").returncode == 2
    assert kvmscen("host", "remove").returncode == 2
    assert not (Path(os.environ["XDG_CACHE_HOME"]) / "kvmscen" / "qemu").exists()
