"""What a process can still do once it is confined: tried in one, on this kernel, and on what seems
to be another.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kvmscen.errors import HostError
from kvmscen.sent.sandbox import InForce, landlock, policies, require, seccomp
from kvmscen.sent.sandbox.syscalls import COLUMN, NUMBERS

ROOT = Path(__file__).resolve().parents[3]
WITHOUT = Path(__file__).parent / "without.py"
HERE = policies.means()
needs_landlock = pytest.mark.skipif(not HERE.landlock, reason="this kernel has no Landlock")
needs_seccomp = pytest.mark.skipif(not HERE.seccomp, reason="this kernel has no seccomp filters")

# Each is tried in a process of a policy, which may read one folder and write another.
TRIED = """
import ctypes, json, os, resource, signal, socket, sys, threading
from kvmscen.sent.sandbox import policies
from kvmscen.sent.sandbox.landlock import OWN, READ
policy, asked, readable, own = sys.argv[1:]
held = policies.confine(getattr(policies, policy), [(readable, READ), (own, OWN)], asked=asked)
out = {"held": held._asdict()}
libc = ctypes.CDLL(None, use_errno=True)

def fork():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)

def call(number):
    if libc.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 6) < 0:
        raise OSError(ctypes.get_errno(), "")

def thread():
    one = threading.Thread(target=lambda: None)
    one.start()
    one.join()

def unshare():
    if libc.unshare(0x10000000) < 0:
        raise OSError(ctypes.get_errno(), "")

tries = {
    "read theirs": lambda: open("/etc/passwd").close(),
    "list theirs": lambda: os.listdir("/etc"),
    "read proc": lambda: open("/proc/self/environ").close(),
    "read readable": lambda: open(readable + "/a").close(),
    "write readable": lambda: open(readable + "/a", "w").close(),
    "write own": lambda: open(own + "/b", "w").close(),
    "remove own": lambda: os.unlink(own + "/b"),
    "chmod own": lambda: os.chmod(own, 0o700),
    "link": lambda: os.symlink("/etc/passwd", own + "/l"),
    "socket": lambda: socket.socket(),
    "socket unix": lambda: socket.socket(socket.AF_UNIX),
    "fork": fork,
    "run": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "kill": lambda: os.kill(os.getppid(), 0),
    "limit another": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0)),
    "thread": thread,
    "namespace": unshare,
    "memory of another": lambda: call({"x86_64": 310}.get(os.uname().machine, 270)),
    "io_uring": lambda: call(425),
    "bpf": lambda: call({"x86_64": 321}.get(os.uname().machine, 280)),
    "memory": lambda: bytearray(1 << 20),
    "kvm": lambda: os.close(os.open("/dev/kvm", os.O_RDWR)),
}
for name, act in tries.items():
    try:
        act()
        out[name] = "done"
    except OSError as error:
        out[name] = "refused"
