"""The protocol of agents against children that break it, each in its own way: every one is a clear
error in time.

The children are real processes. Memory is bounded, whatever is sent without end or unpacks to a
thousand times its size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvmscen.errors import HostError
from kvmscen.hosts.process import children, pack
from kvmscen.hosts.process.child import Child
from kvmscen.hosts.process.children import ChildExecutor, ChildHost
from kvmscen.sent.agent import frames
from kvmscen.sent.machine import Machine, Vcpu

ROOT = Path(__file__).resolve().parent.parent.parent

# What each of them does is in `code`: it has the helpers below, `hello`, and for each request
# `request` and its `id`.
START = f"""
import base64, json, os, sys, time, zlib
sys.path.insert(0, {str(ROOT)!r})
from kvmscen.sent.agent import frames

def out(raw):
    while raw:
        raw = raw[os.write(1, raw):]

def frame(**data):
    out(frames.pack(json.dumps(data)))

def line(body):
    out(b"\\x1e%d %08x %s\\n" % (len(body), zlib.crc32(body), body))

def lines():
    held = b""
    while chunk := os.read(0, 1 << 20):
        held += chunk
        while b"\\n" in held:
            text, _, held = held.partition(b"\\n")
            yield json.loads(frames.unpack(text))

facts = dict(arch="x86_64", kernel="6.1", capabilities={{}}, page_size=4096)
facts |= dict(flavour=None, cpu=[], agent="3", kind="", predicted=False)
hello = dict(id=0, protocol=frames.VERSION, facts=[facts])
good = dict(stopped="end", events=[], regs={{}}, memory={{}}, elapsed=0.0)
noise = os.urandom(1 << 20).replace(b"\\n", b"\\r")
"""
SAY_HELLO = "frame(**hello)\n"
ANSWER = (
    "for request in lines():\n    id = request['id']\n    if request.get('again'): continue\n    "
)


class Host(ChildHost):
    """A host whose agent is a program of ours."""

    kind = "kvm"
    seconds = 1.0

    def __init__(self, code: str) -> None:
        super().__init__("wrong")
        self.code = code

    def child(self) -> Child:
        return Child("the agent of wrong", [sys.executable, "-c", START + self.code])


MACHINE = Machine("x86_64", (), (), (), (Vcpu(0, "long", {}, (), None),), timeout=0.2).seal(
    "a case"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "GRACE", 0.8)


@pytest.fixture
def executor() -> Iterator[Callable[[str], ChildExecutor]]:
    made: list[Any] = []

    def make(code: str) -> ChildExecutor:
        host = Host(code)
        made.append(host)
        host.wait()
        remote = host.executor()
        made.append(remote)
        return remote

    yield make
    for remote in made:
        remote.close()


# --- the hello ------------------------------------------------------------------------------------

HELLOS = {
    "another version": ("frame(**hello | {'protocol': 3})", "speaks protocol 3, this kvmscen 2"),
    "no version": ("frame(id=0, facts=[])", "speaks protocol None, this kvmscen 2"),
    "nothing": ("time.sleep(60)", "did not answer in time"),
    "noise only": ("while True: out(noise)", "prints without end"),
    "no facts": ("frame(id=0, protocol=2)", "its hello has no facts"),
    "facts of another kind": (
        "frame(id=0, protocol=2, facts=[{'arch': 1}])",
        "its hello has no facts",
    ),
    "facts that are none": ("frame(id=0, protocol=2, facts=7)", "its hello has no facts"),
    "unusable": (
        "frame(**hello | {'unusable': 'the moon is full'})",
        "cannot run here: the moon is full",
    ),
    "again and again": ("while True: frame(id=0, again=True)", "did not answer in time"),
    "the end": ("sys.exit('no such thing here')", "exited with status 1 (no such thing here)"),
    "damaged for ever": (
        "while True: out(b'\\x1e12 00000000 {}\\n')",
        "prints without end|did not answer in time",
    ),
}


@pytest.mark.parametrize("which", HELLOS)
def test_a_hello_that_is_none(executor: Callable[[str], ChildExecutor], which: str) -> None:
    code, why = HELLOS[which]
    with pytest.raises(HostError) as caught:
        executor(code + "\ntime.sleep(60)")
    assert any(part in str(caught.value) for part in why.split("|"))
    assert "host wrong" in str(caught.value)


@pytest.mark.parametrize(
    "before",
    [
        "out(noise)",
        "out(noise * 20 + b'\\n')",
        "out(b'\\x1e 12 nonsense\\n\\x1e')",
        "out(b'\\x1e' * 1000)",
        "out(b'a line\\n' * 1_000_000)",
    ],
)
def test_noise_before_frames_does_no_harm(
    executor: Callable[[str], ChildExecutor], before: str
) -> None:
    remote = executor(f"{before}\n{SAY_HELLO}{ANSWER}{before}; frame(id=id, observation=good)")
    for _ in range(2):
        assert remote.execute(MACHINE).stopped == "end"


# --- replies --------------------------------------------------------------------------------------

REPLIES = {
    "another's": ("frame(id=id + 1, observation=good); time.sleep(60)", "did not answer in time"),
    "another's without end": ("\n    while True: frame(id=id + 1)", "did not answer in time"),
    "no id": ("frame(observation=good); time.sleep(60)", "did not answer in time"),
    "not asked for": ("frame(id=id)", "sent a reply that is no observation"),
    "half an observation": (
        "frame(id=id, observation={'stopped': 'end'})",
        "sent a reply that is no observation",
    ),
    "an observation of numbers": (
        "frame(id=id, observation=5)",
        "sent a reply that is no observation",
    ),
    "odd memory": (
        "frame(id=id, observation=good | {'memory': {'x': 'zz'}})",
        "sent a reply that is no observation",
    ),
    "a count that is too large": (
        "frame(id=id, observation=good | {'events': [{'vcpu': 0, 'pc': 0, 'exit': 'hlt', "
        "'count_of_equal': 10**12}]})",
        "sent a reply that is no observation",
    ),
    "counts that are too large together": (
        "frame(id=id, observation=good | {'events': [{'vcpu': 0, 'pc': 0, 'exit': 'hlt', "
        "'count_of_equal': 200000}] * 2})",
        "sent a reply that is no observation",
    ),
    "more values than a run can have": (
        "frame(id=id, observation=good | {'events': [{}] * 2_100_000})",
        "does not speak our protocol",
    ),
    "odd events": (
        "frame(id=id, observation=good | {'events': [[1]]})",
        "sent a reply that is no observation",
    ),
    "broke": ("frame(id=id, broke='it is Monday')", "it is Monday"),
    "too large": (
        "frame(id=0, broke='the request is too large')",
        "cannot take the request: the request is too large",
    ),
    "cut": ("out(frames.pack(json.dumps(dict(id=id)))[:-9]); sys.exit()", "exited with status 0"),
    "damaged for ever": (
        "\n    while True: out(b'\\x1e12 00000000 {}\\n')",
        "prints without end|did not answer in time",
    ),
    "gets nothing whole": ("\n    while True: frame(id=0, again=True)", "gets every line damaged"),
    "noise without end": ("\n    while True: out(noise)", "prints without end"),
    "a line without end": (
        "\n    out(b'\\x1e')\n    while True: out(b'1' * (1 << 20))",
        "is too large|did not answer in time",
    ),
    "a bomb": ("line(b'z' + base64.b64encode(zlib.compress(bytes(300 << 20), 9)))", "is too large"),
    "deep": ("line(b'[' * 1_000_000)", "does not speak our protocol"),
    "a large number": ("line(b'1' * 100_000)", "does not speak our protocol"),
    "hangs": ("time.sleep(60)", "did not answer in time"),
}


@pytest.mark.parametrize("which", REPLIES)
def test_a_reply_that_is_none(
    executor: Callable[[str], ChildExecutor], which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if which in ("a line without end", "a bomb"):
        # They take their time; what is looked at is that they end.
        monkeypatch.setattr(children, "GRACE", 15.0)
    code, why = REPLIES[which]
    remote = executor(f"{SAY_HELLO}{ANSWER}{code}")
    with pytest.raises(HostError) as caught:
        remote.execute(MACHINE)
    assert any(part in str(caught.value) for part in why.split("|")), caught.value
    assert len(str(caught.value)) < 5000


def test_a_damaged_frame_in_noise_is_asked_for_when_it_is_quiet(
    executor: Callable[[str], ChildExecutor],
) -> None:
    # Once for a whole burst: were each line of it answered, noise would make more noise.
    code = (
        "asked = 0\nfor request in lines():\n"
        "    if request.get('again'): asked += 1; frame(id=last, observation=good | {'elapsed': "
        "float(asked)}); continue\n"
        "    last = request['id']; out(b'\\x1e12 00000000 {}\\n' * 5000)\n"
    )
    remote = executor(SAY_HELLO + code)
    assert [remote.execute(MACHINE).elapsed for _ in range(3)] == [1.0, 2.0, 3.0]


MEMORY = """
import resource, sys
sys.path[:0] = [{root!r}, {here!r}]
import test_protocol as t
t.children.GRACE = {grace}
host = t.Host(t.SAY_HELLO + t.ANSWER + t.REPLIES[{which!r}][0])
host.wait()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
one = host.executor()
try:
    one.execute(t.MACHINE)
