"""Random short programs on the model and on real KVM: `python tests/truth.py --arch arm64 --on
qemu:arm64@6.1 --count 2000`.

The programs are of several kinds (truth_arm64.py, truth_x86.py), as many of each; `--kind` takes
one alone. Each program is made from the seed and its number alone. What the two hosts saw of it is
compared whole: every exit with its members, its reply and pc, every error, why it stopped, and the
registers at the end. Each program ends by writing the slot's data to the device, word by word, so
that memory is compared too. `--keep DIR` leaves the scenario files for `kvmscen run`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import truth_arm64
import truth_x86
from truth_kinds import DATA, DEVICE, WORDS, Kind, value

ROOT = Path(__file__).resolve().parent.parent
IN_A_FILE = 100
KINDS: Mapping[str, Sequence[Kind]] = {"arm64": truth_arm64.KINDS, "x86_64": truth_x86.KINDS}
# What is not compared, and why: the exits of an architecture, their member, the reason.
UNCOMPARED = {
    (
        "x86_64",
        "io",
        "pc",
    ): "whether out has advanced pc depends on how KVM came to it: its fast path has, its emulator "
    "has not",
    ("x86_64", "shutdown", "pc"): "kvm-amd has reset the vCPU then, VMX has not",
    ("x86_64", "internal_error", "ndata"): "a property of the kernel's version",
    ("x86_64", "internal_error", "data"): "a property of the kernel's version",
}
# On a host whose CPU QEMU emulates: of a legacy SSE instruction with 16 bytes in memory a processor
# raises #GP where they are not aligned. QEMU (7.2) leaves that check out for half of them: andps,
# xorpd, unpcklps, shufps, haddps, cvtdq2ps, and so on.
UNALIGNED = (
    "QEMU's CPU does not check that 16 bytes in memory are aligned, for which a processor raises "
    "#GP, of "
)
WIDE = re.compile(r"\d+: (\w+) .*xmmword ptr \[")
Json = dict[str, Any]


# --- programs -------------------------------------------------------------------------------------


def program(kind: Kind, seed: int, number: int) -> Json:
    """A case: its text, registers and capabilities."""
    random = Random(f"{kind.arch} {kind.name} {seed} {number}")
    lines: list[str] = []
    for n in range(random.randint(3, 9)):
        if random.random() < 0.2:
            body = [line for _ in range(random.randint(1, 3)) for line in kind.one(random)]
            lines += kind.branch(random, f"label{n}", body)
        else:
            lines += kind.one(random)
    data = ", ".join(f"{value(random):#x}" for _ in range(WORDS))
    device = ", ".join(f"{value(random):#x}" for _ in range(WORDS))
    text = [
        *lines,
        *kind.end(),
        ".data",
        f".quad {data}",
        '.section .device, "aw"',
        f".quad {device}",
        *kind.text.split("\n"),
    ]
    case: Json = {
        "asm": "\n".join(("_start:", *text)) + "\n",
        "regs": dict(kind.regs(random)),
        "final": {},
    }
    if kind.enable and random.random() < 0.5:
        case["enable"] = ["KVM_CAP_ARM_NISV_TO_USER"]
    return case


def yaml(case: Json) -> str:
    """A case of a scenario."""
    rest = [f"    {key}: {json.dumps(what)}\n" for key, what in case.items() if key != "asm"]
    return (
        "".join(rest)
        + "    asm: |\n"
        + "".join(f"      {line}\n" for line in case["asm"].splitlines())
    )


def write(folder: Path, kind: Kind, seed: int, count: int) -> None:
    """The scenario files."""
    sections = {".text": 0, ".data": DATA, ".device": DEVICE, **kind.sections}
    top = {"arch": kind.arch, **kind.top, "sections": sections}
    head = "".join(f"{key}: {json.dumps(what)}\n" for key, what in top.items())
    head += "memslots:\n" + "".join(f"  - {slot}\n" for slot in kind.slots) + "cases:\n"
    for first in range(0, count, IN_A_FILE):
        cases = [
            f"  p{n}:\n{yaml(program(kind, seed, n))}"
            for n in range(first, min(count, first + IN_A_FILE))
        ]
        (folder / f"random-{kind.arch}-{kind.name}-{seed}-{first:05}.yaml").write_text(
            head + "".join(cases)
        )


# --- what was seen --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How many programs came out alike, how many the model or the host did not run (by reason), and
    the differences.
    """

    alike: int
    exits: int
    skipped: Mapping[str, int]
    differences: tuple[str, ...]


