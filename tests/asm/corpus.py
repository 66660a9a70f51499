"""The corpus: programs that both assemblers must make the same bytes, symbols and lines of, or
whose difference has a reason here.

    python tests/asm/corpus.py                  every program: a minute
    python tests/asm/corpus.py --seed 7         others
    python tests/asm/corpus.py --show NAME      one program, by each assembler

A part of it runs in the tests (test_corpus.py). Programs are drawn with a seed; those of scenarios/
stand beside them.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# What forks a process that has threads may stand still for ever: `as` is started by one of ours.
SPAWN = get_context("spawn")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import corpus_arm64  # noqa: E402 from beside this file
import corpus_x86  # noqa: E402

from kvmscen.asm import Macro, Placement, Program, Source, assemble  # noqa: E402
from kvmscen.errors import ScenarioError  # noqa: E402
from kvmscen.sent.sandbox.seccomp import die_with_parent  # noqa: E402

SEED = 1
ORIGIN = 0x1000
# kind of program: architecture, bits, AT&T, how many
KINDS = {
    "arm64": ("arm64", 64, False, 600),
    "x64": ("x86_64", 64, False, 350),
    "x64-att": ("x86_64", 64, True, 150),
    "x32": ("x86_64", 32, False, 200),
    "x32-att": ("x86_64", 32, True, 60),
    "x16": ("x86_64", 16, False, 200),
    "x16-att": ("x86_64", 16, True, 60),
}
# Who refuses (or "bytes", where they differ), what statement, and why that is well.
REASONS = (
    (
        "gnu",
        r"^(1:\s*)?ldr \w+, =\w+ - _start",
        "GNU as wants a literal that is known when it reads it; kvmscen's front end learns the "
        "difference of two labels later",
    ),
    (
        "keystone",
        r"^(1:\s*)?(ldr|str)\w* [wx](\d+|29(?=.*fp)|30(?=.*lr)), (\[(x\3|fp|lr)\], |\[(x\3|fp|lr), "
        r".*\]!)",
        "Keystone refuses a write-back to the register that is transferred, of which GNU as warns: "
        "the program goes to GNU as",
    ),
    (
        "keystone",
        r"jmp short ",
        "GNU as takes the long form where `short` does not reach; kvmscen takes `short` at its "
        "word",
    ),
)
BOTH = "a branch behind its limit is refused by both"


@dataclass(frozen=True)
class Sample:
    """One program of the corpus."""

    name: str
    arch: str
    bits: int
    text: str
    placements: tuple[Placement, ...] = ()
    origin: int = ORIGIN
    macros: tuple[Macro, ...] = ()


def samples(seed: int = SEED, part: int = 1) -> Iterator[Sample]:
    """The programs: every `part`-th of those that are drawn, all at limits, all of scenarios/."""
    for kind, (arch, bits, att, count) in KINDS.items():
        for number in range(0, count, part):
            r = random.Random(f"{seed} {kind} {number}")
            text = corpus_arm64.program(r) if arch == "arm64" else corpus_x86.program(r, bits, att)
            yield Sample(f"{kind}-{number}", arch, bits, text, places(r, arch))
    for name, text in corpus_arm64.limits():
        yield Sample(f"arm64 {name}", "arm64", 64, text)
    for bits in (64, 32, 16):
        for name, text in corpus_x86.limits():
            yield Sample(f"x{bits} {name}", "x86_64", bits, text)
    yield from of_scenarios()


def places(r: random.Random, arch: str) -> tuple[Placement, ...]:
    """Where the sections go, in one of several ways."""
    bss = 0x1004 if arch == "x86_64" else 0x1008
    ways: list[list[dict[str, Any]]] = [
        [],
        [
            {"name": ".text", "at": 0x2000},
            {"name": ".data", "at": 0x8000},
            {"name": ".bss", "at": 0xA000},
        ],
        [{"name": ".data", "at": 0x5008}, {"name": ".bss", "after": ".data", "align": 16}],
        [{"name": ".data", "at": 0x3000, "load": 0x7000}],
        [{"name": ".bss", "at": bss}, {"name": ".text", "after": ".bss"}],
    ]
    return tuple(Placement(**way, line=1, column=1) for way in r.choice(ways))


def of_scenarios() -> Iterator[Sample]:
    """The programs of scenarios/, each once."""
    from kvmscen.asm.keystone.assembly import FRONTS
    from kvmscen.compile.start import mode_of
    from kvmscen.load import load
    from kvmscen.sent.arch import ARCHES

    seen = set()
    for file in sorted((ROOT / "scenarios").glob("*.yaml")):
        for case in load(str(file)).cases:
            if case.asm is None or case.arch not in FRONTS:
                continue
            macros = tuple(Macro(macro.name, macro.text, file.name) for macro in case.macros)
            if (case.arch, case.asm.text, case.sections, macros) in seen:
                continue
            seen.add((case.arch, case.asm.text, case.sections, macros))
            placements = tuple(
                Placement(s.name, s.at, s.after, s.align, s.load, 1, 1) for s in case.sections
            )
            origin = case.memslots[0].gpa.offset if case.memslots else 0
            bits = ARCHES[case.arch].BITS[mode_of(case)]
            yield Sample(
                f"{file.stem}:{case.name}",
                case.arch,
                bits,
                case.asm.text,
                placements,
                origin,
                macros,
            )


def made(sample: Sample, assembler: str) -> Program | list[str]:
    """The program, or what is wrong with it as `LINE: message`."""
    try:
        return assemble(
            sample.arch,
            sample.bits,
            Source("corpus", sample.text, macros=sample.macros),
            sample.placements,
            sample.origin,
            assembler,
        )
    except ScenarioError as error:
        return [f"{problem.line}: {problem.message}" for problem in error.problems]


@dataclass(frozen=True)
class Difference:
    """Where the assemblers differ over a statement, and the reason, empty where there is none."""

    sample: str
    statement: str
    what: str
    reason: str


def compare(sample: Sample) -> list[Difference]:
    """What differs, by statements; a program that both refuse must be one at a limit."""
    keystone, gnu = made(sample, "keystone"), made(sample, "gnu")
    if isinstance(keystone, Program) and isinstance(gnu, Program):
        return _bytes(sample, keystone, gnu)
    if isinstance(keystone, list) and isinstance(gnu, list) and "_start: " in sample.text[:9]:
        return [Difference(sample.name, "", f"both refuse: {keystone[0]}", BOTH)]
    out = []
    for who, said in (("keystone", keystone), ("gnu", gnu)):
        for message in said if isinstance(said, list) else ():
            number, _, text = message.partition(": ")
            statement = sample.text.split("\n")[int(number) - 1].strip()
            out.append(
                Difference(sample.name, statement, f"{who} refuses: {text}", reason(who, statement))
            )
    return out


def _bytes(sample: Sample, keystone: Program, gnu: Program) -> list[Difference]:
    out: list[tuple[str, str]] = []
    mine, theirs = _statements(keystone), _statements(gnu)
    for key, data in mine.items():
        its = theirs.get(key, b"")
        if data != its:
            out.append((key[1], f"keystone {data.hex()}, gnu {its.hex()}"))
    moved = [key for key in mine if len(mine[key]) != len(theirs.get(key, b""))]
    if moved:
        # Whatever else differs may have moved only.
        out = [
            (key[1], f"keystone {mine[key].hex()}, gnu {theirs.get(key, b'').hex()}")
            for key in moved
        ]
    if not out:
        for what in ("sections", "symbols", "lines"):
            if getattr(keystone, what) != getattr(gnu, what):
                out.append((what, f"{getattr(keystone, what)} {getattr(gnu, what)}"))
    return [
        Difference(sample.name, statement, what, reason("bytes", statement))
        for statement, what in out
    ]


def _statements(program: Program) -> dict[tuple[int, str, int], bytes]:
    """The bytes of each statement by line, text and how often it came before."""
    out: dict[tuple[int, str, int], bytes] = {}
    for line in program.lines:
        number = 0
        while (line.line, line.text, number) in out:
            number += 1
        out[line.line, line.text, number] = _data(program, line.gpa, line.size)
    return out


def _data(program: Program, at: int, size: int) -> bytes:
    for section in program.sections:
        if section.gpa <= at < section.gpa + section.size:
            return section.data[at - section.gpa : at - section.gpa + size]
    return b""


def reason(who: str, statement: str) -> str:
    """Why a difference is well, empty where nobody knows."""
    return next(
        (why for whom, pattern, why in REASONS if whom == who and re.search(pattern, statement)), ""
    )


def end_with_parent(parent: int) -> None:
    """What a process of a pool begins with: whatever ends the one that started it, a signal too,
    ends this one.
    """
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)  # it was gone before


def pool(workers: int | None = None) -> ProcessPoolExecutor:
    """New processes, as many as CPUs if not told; they do not outlive this one."""
    return ProcessPoolExecutor(
        workers or os.cpu_count(), SPAWN, initializer=end_with_parent, initargs=(os.getpid(),)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--part", type=int, default=1, help="every so many programs only")
    parser.add_argument("--show", metavar="NAME", help="one program, by each assembler")
    options = parser.parse_args()
    everything = list(samples(options.seed, options.part))
    if options.show:
        show(next(sample for sample in everything if sample.name == options.show))
        return
    with pool() as processes:
        found = [
            difference
            for many in processes.map(compare, everything, chunksize=20)
            for difference in many
        ]
    unknown = [difference for difference in found if not difference.reason]
    for difference in unknown:
        print(f"{difference.sample}: {difference.statement}\n    {difference.what[:300]}")
    for why, count in Counter(
        difference.reason for difference in found if difference.reason
    ).most_common():
        print(f"{count} statements differ: {why}")
    print(
        f"{len(everything)} programs, {len({d.sample for d in found})} with a known difference or "
        f"an unknown, {len(unknown)} unknown"
    )
    raise SystemExit(bool(unknown))


def show(sample: Sample) -> None:
    print(sample.text, sample.placements)
    for assembler in ("keystone", "gnu"):
        result = made(sample, assembler)
        print(f"--- {assembler}")
        if isinstance(result, list):
            print("\n".join(result))
        else:
            for line in result.lines:
                print(
                    f"{line.gpa:#8x} {_data(result, line.gpa, line.size).hex():24} {line.line:4} "
                    f"{line.text}"
                )


if __name__ == "__main__":
    main()
