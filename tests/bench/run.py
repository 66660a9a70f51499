"""The benchmark: what kvmscen costs, on this machine, beside C programs that run the same guests.

    python tests/bench/run.py                   everything: some minutes
    python tests/bench/run.py --only kvm        one part, of start, assemble, check, kvm, exits,
                                                model and qemu
    python tests/bench/run.py --files 200 --rounds 3

Run it with the Python that kvmscen is installed for. What cannot run here (no /dev/kvm, no gcc) is
left out with a reason. Figures are medians; what is compared runs in turn, round by round, and a
ratio is that of two medians. `cold` is with an empty cache of prepared files, `warm` behind it. The
output is a Markdown table that can be pasted into the README. Not a test: nothing fails here but
what is broken, and the verdict is only a word.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import guests  # noqa: E402 from beside this file

# Whatever takes longer hangs.
MOST_SECONDS = 300
PARTS = ("start", "assemble", "check", "kvm", "exits", "model", "qemu")
DIFFERENT = 99_998
# This source tree, where no command is given.
KVMSCEN = [
    sys.executable,
    "-P",
    "-c",
    f"import sys; sys.path.insert(0, {str(HERE.parent.parent)!r}); from kvmscen.cli.main import "
    f"main; main()",
]


class Row(NamedTuple):
    """A line of the table: `figure` of `unit`, which should be `target` or less (None: no target,
    just shown).
    """

    what: str
    target: float | None
    figure: float
    unit: str

    def cells(self) -> tuple[str, str, str, str]:
        target = "" if self.target is None else f"{self.target:g}{self.unit}"
        verdict = "" if self.target is None else "yes" if self.figure <= self.target else "**no**"
        return self.what, target, f"{self.figure:.3g}{self.unit}", verdict


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def timed(argv: Sequence[str], last: str = "") -> float:
    """Seconds that a command takes; its last line of output must begin with `last`, its status be
    0.
    """
    start = time.perf_counter()
    done = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=MOST_SECONDS
    )
    seconds = time.perf_counter() - start
    lines = done.stdout.decode(errors="replace").splitlines() or [""]
    if done.returncode or not lines[-1].startswith(last):
        raise SystemExit(
            f"status {done.returncode} of {' '.join(argv)[:200]}\n" + "\n".join(lines[-20:])
        )
    return seconds


class Cost(NamedTuple):
    """What a command takes, in seconds: by the wall's clock, and of CPU in all its processes."""

    wall: float
    cpu: float


def cost(argv: Sequence[str], last: str = "", cache: Path | None = None) -> Cost:
    """As `timed`, with the CPU time; `cache` is the user's cache folder."""
    if cache is not None:
        os.environ["XDG_CACHE_HOME"] = str(cache)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = timed(argv, last)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu)


def ratio(rounds: Sequence[tuple[float, float]]) -> float:
    """The ratio of two medians: machines are noisy, so rounds are compared as they come."""
    return statistics.median(a for a, _ in rounds) / statistics.median(b for _, b in rounds)


def first_line(argv: Sequence[str], begins: str) -> float:
    """Seconds from the start of a command to its first line of output."""
    start = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0) as child:
        assert child.stdout is not None
        line = os.read(child.stdout.fileno(), 4096)
        seconds = time.perf_counter() - start
        child.stdout.read()
    if not line.startswith(begins.encode()):
        raise SystemExit(f"{' '.join(argv)[:200]} began with {line[:200]!r}")
    return seconds


def median(run: Callable[[], float], times: int) -> float:
    """The median of a run repeated; the first one, which fills the file cache, does not count."""
    run()
    return statistics.median(run() for _ in range(times))


def kvmscen(command: str, prefix: Sequence[str] = ()) -> list[str]:
    return [*([command] if command else KVMSCEN), *prefix]


# --- parts ----------------------------------------------------------------------------------------


