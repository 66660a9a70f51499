"""What ends a run that nobody meant to end so: signals, odd options, streams that are closed, no
memory, no threads.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCENARIO = """\
arch: arm64
memslots: [{slot: 0, gpa: 0, size: 0x1000}]
asm: |
  _start:
      ldr x2, =0x5000
      str xzr, [x2]
expect: [mmio]
"""
WORD = "kvmscen: "


def kvmscen(
    *arguments: object,
    env: dict[str, str] | None = None,
    limits: dict[int, int] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """One run of the program, as a process of its own, with limits of resources."""

    def limit() -> None:
        for number, most in (limits or {}).items():
            resource.setrlimit(number, (most, most))

    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("KVMSCEN_")
    } | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "kvmscen", *map(str, arguments)],
        env=environment | (env or {}),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        preexec_fn=limit,
    )


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(SCENARIO)
    return path


# --- signals --------------------------------------------------------------------------------------


def _alive(mark: str) -> list[str]:
    """The processes that inherited a mark and are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
            parent = (path / "environ").read_bytes()
        except OSError:
            continue
        if fields[0] != "Z" and f"KVMSCEN_SWEPT={mark}".encode() in parent.split(b"\0"):
            found.append(path.name)
    return found


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_signal_at_any_moment_is_its_status_and_leaves_nothing(
    number: signal.Signals, status: int, twice: bool, scenario: Path
) -> None:
    # KVMSCEN_SWEEP=2 steps by 2 ms through a whole run; the suite takes a few samples of it.
    argv = [sys.executable, "-m", "kvmscen", "run", str(scenario), "--on", "model"]
    begun = time.monotonic()
    subprocess.run(argv, cwd=ROOT, capture_output=True, check=True)
    whole = time.monotonic() - begun
    step = float(os.environ["KVMSCEN_SWEEP"]) / 1000 if "KVMSCEN_SWEEP" in os.environ else whole / 4
    mark = f"{os.getpid()}{number}{twice}"
    ended = {}
    for n in range(int(whole / step) + 1):
        environment = os.environ | {"KVMSCEN_SWEPT": mark}
        with subprocess.Popen(
            argv,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Whoever started the tests may have the signal ignored, as nohup and a shell's `&` do;
            # and that is inherited.
            preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
        ) as process:
            # What comes while Python itself starts is Python's: its handler or none stands there
            # until our first line has run.
            while not _ours(process.pid) and process.poll() is None:
                time.sleep(0.0005)
            time.sleep(n * step)
            process.send_signal(number)
            if twice:
                time.sleep(0.003)
                process.send_signal(number)
            _, said = process.communicate(timeout=120)
        assert b"Traceback" not in said, said.decode()
        assert b"Exception ignored" not in said, said.decode()
        assert process.returncode in (status, 0), (n * step, said.decode())
        ended[n] = process.returncode
    # On a busy machine a run may be over before a signal reaches it, but hardly each of them.
    assert status in ended.values()
    for _ in range(1000):
        if not _alive(mark):
            break
        time.sleep(0.05)
    assert not _alive(mark)


def _ours(pid: int) -> bool:
    """Whether SIGHUP is caught, which Python itself does not do."""
    try:
        caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    except OSError:
        return False
    return caught is not None and bool(int(caught[1], 16) & 1 << (signal.SIGHUP - 1))


def test_what_is_ignored_stays_ignored(scenario: Path) -> None:
    line = (
        f"trap '' HUP; {sys.executable} -m kvmscen run {scenario} --on model & sleep 0.2; kill "
        f"-HUP $!; wait $!"
    )
    done = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stderr


# --- an exception nobody expected -----------------------------------------------------------------


def test_an_exception_nobody_expected_is_status_3_and_one_line(
    tmp_path: Path, scenario: Path
) -> None:
    # A module of ours that breaks: what stands before PYTHONPATH's own is found first.
    (tmp_path / "tabulate.py").write_text(
        "def tabulate(*a, **k):\n    raise KeyError('a key\\nthat is not there')\n"
    )
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = kvmscen("hosts", env=env | {"XDG_CACHE_HOME": str(tmp_path / "none"), "COLUMNS": "200"})
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(
        "kvmscen: kvmscen itself broke: KeyError: 'a key\\nthat is not there' at tabulate.py:2 "
        "(kvmscen "
    )
    assert "please report it" in done.stderr
    debug = kvmscen("hosts", env=env | {"KVMSCEN_DEBUG": "1", "COLUMNS": "200"})
    assert debug.returncode == 3
    assert "Traceback (most recent call last)" in debug.stderr


@pytest.mark.parametrize("verb", ["run", "check"])
def test_without_threads_it_says_so(verb: str, scenario: Path) -> None:
    # A thread gets a stack as large as the limit on stacks, which here is more than all memory that
    # there may be.
    limits = {resource.RLIMIT_STACK: 8 << 30, resource.RLIMIT_AS: 4 << 30}
    done = kvmscen(verb, scenario, limits=limits)
    assert done.returncode == 3
    assert (
        done.stderr
        == "kvmscen: no thread can be started here: raise the limit on processes (ulimit -u) or on "
        "memory (ulimit -v)\n"
    )


