"""A child's time counts while it could run: a busy machine makes nothing late, and what hangs is
late in the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from kvmscen.hosts.process.child import Child, ChildError
from kvmscen.hosts.process.patience import Patience, used

# What it is asked to do is Python; then it answers.
CHILD = """
import subprocess, sys, time
from kvmscen.sent.agent.serve import serve
BUSY = "import time\\nwhile time.process_time() < {seconds}: pass"
def handle(request):
    exec(request["do"])
    return {}
serve({}, handle)
"""
# Six tenths of a second of its own, or of a process that it starts.
ITSELF = "until = time.process_time() + 0.6\nwhile time.process_time() < until: pass"
ANOTHER = "subprocess.run([sys.executable, '-I', '-S', '-c', BUSY.format(seconds=0.6)])"


@pytest.fixture
def child() -> Iterator[Child]:
    process = Child("the child", [sys.executable, "-c", CHILD])
    process.wait_hello()
    yield process
    process.close()


@pytest.fixture
def crowd() -> Iterator[None]:
    """This process, and what it starts, on one CPU with three others that never pause."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    others = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(3)
    ]
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        for other in others:
            other.kill()
            other.wait()


def ask(child: Child, do: str, seconds: float) -> None:
    child.ask(f'"do":{json.dumps(do)}', seconds)


@pytest.mark.usefixtures("crowd")
@pytest.mark.parametrize("do", [ITSELF, ANOTHER], ids=["itself", "another"])
def test_what_waits_for_a_cpu_is_waited_for(child: Child, do: str) -> None:
    before = time.monotonic()
    ask(child, do, 1.2)
    assert time.monotonic() - before > 0.6


@pytest.mark.parametrize(
    "do",
    [
        "while True: pass",
        "time.sleep(1000)",
        "subprocess.run([sys.executable, '-I', '-S', '-c', 'while True: pass'])",
        "subprocess.run(['sleep', '1000'])",
    ],
    ids=["spins", "sleeps", "another spins", "another sleeps"],
)
def test_what_hangs_is_late(child: Child, do: str) -> None:
    with pytest.raises(ChildError, match="the child did not answer in time"):
        ask(child, do, 0.3)


def test_a_stopped_process_is_late(child: Child) -> None:
    with pytest.raises(ChildError, match="the child did not answer in time"):
        ask(child, "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", 0.3)


def test_the_cpu_time_of_a_family() -> None:
    before = used(os.getpid())
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    own = used(os.getpid())
    assert own - before > 0.15
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import time\nwhile time.process_time() < 0.2: pass"],
        check=True,
    )
    assert used(os.getpid()) - own > 0.15


def test_a_process_that_has_gone() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    patience = Patience(0.0, gone.pid)
    assert used(gone.pid) == 0
    assert not patience.more()
