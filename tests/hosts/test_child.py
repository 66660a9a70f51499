"""Children that misbehave in each way there is: each is a ChildError in time, and the next request
gets a new child.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kvmscen.hosts.process.child import Child, ChildError, python

ROOT = Path(__file__).resolve().parent.parent.parent

# Says hello and echoes; `do` in a request, or in argv for the first start only, says how it goes
# wrong.
CHILD = f"""
import json, os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from kvmscen.sent.agent import frames

asked = []

def out(raw):
    while raw:
        raw = raw[os.write(1, raw):]

def frame(**data):
    return frames.pack(json.dumps(data))

def go(do, reply):
    if do == "exit": sys.exit(7)
    if do == "die": os.kill(os.getpid(), signal.SIGSEGV)
    if do == "hang": time.sleep(60)
    if do == "close": os.close(1); os.close(2); time.sleep(60)
    if do == "chatter":
        while True: out(b"still here\\n"); time.sleep(0.01)
    if do == "flood":
        while True: out(b"x" * 65536)
    if do == "lines":
        while True: out(b"a line\\n" * 9000)
    if do == "cut and exit": out(b"some noise\\n" + reply[:-9]); sys.exit(3)
    if do == "cut and hang": out(reply[:-9]); time.sleep(60)
    if do == "damaged": out(reply.replace(b"id", b"xx")); return
    if do == "cut": out(reply[:-9] + b"\\n"); return
    if do == "again" and not asked: asked.append(1); out(frame(id=0, again=True)); return
    if do == "noise": out(b"boot\\x00 \\xff\\nlogin: " + reply + b"after\\n"); return
    if do == "split": out(b"x" * 50_000); time.sleep(0.1); out(b"\\n" + reply); return
    if do == "late reply":
        out(frame(id=0, value="of nobody") + frame(id=999, value="of another") + reply); return
    if do == "no json": out(frames.pack("nonsense")); return
    if do == "a list": out(frames.pack("[1]")); return
    out(reply)

start, count_file = sys.argv[1:3]
with open(count_file, "a+") as f: f.write("x")
first = os.path.getsize(count_file) == 1
version = frames.VERSION if start != "protocol" or not first else 99
hello = frame(id=0, protocol=version, pid=os.getpid())
go(start if first else "", hello)
if start == "deaf" and first: time.sleep(60)
held = b""
while chunk := os.read(0, 1 << 20):
    held += chunk
    while b"\\n" in held:
        line, _, held = held.partition(b"\\n")
        request = json.loads(frames.unpack(line))
        if request.get("again") or request.get("id") == 0:
            out(last); continue
        last = frame(id=request["id"], value=request.get("value"), pid=os.getpid())
        go(request.get("do", ""), last)
