"""GNU as and ld as programs: which they are for an architecture, and how one is run so that no
input can run away with it.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from kvmscen.asm.gnu import confined
from kvmscen.disk import scratch
from kvmscen.sent import sandbox

# CPU seconds of one run, and what it may take: a program of 64 MiB and its relocations fit. By the
# wall's clock it is only ended when it hangs: on a busy machine it may wait for a CPU for long.
SECONDS = 8
WALL_SECONDS = 240.0
_MEMORY = 1 << 30
_FILE = 256 << 20
_OUTPUT = 1 << 20
_LOOK = 0.5
# What as and ld say themselves: a message of the program's own begins with its line.
_FULL = re.compile(
    r"^(?!program\.s:\d+: ).*(?:No space left on device|Disk quota exceeded)", re.MULTILINE
)


class Ran(NamedTuple):
    """How a run ended: `why` is empty, or says what stopped it."""

    status: int
    messages: str
    why: str = ""


def run(argv: Sequence[str], where: Path) -> Ran:
    """Run a tool in `where`, within SECONDS of CPU, and limits of memory and file size. What it
    prints is in English.
    """
    child = _starter(argv[0], sandbox.mode(), tuple(scratch.settle())).start(argv, where)
    try:
        with child:
            try:
                text, why = _read(child, time.monotonic() + WALL_SECONDS)
            except BaseException:
                child.kill()
                raise
            if why:
                child.kill()
    finally:
        confined.Starter.ended(child)
    if _FULL.search(text):
        raise scratch.Full(str(where))
    status = child.returncode
    if not why and status < 0:
        why = _ended(-status)
    return Ran(status, text, why)


@lru_cache(maxsize=16)
def _starter(program: str, asked: str, own: tuple[str, ...]) -> confined.Starter:
    limits = {"RLIMIT_AS": _MEMORY, "RLIMIT_FSIZE": _FILE, "RLIMIT_CPU": SECONDS, "RLIMIT_CORE": 0}
    return confined.Starter([program], own, limits)


def confined_from_files(program: str) -> bool:
    """Whether the kernel keeps a program from all files but its own."""
    return _starter(program, sandbox.mode(), tuple(scratch.settle())).landlock > 0


def _used(process: int) -> float:
    """The CPU seconds that a process has taken, by the clock that clock_getcpuclockid(3) names."""
    try:
        return time.clock_gettime(~process << 3 | 2)
    except OSError:
        return 0.0


def _read(child: subprocess.Popen[bytes], deadline: float) -> tuple[str, str]:
    """Read the output of a tool until it ends. Returns it, and why the tool must be killed, if it
    must.
    """
    assert child.stderr is not None
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stderr, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left > 0 and not selector.select(min(left, _LOOK)):
                # Its own limit is this process's time more, which it inherits.
                if _used(child.pid) > SECONDS:
                    return said.decode("utf-8", "replace"), _ended(signal.SIGXCPU)
                continue
            if left <= 0:
                return said.decode(
                    "utf-8", "replace"
                ), f"hangs: it took {WALL_SECONDS:g} s, most of which it slept"
            piece = os.read(child.stderr.fileno(), 65536)
            if not piece:
                return said.decode("utf-8", "replace"), ""
            said += piece
            if len(said) > _OUTPUT:
                return said.decode("utf-8", "replace"), "has more to complain of than can be shown"


def _ended(number: int) -> str:
    if number == signal.SIGXFSZ:
        return f"makes more than {_FILE >> 20} MiB"
    if number == signal.SIGXCPU:
        return f"takes more than {SECONDS} s of CPU time"
    return f"ended by signal {number}"
