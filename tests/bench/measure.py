"""The benchmark of `kvmscen measure`: its figures beside those of a C program, what timing costs,
and what baselines find.

    python tests/bench/measure.py               everything: some minutes
    python tests/bench/measure.py --only c      one part: c, baseline
    python tests/bench/measure.py --rounds 10

It needs an x86_64 /dev/kvm and gcc. What is compared runs in turn, round by round, and a ratio is
the median of the rounds' ratios, since machines are noisy. The output is Markdown tables. Not a
test: nothing fails here but what is broken, and the verdict is only a word.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from run import KVMSCEN, MOST_SECONDS, Row, machine, say, table  # noqa: E402 from beside this file

from kvmscen.compile import plan, ready  # noqa: E402
from kvmscen.compile.measure import Sampling  # noqa: E402
from kvmscen.hosts.kvm import KvmHost  # noqa: E402
from kvmscen.load import load  # noqa: E402
from kvmscen.sent.observation import Observation  # noqa: E402

PARTS = ("c", "baseline")
EXITS = 10_000

GUEST = """\
summary: A store outside the slot and a port, in turn, for ever.
arch: x86_64
memslots:
  - {slot: 0, gpa: 0x0, size: 0x1000}
sections:
  .data: 0x20000
asm: |
  _start:
      mov  rbx, offset counter
  again:
      mov  [rbx], rax
      out  0x10, al
      jmp  again
  .data
  counter: .quad 0
measure:
  store: {mmio: {phys_addr: counter, is_write: true}, samples: SAMPLES, warmup: 100}
  out: {io: {port: 0x10}, samples: SAMPLES, warmup: 100}
"""
# One guest as timed.c reads it: slot gpa and size, entry, tables, mmio address, port, bytes of
# code, code.
RECORD = struct.Struct("<5QII64s")

# In user mode, whose instructions every KVM runs by the CPU itself; `work` is what is planted.
WORKING = """\
summary: A store outside the slot, after some work.
arch: x86_64
memslots:
  - {slot: 0, gpa: 0x0, size: 0x8000}
sections:
  .text: 0x0
  .tables: 0x1000
  .data: 0x20000
regs:
  cr3: pml4
  cs: {selector: 0x23, dpl: 3}
  ss: {selector: 0x1b, dpl: 3}
asm: |
  _start:
      mov  rbx, offset counter
  again:
      mov  ecx, WORK
  1:  dec  ecx
      jnz  1b
      mov  [rbx], rax
      jmp  again
  .section .tables
  pml4: .quad pdpt + 0x67
      .fill 511, 8, 0
  pdpt: .quad pd + 0x67
      .fill 511, 8, 0
  pd: .quad 0xe7
      .fill 511, 8, 0
  .data
  counter: .quad 0
measure:
  store: {mmio: {phys_addr: counter, is_write: true}, samples: 10000}
"""


# --- beside C -------------------------------------------------------------------------------------


class Kvm:
    """kvmscen's own way to an Observation, but for the command line: one agent that stays."""

    def __init__(self) -> None:
        self.host = KvmHost("kvm")
        self.host.wait()
        self.executor = self.host.executor()

    def timed(self, file: Path, loop: str) -> Observation:
        """One round of a file."""
        scenario = load(str(file))
        (case,) = scenario.cases
        (facts,) = self.host.facts
        made = ready(str(file), case, plan(str(file), case), facts, "kvm", Sampling(1, loop))
        assert made.machine is not None
        return self.executor.execute(made.machine.seal("bench"))

    def record(self, file: Path) -> bytes:
        """The guest for timed.c."""
        (case,) = load(str(file)).cases
        made = plan(str(file), case)
        (text,) = (part for part in made.image if part.gpa == made.entry)
        assert made.tables is not None
        address = made.symbols["counter"]
        return RECORD.pack(
            0, 0x1000, made.entry, made.tables[0], address, 0x10, len(text.data), text.data
        )


