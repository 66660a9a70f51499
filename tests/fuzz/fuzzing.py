"""Damaged scenario files, ELF files, recordings and frames of agents: each is read or refused,
soon, and nothing is left behind.

    python tests/fuzz/fuzzing.py scenario 200000 [SEED]        also elf, recording, frame

Assembler sources are those of tests/asm/mutations.py.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "asm")]

import elf_files  # noqa: E402 from this tree

from kvmscen.asm import Source, assemble  # noqa: E402
from kvmscen.asm.gnu import targets as targets_of_gnu  # noqa: E402
from kvmscen.asm.linked import elf  # noqa: E402
from kvmscen.asm.values import Wrong  # noqa: E402
from kvmscen.compile.prepare import Preparer  # noqa: E402
from kvmscen.disk import scratch  # noqa: E402
from kvmscen.errors import HostError  # noqa: E402
from kvmscen.hosts import recordings  # noqa: E402
from kvmscen.hosts.process import bounded, shapes  # noqa: E402
from kvmscen.hosts.replay import ReplayHost  # noqa: E402
from kvmscen.job.job import Job, Target  # noqa: E402
from kvmscen.judge.verdict import judge  # noqa: E402
from kvmscen.model.predict import execute  # noqa: E402
from kvmscen.sent.agent import frames  # noqa: E402 from this tree
from kvmscen.sent.codec import decode, encode  # noqa: E402
from kvmscen.sent.facts import Facts  # noqa: E402
from kvmscen.sent.machine import Machine  # noqa: E402
from kvmscen.sent.observation import Observation  # noqa: E402
from kvmscen.sent.sandbox.seccomp import die_with_parent  # noqa: E402

Choose = random.Random
Value = Any
# So many are tried by one process.
BATCH = 20_000
# What one input may take of CPU, in seconds, and the process of address space, of which Unicorn
# takes much.
SECONDS, MEMORY = 10, 16 << 30
X86 = {"KVM_CAP_USER_MEMORY": 1, "KVM_CAP_NR_MEMSLOTS": 509, "KVM_CAP_READONLY_MEM": 1}
ARM = {"KVM_CAP_ARM_NISV_TO_USER": 1, "KVM_CAP_NR_MEMSLOTS": 509}
FACTS = (
    Facts("x86_64", "6.18.0", X86, 4096, "pvm", (), "3.11", "kvm"),
    Facts("arm64", "6.1.0", ARM, 4096, "vhe", (), "3.11", "qemu"),
)
NUMBERS = (
    0,
    1,
    -1,
    2,
    255,
    4096,
    65535,
    1 << 31,
    (1 << 32) - 1,
    1 << 63,
    (1 << 64) - 1,
    1 << 64,
    -(1 << 63),
    10**12,
    10**40,
)
WORDS = (ROOT / "tests" / "fuzz" / "words.txt").read_text().split("\n")


MEMBERS = ("step", "reply", "done", "ignored", "op", "count_of_equal", "timeout", "x")


def text(choose: Choose, whole: str, others: list[str]) -> str:
    """A text that somebody has damaged."""
    for _ in range(choose.choice([1, 1, 1, 2, 3, 8])):
        lines = whole.split("\n")
        at, line, kind = (
            choose.randrange(len(whole) + 1),
            choose.randrange(len(lines)),
            choose.randrange(10),
        )
        if kind == 0:
            whole = whole[:at] + whole[at + choose.choice([1, 1, 2, 40]) :]
        elif kind == 1:
            whole = whole[:at] + choose.choice(WORDS) + whole[at:]
        elif kind == 2:
            whole = (
                whole[:at]
                + chr(
                    choose.choice(
                        [choose.randrange(32, 127), choose.randrange(256), 0x2028, 0x202E, 0x1F600]
                    )
                )
                + whole[at:]
            )
        elif kind == 3:
            words = lines[line].replace(",", " ").split()
            whole = (
                whole.replace(choose.choice(words), str(choose.choice(NUMBERS)), 1)
                if words
                else whole
            )
        elif kind == 4:
            whole = "\n".join(
                lines[:line]
                + lines[line : line + 3] * choose.choice([2, 2, 60])
                + lines[line + 3 :]
            )
        elif kind == 5:
            whole = "\n".join(lines[:line] + lines[line + choose.choice([1, 1, 6]) :])
        elif kind == 6:
            whole = "\n".join(
                [
                    *lines[:line],
                    " " * choose.randrange(9) + lines[line].lstrip(),
                    *lines[line + 1 :],
                ]
            )
        elif kind == 7:
            other = choose.choice(others).split("\n")
            start = choose.randrange(len(other))
            whole = "\n".join(
                lines[:line] + other[start : start + choose.choice([1, 5, 30])] + lines[line:]
            )
        elif kind == 8:
            other_line = choose.randrange(len(lines))
            lines[line], lines[other_line] = lines[other_line], lines[line]
            whole = "\n".join(lines)
        else:
            whole = whole[:at] + choose.choice(WORDS) + " " + choose.choice(WORDS) + whole[at + 3 :]
    return whole


def octets(choose: Choose, raw: bytes) -> bytes:
    """Bytes that somebody has damaged."""
    out = bytearray(raw)
    for _ in range(choose.choice([1, 1, 2, 4, 16])):
        at, kind = choose.randrange(len(out) + 1), choose.randrange(5)
        if kind == 0 and at < len(out):
            out[at] = choose.randrange(256)
        elif kind == 1 and at < len(out):
            out[at] ^= 1 << choose.randrange(8)
        elif kind == 2:
            size = choose.choice([1, 2, 4, 8])
            out[at : at + size] = (choose.choice(NUMBERS) & ((1 << 8 * size) - 1)).to_bytes(
                size, "little"
            )
        elif kind == 3:
            del out[at : at + choose.choice([1, 4, 64, 4096])]
        else:
            start = choose.randrange(len(out) + 1)
            out[at:at] = out[start : start + choose.choice([1, 8, 64])]
        if not out:
            break
    return bytes(out)


def value(choose: Choose, data: Any) -> Any:
    """JSON data with one part of it another."""
    odd: list[Any] = [
        *NUMBERS,
        None,
        True,
        1.5,
        "",
        "x",
        "é\x1b[31m",
        [],
        {},
        [None],
        {"x": 1},
        [[0, 0]],
        "sha256:0",
        float(1 << 60),
    ]
    if choose.random() < 0.15 or not isinstance(data, dict | list) or not data:
        return choose.choice(odd)
    if isinstance(data, list):
        out = list(data)
        at = choose.randrange(len(out))
        kind = choose.randrange(6)
        if kind == 0:
            del out[at]
        elif kind == 1:
            out.insert(at, out[choose.randrange(len(out))])
        else:
            out[at] = value(choose, out[at])
        return out
    key = choose.choice(list(data))
    kind = choose.randrange(8)
    if kind == 0:
        return {other: held for other, held in data.items() if other != key}
    if kind == 1:
        return {
            **data,
            choose.choice(
                ["step", "reply", "done", "ignored", "op", "count_of_equal", "timeout", "x"]
            ): choose.choice(odd),
        }
    return {**data, key: value(choose, data[key])}


# --- what is tried --------------------------------------------------------------------------------


class Kinds:
    """One method a kind: `one` input; what came of it in a word. Any exception is a fault."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.preparer = Preparer()
        targets = [encode(Target("kvm", FACTS))]
        self.preparer.handle({"targets": targets, "each": True, "assembler": "keystone"})
        # Each has a few descriptors for as long as the process lives.
        for arch in ("x86_64", "arm64", "riscv64"):
            if targets_of_gnu.find(arch) is not None:
                assemble(arch, 64, Source("a.s", "nop\n"), (), 0, "gnu")

    def scenario(self, choose: Choose) -> str:
        """A scenario file, prepared for a run or checked."""
        files = _texts()
        raw = text(choose, choose.choice(files), files).encode("utf-8", "surrogatepass")
        path = self.folder / "a.yaml"
        path.write_bytes(octets(choose, raw) if choose.random() < 0.1 else raw)
        verb: dict[str, Any] = choose.choice(
            [
                {"run": str(path), "text": None, "cases": []},
                {"check": str(path), "assembler": "keystone"},
            ]
        )
        reply = json.loads(json.dumps(self.preparer.handle(verb)))
        for problem in reply["problems"]:
            assert problem["file"], reply
            assert problem["line"] >= 0, reply
            assert problem["column"] >= 0, reply
            assert problem["message"], reply
        jobs = [decode(Job, job) for job in reply.get("jobs", ())]
        assert jobs or reply["problems"] or reply.get("cases"), "neither cases nor problems"
        return "wrong" if reply["problems"] else "right"

    def elf(self, choose: Choose) -> str:
        """An executable."""
        raw, arch, bits = choose.choice(_executables())
        try:
            elf.read(octets(choose, raw), arch, bits)
        except Wrong:
            return "wrong"
        return "right"

    def recording(self, choose: Choose) -> str:
        """A recording, replayed and judged."""
        _, job, whole = choose.choice(_recordings())
        path = self.folder / "a.json"
        if choose.random() < 0.2:
            path.write_bytes(octets(choose, whole.encode()))
        else:
            path.write_text(json.dumps(value(choose, json.loads(whole))))
        host = ReplayHost(f"replay:{path}")
        try:
            host.start()
            host.wait()
            assert job.machine is not None
            seen = host.executor().execute(job.machine)
        except HostError:
            return "refused"
        found = judge(job, seen)
        json.dumps(encode(found.observation) if found.observation is not None else {})
        return found.status

    def frame(self, choose: Choose) -> str:
        """What an agent sends, in pieces, to an Observation."""
        _, _, whole = choose.choice(_recordings())
        body = {"id": 1, "observation": json.loads(whole)["observation"]}
        sent = frames.pack(json.dumps(value(choose, body) if choose.random() < 0.6 else body))
        sent = octets(choose, sent) if choose.random() < 0.6 else sent
        reader = frames.Reader()
        try:
            for at in range(0, len(sent), 1000):
                reader.feed(sent[at : at + 1000])
                got = reader.next()
                if got is not None:
                    reply = bounded.parse(got)
                    shapes.check(decode(Observation, reply["observation"]))
                    return "read"
        except (frames.TooLarge, LookupError, TypeError, ValueError, AttributeError, OverflowError):
            # What kvmscen.hosts.process.children takes for a reply that is none.
            return "refused"
        reader.end()
        return "noise"


