"""Random short programs on the model and on real KVM: `python tests/truth.py --arch arm64 --on qemu:arm64@6.1 --count 2000`.

Each program is made from the seed and its number alone. What the two hosts saw of it is compared whole: every exit with its
members, its reply and pc, every error, why it stopped, and the registers at the end. Each program ends by writing the slot's data
to the device, word by word, so that memory is compared too. `--keep DIR` leaves the scenario files for `kvmscen run`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA, DEVICE, WORDS = 0x2000, 0x10000, 8
IN_A_FILE = 100
WIDTHS = (1, 2, 4, 8)
# What is not compared, and why: the exits of an architecture, their member, the reason.
UNCOMPARED = {
    (
        "x86_64",
        "io",
        "pc",
    ): "whether out has advanced pc at its exit depends on how KVM came to it: its fast path has, its emulator has not",
}
Json = dict[str, Any]


def value(random: Random) -> int:
    """A register's: small, near an edge, or anything."""
    near = random.choice((0, 1 << 7, 1 << 15, 1 << 31, 1 << 32, 1 << 63)) + random.randint(-2, 2)
    return random.choice((random.randrange(64), near, random.getrandbits(32), random.getrandbits(64))) & (1 << 64) - 1


# --- arm64: x0 to x12 hold anything, x13 an index, x19 counts, x20 the slot's data, x21 the device, x22 a moving pointer ---

# The names of loads and stores as far as the register's number.
LOADS = {1: ("ldrb w", "ldrsb w", "ldrsb x"), 2: ("ldrh w", "ldrsh w", "ldrsh x"), 4: ("ldr w", "ldrsw x"), 8: ("ldr x",)}
STORES = {1: "strb w", 2: "strh w", 4: "str w", 8: "str x"}
CONDITIONS = ("eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le")


def arm64_arithmetic(random: Random) -> list[str]:
    r = random.choice("xw")
    bits = 64 if r == "x" else 32
    d, n, m, a = (f"{r}{random.randrange(13)}" for _ in range(4))
    low = random.randrange(bits)
    two = [
        "add",
        "adds",
        "sub",
        "subs",
        "and",
        "ands",
        "orr",
        "orn",
        "eor",
        "eon",
        "bic",
        "bics",
        "mul",
        "mneg",
        "udiv",
        "sdiv",
        "lsl",
        "lsr",
        "asr",
        "ror",
    ]
    condition = random.choice(CONDITIONS)
    return [
        random.choice(
            (
                f"{random.choice(two)} {d}, {n}, {m}",
                f"{random.choice(two)} {d}, {n}, {m}",
                f"{random.choice(('add', 'subs', 'eor', 'bic'))} {d}, {n}, {m}, {random.choice(('lsl', 'lsr', 'asr'))} #{low}",
                f"{random.choice(('add', 'adds', 'sub', 'subs'))} {d}, {n}, #{random.randrange(4096)}",
                f"{random.choice(('madd', 'msub'))} {d}, {n}, {m}, {a}",
                f"{random.choice(('adc', 'adcs', 'sbc', 'sbcs'))} {d}, {n}, {m}",
                f"{random.choice(('clz', 'cls', 'rbit', 'rev', 'rev16'))} {d}, {n}",
                f"{random.choice(('ubfx', 'sbfx'))} {d}, {n}, #{low}, #{random.randint(1, bits - low)}",
                f"extr {d}, {n}, {m}, #{low}",
                f"{random.choice(('csel', 'csinc', 'csinv', 'csneg'))} {d}, {n}, {m}, {condition}",
                f"{random.choice(('ccmp', 'ccmn'))} {n}, {m}, #{random.randrange(16)}, {condition}",
                f"movk {d}, #{random.getrandbits(16)}, lsl #{random.choice((0, 16))}",
                f"{random.choice(('smulh', 'umulh'))} x{d[1:]}, x{n[1:]}, x{m[1:]}",
                f"{random.choice(('sxtb', 'sxth', 'sxtw'))} x{d[1:]}, w{n[1:]}",
            )
        )
    ]