@pytest.mark.parametrize("megabytes", [40, 150, 500])
def test_without_memory_it_is_status_3_or_it_runs(megabytes: int, scenario: Path) -> None:
    done = kvmscen("run", scenario, "--on", "model", limits={resource.RLIMIT_AS: megabytes << 20})
    assert "Traceback (most" not in done.stdout
    if done.returncode not in (0, 3):
        # Python itself did not start: none of our lines has run.
        assert "kvmscen/cli" not in done.stderr, done.stderr
        assert megabytes < 60, done.stderr
    elif done.returncode:
        assert "Traceback (most" not in done.stderr, done.stderr
        assert done.stderr + done.stdout


# --- options and variables ------------------------------------------------------------------------

ODD = [
    "²",
    "\u0663",
    "0",
    "-1",
    "1e3",
    "0x10",
    " 5",
    "\uff19",
    "99999999999999999999999",
    "1025",
    "NaN",
]


@pytest.mark.parametrize("value", ODD)
def test_odd_numbers_are_wrong_usage(value: str, scenario: Path) -> None:
    for arguments, env in (
        (("run", scenario, f"-j{value}"), {}),
        (("run", scenario), {"KVMSCEN_J": value}),
        (("measure", scenario, f"--rounds={value}"), {}),
        (("measure", scenario), {"KVMSCEN_ROUNDS": value}),
    ):
        done = kvmscen(*arguments, env=env)
        assert done.returncode == 2, done.stderr
        assert "is not a number from 1 to 1024" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "host",
    [
        "model@²",
        "model@\u0663",
        "model@",
        "ssh:a:²",
        "ssh:a:\u0663\u0663",
        "qemu:arm64@\u0666.\u0661",
        "qemu:arm64@6.²",
        "qemu:arm64,cpu=ä",
        "",
        ":",
        "@",
        "kvm@1",
        "\udcff",
    ],
)
def test_odd_hosts_are_told(host: str, scenario: Path) -> None:
    done = kvmscen("run", scenario, f"--on={host}")
    assert done.returncode in (2, 3)
    assert done.stderr.startswith(WORD)
    assert "Traceback" not in done.stderr
    assert "itself broke" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COLUMNS", "²"), ("COLUMNS", "-5"), ("COLUMNS", "1"), ("COLUMNS", "0"),
        ("COLUMNS", "99999999999"), ("TERM", ""),
        ("TERM", "\udcff"), ("KVMSCEN_K", "\udcff²"), ("KVMSCEN_CASE", " "),
        ("KVMSCEN_OBSERVED", "²"), ("KVMSCEN_SSH", "'"),
        ("FORCE_COLOR", "²"), ("KVMSCEN_ON", " "), ("KVMSCEN_REPORT", " "),
        ("LC_ALL", "no_SUCH.charset"), ("LC_ALL", "C"),
    ],
)  # fmt: skip
def test_odd_variables_break_nothing(name: str, value: str, scenario: Path) -> None:
    done = kvmscen("run", scenario, "--on", "model", env={name: value})
    assert "Traceback" not in done.stderr
    assert done.returncode == (4 if name == "KVMSCEN_K" else 0), done.stderr
    done = kvmscen("hosts", env={name: value})
    assert ("Traceback" not in done.stderr, done.returncode) == (True, 0), done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_a_terminal_that_lacks_characters(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "ünïcode-日本-\udcff.yaml"
    path.write_text("summary: ünïcode 日本 ☃\n" + SCENARIO.replace("[mmio]", "[arm_nisv]"))
    for verb in (
        ["run", path, "--on", "model"],
        ["check", path],
        ["show", path],
        ["run", path, "--on", "model", "--report", "junit"],
    ):
        done = kvmscen(
            *verb,
            env={
                "PYTHONIOENCODING": encoding,
                "LC_ALL": "C",
                "PYTHONUTF8": "0",
                "PYTHONCOERCECLOCALE": "0",
            },
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == (1 if verb[0] == "run" else 0), done.stderr


# --- streams --------------------------------------------------------------------------------------

VERBS = ["run {} --on model", "check {}", "show {}", "hosts", "--help"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_closed_stream_changes_no_status(verb: str, closed: str, scenario: Path) -> None:
    line = f"{sys.executable} -m kvmscen {verb.format(scenario)} {closed}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_reader_that_has_gone_is_141(verb: str, scenario: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "kvmscen", *verb.format(scenario).split()]
    done = subprocess.run(
        argv, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(write)
    # `check` of what is right prints its line to stderr only.
    assert done.returncode == (0 if verb.startswith("check") else 141), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", [verb for verb in VERBS if not verb.startswith("check")])
def test_a_full_disk_is_named(verb: str, scenario: Path) -> None:
    line = f"{sys.executable} -m kvmscen {verb.format(scenario)} > /dev/full"
    done = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (
        3,
        "kvmscen: the output could not be written: No space left on device\n",
    )
