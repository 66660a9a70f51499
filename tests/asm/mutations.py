# ruff: noqa: E501 (lists as text)
"""Programs and scenarios that somebody has damaged: each assembles or is refused at a line, soon,
and nothing breaks.

    python tests/asm/mutations.py                              10,000 through Keystone, about a minute
    python tests/asm/mutations.py --assembler gnu --count 2000
    python tests/asm/mutations.py --assembler both             as without a choice: what Keystone lacks goes to GNU as
    python tests/asm/mutations.py --assembler gnu --count 200000 --files 100 --workers 1

One in five is a whole scenario file (`--files 5`), each of whose cases is a program: for GNU as,
which is started for each, fewer of them take less time. The kernel's SIGPROF ends one that takes
too much CPU; what is left in the folders of as and ld, and descriptors that stay open, are faults
too.

A part of it runs in the tests (test_corpus.py).
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import corpus  # noqa: E402 from beside this file

from kvmscen.asm import Source, assemble  # noqa: E402
from kvmscen.compile import plans  # noqa: E402
from kvmscen.disk import scratch  # noqa: E402
from kvmscen.errors import ScenarioError  # noqa: E402
from kvmscen.load import load_text  # noqa: E402

SEED = 1
# No program may take longer; one run of as or ld has its own limit below that.
LIMIT = 20.0
# So many are on their way at once.
BATCH = 5000
_WORDS = r"""
" ' \ [ ] { } ( ) # $ % @ ! ~ * , ; : = == + - / // /* */ << >> 0 -1 1 08 0x 0b12 0xffffffffffffffff 0x1ffffffffffffffff 9999999999
1b 1f 99f . .. \() \@ \x a.b :lo12: :got: offset ptr dword qword xmm99 x31 w99 sp eax rax r99 [rip] [esi*3] lsl uxtw !! , ,, é ☃
.rept .endr .macro .endm .if .endif .irp .irpc .else .exitm .purgem .altmacro .text .data .bss .section .pushsection .popsection
.previous .org .align .balign .p2align .space .skip .fill .zero .byte .quad .octa .float .double .ascii .asciz .string .set .equ
.comm .lcomm .globl .weak .incbin .include .inst .ltorg .pool .code16 .code32 .code64 .att_syntax .intel_syntax .arch .cpu .end
.error .warning .print .cfi_startproc .loc .file .line .struct .reloc .uleb128 .sleb128 .dc.b .dcb.l .ds.w .nops .offset .err
.subsection .equiv jmp call b adr mov
"""
_LINES = r"""
.rept 100000000
.space 0x7fffffffff
.fill 1000000000, 8
.skip -1
.p2align 63
.org 0xfffffff
.set _start, _start
.macro m
.irp z, 1, 2
.incbin "/etc/passwd"
.include "/dev/zero"
.quad _start - here * 2
.section .text, "awx", @nobits
.rept 60000
"""
TOKENS = [
    *_WORDS.split(),
    *_LINES.strip().split("\n"),
    "\n",
    "\n\n",
    "\t",
    "\n.macro m\nm\n.endm\nm\n",
    "\0",
    "\r",
    "\f",
]


@dataclass(frozen=True)
class Damaged:
    """A program (or with `yaml` a whole scenario) after mutation."""

    name: str
    sample: corpus.Sample
    yaml: bool = False


def damaged(seed: int, count: int, files: int = 5) -> Iterator[Damaged]:
    """So many of them, the same for the same seed; one in `files` is a whole file."""
    programs, scenarios = _sources()
    for number in range(count):
        r = random.Random(f"{seed} {number}")
        yaml = number % files == 0
        sample = r.choice(scenarios if yaml else programs)
        text = sample.text
        for _ in range(r.choice([1, 1, 1, 2, 3, 8])):
            text = mutate(r, text)
        yield Damaged(f"{number} ({sample.name})", replace(sample, text=text), yaml)


@cache
def _sources() -> tuple[list[corpus.Sample], list[corpus.Sample]]:
    files = sorted((ROOT / "scenarios").glob("*.yaml"))
    scenarios = [corpus.Sample(file.name, "", 0, file.read_text()) for file in files]
    return list(corpus.samples(part=3)), scenarios


def mutate(r: random.Random, text: str) -> str:
    """One change of a text."""
    at = r.randrange(len(text) + 1)
    kind = r.randrange(9)
    lines = text.split("\n")
    line = r.randrange(len(lines))
    if kind == 0:
        return text[:at] + text[at + r.choice([1, 1, 2, 9]) :]
    if kind in (1, 2):
        return text[:at] + r.choice(TOKENS) + text[at:]
    if kind == 3:
        return (
            text[:at]
            + chr(r.choice([r.randrange(32, 127), r.randrange(256), 0x2603, 0x1F600]))
            + text[at + 1 :]
        )
    if kind == 4:
        lines.insert(line, f"    {r.choice(TOKENS)} {r.choice(TOKENS)}")
    elif kind == 5:
        lines[line : line + 1] = lines[line : line + 1] * r.choice([2, 2, 50])
    elif kind == 6:
        del lines[line : line + r.choice([1, 1, 5])]
    elif kind == 7:
        words = lines[line].split(" ")
        words[r.randrange(len(words))] = r.choice(TOKENS)
        lines[line] = " ".join(words)
    else:
        other = r.randrange(len(lines))
        lines[line], lines[other] = lines[other], lines[line]
    return "\n".join(lines)


@dataclass(frozen=True)
class Outcome:
    """What came of one: `made` or `refused`, or what is wrong with that."""

    name: str
    what: str
    seconds: float
    descriptors: int = 0


def _late(*_: object) -> None:
    raise TimeoutError(f"it takes longer than {LIMIT:g} s of CPU")


def outcome(job: tuple[Damaged, str | None]) -> Outcome:
    """Assemble one of them."""
    program, assembler = job
    start = time.process_time()
    what = "made"
    signal.signal(signal.SIGPROF, _late)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        if program.yaml:
            scenario = load_text(program.sample.text, "mutated.yaml").assembled_by(assembler)
            plans(scenario, scenario.cases)
        else:
            sample = program.sample
            assemble(
                sample.arch,
                sample.bits,
                Source("mutated", sample.text, macros=sample.macros),
                sample.placements,
                sample.origin,
                assembler,
            )
    except ScenarioError as error:
        what = _refused(error, program)
    except Exception as error:  # noqa: BLE001 whatever it raises is what is tested
        what = f"{type(error).__name__}: {error}"
    signal.setitimer(signal.ITIMER_PROF, 0)
    if left := [name for room in scratch.settle() for name in os.listdir(room)]:
        what = f"left behind: {left}"
    return Outcome(
        program.name, what, time.process_time() - start, len(os.listdir("/proc/self/fd"))
    )


def _refused(error: ScenarioError, program: Damaged) -> str:
    # What is missing at the end is told behind the last line.
    lines = program.sample.text.count("\n") + 2
    for problem in error.problems:
        # A file as a whole has line 0, such as one that is not UTF-8.
        if (
            not 0 < problem.line <= lines
            or not problem.message
            or "\n" in problem.message
            or "1987654321" in problem.message
        ):
            return f"a refusal without a place or a text: {problem}"
    return "refused" if error.problems else "a refusal without a problem"


def run(
    seed: int, count: int, assembler: str | None, files: int = 5, workers: int | None = None
) -> list[Outcome]:
    """The outcomes of so many; a process that dies is an outcome too."""
    todo = ((program, assembler) for program in damaged(seed, count, files))
    out: list[Outcome] = []
    while jobs := list(itertools.islice(todo, BATCH)):
        out += _outcomes(jobs, workers or os.cpu_count() or 1)
    scratch.sweep()
    return [*out, *_leaks(out)]


def _leaks(outcomes: list[Outcome]) -> list[Outcome]:
    """Whether the second half had more descriptors open than the first, which is when as and ld are
    made ready.
    """
    half = len(outcomes) // 2
    before, after = (
        max((result.descriptors for result in part), default=0)
        for part in (outcomes[:half], outcomes[half:])
    )
    return (
        [Outcome("descriptors", f"{before} before, {after} after", 0)]
        if after > before and half >= BATCH
        else []
    )


def _outcomes(jobs: list[tuple[Damaged, str | None]], workers: int) -> list[Outcome]:
    """By a new pool; where a process of it dies, of ever smaller parts, down to what it died of."""
    try:
        with corpus.pool(workers) as pool:
            return list(pool.map(outcome, jobs, chunksize=10))
    except BrokenProcessPool:
        if len(jobs) == 1:
            return [Outcome(jobs[0][0].name, "the process died", 0)]
        step = -(-len(jobs) // 10)
        return [
            result
            for at in range(0, len(jobs), step)
            for result in _outcomes(jobs[at : at + step], workers)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--assembler", choices=("keystone", "gnu", "both"), default="keystone")
    parser.add_argument(
        "--files", type=int, default=5, metavar="N", help="one in N is a whole file (5)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes at a time, as many as CPUs if not given"
    )
    parser.add_argument(
        "--show", type=int, metavar="NUMBER", help="print the text of one and what comes of it"
    )
    options = parser.parse_args()
    assembler = None if options.assembler == "both" else options.assembler
    if options.show is not None:
        (program,) = itertools.islice(
            damaged(options.seed, options.show + 1, options.files), options.show, None
        )
        print(
            program.sample.text, program.sample.arch, program.sample.bits, program.sample.placements
        )
        print(outcome((program, assembler)))
        return
    start = time.monotonic()
    outcomes = run(options.seed, options.count, assembler, options.files, options.workers)
    wrong = [
        result
        for result in outcomes
        if result.what not in ("made", "refused") or result.seconds > LIMIT
    ]
    for result in wrong:
        print(f"{result.name}: {result.what} ({result.seconds:.1f} s)")
    slowest = max(outcomes, key=lambda result: result.seconds)
    counts = Counter(result.what for result in outcomes)
    print(
        f"{len(outcomes)} through {options.assembler}: {counts['made']} assembled, "
        f"{counts['refused']} refused, {len(wrong)} wrong; "
        f"the slowest, {slowest.name}, took {slowest.seconds:.2f} s of CPU; "
        f"{time.monotonic() - start:.0f} s in all, {max(result.descriptors for result in outcomes)} "
        f"descriptors open at most"
    )
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