"""


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    made: list[Child] = []

    def make(start: str = "") -> Child:
        made.append(
            Child("the child", [sys.executable, "-c", CHILD, start, str(tmp_path / "count")])
        )
        return made[-1]

    yield make
    for process in made:
        process.close()


# Nothing here takes so many seconds, on the slowest and busiest machine.
HUNG = 120.0


def within(act: Callable[[], Any]) -> Any:
    """What `act` gives or raises; a failure when it hangs, so that it does not hang the tests."""
    done: list[Any] = []

    def run() -> None:
        try:
            done.append((act(), None))
        except BaseException as error:  # noqa: BLE001 whatever it raises is what is tested
            done.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HUNG)
    assert done, f"not done after {HUNG} seconds"
    value, error = done[0]
    if error is not None:
        raise error
    return value


def works(child: Child) -> None:
    assert within(lambda: child.ask('"value":1', 5))["value"] == 1


# --- all is well ----------------------------------------------------------------------------------


def test_one_child_answers_one_request_after_the_other(child: Callable[..., Child]) -> None:
    process = child()
    replies = [within(partial(process.ask, f'"value":{n}', 5)) for n in range(20)]
    assert [reply["value"] for reply in replies] == list(range(20))
    assert {reply["pid"] for reply in replies} == {process.process_id}


def test_large_requests_and_replies(child: Callable[..., Child]) -> None:
    big = os.urandom(2_000_000).hex()
    assert within(lambda: child().ask(f'"value":"{big}"', 15))["value"] == big


@pytest.mark.parametrize("do", ["noise", "damaged", "cut", "again", "late reply", "split"])
def test_what_can_be_mended_is_mended(child: Callable[..., Child], do: str) -> None:
    process = child()
    assert within(lambda: process.ask(f'"value":5,"do":"{do}"', 5))["value"] == 5
    first = process.process_id
    works(process)
    assert process.process_id == first


def test_noise_is_kept_as_tail(child: Callable[..., Child]) -> None:
    process = child()
    within(lambda: process.ask('"do":"noise"', 5))
    within(lambda: process.ask('"value":1', 5))
    assert process.tail.startswith("boot\0 \ufffd\nlogin: ")
    assert process.tail.endswith("after")


def test_noise_around_the_hello(child: Callable[..., Child]) -> None:
    process = child("noise")
    works(process)
    assert "login:" in process.tail


# --- what cannot be mended ------------------------------------------------------------------------

BROKEN = {
    "exit": "the child exited with status 7",
    "die": "the child was ended by SIGSEGV",
    "hang": "the child did not answer in time",
    "close": "the child closed its output",
    "chatter": "the child did not answer in time",
    "cut and exit": "the child exited with status 3",
    "cut and hang": "the child did not answer in time",
    "no json": "the child does not speak our protocol",
    "a list": "the child does not speak our protocol",
}


@pytest.mark.parametrize("do", BROKEN)
def test_a_broken_request(child: Callable[..., Child], do: str) -> None:
    process = child()
    works(process)
    pid = process.process_id
    with pytest.raises(ChildError, match=BROKEN[do]):
        within(lambda: process.ask(f'"do":"{do}"', 0.4))
    works(process)
    assert process.process_id != pid
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("start", ["exit", "die", "cut and exit", "no json", "a list", "protocol"])
def test_a_broken_hello(child: Callable[..., Child], start: str) -> None:
    process = child(start)
    message = (
        "the child speaks protocol 99, this kvmscen 2" if start == "protocol" else BROKEN[start]
    )
    with pytest.raises(ChildError, match=message):
        within(lambda: process.wait_hello(2))
    works(process)


@pytest.mark.parametrize("start", ["hang", "chatter", "cut and hang"])
def test_a_hello_that_does_not_come(child: Callable[..., Child], start: str) -> None:
    process = child(start)
    with pytest.raises(ChildError, match="did not answer in time"):
        within(lambda: process.wait_hello(0.4))
    works(process)


def test_the_tail_says_what_was_printed_last(child: Callable[..., Child]) -> None:
    with pytest.raises(ChildError) as caught:
        within(lambda: child().ask('"do":"cut and exit"', 2))
    assert caught.value.tail.startswith("some noise\n\x1e")


def test_a_slow_start_is_not_taken_from_the_requests_time(child: Callable[..., Child]) -> None:
    process = child()
    process.argv[2] = f"import time; time.sleep(0.6)\n{CHILD}"
    assert within(lambda: process.ask('"value":1', 0.5))["value"] == 1


@pytest.mark.parametrize("do", ["flood", "lines"])
def test_a_flood_ends_in_time(child: Callable[..., Child], do: str) -> None:
    process = child()
    works(process)
    with pytest.raises(ChildError, match=r"prints without end|did not answer in time"):
        within(lambda: process.ask(f'"do":"{do}"', 2))
    assert len(process.tail) <= 4096
    works(process)


def test_a_child_that_does_not_read_does_not_hold_us(child: Callable[..., Child]) -> None:
    process = child("deaf")
    within(lambda: process.wait_hello(5))
    big = os.urandom(1_000_000).hex()
    with pytest.raises(ChildError, match="did not answer in time"):
        within(lambda: process.ask(f'"value":"{big}"', 0.4))
    # The rest of that request is not the next child's.
    works(process)


def test_a_child_that_prints_before_it_reads_does_not_hold_us(child: Callable[..., Child]) -> None:
    # Both pipes are full: whoever only writes waits for ever.
    process = child()
    process.argv[2] = CHILD.replace("held = b", "out(b'noise' * 100_000 + b'\\n'); held = b")
    big = os.urandom(1_000_000).hex()
    assert within(lambda: process.ask(f'"value":"{big}"', 8))["value"] == big


def test_a_greeting_that_nobody_reads_does_not_hold_us() -> None:
    process = Child(
        "the child", [sys.executable, "-c", "import time; time.sleep(60)"], b"x" * 3_000_000
    )
    try:
        within(process.spawn)
        with pytest.raises(ChildError, match="did not answer in time"):
            within(lambda: process.wait_hello(0.4))
    finally:
        process.close()


def test_a_large_greeting_arrives() -> None:
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); from kvmscen.sent.agent import "
        f"frames\n"
        "n = 0\nwhile n < 3_000_000: n += len(os.read(0, 1 << 16))\n"
        'os.write(1, frames.pack(\'{"id":0,"protocol":%d,"n":%d}\' % (frames.VERSION, n)))\n'
    )
    process = Child("the child", [sys.executable, "-c", code], b"x" * 3_000_000)
    try:
        within(process.spawn)
        assert within(lambda: process.wait_hello(5))["n"] == 3_000_000
    finally:
        process.close()


def test_a_greeting_cut_by_the_childs_end_begins_anew(tmp_path: Path) -> None:
    # The first one reads a little and ends; the second one must get all of it, from its start.
    count = tmp_path / "count"
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); from kvmscen.sent.agent import "
        f"frames\n"
        f"first = not os.path.exists({str(count)!r}); open({str(count)!r}, 'w').close()\n"
        "got = os.read(0, 1000)\n"
        "if first: sys.exit(4)\n"
        "while len(got) < 3_000_000: got += os.read(0, 1 << 20)\n"
        'os.write(1, frames.pack(\'{"id":0,"protocol":%d,"ok":%d}\' % (frames.VERSION, got == '
        "b'12345' * 600_000)))\n"
    )
    process = Child("the child", [sys.executable, "-c", code], b"12345" * 600_000)
    try:
        with pytest.raises(ChildError, match="exited with status 4"):
            within(lambda: process.wait_hello(5))
        assert within(lambda: process.wait_hello(5))["ok"] == 1
    finally:
        process.close()


def test_a_program_that_is_not_there() -> None:
    process = Child("the child", ["/nonexistent/kvmscen"])
    with pytest.raises(ChildError, match="the child cannot be started: No such file"):
        process.ask('"value":1', 1)
    process.close()


# --- several requests ahead -----------------------------------------------------------------------


def test_requests_ahead_are_answered_in_order(child: Callable[..., Child]) -> None:
    process = child()
    big = os.urandom(500_000).hex()
    bodies = [f'"value":[{n},"{big}"]' for n in range(6)]
    assert within(lambda: [reply["value"][0] for reply in process.ask_ahead(bodies, 10)]) == list(
        range(6)
    )
    works(process)


@pytest.mark.parametrize("do", ["exit", "hang", "damaged", "no json"])
def test_a_request_ahead_that_breaks_is_told_by_its_place(
    child: Callable[..., Child], do: str
) -> None:
    process, seen = child(), []

    def ask() -> None:
        for reply in process.ask_ahead(
            ['"value":1', '"value":2', f'"do":"{do}"', '"value":4'], 0.5
        ):
            seen.append(reply["value"])

    with pytest.raises(ChildError):
        within(ask)
    assert seen == [1, 2]
    works(process)


def test_replies_that_nobody_took_do_no_harm(child: Callable[..., Child]) -> None:
    process = child()
    ahead = process.ask_ahead([f'"value":{n}' for n in range(5)], 5)
    assert next(ahead)["value"] == 0
    assert isinstance(ahead, Generator)
    ahead.close()
    works(process)


# --- from other threads and terminals -------------------------------------------------------------


def gone(pid: int | None) -> None:
    end = time.monotonic() + HUNG
    while running(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.01)


def running(pid: int | None) -> bool:
    """Whether a process is there; one that nobody waited for, as in a container without an init,
    counts as gone.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def later(seconds: float, act: Callable[[], Any]) -> None:
    threading.Timer(seconds, act).start()


