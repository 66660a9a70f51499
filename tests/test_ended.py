"""The commands of CONTRIBUTING that run for long: what they have started ends with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
POOLS = {
    "mutations": "tests/asm/mutations.py --count 200000 --files 100 --workers 1",
    "corpus": "tests/asm/corpus.py",
    "fuzzing": "tests/fuzz/fuzzing.py scenario 200000",
}
TRUTH = "tests/truth.py --arch x86_64 --on model --count 10000"
SECONDS = 60.0


def _marked(mark: str) -> set[int]:
    """The processes that inherited a mark, but for zombies."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rsplit(")", 1)[1].split()[0]
            environ = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if state not in "ZX" and f"KVMSCEN_ENDED={mark}".encode() in environ:
            found.add(int(path.name))
    return found


def _works(mark: str, main: int) -> bool:
    """Whether a process that the command started has taken CPU time: a tenth of a second."""
    for pid in _marked(mark) - {main}:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[11]) + int(fields[12]) > os.sysconf("SC_CLK_TCK") // 10:
            return True
    return False


@pytest.mark.parametrize(
    ("name", "number"), [*((name, signal.SIGTERM) for name in POOLS), ("mutations", signal.SIGKILL)]
)
def test_nothing_that_was_started_outlives_it(name: str, number: signal.Signals) -> None:
    _ended(POOLS[name], number)


def test_the_run_that_it_waits_for_does_not_outlive_it() -> None:
    _ended(TRUTH, signal.SIGTERM)


def _ended(command: str, number: signal.Signals) -> None:
    mark = f"{os.getpid()} {command} {number}"
    argv = [sys.executable, *command.split()]
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env=os.environ | {"KVMSCEN_ENDED": mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not _works(mark, process.pid):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait() in (-number, 128 + number)
    end = time.monotonic() + SECONDS
    while left := _marked(mark):
        assert time.monotonic() < end, left
        time.sleep(0.02)