@cache
def _texts() -> list[str]:
    paths = [
        *(ROOT / "scenarios").glob("*.yaml"),
        *(ROOT / "tests" / "bad").glob("*.yaml"),
        *(ROOT / "tests" / "cases").rglob("*.yaml"),
    ]
    return [
        path.read_text(errors="replace") for path in sorted(paths) if path.stat().st_size < 20_000
    ]


def _by_hand(arch: str) -> bytes:
    parts = (
        elf_files.Part(".text", 0x1000, bytes(8)),
        elf_files.Part(".data", 0x8000, bytes(range(16)), load=0x9000),
        elf_files.Part(".bss", 0x8010, kind=8, size=64),
    )
    symbols = (("_start", 0x1000, 0x12, 1), ("counter", 0x8000, 0x11, 2), ("room", 0x8010, 0x11, 3))
    return elf_files.File(parts, symbols, machine=elf_files.EM[arch]).build()


PROGRAM = (
    ".globl _start\n.type _start, %function\n_start:\n nop\n nop\n.data\ncounter: .quad 1, "
    "2\n.bss\nroom: .space 64\n"
)


@cache
def _executables() -> list[tuple[bytes, str, int]]:
    """Small ones made by hand, and where GNU as and ld are installed theirs, with debug
    information.
    """
    import shutil
    import subprocess

    out = [(_by_hand(arch), arch, 64) for arch in ("x86_64", "arm64")]
    for prefix, arch in (
        ("", "x86_64"),
        ("x86_64-linux-gnu-", "x86_64"),
        ("aarch64-linux-gnu-", "arm64"),
    ):
        if shutil.which(f"{prefix}as") is None or (prefix == "" and os.uname().machine != "x86_64"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "a.s"
            source.write_text(PROGRAM)
            subprocess.run([f"{prefix}as", "-g", "-o", f"{folder}/a.o", str(source)], check=True)
            line = [
                f"{prefix}ld",
                "-Ttext=0x1000",
                "-Tdata=0x8000",
                "-o",
                f"{folder}/a.elf",
                f"{folder}/a.o",
            ]
            subprocess.run(line, check=True, capture_output=True)
            out.append(((Path(folder) / "a.elf").read_bytes(), arch, 64))
    return out


@cache
def _recordings() -> list[tuple[str, Job, str]]:
    """Of shipped scenarios, as the model predicts them."""
    preparer = Preparer()
    preparer.handle(
        {"targets": [encode(Target("model", FACTS))], "each": True, "assembler": "keystone"}
    )
    out: list[tuple[str, Job, str]] = []
    for name in (
        "x86_64-mmio",
        "x86_64-pio",
        "x86_64-slots",
        "arm64-mmio",
        "arm64-psci",
        "arm64-slots",
        "arm64-undecoded",
    ):
        reply = preparer.handle(
            {"run": str(ROOT / "scenarios" / f"{name}.yaml"), "text": None, "cases": []}
        )
        for job in [decode(Job, job) for job in reply["jobs"]]:
            if job.machine is None:
                continue
            seen = execute(decode(Machine, json.loads(job.machine.text)))
            if seen.unpredicted is None:
                facts = next(facts for facts in FACTS if facts.arch == job.arch)
                out.append(
                    (
                        name,
                        job,
                        recordings.recording(
                            job.machine.name, "kvm", facts, job.machine.digest, seen
                        ),
                    )
                )
    return out


# --- running --------------------------------------------------------------------------------------


def run(
    kind: str, count: int, seed: int, first: int = 0, at: Value = None
) -> tuple[Counter[str], list[str]]:
    """What came of `count` inputs from number `first` on, and the faults; `at` is told the number
    of each before it is tried.
    """
    outcomes: Counter[str] = Counter()
    faults: list[str] = []

    def late(*_: object) -> None:
        raise TimeoutError(f"it takes longer than {SECONDS} s of CPU")

    # In memory: on a disk the making of a file takes most of the time.
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as folder:
        generate: Callable[[Choose], str] = getattr(Kinds(Path(folder)), kind)
        generate(random.Random(0))
        there, before = _left(), _descriptors()
        previous = signal.signal(signal.SIGPROF, late)
        for number in range(first, first + count):
            if at is not None:
                at.value = number
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                outcomes[generate(random.Random(f"{kind} {seed} {number}"))] += 1
            except Exception as error:  # noqa: BLE001 whatever it raises is what is tested
                faults.append(
                    f"{kind} {seed} {number}: {''.join(traceback.format_exception(error)).strip()}"
                )
            signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
        if _descriptors() > before:
            faults.append(f"descriptors: {before} before, {_descriptors()} after")
        if left := _left() - there:
            faults.append(f"left behind: {sorted(left)[:5]}")
    return outcomes, faults


def run_all(kind: str, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """As `run`, in other processes: one that dies is a fault, and the next begins behind what it
    died of.
    """
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    context = multiprocessing.get_context("fork")
    number = 0
    while number < count:
        end = min(count, (number // BATCH + 1) * BATCH)
        at, (mine, other) = context.Value("q", number), context.Pipe(duplex=False)
        child = context.Process(
            target=_batch, args=(os.getpid(), other, kind, end - number, seed, number, at)
        )
        child.start()
        other.close()
        try:
            found, told = mine.recv()
            number = end
        except EOFError:
            child.join()
            died = at.value
            # What it has counted died with it.
            found, told = (
                Counter(lost=died + 1 - number),
                [f"{kind} {seed} {died}: the process died: {child.exitcode}"],
            )
            number = died + 1
        child.join()
        mine.close()
        outcomes += found
        faults += told
    return outcomes, faults


def _batch(parent: int, to: Any, *arguments: Any) -> None:
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)  # it was gone before
    faulthandler.enable()
    to.send(run(*arguments))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _left() -> set[str]:
    # Rooms for as and ld stay as long as their process, and are empty between programs.
    rooms = scratch.settle()
    names = (
        (folder, name)
        for folder in ("/dev/shm", tempfile.gettempdir(), *rooms)
        for name in os.listdir(folder)
    )
    paths = {
        f"{folder}/{name}"
        for folder, name in names
        if name.startswith("kvmscen") and f"-{os.getpid()}" in name
    }
    return paths - set(rooms)


def main() -> None:
    """So many inputs of a kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["scenario", "elf", "recording", "frame"])
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    start = time.monotonic()
    outcomes, faults = run_all(arguments.kind, arguments.count, arguments.seed)
    for fault in faults[:20]:
        print(fault, end="\n\n")
    took = f"{time.monotonic() - start:.0f} s"
    print(
        f"{arguments.kind}: {sum(outcomes.values()):,} inputs, {len(faults)} faults, "
        f"{dict(outcomes)}, {took}"
    )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