def test_killed_by_another_process(child: Callable[..., Child]) -> None:
    process = child()
    works(process)
    pid = process.process_id
    assert pid is not None
    later(0.2, lambda: os.kill(pid, signal.SIGKILL))
    with pytest.raises(ChildError, match="the child was ended by SIGKILL"):
        within(lambda: process.ask('"do":"hang"', 30))
    works(process)


def test_close_ends_what_another_thread_asks(child: Callable[..., Child]) -> None:
    process = child()
    works(process)
    pid = process.process_id
    later(0.2, process.close)
    with pytest.raises(ChildError, match="the child was stopped"):
        within(lambda: process.ask('"do":"hang"', 30))
    gone(pid)
    # For good.
    with pytest.raises(ChildError, match="the child was stopped"):
        within(lambda: process.ask('"value":1', 5))


def test_close_ends_what_the_child_started_too(child: Callable[..., Child], tmp_path: Path) -> None:
    # As qemu or ssh under a wrapper would be; it holds the pipe open, so waiting for its end would
    # hang.
    note = tmp_path / "pid"
    process = child()
    process.argv[2] = (
        f"import subprocess; open({str(note)!r}, 'w').write(str(subprocess.Popen(['sleep', "
        f"'60']).pid))\n{CHILD}"
    )
    works(process)
    later(0.2, process.close)
    with pytest.raises(ChildError, match="the child was stopped"):
        within(lambda: process.ask('"do":"hang"', 30))
    gone(int(note.read_text()))