def start(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """How long until something happens."""
    many = 4 * options.rounds
    version = kvmscen(options.command, ["--version"])
    yield Row(
        "`kvmscen --version`", 80, 1000 * median(lambda: timed(version, "kvmscen "), many), " ms"
    )
    files = guests.write(folder / "first", guests.X86, 1) + guests.write(
        folder / "first-arm64", guests.ARM64, 1
    )
    yaml = [sys.executable, "-c", "import yaml"]
    for file, arch, host, goals in (
        (files[0], "x86_64", "kvm", (3.5, 2.0)),
        (files[1], "arm64", "model", (None, None)),
    ):
        if why := unusable(options, host, file):
            say(f"left out: first result of one {arch} file on {host}: {why}")
            continue
        argv = kvmscen(options.command, ["run", "--on", host, file])
        rounds = []
        for number in range(many):
            os.environ["XDG_CACHE_HOME"] = str(folder / f"first-{host}-{number}")
            cold, warm = first_line(argv, "PASS"), first_line(argv, "PASS")
            rounds.append((cold, warm, timed(yaml)))
        what = f"first result of one file ({arch}, {host})"
        for n, (state, goal) in enumerate(zip(("cold", "warm"), goals, strict=True)):
            yield Row(f"{what}, {state}", None, statistics.median(r[n] for r in rounds), " s")
            beside = ratio([(r[n], r[2]) for r in rounds])
            yield Row(f"the same : `python3 -c 'import yaml'`, {state}", goal, beside, "")


def assemble(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Programs of 20 lines in this process, each another; and scenarios that all go through GNU as
    and ld.
    """
    from kvmscen.asm import Placement, Source, assemble

    for arch, template in guests.PROGRAMS.items():
        places = [Placement(".text", 0x1000), Placement(".data", 0x5000)]
        for assembler, target in (("keystone", 2), ("gnu", None)):
            seconds = []
            for n in range(20 * options.rounds):
                source = Source("guest.yaml", template.format(**guests.numbers(n)))
                start = time.perf_counter()
                assemble(arch, 64, source, places, 0x1000, assembler)
                seconds.append(time.perf_counter() - start)
            yield Row(
                f"a program of 20 lines ({arch}, {assembler})",
                target,
                1000 * statistics.median(seconds[1:]),
                " ms",
            )
    files = guests.write(folder / "gnu", guests.X86, options.files)
    on = "model" if unusable(options, "kvm", files[0]) else "kvm"
    argv = kvmscen(options.command, ["run", "--on", on, "--assembler", "gnu", str(folder / "gnu")])
    took = median(lambda: timed(argv, f"{options.files:,} passed"), options.rounds)
    yield Row(
        f"{options.files:,} x86 scenarios through GNU as and ld, on {on}",
        scaled(options, 6),
        took,
        " s",
    )


def check(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Everything short of running, of half x86 and half arm64 files."""
    half = options.files // 2
    guests.write(folder / "check" / "x86", guests.X86, half)
    guests.write(folder / "check" / "arm64", guests.ARM64, options.files - half)
    argv = kvmscen(options.command, ["check", str(folder / "check")])
    seconds = median(lambda: timed(argv, f"{options.files} files"), options.rounds)
    yield Row(f"`kvmscen check` of {options.files:,} files", scaled(options, 2), seconds, " s")


def kvm(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Scenarios of three exits on /dev/kvm, beside C that runs the same guests in one process and
    started for each.
    """
    files = guests.write(folder / "kvm", guests.X86, options.files)
    bare = str(folder / "bare")
    why = unusable(options, "kvm", files[0]) or compiled(bare)
    if why:
        say(f"left out: scenarios on /dev/kvm: {why}")
        return
    (folder / "guests").write_bytes(guests.records(files))
    ours = kvmscen(options.command, ["run", "--on", "kvm", str(folder / "kvm")])
    once = [bare, str(folder / "guests")]
    each = [
        "/bin/sh",
        "-c",
        f'n=0; while [ $n -lt {options.files} ]; do "$0" "$1" $n || exit 1; n=$((n+1)); done',
        *once,
    ]
    last = f"{options.files:,} passed"
    rounds: list[tuple[Cost, Cost, Cost, Cost]] = []
    for number in range(options.rounds + 1):
        cache = folder / f"cache-{number}"
        took = (cost(ours, last, cache), cost(ours, last, cache), cost(once), cost(each))
        if number:
            rounds.append(took)
            text = " s, ".join(f"{c.wall:.2f}" for c in took)
            say(f"kvm, round {number}: kvmscen cold, warm, one C process, C for each: {text} s")
    many = f"{options.files:,} scenarios of three exits on /dev/kvm"
    names = (
        f"{many}, cold",
        "the same, warm",
        "the same guests in one C process",
        "the same guests, a C program started for each",
    )
    for n, name in enumerate(names):
        yield Row(name, None, statistics.median(r[n].wall for r in rounds), " s")
    for n, (state, each_most, cpu_most, once_most) in enumerate(
        (("cold", 1.0, 1.9, 2.3), ("warm", 0.7, 1.05, 1.5))
    ):
        walls = ratio([(r[n].wall, r[3].wall) for r in rounds])
        yield Row(f"kvmscen : C started for each, {state}", each_most, walls, "")
        cpus = ratio([(r[n].cpu, r[3].cpu) for r in rounds])
        yield Row(f"the same in CPU time of all processes, {state}", cpu_most, cpus, "")
        walls = ratio([(r[n].wall, r[2].wall) for r in rounds])
        yield Row(f"kvmscen : one C process, {state}", once_most, walls, "")


def exits(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """One case of as many different exits as may be, from the command to its line, beside C."""
    file = folder / "many.yaml"
    file.write_text(guests.MANY.format(count=DIFFERENT, **guests.numbers(0)))
    bare = str(folder / "bare-exits")
    why = unusable(options, "kvm", str(file)) or compiled(bare)
    if why:
        say(f"left out: a case of many exits: {why}")
        return
    (folder / "record").write_bytes(guests.records([str(file)], DIFFERENT - 1))
    argv = kvmscen(options.command, ["run", "--on", "kvm", "-q", str(file)])
    rounds = []
    for number in range(options.rounds + 1):
        took = timed(argv, "1 passed"), timed([bare, str(folder / "record")])
        rounds += [took] if number else []
    each = statistics.median(r[0] for r in rounds) / DIFFERENT * 1e6
    yield Row("an exit in a case of 100,000 different ones", None, each, " µs")
    yield Row("the same : C", 5, ratio(rounds), "")


def model(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Scenarios of three exits on the model."""
    files = guests.write(folder / "model", guests.ARM64, options.files)
    if why := unusable(options, "model", files[0]):
        say(f"left out: scenarios on the model: {why}")
        return
    argv = kvmscen(options.command, ["run", "--on", "model", str(folder / "model")])
    from executor import alone, prepared  # here, since that imports from this file

    from kvmscen.model import facts

    made = prepared(files, facts("arm64", None), "model")
    rounds = []
    for number in range(options.rounds + 1):
        # The line that counts may be followed by a note on predictions.
        ours = cost(argv, f"{options.files:,} passed", folder / f"cache-model-{number}").wall
        start = time.perf_counter()
        for machine in made:
            alone(machine)
        rounds += [(ours, time.perf_counter() - start)] if number else []
    seconds = statistics.median(r[0] for r in rounds)
    many = f"{options.files:,} arm64 scenarios of three exits on the model"
    yield Row(many, scaled(options, 3), seconds, " s")
    yield Row("the same : Unicorn alone in one process", 2.0, ratio(rounds), "")


def qemu(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """A host that QEMU boots: prepared from nothing in a cache of its own, booted, gone on from its
    snapshot, and warm.
    """
    host, cache = "qemu:arm64@6.1", folder / "cache"
    if shutil.which("qemu-system-aarch64") is None or shutil.which("apt-get") is None:
        say("left out: qemu hosts: there is no qemu-system-aarch64 or no apt-get")
        return
    os.environ["XDG_CACHE_HOME"] = str(cache)
    files = guests.write(folder / "qemu", guests.ARM64, 200)
    seconds = timed(kvmscen(options.command, ["host", "prepare", host]))
    yield Row("`host prepare` from nothing, the downloads among it", 180, seconds, " s")
    command = kvmscen(options.command, ["run", "--on", host, files[0]])
    yield Row(
        "first result on it, from its snapshot",
        1,
        median(lambda: first_line(command, "PASS"), 2 * options.rounds),
        " s",
    )

    def cold() -> float:
        for place in cache.glob("kvmscen/qemu/machines/*/snapshots"):
            shutil.rmtree(place)
        return first_line(command, "PASS")

    yield Row(
        "first result on it, booted, and a snapshot saved", 5, median(cold, options.rounds), " s"
    )
    argv = kvmscen(options.command, ["run", "--on", host, str(folder / "qemu")])
    yield Row(
        "200 scenarios of three exits on it, from the command",
        10,
        median(lambda: timed(argv, "200 passed"), options.rounds),
        " s",
    )


def scaled(options: argparse.Namespace, seconds: float) -> float | None:
    """The target is for 1,000 files; of fewer the start counts too much to say."""
    return seconds * options.files / 1000 if options.files >= 1000 else None


def unusable(options: argparse.Namespace, host: str, file: str) -> str:
    """Why a host cannot run a scenario here, or nothing."""
    argv = kvmscen(options.command, ["run", "--on", host, file])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=MOST_SECONDS)
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
    return "" if done.returncode == 0 else lines[-1]


def compiled(target: str) -> str:
    """Compile bare.c; why it cannot be, or nothing."""
    gcc = shutil.which("gcc") or shutil.which("cc")
    if gcc is None:
        return "there is no gcc"
    done = subprocess.run(
        [gcc, "-O2", "-Wall", "-o", target, str(HERE / "bare.c")], capture_output=True, text=True
    )
    if done.returncode:
        return done.stderr.strip()
    from kvmscen.sent.arch import x86_64

    theirs = subprocess.run(
        [target, "--tables", str(x86_64.TABLES_AT)], capture_output=True, check=True
    ).stdout
    return (
        ""
        if theirs == x86_64.tables(x86_64.TABLES_AT, ())
        else "bare.c makes other page tables than kvmscen"
    )


# --- the table ------------------------------------------------------------------------------------


def machine() -> str:
    """What the figures come from, in one line."""
    from kvmscen import __version__

    cpu = "CPU not named"
    if os.path.exists("/proc/cpuinfo"):
        names = [
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    modules = {"kvm_pvm": "PVM", "kvm_amd": "SVM", "kvm_intel": "VMX"}
    kind = next(
        (name for module, name in modules.items() if os.path.isdir(f"/sys/module/{module}")), ""
    )
    cores = len(os.sched_getaffinity(0))
    flavour = f" (KVM: {kind})" if kind else ""
    return (
        f"kvmscen {__version__}, {cpu}, {cores} core{'s' * (cores != 1)}, Linux "
        f"{platform.release()}{flavour}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )


def table(rows: Sequence[Row]) -> str:
    cells = [("", "target", "here", "met"), *(row.cells() for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(4)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files", type=count, default=1000, help="how many scenarios (default: 1000)"
    )
    parser.add_argument(
        "--rounds", type=count, default=5, help="how often each is measured (default: 5)"
    )
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="one part; may be given several times"
    )
    parser.add_argument(
        "--command",
        default=beside(),
        help="what to measure; empty: this tree (default: %(default)s)",
    )
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="kvmscen-bench-") as folder:
        for part in PARTS:
            if not options.only or part in options.only:
                say(f"{part} ...")
                rows += globals()[part](options, Path(folder))
    print(table(rows))
    print(f"\n{machine()}")


def beside() -> str:
    """The command installed beside this Python; empty: run the package with it."""
    command = Path(sys.executable).with_name("kvmscen")
    return str(command) if command.exists() else ""


if __name__ == "__main__":
    main()