def seen(result: Json) -> Json:
    """What must be equal on both."""
    arch = result["arch"]
    events = [
        {
            key: event[key]
            for key in event
            if key != "source" and (arch, event.get("exit"), key) not in UNCOMPARED
        }
        for event in result["events"]
    ]
    # Of a vCPU behind a shutdown the model tells no registers.
    ended = bool(events) and events[-1].get("exit") == "shutdown"
    regs = {} if ended else result["final"]["regs"]
    return {
        "status": result["status"],
        "stopped": result["stopped"],
        "events": events,
        "regs": regs,
    }


def difference(model: Json, real: Json) -> list[str]:
    """The first event that differs, or what does at the end."""
    if model["events"] != real["events"]:
        pairs = zip([*model["events"], None], [*real["events"], None], strict=False)
        at, (a, b) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
        return [f"event {at}: model {a}", f"event {at}: real  {b}"]
    names = [name for name in real["regs"] if model["regs"].get(name) != real["regs"][name]]
    told = [
        f"{name}: model {model['regs'].get(name)}, real {real['regs'][name]:#x}" for name in names
    ]
    return told or [
        f"model {model['status']} {model['stopped']}, real {real['status']} {real['stopped']}"
    ]


def run(
    paths: Sequence[Path], on: str, env: dict[str, str] | None = None
) -> dict[tuple[str, str], dict[bool, Json]]:
    """Each case's results, by whether the model gave them."""
    with tempfile.TemporaryDirectory() as made:
        report = Path(made) / "report.json"
        kernel = on.partition(",")[0].partition("@")[2]
        argv = [
            sys.executable,
            "-m",
            "kvmscen",
            "run",
            *map(str, paths),
            "--on",
            f"model@{kernel}" if kernel else "model",
        ]
        argv += ["--on", on, "--report", f"json={report}"]
        done = subprocess.run(
            argv, cwd=ROOT, env=env or dict(os.environ), capture_output=True, text=True
        )
        if not report.exists():
            raise SystemExit(done.stdout + done.stderr)
        told = json.loads(report.read_text())
    if told["errors"]:
        raise SystemExit("\n".join(map(str, told["errors"][:5])))
    both: dict[tuple[str, str], dict[bool, Json]] = {}
    for result in told["results"]:
        both.setdefault((result["scenario"], result["case"]), {})[result["predicted"]] = result
    return both


def refused(pair: Mapping[bool, Json]) -> str | None:
    """Why the model or the host did not run a case."""
    reasons = [str(result["reason"]) for result in pair.values() if result["status"] == "SKIP"]
    return (
        re.sub(r"\b0x[0-9a-f]+", "0x...", reasons[0].partition(": ")[2] or reasons[0])
        if reasons
        else None
    )


def unchecked(pair: Mapping[bool, Json], on: str) -> str | None:
    """Whether they differ only in that the host goes on where an SSE operand is not aligned, and
    the model has the #GP of a processor: the reason, by the instruction's name.
    """
    model, real = (seen(pair[which])["events"] for which in (True, False))
    if not on.startswith("qemu:x86_64") or not model or model[-1].get("exit") != "shutdown":
        return None
    at = len(model) - 1
    wide = WIDE.match(str(pair[True]["events"][-1].get("source", "")))
    if wide is None or real[:at] != model[:at] or real[at : at + 1] in ([], model[at:]):
        return None
    return UNALIGNED + wide[1]