print(json.dumps(out))
"""


def tried(policy: str, tmp_path: Path, *before: str, asked: str = "auto") -> dict[str, Any]:
    readable, own = tmp_path / "readable", tmp_path / "own"
    readable.mkdir(exist_ok=True)
    own.mkdir(exist_ok=True)
    (readable / "a").write_text("a")
    (own / "b").write_text("b")
    command = [*before, sys.executable, "-c", TRIED, policy, asked, str(readable), str(own)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    out: dict[str, Any] = json.loads(done.stdout)
    return out


@needs_landlock
@needs_seccomp
@pytest.mark.parametrize("policy", ["AGENT", "MODEL"])
def test_the_agent_and_the_model_have_what_they_hold_and_nothing_else(
    policy: str, tmp_path: Path
) -> None:
    out = tried(policy, tmp_path)
    assert {name for name, how in out.items() if how == "done"} == {"thread", "memory"}


@needs_landlock
@needs_seccomp
def test_preparing_reads_and_writes_where_it_is_told(tmp_path: Path) -> None:
    out = tried("PREPARE", tmp_path)
    done = {name for name, how in out.items() if how == "done"}
    # Signals reach others where the kernel is older than 6.12.
    assert done - {"kill"} == {
        "thread",
        "memory",
        "fork",
        "read readable",
        "write own",
        "remove own",
    }
    assert "kill" not in done or HERE.landlock < 6


@needs_seccomp
def test_without_landlock_the_agent_and_the_model_still_open_nothing(tmp_path: Path) -> None:
    out = tried("MODEL", tmp_path, sys.executable, str(WITHOUT), "landlock")
    assert {name for name, how in out.items() if how == "done"} == {"thread", "memory"}
    assert out["held"] == {"landlock": 0, "seccomp": True, "off": False}


@needs_landlock
def test_without_seccomp_files_are_kept_all_the_same(tmp_path: Path) -> None:
    out = tried("MODEL", tmp_path, sys.executable, str(WITHOUT), "seccomp")
    assert {"read theirs", "list theirs", "read proc", "write readable", "run", "kvm"} <= {
        n for n, how in out.items() if how == "refused"
    }
    assert out["held"]["seccomp"] is False


def test_off_is_off(tmp_path: Path) -> None:
    out = tried("MODEL", tmp_path, asked="off")
    assert out["read theirs"] == out["fork"] == out["socket"] == "done"
    assert out["held"]["off"] is True


@needs_landlock
@pytest.mark.parametrize("version", range(1, 8))
def test_every_version_of_landlock_keeps_files(version: int, tmp_path: Path) -> None:
    if version > HERE.landlock:
        pytest.skip(f"this kernel's Landlock has version {HERE.landlock}")
    code = (
        "import sys; from kvmscen.sent.sandbox import landlock, seccomp\n"
        f"seccomp.no_new_privileges(); landlock.restrict(landlock.ruleset({version}, "
        f"[(sys.argv[1], landlock.READ)]))\n"
        "open(sys.argv[1] + '/a').close()\n"
        "try: open('/etc/passwd')\n"
        "except PermissionError: print('kept')"
    )
    (tmp_path / "a").write_text("a")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "kept\n", done.stderr


def test_a_rule_for_what_is_not_there_gives_nothing() -> None:
    if HERE.landlock:
        os.close(landlock.ruleset(HERE.landlock, [("/nowhere/at/all", landlock.OWN)]))


HEADERS = {
    0: "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    1: "/usr/include/asm-generic/unistd.h",
}


@pytest.mark.parametrize("column", HEADERS)
def test_the_numbers_are_the_kernels(column: int) -> None:
    header = Path(HEADERS[column])
    if not header.exists():
        pytest.skip(f"there is no {header} (Debian: apt install linux-libc-dev)")
    kernel = {
        name: int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    }
    if column:
        kernel["newfstatat"] = kernel["fstatat"]
    # A header may be older than a call.
    ours = {
        name: numbers[column]
        for name, numbers in NUMBERS.items()
        if name in kernel or numbers[column] < 0
    }
    assert ours == {name: kernel.get(name, -1) for name in ours}
    assert len(ours) > 0.9 * len(NUMBERS)


@pytest.mark.parametrize("machine", COLUMN)
@pytest.mark.parametrize("policy", ["AGENT", "MODEL", "PREPARE", "TOOL"])
def test_no_jump_of_a_filter_is_too_far(machine: str, policy: str) -> None:
    kept = getattr(policies, policy)
    code = seccomp.program(machine, kept.calls, kept.checks)
    assert len(code) % 8 == 0
    assert len(code) // 8 < 4096  # BPF_MAXINSNS


def test_require_names_what_is_lacking() -> None:
    require(InForce(1, True))
    with pytest.raises(HostError, match=r"no Landlock .* and seccomp filters: run on another"):
        require(InForce(0, False))


# --- as and ld ------------------------------------------------------------------------------------

LONG = """
arch: x86_64
assembler: gnu
memslots: [{slot: 0, gpa: 0, size: 0x4000000}]
macros: {m: ".rept 65536\\n.rept 20\\n.4byte 0, 1f-0b\\n.endr\\n.endr"}
asm: |
  _start:
      hlt
  0:
  1:
  m
expect: [hlt]
"""


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if fields[1] == str(pid) and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


Found = TypeVar("Found")


def wait(until: Callable[[], Found]) -> Found:
    """What `until` gives as soon as that is something, for a minute at most."""
    for _ in range(6000):
        if found := until():
            return found
        time.sleep(0.01)
    return until()


@pytest.mark.parametrize("mode", ["auto", "off"])
@pytest.mark.parametrize("victims", ["main", "preparing", "both"])
def test_as_dies_with_whoever_started_it(mode: str, victims: str, tmp_path: Path) -> None:
    if not any(os.access(f"{folder}/as", os.X_OK) for folder in os.environ["PATH"].split(":")):
        pytest.skip("needs GNU as")
    (tmp_path / "long.yaml").write_text(LONG)
    command = [
        sys.executable,
        "-m",
        "kvmscen",
        "check",
        "--sandbox",
        mode,
        str(tmp_path / "long.yaml"),
    ]
    main = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        started = wait(
            lambda: [(child, tool) for child in children(main.pid) for tool in children(child)]
        )
        assert started, "as did not start"
        preparing, tool = started[0]
        if victims == "both":
            os.kill(main.pid, signal.SIGSTOP)
        if victims != "main":
            os.kill(preparing, signal.SIGKILL)
        if victims != "preparing":
            os.kill(main.pid, signal.SIGKILL)
        assert wait(lambda: not lives(tool))
    finally:
        main.kill()
        main.wait()


# The clock that lags stands for one that the kernel's ticks run ahead of, which takes minutes of
# short sleeps.
AHEAD = """
import resource, time
from kvmscen.asm.gnu import confined
spent = time.process_time
while spent() < 1.2:
    pass
time.process_time = lambda: 0.0
with confined._limited({resource.RLIMIT_CPU: 1}):
    end = spent() + 0.1
    while spent() < end:
        pass
print(resource.getrlimit(resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY)
"""


def test_who_starts_as_is_not_ended_by_its_limit() -> None:
    """A process that has prepared for minutes was ended by SIGXCPU: the kernel counts CPU by ticks,
    more than was taken.
    """
    done = subprocess.run(
        [sys.executable, "-c", AHEAD], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
