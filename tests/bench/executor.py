"""The benchmark of what runs a Machine, without files, YAML, assembling and judging: CPU time (user
and system) in this process.

    python tests/bench/executor.py                 everything: about a minute
    python tests/bench/executor.py --only exits    one part: machines, exits, model
    python tests/bench/executor.py --profile exits where Python's time goes in that part

`machines`: Machines of three exits on /dev/kvm, each built, run and given back, beside C that does
the same in one process. `exits`: one Machine of 99,998 different exits, beside C. `model`: arm64
Machines of three exits on the model, beside Unicorn alone. What is compared runs in turn, round by
round, and a ratio is the median of the rounds' ratios. Not a test: the verdict is only a word.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import guests  # noqa: E402 from beside this file
from run import DIFFERENT, MOST_SECONDS, Row, compiled, count, machine, say, table  # noqa: E402

from kvmscen.compile import plan, ready  # noqa: E402
from kvmscen.load import load  # noqa: E402
from kvmscen.sent.facts import Facts  # noqa: E402
from kvmscen.sent.machine import Machine  # noqa: E402
from kvmscen.sent.observation import Observation  # noqa: E402

PARTS = ("machines", "exits", "model")


def spent(run: Callable[[], object]) -> float:
    """Seconds of CPU, user and system, that this process takes for something."""
    start = time.process_time()
    run()
    return time.process_time() - start


def child_spent(argv: Sequence[str]) -> float:
    """The same of a command, whose status must be 0."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, timeout=MOST_SECONDS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepared(files: Sequence[str], facts: Facts, kind: str) -> list[Machine]:
    """The Machine of each file's one case, for the host of these facts."""
    out = []
    for file in files:
        (case,) = load(file).cases
        made = ready(file, case, plan(file, case), facts, kind)
        assert made.machine is not None, made.skip
        out.append(made.machine)
    return out


def in_turn(
    options: argparse.Namespace, ours: Callable[[], object], theirs: Callable[[], float]
) -> list[tuple[float, float]]:
    """Seconds of both in each round; the first round, which fills caches, does not count."""
    if options.profile:
        ours()
        with cProfile.Profile() as profile:
            ours()
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(35)
    return [(spent(ours), theirs()) for _ in range(options.rounds + 1)][1:]


def compared(
    rounds: list[tuple[float, float]], many: int, names: tuple[str, str], target: float | None
) -> Iterator[Row]:
    """The two times, in µs for each of `many`, and their ratio."""
    for n, name in enumerate(names):
        yield Row(
            name, None, statistics.median(seconds[n] for seconds in rounds) / many * 1e6, " µs"
        )
    ratio = statistics.median(ours / theirs for ours, theirs in rounds)
    yield Row(f"{names[0]} : {names[1]}", target, ratio, "")


def _executor() -> tuple[Any, Facts]:
    """What runs Machines on /dev/kvm, and the facts of it."""
    from kvmscen.sent.agent.main import facts
    from kvmscen.sent.executor.executor import Executor
    from kvmscen.sent.kvm.fds import Kvm

    kvm = Kvm()
    known = facts(kvm)
    return Executor(kvm, known.flavour), known


def _seen(seen: Observation, exits: int) -> None:
    """Stop where a guest did not do what it is to do: a figure of nothing would look good."""
    if seen.stopped not in ("end", "expected") or sum(e.times for e in seen.events) != exits:
        raise SystemExit(f"{seen.stopped} after {len(seen.events)} events: {seen.detail}")


def machines(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Machines of three exits."""
    files = guests.write(folder / "machines", guests.X86, options.machines)
    program = str(folder / "bare")
    if why := compiled(program):
        say(f"left out: {why}")
        return
    executor, facts = _executor()
    (folder / "records").write_bytes(guests.records(files))
    made = prepared(files, facts, "kvm")

    def ours() -> None:
        for sealed in made:
            _seen(executor.execute(sealed), 3)

    rounds = in_turn(options, ours, lambda: child_spent([program, str(folder / "records")]))
    yield from compared(
        rounds, options.machines, ("a Machine of three exits", "the same in one C process"), None
    )


def exits(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """One Machine of as many different exits as may be."""
    file = folder / "many.yaml"
    file.write_text(guests.MANY.format(count=DIFFERENT, **guests.numbers(0)))
    program = str(folder / "bare-exits")
    if why := compiled(program):
        say(f"left out: {why}")
        return
    executor, facts = _executor()
    (folder / "record").write_bytes(guests.records([str(file)], DIFFERENT - 1))
    (made,) = prepared([str(file)], facts, "kvm")
    rounds = in_turn(
        options,
        lambda: _seen(executor.execute(made), DIFFERENT + 2),
        lambda: child_spent([program, str(folder / "record")]),
    )
    yield from compared(
        rounds, DIFFERENT + 2, ("an exit of 100,000 different ones", "an exit in C"), 5
    )


def model(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """arm64 Machines of three exits on the model."""
    from kvmscen.model import facts
    from kvmscen.model.predict import execute

    files = guests.write(folder / "arm64", guests.ARM64, options.machines)
    made = prepared(files, facts("arm64", None), "model")

    def ours() -> None:
        for sealed in made:
            _seen(execute(sealed), 3)

    def theirs() -> float:
        return spent(lambda: [alone(sealed) for sealed in made])

    rounds = in_turn(options, ours, theirs)
    yield from compared(
        rounds, options.machines, ("a Machine of three exits on the model", "Unicorn alone"), 2
    )


def alone(machine: Machine) -> list[tuple[int, int, int]]:
    """The guest of a Machine in Unicorn, as a script of a user's own would run it: the stores that
    it sees.
    """
    from unicorn import Uc, UcError  # type: ignore[attr-defined]
    from unicorn import arm64_const as arm
    from unicorn import unicorn_const as uc

    engine: Any = Uc(uc.UC_ARCH_ARM64, uc.UC_MODE_ARM)
    engine.ctl_set_cpu_model(arm.UC_CPU_ARM64_MAX)
    stores: list[tuple[int, int, int]] = []
    calls: list[int] = []

    def store(engine: Any, access: int, address: int, size: int, value: int, data: Any) -> bool:
        stores.append((address, size, value & (1 << 8 * size) - 1))
        return False

    def call(engine: Any, number: int, data: Any) -> None:
        calls.append(engine.reg_read(arm.UC_ARM64_REG_X0))
        engine.emu_stop()

    engine.hook_add(uc.UC_HOOK_MEM_INVALID, store)
    engine.hook_add(uc.UC_HOOK_INTR, call)
    for slot in machine.memslots:
        engine.mem_map(slot.gpa, slot.size)
    for part in machine.image:
        engine.mem_write(part.gpa, part.data)
    pc = machine.vcpus[0].regs["pc"]
    while not calls:
        try:
            engine.emu_start(pc, (1 << 64) - 2)
        except UcError:
            pc = engine.reg_read(arm.UC_ARM64_REG_PC) + 4
    if len(stores) != 2 or calls != [0x84000008]:
        raise SystemExit(f"Unicorn alone saw {stores} and {calls}")
    return stores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machines", type=count, default=1000, help="how many (default: 1000)")
    parser.add_argument(
        "--rounds", type=count, default=5, help="how often each is measured (default: 5)"
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="one part, or several")
    parser.add_argument("--profile", choices=PARTS, help="profile this part alone")
    options = parser.parse_args()
    wanted = [options.profile] if options.profile else options.only or PARTS
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="kvmscen-bench-") as folder:
        for part in wanted:
            say(f"{part} ...")
            rows += globals()[part](options, Path(folder))
    print(table(rows))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