def compare(
    kind: Kind,
    on: str,
    seed: int,
    count: int,
    keep: Path | None = None,
    env: dict[str, str] | None = None,
) -> Outcome:
    """Run them on the model and on a host."""
    with tempfile.TemporaryDirectory() as made:
        folder = (keep or Path(made)) / kind.name
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, kind, seed, count)
        both = run([folder], on, env)
    alike = exits = 0
    skipped: Counter[str] = Counter()
    differences = []
    for (_, case), pair in both.items():
        reason = refused(pair) or unchecked(pair, on)
        if reason is not None:
            skipped[reason] += 1
        elif seen(pair[True]) == seen(pair[False]):
            alike += 1
            exits += len(pair[True]["events"])
        else:
            text = program(kind, seed, int(case[1:]))["asm"]
            what = "\n  ".join(difference(seen(pair[True]), seen(pair[False])))
            differences.append(
                f"{kind.arch} {kind.name}, seed {seed}, program {case[1:]}\n  {what}\n{text}"
            )
    return Outcome(alike, exits, skipped, tuple(differences))


def odd(paths: Sequence[Path], on: str, env: dict[str, str] | None = None) -> Outcome:
    """The programs of tests/odd. Where the model tells in a note that PVM differs, PVM may; flags
    that are undefined may too.
    """
    alike = exits = 0
    skipped: Counter[str] = Counter()
    differences = []
    for (scenario, case), pair in run(paths, on, env).items():
        reason = refused(pair)
        noted = pair[False]["kvm"] == "pvm" and any(
            "PVM" in note for note in pair[True].get("notes", ())
        )
        model, real = (
            {**seen(pair[which]), "regs": _flagless(seen(pair[which])["regs"])}
            for which in (True, False)
        )
        slow = (
            "timeout" in (pair[False]["stopped"], model["stopped"])
            and model["stopped"] != real["stopped"]
        )
        if reason is not None or noted or slow:
            skipped[
                reason
                or ("a note says that PVM differs" if noted else "the host was not through in time")
            ] += 1
        elif model == real:
            alike += 1
            exits += len(pair[True]["events"])
        else:
            differences.append("\n  ".join((f"{scenario} {case}", *difference(model, real))))
    return Outcome(alike, exits, skipped, tuple(differences))


def _flagless(regs: Json) -> Json:
    return {name: value for name, value in regs.items() if name != "rflags"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", choices=tuple(KINDS), required=True)
    parser.add_argument(
        "--on", required=True, help="the host to compare the model with, as for kvmscen run"
    )
    parser.add_argument("--kind", help="one kind alone")
    parser.add_argument("--count", type=int, default=2000, help="programs in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where to leave the scenarios")
    parser.add_argument("--odd", action="store_true", help="the programs of tests/odd instead")
    args = parser.parse_args()
    # Whoever ends this ends the run of kvmscen that it waits for: an exception does, a signal not.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if args.odd:
        found = odd(sorted((ROOT / "tests" / "odd").glob(f"{args.arch}-*.yaml")), args.on)
        print(
            *found.differences,
            *(f"not compared, {n}: {why}" for why, n in sorted(found.skipped.items())),
            sep="\n",
        )
        print(
            f"{args.arch}, model and {args.on}: {found.alike} alike, {len(found.differences)} "
            f"different"
        )
        return 1 if found.differences else 0
    kinds = [kind for kind in KINDS[args.arch] if args.kind in (None, kind.name)]
    if not kinds:
        parser.error(f"no such kind: {', '.join(kind.name for kind in KINDS[args.arch])} are there")
    each, wrong, programs, alike, exits = -(-args.count // len(kinds)), 0, 0, 0, 0
    for kind in kinds:
        found = compare(kind, args.on, args.seed, each, args.keep)
        print(*found.differences, sep="\n", end="\n" if found.differences else "")
        for reason, number in sorted(found.skipped.items(), key=lambda item: -item[1]):
            print(f"not compared, {number}: {reason}")
        refused = sum(found.skipped.values())
        told = (
            f"{each} programs, {found.alike} alike ({found.exits} exits), "
            f"{len(found.differences)} different"
        )
        print(
            f"{args.arch} {kind.name}, model and {args.on}, seed {args.seed}: {told}, {refused} "
            f"not compared",
            flush=True,
        )
        # What was not compared is no success.
        wrong += len(found.differences) + (found.alike < kind.least * each)
        programs, alike, exits = programs + each, alike + found.alike, exits + found.exits
    print(f"{args.arch}, model and {args.on}: {programs} programs, {alike} alike ({exits} exits)")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
