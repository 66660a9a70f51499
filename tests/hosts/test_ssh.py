"""The ssh host over a real sshd: what runs, what each thing that is missing there is called, and
connections that break.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sshd as server
from sshd import Sshd

from kvmscen.errors import HostError, UsageError
from kvmscen.hosts import host
from kvmscen.hosts.process import pack
from kvmscen.hosts.process.children import ChildExecutor
from kvmscen.hosts.ssh import SshHost, command
from kvmscen.sent.agent import frames
from kvmscen.sent.codec import encode
from kvmscen.sent.facts import Facts
from kvmscen.sent.machine import Bytes, Machine, Memslot, Sealed, Tables, Vcpu

ROOT = Path(__file__).resolve().parent.parent.parent
HLT, SPIN, STORE = b"\xf4", b"\xeb\xfe", b"\x88\x03\xf4"  # hlt; jmp .; mov [rbx], al and hlt
needs_sshd = pytest.mark.skipif(not server.HAS, reason=server.MISSING)


def machine(code: bytes, timeout: float = 2.0) -> Sealed:
    vcpu = Vcpu(0, "long", {"rip": 0, "rbx": 0x5000, "rax": 7}, (), None)
    slots, image, tables = (
        (Memslot(0, 0, 0x1000),),
        (Bytes.at(0, code),),
        Tables(0xFFFC0000, 0x8000, 509),
    )
    return Machine("x86_64", slots, image, (), (vcpu,), tables=tables, timeout=timeout).seal(
        "a case"
    )


# --- names ----------------------------------------------------------------------------------------

NAMES = {
    "ssh:pi": ["pi"],
    "ssh:me@pi": ["me@pi"],
    "ssh:me@pi:22022": ["-p", "22022", "me@pi"],
    "ssh:192.0.2.1:22": ["-p", "22", "192.0.2.1"],
    "ssh:me@[2001:db8::1%eth0]:22": ["-p", "22", "me@2001:db8::1%eth0"],
    "ssh:pi,python=/opt/python 3/bin/python3": ["pi"],
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    made = host(name)
    assert isinstance(made, SshHost)
    assert (made.name, made.to) == (name, NAMES[name])


@pytest.mark.parametrize(
    "name",
    [
        "ssh:-oProxyCommand=x",
        "ssh://pi",
        "ssh:a@b@c",
        "ssh:pi:99999",
        "ssh:pi:x",
        "ssh:a b",
        "ssh:pi,cpu=a53",
        "ssh:pi,python=",
    ],
)
def test_wrong_names(name: str) -> None:
    with pytest.raises(UsageError, match="write ssh:USER@HOST"):
        host(name)


@pytest.mark.parametrize("name", ["ssh", "ssh:"])
def test_no_name(name: str) -> None:
    with pytest.raises(HostError, match="ssh needs a machine: write ssh:USER@HOST"):
        host(name)


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "ksh", "zsh", "tcsh", "fish"])
def test_what_a_login_shell_makes_of_the_command(shell: str, tmp_path: Path) -> None:
    # As sshd calls it. A python3 in a folder with a blank and a quote, as the user may name one.
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    python = tmp_path / "it's here" / "python3"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    line = command(str(python))
    assert not set(line.replace(str(python).replace("'", "'\"'\"'"), "")) & set(
        "\n\\!$`*?{}~#&|<>;^%"
    )
    done = subprocess.run(
        [shell, "-c", line], input=pack.greeting(), capture_output=True, env={"HOME": str(tmp_path)}
    )
    assert json.loads(frames.unpack(done.stdout) or "")["protocol"] == frames.VERSION


# --- what works -----------------------------------------------------------------------------------


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    made = Sshd(tmp_path)
    monkeypatch.setenv("KVMSCEN_SSH", made.ssh)
    yield made
    made.stop()


@pytest.fixture
def on(sshd: Sshd) -> Iterator[Callable[[str], SshHost]]:
    """A host by its name, started; ended when the test ends."""
    made: list[SshHost] = []

    def start(name: str) -> SshHost:
        made.append(SshHost(name))
        made[-1].start()
        made[-1].wait()
        return made[-1]

    yield start
    for remote in made:
        remote.close()


@pytest.fixture
def executor(sshd: Sshd, on: Callable[[str], SshHost]) -> Iterator[ChildExecutor]:
    sshd.start()
    made = on(sshd.name).executor()
    yield made
    made.close()


@needs_sshd
@pytest.mark.kvm
def test_guests_run(sshd: Sshd, on: Callable[[str], SshHost]) -> None:
    made = on(sshd.start().name)
    assert [(facts.arch, facts.kernel, facts.kind) for facts in made.facts] == [
        ("x86_64", os.uname().release, "ssh")
    ]
    executors = [made.executor() for _ in range(3)]
    try:
        for remote in executors:
            assert [event.name for event in remote.execute(machine(STORE)).events] == [
                "mmio",
                "hlt",
            ]
        assert len(sshd.agents()) == 3
    finally:
        for remote in executors:
            remote.close()
    gone(sshd)


# A motd, binary, a line that is never ended, and a farewell: as login shells have them.
NOISE = (
    r"printf 'Welcome\036 to this machine\n\000\377\036 \n> '; "
    'eval "$SSH_ORIGINAL_COMMAND"; echo bye'
)


@needs_sshd
@pytest.mark.kvm
def test_noise_round_the_frames_does_no_harm(sshd: Sshd, on: Callable[[str], SshHost]) -> None:
    (sshd.folder / "banner").write_text("No trespassing.\n" * 100)
    remote = on(sshd.start(f"Banner {sshd.folder}/banner", f"ForceCommand {NOISE}").name).executor()
    try:
        assert remote.execute(machine(STORE)).stopped == "expected"
    finally:
        remote.close()


def kvmscen(sshd: Sshd, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("KVMSCEN_") or key == "KVMSCEN_SSH"
    }
    argv = [sys.executable, "-m", "kvmscen", *map(str, arguments)]
    return subprocess.run(
        argv,
        cwd=cwd,
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )


@needs_sshd
@pytest.mark.kvm
def test_the_scenarios_over_ssh(sshd: Sshd) -> None:
    # Seven agents at once: more than sshd lets log in at once here.
    sshd.start("MaxStartups 5:100:5")
    files = sorted(ROOT.glob("scenarios/x86_64-*.yaml"))
    done = kvmscen(sshd, "run", *files, "--on", sshd.name, "-j", "7", "--report", "json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["summary"]["FAIL"], told["summary"]["ERROR"]) == (0, 0, 0), (
        done.stderr
    )
    assert {result["host"] for result in told["results"]} == {sshd.name}
    assert {result["kernel"] for result in told["results"]} == {os.uname().release}
    assert told["summary"]["PASS"] > 30
    gone(sshd)


# --- what is missing ------------------------------------------------------------------------------


def refusal(name: str) -> str:
    made = SshHost(name)
    try:
        with pytest.raises(HostError) as caught:
            made.wait()
    finally:
        made.close()
    text = str(caught.value)
    start = f"host {name} cannot run here: "
    assert text.startswith(start)
    assert "\n" not in text
    return text.removeprefix(start)


@needs_sshd
def test_nobody_listens(sshd: Sshd) -> None:
    assert refusal(sshd.name) == (
        f"ssh: connect to host 127.0.0.1 port {sshd.port}: Connection refused; is sshd running "
        f"there, on that port?"
    )


@needs_sshd
def test_an_unknown_host_key(sshd: Sshd) -> None:
    sshd.start()
    (sshd.folder / "known").unlink()
    assert refusal(sshd.name) == (
        f"ssh: Host key verification failed; its host key is not known: connect once by hand, `ssh "
        f"-p {sshd.port} 127.0.0.1`, "
        "and accept it"
    )


@needs_sshd
def test_another_host_key(sshd: Sshd) -> None:
    sshd.start()
    sshd.know((sshd.folder / "user.pub").read_text())
    assert refusal(sshd.name).endswith(
        "its host key is not the one that is known: see that it is the right machine"
    )


@needs_sshd
def test_a_key_that_is_not_let_in(sshd: Sshd) -> None:
    sshd.start()
    (sshd.folder / "authorized").write_text("")
    assert "Permission denied (publickey); `ssh -p" in refusal(sshd.name)


@needs_sshd
def test_no_such_name(sshd: Sshd) -> None:
    assert "Could not resolve hostname kvmscen.invalid" in refusal("ssh:kvmscen.invalid")


@needs_sshd
def test_no_python(sshd: Sshd) -> None:
    sshd.start(path=f"{sshd.folder}/empty")
    assert refusal(sshd.name).startswith("there is no python3 there (it needs 3.9 or newer): ")
    assert "there is no python3 there" in refusal(sshd.name + ",python=/opt/python3")


@needs_sshd
def test_a_python_that_is_too_old(sshd: Sshd) -> None:
    sshd.start()
    name = sshd.python("sys.version_info = (3, 8, 20, 'final', 0); exec(sys.argv[4])")
    assert refusal(name) == "kvmscen needs python3 3.9 or newer, this is 3.8"


@needs_sshd
@pytest.mark.parametrize(
    "python", sorted(Path.home().glob(".pyenv/versions/3.[5-8].*/bin/python3"))
)
def test_a_python_that_really_is_too_old(sshd: Sshd, python: Path) -> None:
    sshd.start()
    assert refusal(f"{sshd.name},python={python}").startswith(
        "kvmscen needs python3 3.9 or newer, this is 3."
    )


@needs_sshd
def test_no_login(sshd: Sshd) -> None:
    sshd.start("ForceCommand echo This account is not available.; exit 1")
    assert (
        refusal(sshd.name)
        == f"the agent of {sshd.name} exited with status 1: This account is not available."
    )


@needs_sshd
@pytest.mark.parametrize(
    ("wrapper", "why"),
    [
        ("setpriv --reuid=65534 --regid=65534 --clear-groups", "no permission to open /dev/kvm"),
        ("unshare -m sh -c 'mount -t tmpfs none /dev && exec \"$@\"' sh", "there is no /dev/kvm"),
    ],
    ids=["permission", "missing"],
)
@pytest.mark.kvm
def test_no_kvm_there(sshd: Sshd, wrapper: str, why: str) -> None:
    system_python = shutil.which("python3", path="/usr/bin") or sys.executable
    if (
        subprocess.run(
            f"{wrapper} {system_python} -c ''", shell=True, capture_output=True
        ).returncode
        != 0
    ):
        pytest.skip("needs to be root")
    if os.stat("/dev/kvm").st_mode & 0o006 and "setpriv" in wrapper:
        pytest.skip("everybody may open /dev/kvm here")
    path = sshd.folder / "python3"
    path.write_text(f'#!/bin/sh\nexec {wrapper} {system_python} "$@"\n')
    path.chmod(0o755)
    assert refusal(f"{sshd.start().name},python={path}").startswith(why)


@needs_sshd
def test_the_client_that_the_user_names(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVMSCEN_SSH", "/nonexistent/ssh -v")
    with pytest.raises(HostError, match="cannot be started: No such file"):
        SshHost("ssh:pi").start()
    monkeypatch.setenv("KVMSCEN_SSH", "ssh 'oh")
    with pytest.raises(HostError, match="KVMSCEN_SSH is not a command: No closing quotation"):
        SshHost("ssh:pi").start()


@needs_sshd
@pytest.mark.kvm
def test_names_of_the_users_configuration(
    sshd: Sshd, on: Callable[[str], SshHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    # With what an ssh_config may have for terminals and tunnels, and would be in the way.
    lines = (
        "Host board",
        "HostName 127.0.0.1",
        f"Port {sshd.port}",
        f"UserKnownHostsFile {sshd.folder}/known",
        f"IdentityFile {sshd.folder}/user",
        "RequestTTY force",
        "RemoteCommand tmux attach",
        f"LocalForward {server.free_port()} localhost:1",
        f"LocalForward {sshd.port} localhost:1",
        "ExitOnForwardFailure yes",
    )
    (sshd.folder / "ssh_config").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("KVMSCEN_SSH", f"ssh -F {sshd.folder}/ssh_config")
    sshd.start()
    remote = on("ssh:board").executor()
    try:
        assert remote.execute(machine(STORE)).stopped == "expected"
    finally:
        remote.close()


# --- what breaks ----------------------------------------------------------------------------------


def gone(sshd: Sshd, seconds: float = 120.0) -> None:
    """No agent is left there."""
    end = time.monotonic() + seconds
    while left := sshd.agents():
        assert time.monotonic() < end, f"agents are still there: {left}"
        time.sleep(0.02)


def later(seconds: float, act: Callable[[], Any]) -> None:
    threading.Timer(seconds, act).start()


def kill_sessions(sshd: Sshd, number: int = signal.SIGKILL) -> None:
    for pid in server.descendants(sshd.sessions()):
        if b"fromhex" not in server.command_line(pid):
            os.kill(pid, number)


@needs_sshd
@pytest.mark.kvm
def test_a_connection_cut_while_a_guest_runs(sshd: Sshd, executor: ChildExecutor) -> None:
    assert executor.execute(machine(HLT)).stopped == "expected"
    agents = sshd.agents()
    later(0.3, lambda: kill_sessions(sshd))
    with pytest.raises(HostError, match="the connection ended"):
        executor.execute(machine(SPIN, timeout=600))
    # Its guest would spin for ten minutes; nobody could read the reply.
    end = time.monotonic() + 120
    while any(b"fromhex" in server.command_line(pid) for pid in agents):
        assert time.monotonic() < end, f"the agents {agents} are still there"
        time.sleep(0.02)
    # The next one has a new connection.
    assert executor.execute(machine(STORE)).stopped == "expected"


@needs_sshd
@pytest.mark.kvm
def test_a_network_that_goes_away(
    sshd: Sshd, on: Callable[[str], SshHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing comes any more, and nothing is refused: only ssh's own questions tell.
    monkeypatch.setenv("KVMSCEN_SSH", f"{sshd.ssh} -oServerAliveInterval=1 -oServerAliveCountMax=1")
    remote = on(sshd.start().name).executor()
    later(0.3, lambda: kill_sessions(sshd, signal.SIGSTOP))
    try:
        with pytest.raises(HostError, match=r"Timeout, server 127\.0\.0\.1 not responding"):
            remote.execute(machine(SPIN, timeout=600))
    finally:
        remote.close()


@needs_sshd
@pytest.mark.kvm
def test_closing_ends_what_runs_there(sshd: Sshd, executor: ChildExecutor) -> None:
    later(0.5, executor.close)
    with pytest.raises(HostError, match="was stopped"):
        executor.execute(machine(SPIN, timeout=600))
    gone(sshd)


@needs_sshd
@pytest.mark.kvm
def test_an_agent_that_is_killed_there(sshd: Sshd, executor: ChildExecutor) -> None:
    later(0.3, sshd.kill_agents)
    with pytest.raises(HostError, match="the connection ended, or the agent there was killed"):
        executor.execute(machine(SPIN, timeout=600))
    assert executor.execute(machine(STORE)).stopped == "expected"


@needs_sshd
@pytest.mark.kvm
def test_another_machine_behind_the_same_name(sshd: Sshd, on: Callable[[str], SshHost]) -> None:
    # As a name that means several machines, or one that was rebooted in between.
    code = (
        f"count = {str(sshd.folder / 'count')!r}; open(count, 'a').write('x'); uname = os.uname()\n"
        "if os.path.getsize(count) > 1: uname = os.uname_result((*uname[:2], '6.99', *uname[3:]))\n"
        "os.uname = lambda: uname; exec(sys.argv[4])"
    )
    sshd.start()
    made = on(sshd.python(code))
    first, second = made.executor(), made.executor()
    try:
        assert first.execute(machine(STORE)).stopped == "expected"
        with pytest.raises(
            HostError, match="is another machine, or another kernel, than it was when the run began"
        ):
            second.execute(machine(STORE))
    finally:
        first.close()
        second.close()


LOOP = """\
summary: An endless loop.
arch: x86_64
memslots: [{slot: 0, gpa: 0x0, size: 0x1000}]
asm: "_start: jmp _start"
expect: [hlt]
limits: {timeout: 30}
"""


@needs_sshd
@pytest.mark.kvm
def test_a_host_that_has_gone_makes_the_rest_errors_at_once(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    for n in range(30):
        (tmp_path / "scenarios" / f"case{n:02}.yaml").write_text(LOOP)

    def pull_the_plug() -> None:
        end = time.monotonic() + 120
        while len(sshd.agents()) < 2:
            assert time.monotonic() < end
            time.sleep(0.02)
        sshd.stop()

    sshd.start()
    plug = threading.Thread(target=pull_the_plug)
    plug.start()
    done = kvmscen(
        sshd, "run", "scenarios", "--on", sshd.name, "-j", "2", "--report", "json", cwd=tmp_path
    )
    plug.join()
    told = json.loads(done.stdout)
    assert (done.returncode, told["summary"]["ERROR"]) == (3, 30)
    assert f"host {sshd.name} has gone: " in told["results"][-1]["reason"]
    assert "Traceback" not in done.stderr


# --- slow machines --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spent", "grace"),
    [
        (None, 5.0),
        ("9", 5.0),
        (float("nan"), 5.0),
        (-3, 5.0),
        (0.2, 5.0),
        (5.0, 50.0),
        (10**400, 150.0),
        (float("inf"), 150.0),
    ],
)
def test_a_slow_machine_has_more_time_for_an_answer(spent: object, grace: float) -> None:
    # By this machine's clock an agent that gets no CPU there looks like one that hangs.
    board = host("ssh:pi")
    assert isinstance(board, SshHost)
    facts = encode(Facts("arm64", "6.1.0", {}, 4096))
    board.take({"facts": [facts]} if spent is None else {"facts": [facts], "spent": spent})
    assert board.grace() == grace


@needs_sshd
@pytest.mark.kvm
def test_an_agent_tells_what_its_start_took(
    sshd: Sshd, on: Callable[[str], SshHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmscen.hosts.ssh._START", 1e-9)
    assert on(sshd.start().name).grace() == pytest.approx(150.0)