def test_close_while_a_child_starts() -> None:
    # However the two meet, no process may be left.
    children = [
        Child("the child", [sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(30)
    ]

    def spawn(process: Child) -> None:
        try:
            process.spawn()
        except ChildError:
            pass

    pids: set[int] = set()
    for n, process in enumerate(children):
        thread = threading.Thread(target=spawn, args=(process,))
        thread.start()
        time.sleep(0.0001 * n)
        process.close()
        thread.join()
        pids |= {process.process_id} if process.process_id is not None else set()
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []


def test_kill_from_another_thread(child: Callable[..., Child]) -> None:
    process = child()
    works(process)
    later(0.2, process.kill)
    with pytest.raises(ChildError):
        within(lambda: process.ask('"do":"hang"', 30))
    works(process)


def test_an_interrupt_at_the_terminal_does_not_reach_it() -> None:
    # The whole foreground group gets SIGINT; the child must be in another one.
    code = (
        "import os, signal, sys\n"
        "from kvmscen.hosts.process.child import Child\n"
        f"child = Child('c', [sys.executable, '-c', {CHILD!r}, '', os.devnull])\n"
        "child.wait_hello()\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "os.killpg(0, signal.SIGINT)\n"
        "print(child.ask('\"value\":1', 5)['value'])\n"
        "child.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=HUNG,
        cwd=ROOT,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_nothing_is_left_of_ended_children(child: Callable[..., Child]) -> None:
    def turn() -> None:
        process = child()
        works(process)
        process.kill()
        works(process)
        process.close()

    turn()
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        turn()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_the_command_of_our_own_children_keeps_strangers_out(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a stranger')\n")
    done = subprocess.run(
        python("kvmscen.model.child", ""), input=b"", capture_output=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'"protocol"' in done.stdout
