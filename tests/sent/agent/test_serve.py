"""The loop of a child process, in a real one: hello, requests and replies, damaged lines both ways,
and how it ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kvmscen.hosts.process import pack
from kvmscen.sent.agent import frames

CHILD = """
import os, sys
from kvmscen.sent.agent.serve import serve

def handle(request):
    if request.get("do") == "raise":
        raise KeyError("nothing there")
    if request.get("do") == "print":
        print("printed by mistake", flush=True)
        os.write(1, b"written by mistake\\n")
        os.system("echo by a child of the child")
    return {"echo": request.get("value"), "calls": calls.append(1) or len(calls)}

calls = []
serve({"kind": "test"}, handle)
"""


class Talk:
    """A child with its pipes, spoken to in bytes."""

    def __init__(self, *argv: str) -> None:
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def send(self, raw: bytes) -> None:
        self.stdin.write(raw)
        self.stdin.flush()

    def line(self) -> bytes:
        return self.stdout.readline()

    def reply(self) -> Any:
        text = frames.unpack(self.line())
        assert text is not None
        return json.loads(text)

    def ask(self, **request: Any) -> Any:
        self.send(frames.pack(json.dumps(request)))
        return self.reply()

    def end(self) -> tuple[int, str]:
        self.stdin.close()
        assert self.process.stderr
        text = self.process.stderr.read().decode()
        self.process.stderr.close()
        assert self.stdout.read() == b""
        self.stdout.close()
        return self.process.wait(600), text


@pytest.fixture
def talk() -> Iterator[Talk]:
    talk = Talk(sys.executable, "-c", CHILD)
    yield talk
    talk.process.kill()
    talk.process.wait()


def test_hello_comes_first(talk: Talk) -> None:
    assert talk.reply() == {"id": 0, "protocol": frames.VERSION, "kind": "test"}


def test_each_request_has_its_reply(talk: Talk) -> None:
    talk.reply()
    for n in range(1, 4):
        assert talk.ask(id=n, value=[n, "ü\n"]) == {"id": n, "echo": [n, "ü\n"], "calls": n}
    # Two at once, and one in pieces.
    talk.send(frames.pack('{"id":8,"value":1}') + frames.pack('{"id":9,"value":2}'))
    assert [talk.reply()["id"] for _ in range(2)] == [8, 9]
    frame = frames.pack('{"id":10,"value":3}')
    for at in range(len(frame)):
        talk.send(frame[at : at + 1])
    assert talk.reply()["echo"] == 3
    big = "x" * 3_000_000
    assert talk.ask(id=11, value=big)["echo"] == big


def test_noise_on_the_input_is_passed_over(talk: Talk) -> None:
    talk.reply()
    talk.send(b"\n\nlogin: \nnoise \x00\xff" + frames.pack('{"id":1,"value":5}'))
    assert talk.reply()["echo"] == 5


@pytest.mark.parametrize(
    "damage", [lambda f: f[:-3] + b"\n", lambda f: f.replace(b"id", b"ix"), lambda f: b"\x1e\n"]
)
def test_a_damaged_request_is_asked_for_again(talk: Talk, damage: Any) -> None:
    talk.reply()
    frame = frames.pack('{"id":1,"value":5}')
    talk.send(damage(frame))
    assert talk.reply() == {"id": 0, "again": True}
    talk.send(frame)
    assert talk.reply() == {"id": 1, "echo": 5, "calls": 1}


def test_the_last_reply_is_sent_again_and_not_made_again(talk: Talk) -> None:
    again = frames.pack('{"id":0,"again":true}')
    hello = talk.reply()
    talk.send(again)
    assert talk.reply() == hello
    first = talk.ask(id=1, value=5)
    talk.send(again + again)
    assert [talk.reply(), talk.reply()] == [first, first]
    # A damaged line in between does not make the last reply forgotten.
    talk.send(b"\x1e damaged\n")
    assert talk.reply()["again"]
    talk.send(again)
    assert talk.reply() == first
    assert talk.ask(id=2, value=6)["calls"] == 2


def test_what_breaks_is_a_reply_and_its_place_is_on_stderr(talk: Talk) -> None:
    talk.reply()
    assert talk.ask(id=1, do="raise") == {"id": 1, "broke": "KeyError: 'nothing there'"}
    assert talk.ask(id=2, value=1)["echo"] == 1
    status, stderr = talk.end()
    assert status == 0
    assert "Traceback" in stderr


def test_what_prints_does_not_stand_between_frames(talk: Talk) -> None:
    talk.reply()
    assert talk.ask(id=1, do="print", value=1)["echo"] == 1
    status, stderr = talk.end()
    assert (status, stderr.splitlines()) == (
        0,
        ["printed by mistake", "written by mistake", "by a child of the child"],
    )


@pytest.mark.parametrize(
    "wrong", ["nonsense", "[1, 2]", "{}", '{"value": 3}', '"id"', "null", "[" * 50_000]
)
def test_a_whole_frame_that_is_no_request_is_answered(talk: Talk, wrong: str) -> None:
    # The line was not damaged: asking for it again would go round for ever.
    talk.reply()
    talk.send(frames.pack(wrong))
    assert "broke" in talk.reply()
    assert talk.ask(id=2, value=1)["echo"] == 1


def test_it_ends_with_its_input(talk: Talk) -> None:
    talk.reply()
    talk.send(b"\x1e5 cut in the mid")
    assert talk.end() == (0, "")


# --- the agent ------------------------------------------------------------------------------------


@pytest.fixture
def agent() -> Iterator[Talk]:
    talk = Talk(sys.executable, "-I", "-S", "-c", pack.BOOT)
    talk.send(pack.greeting())
    yield talk
    talk.process.kill()
    talk.process.wait()


@pytest.mark.kvm
def test_the_agents_facts(agent: Talk) -> None:
    hello = agent.reply()
    (facts,) = hello["facts"]
    assert (facts["arch"], facts["kernel"], facts.get("page_size", 4096)) == (
        "x86_64",
        os.uname().release,
        4096,
    )
    assert facts["capabilities"]["KVM_CAP_USER_MEMORY"] == 1
    assert "KVM_CAP_ARM_NISV_TO_USER" not in facts["capabilities"]
    assert "sse2" in facts["cpu"]
    assert facts["flavour"] in ("pvm", "svm", "vmx", None)
    assert agent.end() == (0, "")


@pytest.mark.kvm
def test_the_agent_runs_on_after_an_interrupt_and_a_wrong_machine(agent: Talk) -> None:
    agent.reply()
    agent.process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    assert agent.ask(id=1, machine={"arch": "x86_64"})["broke"].startswith(
        "LookupError: Machine has no memslots"
    )
    assert "broke" in agent.ask(id=2)
    assert agent.process.poll() is None
    assert agent.end()[0] == 0