def arm64_access(random: Random) -> list[str]:
    """One that KVM can decode, in the slot or outside."""
    size, base, reg = random.choice(WIDTHS), random.choice(("x20", "x21")), random.randrange(13)
    at = random.randrange(8 * WORDS // size)
    name = random.choice((STORES[size], random.choice(LOADS[size])))
    acquire = {1: "b w", 2: "h w", 4: " w", 8: " x"}[size]
    shift = size.bit_length() - 1
    return random.choice(
        (
            [f"{name}{reg}, [{base}, #{at * size}]"],
            [f"{name}{reg}, [{base}, #{at * size}]"],
            [f"{name.replace('ldr', 'ldur').replace('str', 'stur')}{reg}, [{base}, #{at * size}]"],
            [f"mov x13, #{at}", f"{name}{reg}, [{base}, x13, lsl #{shift}]" if shift else f"{name}{reg}, [{base}, x13]"],
            [f"mov x13, #{-at}", f"add x22, {base}, #{at * size}", f"{name}{reg}, [x22, w13, sxtw #{shift}]"],
            [f"add x22, {base}, #{at * size}", f"{random.choice(('ldar', 'stlr'))}{acquire}{reg}, [x22]"],
        )
    )


def arm64_undecoded(random: Random, base: str) -> list[str]:
    """One that KVM cannot decode: outside the slot it ends the guest."""
    at, a, b, c = 16 * random.randrange(WORDS // 2), *random.sample(range(13), 3)
    r = random.choice("xw")
    size = 8 if r == "x" else 4
    atomic = random.choice(("ldadd", "ldclr", "ldeor", "ldset", "ldsmax", "ldsmin", "ldumax", "ldumin", "swp", "cas"))
    return [
        f"add x22, {base}, #{at}",
        *random.choice(
            (
                [f"{random.choice(('ldr', 'str'))} {r}{a}, [x22], #{size}"],
                [f"{random.choice(('ldr', 'str'))} {r}{a}, [x22, #{-size if at else 0}]!"],
                [f"{random.choice(('ldp', 'stp'))} {r}{a}, {r}{b}, [x22]"],
                [f"{random.choice(('ldp', 'stp'))} {r}{a}, {r}{b}, [x22], #16"],
                [f"ldxr {r}{a}, [x22]", f"stxr w{b}, {r}{c}, [x22]"],
                [f"{atomic} {r}{a}, {r}{b}, [x22]"],
                [f"{atomic}{random.choice('bh')} w{a}, w{b}, [x22]"],
            )
        ),
    ]


def arm64_one(random: Random) -> list[str]:
    kind = random.random()
    if kind < 0.45:
        return arm64_arithmetic(random)
    if kind < 0.86:
        return arm64_access(random)
    return arm64_undecoded(random, "x21" if kind > 0.985 else "x20")


def arm64_branch(random: Random, label: str, body: list[str]) -> list[str]:
    reg, r = random.randrange(13), random.choice("xw")
    if random.random() < 0.3:
        return [f"mov x19, #{random.randint(2, 4)}", f"{label}:", *body, "subs x19, x19, #1", f"b.ne {label}"]
    jump = random.choice(
        (
            f"b.{random.choice(CONDITIONS)} {label}",
            f"{random.choice(('cbz', 'cbnz'))} {r}{reg}, {label}",
            f"{random.choice(('tbz', 'tbnz'))} {r}{reg}, #{random.randrange(32)}, {label}",
        )
    )
    return [jump, *body, f"{label}:"]


def arm64_end() -> list[str]:
    tell = [line for n in range(WORDS) for line in (f"ldr x28, [x20, #{8 * n}]", f"str x28, [x21, #{8 * n}]")]
    return [
        *tell,
        "mov x23, x0",
        "mov x24, x1",
        "mov x25, x2",
        "mov x26, x3",
        "movz w0, #0x8400, lsl #16",
        "movk w0, #8",
        "hvc #0",
    ]


def arm64_regs(random: Random) -> dict[str, int]:
    return {**{f"x{n}": value(random) for n in range(13)}, "x20": DATA, "x21": DEVICE}


# --- x86_64: rbx the slot's data, rbp the device, rsp a stack, r15 counts, the others hold anything -------------------------

NAMES = {
    8: ["rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13"],
    4: ["eax", "ecx", "edx", "esi", "edi", "r8d", "r9d", "r10d", "r11d", "r12d", "r13d"],
    2: ["ax", "cx", "dx", "si", "di", "r8w", "r9w", "r10w", "r11w", "r12w", "r13w"],
    1: ["al", "cl", "dl", "sil", "dil", "r8b", "r9b", "r10b", "r11b", "r12b", "r13b"],
}
POINTERS = {1: "byte", 2: "word", 4: "dword", 8: "qword"}
TWO = ["add", "sub", "and", "or", "xor", "adc", "sbb", "cmp", "test", "mov"]
JUMPS = ["e", "ne", "b", "ae", "s", "ns", "o", "no", "be", "a", "l", "ge", "le", "g", "p", "np"]


def x86_arithmetic(random: Random) -> list[str]:
    size = random.choice(WIDTHS)
    wide = random.choice((2, 4, 8))
    a, b = (random.choice(NAMES[size]) for _ in range(2))
    c, d = (random.choice(NAMES[wide]) for _ in range(2))
    # Flags that the manual leaves undefined differ between processors: a comparison behind them defines all.
    undefined = (
        f"{random.choice(('shl', 'shr', 'sar', 'rol', 'ror'))} {a}, {random.choice((1, 1, 3, 7))}",
        f"{random.choice(('shl', 'shr', 'sar'))} {c}, cl",
        f"imul {c}, {d}",
        f"{random.choice(('mul', 'imul'))} {c}",
        f"bt {c}, {random.randrange(8 * wide)}",
    )
    defined = (
        f"{random.choice(TWO)} {a}, {b}",
        f"{random.choice(TWO)} {a}, {b}",
        f"{random.choice(TWO)} {a}, {random.randrange(127)}",
        f"{random.choice(('inc', 'dec', 'neg', 'not'))} {a}",
        f"cmov{random.choice(JUMPS)} {c}, {d}",
        f"set{random.choice(JUMPS)} {random.choice(NAMES[1])}",
        f"xchg {a}, {b}",
        f"xadd {a}, {b}",
        f"bswap {random.choice(NAMES[8])}",
        f"movzx {random.choice(NAMES[8])}, {random.choice(NAMES[random.choice((1, 2))])}",
        f"movsxd {random.choice(NAMES[8])}, {random.choice(NAMES[4])}",
        f"lea {random.choice(NAMES[8])}, [rbx + 4*{random.choice(NAMES[8])} + 5]",
    )
    text = random.choice((*undefined, *defined))
    return [text, f"cmp {c}, {d}"] if text in undefined else [text]


def x86_access(random: Random) -> list[str]:
    """In the slot or outside, aligned or not."""
    size, base = random.choice(WIDTHS), random.choice(("rbx", "rbp"))
    at = f"{POINTERS[size]} ptr [{base} + {random.randrange(8 * WORDS - size + 1)}]"
    reg, other = random.choice(NAMES[size]), random.choice(("add", "sub", "and", "or", "xor", "adc", "sbb", "cmp", "test"))
    small = random.choice((1, 2))
    narrow = f"{POINTERS[small]} ptr [{base} + {random.randrange(60)}]"
    text, start = random.choice(("movs", "stos", "lods")), random.randrange(32)
    return random.choice(
        (
            [f"mov {at}, {reg}"],
            [f"mov {reg}, {at}"],
            [f"mov {at}, {reg}"],
            [f"mov {reg}, {at}"],
            [f"mov {at}, {random.randrange(127)}"],
            [f"{other} {at}, {reg}"],
            [f"{other.replace('test', 'cmp')} {reg}, {at}"],
            [f"{random.choice(('inc', 'dec', 'neg', 'not'))} {at}"],
            [f"lock {random.choice(('add', 'sub', 'xor', 'or', 'and', 'xadd', 'cmpxchg'))} {at}, {reg}"],
            [f"{random.choice(('xchg', 'xadd'))} {at}, {reg}"],
            [f"{random.choice(('movzx', 'movsx'))} {random.choice(NAMES[4])}, {narrow}"],
            [f"lea rsi, [{base} + {start}]", f"lea rdi, [rbx + {start}]", "mov ecx, 3", f"rep {text}{random.choice('bwdq')}"],
            [f"lea rsi, [rbx + {start}]", f"lea rdi, [{base} + {start}]", "mov ecx, 2", f"rep {text}{random.choice('bwdq')}"],
            [f"push {random.choice(NAMES[8])}", f"pop {random.choice(NAMES[8])}"],
        )
    )


def x86_port(random: Random) -> list[str]:
    size = random.choice((1, 2, 4))
    reg = {1: "al", 2: "ax", 4: "eax"}[size]
    port = random.choice((0x3F8, 0x500, 0x1234, 0x61 + 0x100))
    return [f"mov edx, {port}", random.choice((f"out dx, {reg}", f"in {reg}, dx"))]


def x86_one(random: Random) -> list[str]:
    kind = random.random()
    return x86_arithmetic(random) if kind < 0.5 else x86_access(random) if kind < 0.93 else x86_port(random)


def x86_branch(random: Random, label: str, body: list[str]) -> list[str]:
    if random.random() < 0.3:
        return [f"mov r15d, {random.randint(2, 4)}", f"{label}:", *body, "dec r15d", f"jnz {label}"]
    return [f"j{random.choice(JUMPS)} {label}", *body, f"{label}:"]


def x86_end() -> list[str]:
    return [line for n in range(WORDS) for line in (f"mov r14, [rbx + {8 * n}]", f"mov [rbp + {8 * n}], r14")] + [
        "cmp rax, rcx",
        "hlt",
    ]


def x86_regs(random: Random) -> dict[str, int]:
    return {**{name: value(random) for name in NAMES[8]}, "rbx": DATA, "rbp": DEVICE, "rsp": 0x3800}


# --- programs -------------------------------------------------------------------------------------------------------

KINDS: Mapping[str, tuple[Any, Any, Any, Any]] = {
    "arm64": (arm64_one, arm64_branch, arm64_end, arm64_regs),
    "x86_64": (x86_one, x86_branch, x86_end, x86_regs),
}


def program(arch: str, seed: int, number: int) -> Json:
    """A case: its text, registers and capabilities."""
    random = Random(f"{arch} {seed} {number}")
    one, branch, end, regs = KINDS[arch]
    lines: list[str] = []
    for n in range(random.randint(3, 9)):
        if random.random() < 0.2:
            lines += branch(random, f"label{n}", [line for _ in range(random.randint(1, 3)) for line in one(random)])
        else:
            lines += one(random)
    data = ", ".join(f"{value(random):#x}" for _ in range(WORDS))
    device = ", ".join(f"{value(random):#x}" for _ in range(WORDS))
    text = [*lines, *end(), ".data", f".quad {data}", '.section .device, "aw"', f".quad {device}"]
    case: Json = {"asm": "\n".join(("_start:", *text)) + "\n", "regs": regs(random), "final": {}}
    if arch == "arm64" and random.random() < 0.5:
        case["enable"] = ["KVM_CAP_ARM_NISV_TO_USER"]
    return case


def yaml(case: Json) -> str:
    """A case of a scenario."""
    rest = [f"    {key}: {json.dumps(what)}\n" for key, what in case.items() if key != "asm"]
    return "".join(rest) + "    asm: |\n" + "".join(f"      {line}\n" for line in case["asm"].splitlines())


def write(folder: Path, arch: str, seed: int, count: int) -> None:
    """The scenario files."""
    head = (
        f"arch: {arch}\nmemslots:\n  - {{slot: 0, gpa: 0, size: 0x4000}}\n"
        f"sections: {{.text: 0, .data: {DATA}, .device: {DEVICE}}}\ncases:\n"
    )
    for first in range(0, count, IN_A_FILE):
        cases = [f"  p{n}:\n{yaml(program(arch, seed, n))}" for n in range(first, min(count, first + IN_A_FILE))]
        (folder / f"random-{arch}-{seed}-{first:05}.yaml").write_text(head + "".join(cases))


# --- what was seen --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How many programs came out alike, how many the model or the host did not run (by reason), and the differences."""

    alike: int
    exits: int
    skipped: Mapping[str, int]
    differences: tuple[str, ...]


def seen(result: Json) -> Json:
    """What must be equal on both."""
    arch = result["arch"]
    events = [
        {key: one[key] for key in one if key != "source" and (arch, one.get("exit"), key) not in UNCOMPARED}
        for one in result["events"]
    ]
    return {"status": result["status"], "stopped": result["stopped"], "events": events, "regs": result["final"]["regs"]}


def difference(model: Json, real: Json) -> list[str]:
    """The first event that differs, or what does at the end."""
    if model["events"] != real["events"]:
        pairs = zip([*model["events"], None], [*real["events"], None], strict=False)
        at, (a, b) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
        return [f"event {at}: model {a}", f"event {at}: real  {b}"]
    names = [name for name in real["regs"] if model["regs"].get(name) != real["regs"][name]]
    told = [f"{name}: model {model['regs'].get(name)}, real {real['regs'][name]:#x}" for name in names]
    return told or [f"model {model['status']} {model['stopped']}, real {real['status']} {real['stopped']}"]


def compare(arch: str, on: str, seed: int, count: int, keep: Path | None = None, env: dict[str, str] | None = None) -> Outcome:
    """Run them on the model and on a host."""
    with tempfile.TemporaryDirectory() as made:
        folder = keep or Path(made)
        folder.mkdir(exist_ok=True)
        write(folder, arch, seed, count)
        report = Path(made) / "report.json"
        kernel = on.partition(",")[0].partition("@")[2]
        argv = [sys.executable, "-m", "kvmscen", "run", str(folder), "--on", f"model@{kernel}" if kernel else "model", "--on", on]
        done = subprocess.run(
            [*argv, "--report", f"json={report}"], cwd=ROOT, env=env or dict(os.environ), capture_output=True, text=True
        )
        if not report.exists():
            raise SystemExit(done.stdout + done.stderr)
        told = json.loads(report.read_text())
    if told["errors"]:
        raise SystemExit("\n".join(map(str, told["errors"][:5])))
    both: dict[str, dict[bool, Json]] = {}
    for result in told["results"]:
        both.setdefault(result["case"], {})[result["predicted"]] = result
    alike = exits = 0
    skipped: Counter[str] = Counter()
    differences = []
    for case, pair in both.items():
        reasons = [str(one["reason"]) for one in pair.values() if one["status"] == "SKIP"]
        if reasons:
            skipped[reasons[0]] += 1
        elif seen(pair[True]) == seen(pair[False]):
            alike += 1
            exits += len(pair[True]["events"])
        else:
            text = program(arch, seed, int(case[1:]))["asm"]
            what = "\n  ".join(difference(seen(pair[True]), seen(pair[False])))
            differences.append(f"{arch}, seed {seed}, program {case[1:]}\n  {what}\n{text}")
    return Outcome(alike, exits, skipped, tuple(differences))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", choices=tuple(KINDS), required=True)
    parser.add_argument("--on", required=True, help="the host to compare the model with, as for kvmscen run")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where to leave the scenarios")
    args = parser.parse_args()
    found = compare(args.arch, args.on, args.seed, args.count, args.keep)
    print(*found.differences, sep="\n")
    for reason, number in sorted(found.skipped.items(), key=lambda item: -item[1]):
        print(f"not compared, {number}: {reason}")
    skipped = sum(found.skipped.values())
    print(
        f"{args.arch}, model and {args.on}, seed {args.seed}: {args.count} programs, {found.alike} alike ({found.exits} exits), "
        f"{len(found.differences)} different, {skipped} not compared"
    )
    # What was not compared is no success.
    return 1 if found.differences or found.alike < 0.95 * args.count else 0


if __name__ == "__main__":
    raise SystemExit(main())