except t.HostError:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
finally:
    one.close()
"""


@pytest.mark.parametrize(
    ("which", "most"),
    [
        ("noise without end", 64),
        ("another's without end", 64),
        ("damaged for ever", 64),
        ("gets nothing whole", 64),
        ("a line without end", 600),
        ("a bomb", 600),
    ],
)
def test_memory_is_bounded(which: str, most: int) -> None:
    code = MEMORY.format(
        root=str(ROOT), here=str(Path(__file__).parent), which=which, grace=15 if most > 64 else 2
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout, done.stderr
    assert int(done.stdout) <= most  # MiB


# --- a host that goes away ------------------------------------------------------------------------


def test_a_host_that_does_not_start_any_more_is_told_at_once(
    executor: Callable[[str], ChildExecutor], tmp_path: Path
) -> None:
    count = tmp_path / "count"
    code = (
        f"open({str(count)!r}, 'a').write('x')\nif os.path.getsize({str(count)!r}) > 1: "
        f"time.sleep(60)\n"
        f"{SAY_HELLO}{ANSWER}sys.exit('pulled the plug')"
    )
    remote = executor(code)
    said = []
    for _ in range(20):
        with pytest.raises(HostError) as caught:
            remote.execute(MACHINE)
        said.append(str(caught.value))
    assert said[0] == "the agent of wrong exited with status 1 (pulled the plug)"
    assert said[1:3] == ["the agent of wrong did not answer in time"] * 2
    assert said[3:] == ["host wrong has gone: the agent of wrong did not answer in time"] * 17
    # Nobody waited for the others.
    assert count.read_text() == "xxx"


def test_one_failed_start_is_not_the_end(
    executor: Callable[[str], ChildExecutor], tmp_path: Path
) -> None:
    count = tmp_path / "count"
    code = (
        f"open({str(count)!r}, 'a').write('x'); n = os.path.getsize({str(count)!r})\nif n % 2 == "
        f"0: sys.exit(3)\n"
        f"{SAY_HELLO}{ANSWER}frame(id=id, observation=good); sys.exit(4)"
    )
    remote = executor(code)
    told = []
    for _ in range(6):
        try:
            told.append(remote.execute(MACHINE).stopped)
        except HostError as error:
            told.append(str(error)[-8:])
    assert told == ["end", "status 4", "status 3"] * 2


def test_a_host_that_became_another(
    executor: Callable[[str], ChildExecutor], tmp_path: Path
) -> None:
    count = tmp_path / "count"
    code = (
        f"open({str(count)!r}, 'a').write('x')\nif os.path.getsize({str(count)!r}) > 1: "
        f"facts['kernel'] = '6.2'\n"
        f"{SAY_HELLO}{ANSWER}sys.exit(3)"
    )
    remote = executor(code)
    for why in ("exited with status 3", "host wrong is another machine, or another kernel"):
        with pytest.raises(HostError, match=why):
            remote.execute(MACHINE)


# --- the agent's side -----------------------------------------------------------------------------


def agent() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", pack.BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    process.stdin.write(pack.greeting())
    process.stdin.flush()
    return process


def reply(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout
    return json.loads(frames.unpack(process.stdout.readline()) or "null")


def test_the_agent_passes_noise_over_and_does_not_hold_it() -> None:
    process = agent()
    assert process.stdin
    assert reply(process)["protocol"] == frames.VERSION
    before = resident(process.pid)
    for _ in range(64):
        process.stdin.write(os.urandom(1 << 20).replace(b"\n", b"\r").replace(frames.START, b"?"))
    process.stdin.write(b"\n" + frames.pack('{"id":1}'))
    process.stdin.flush()
    assert "broke" in reply(process)
    assert resident(process.pid) - before < 32 << 10  # KiB
    process.stdin.close()
    assert process.wait(120) == 0


def test_the_agent_refuses_what_is_too_large() -> None:
    process = agent()
    assert process.stdin
    reply(process)
    process.stdin.write(
        frames.START + b"1" * (frames.MOST_LINE + 1) + b"\n" + frames.pack('{"id":1}')
    )
    process.stdin.flush()
    assert reply(process) == {"id": 0, "broke": "the request is too large"}
    assert reply(process)["id"] == 1
    process.stdin.close()
    assert process.wait(120) == 0


SPINNING = """
import json, os, sys, time
sys.path.insert(0, {root!r})
from kvmscen.sent.agent.serve import serve
def handle(request):
    os.write(2, b"begun")
    time.sleep(60)
serve({{}}, handle)
"""


@pytest.mark.parametrize("what", ["pipe", "socket"])
def test_a_child_whose_reader_has_gone_ends_in_the_middle_of_its_work(what: str) -> None:
    # Its input's end it would see only when it asks for more: a guest may run for ten minutes.
    import socket

    if what == "pipe":
        ours, theirs = os.pipe()
        given: Any = theirs
    else:
        first, second = socket.socketpair()
        ours, theirs = first.detach(), second.detach()
        given = theirs
    code = SPINNING.format(root=str(ROOT))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=given, stderr=subprocess.PIPE
    )
    os.close(theirs)
    assert process.stdin
    assert process.stderr
    process.stdin.write(frames.pack('{"id":1}'))
    process.stdin.flush()
    assert process.stderr.read(5) == b"begun"
    os.close(ours)
    assert process.wait(120) == 1
    process.stdin.close()
    process.stderr.close()


def resident(pid: int) -> int:
    """KiB of a process in memory."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])