def c(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Medians and the time of one exit over all, of C and of both loops, in turn."""
    gcc = shutil.which("gcc") or shutil.which("cc")
    if gcc is None:
        say("left out: there is no gcc")
        return
    program = str(folder / "timed")
    subprocess.run([gcc, "-O2", "-Wall", "-o", program, str(HERE / "timed.c")], check=True)
    file = folder / "guest.yaml"
    file.write_text(GUEST.replace("SAMPLES", str(EXITS)))
    kvm = Kvm()
    (folder / "guest").write_bytes(kvm.record(file))

    def bare(stamps: int) -> list[float]:
        argv = [program, str(folder / "guest"), str(2 * EXITS), str(stamps)]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=True, timeout=MOST_SECONDS
        )
        return list(map(float, done.stdout.split()))

    rounds: list[dict[str, list[float]]] = []
    for number in range(options.rounds + 1):
        found = {
            "c": bare(1),
            "native": figures(kvm.timed(file, "native")),
            "bare": bare(0),
            "python": figures(kvm.timed(file, "python")),
        }
        if number:
            rounds.append(found)
    kvm.executor.close()
    yield from beside(rounds)


def beside(rounds: list[dict[str, list[float]]]) -> Iterator[Row]:
    """The lines of the table: medians of C, and each loop's ratio to it."""
    for column, what in enumerate(("an MMIO write", "an OUT exit")):
        own = statistics.median(found["c"][column] for found in rounds)
        yield Row(f"{what}, median in C", None, own, " ns")
        for loop in ("native", "python"):
            off = statistics.median(found[loop][column] / found["c"][column] for found in rounds)
            yield Row(
                f"{what}, median of the {loop} loop over it",
                3 if loop == "native" else None,
                100 * (off - 1),
                " %",
            )
    own = statistics.median(found["bare"][2] for found in rounds)
    yield Row("both exits and the next entry, C loop without a clock", None, own, " ns")
    for loop in ("c", "native", "python"):
        name = "C loop with clock_gettime" if loop == "c" else f"{loop} loop"
        off = statistics.median(found[loop][2] / found["bare"][2] for found in rounds)
        yield Row(
            f"the same of the {name} over it",
            3 if loop == "native" else None,
            100 * (off - 1),
            " %",
        )


def figures(seen: Observation) -> list[float]:
    """Medians of store and out, and the time from one entry to the next of both together, in ns."""
    assert seen.timing is not None, seen.detail
    ns = 1e9 / seen.timing.hz
    series = [seen.timing.series[name] for name in ("store", "out")]
    return [
        *(statistics.median(series_of_round.ticks) * ns for series_of_round in series),
        sum(series_of_round.kvm + series_of_round.user for series_of_round in series) * ns,
    ]


# --- baselines ------------------------------------------------------------------------------------


def baseline(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """A slow-down of 20 % that is planted in the guest is found, and nothing in runs of the
    same.
    """
    file = folder / "cost.yaml"
    kvm = Kvm()

    def price(work: int) -> float:
        file.write_text(WORKING.replace("WORK", str(work)))
        seen = [kvm.timed(file, "native") for _ in range(3)]
        return min(
            statistics.median(observation.timing.series["store"].ticks) / observation.timing.hz
            for observation in seen
            if observation.timing
        )

    base, most = price(1), price(100_000)
    work = 1 + round(0.2 * base / ((most - base) / 99_999))
    planted = price(work) / base
    kvm.executor.close()
    environment = {**os.environ, "XDG_STATE_HOME": str(folder)}

    def run(work: int, *arguments: str) -> int:
        file.write_text(WORKING.replace("WORK", str(work)))
        argv = [*KVMSCEN, "measure", str(file), "--on", "kvm", *arguments]
        done = subprocess.run(
            argv, capture_output=True, text=True, env=environment, timeout=MOST_SECONDS
        )
        # A command that measured nothing would find nothing either.
        if done.returncode not in (0, 1) or "native loop" not in done.stdout:
            raise SystemExit(done.stdout + done.stderr)
        return done.returncode

    run(1, "--save", "bench")
    alarms = sum(run(1, "--against", "bench") for _ in range(options.same))
    found = sum(run(work, "--against", "bench") for _ in range(options.slow))
    yield Row("the slow-down that was planted", None, 100 * (planted - 1), " %")
    yield Row(f"alarms in {options.same} runs of the same", 0, alarms, "")
    yield Row(f"slowed runs of {options.slow} that were not found", 0, options.slow - found, "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=15, help="how often each is measured (default: 15)"
    )
    parser.add_argument(
        "--same", type=int, default=20, help="runs of the same against the baseline (default: 20)"
    )
    parser.add_argument(
        "--slow", type=int, default=5, help="runs of the slowed guest against it (default: 5)"
    )
    parser.add_argument("--only", choices=PARTS, help="one part")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="kvmscen-bench-") as folder:
        for part in PARTS:
            if options.only in (None, part):
                say(f"{part} ...")
                rows += globals()[part](options, Path(folder))
    print(table(rows))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
