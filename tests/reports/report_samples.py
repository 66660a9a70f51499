"""Runs made by hand, as the engine makes them: what the reports are tested with."""

from __future__ import annotations

from kvmscen.errors import Problem
from kvmscen.results.result import AccessTally, Mismatch, Result, Run, StoryRow
from kvmscen.sent.observation import Event, Observation

FILE = "scenarios/arm64-post-index.yaml"
STARTED = 1795422600.25
MACHINE = "sha256:" + "0123456789abcdef" * 4
HINT = (
    "the access has no valid syndrome (ESR_EL2.ISV = 0), so KVM cannot decode it and KVM_RUN "
    "fails; "
    "with KVM_CAP_ARM_NISV_TO_USER it is an arm_nisv exit"
)
SOURCES = ("15: str  xzr, [x2]", "16: str  xzr, [x2, #8]", "17: str  xzr, [x2], #8")


def mmio(address: int, data: int = 0) -> str:
    return (
        f"mmio: {{phys_addr: {address:#x}, is_write: true, len: 8, data: {data:#x}}}"
        if data
        else (f"mmio: {{phys_addr: {address:#x}, is_write: true, len: 8, data: 0}}")
    )


ENOSYS = "error: {ioctl: KVM_RUN, errno: ENOSYS}"


def store(address: int, pc: int) -> Event:
    return Event(
        0, "exit", "mmio", {"phys_addr": address, "is_write": True, "len": 8, "data": 0}, pc
    )


def same(line: int, text: str, source: str = "") -> StoryRow:
    return StoryRow(" ", line, text, text, (), source)


def post_index(**changes: object) -> Result:
    """The founding scenario as it passes."""
    values: dict[str, object] = {
        "file": FILE,
        "scenario": "arm64-post-index",
        "case": "default",
        "line": 2,
        "summary": "A post-indexed store outside every memslot leaves KVM no syndrome to decode.",
        "arch": "arm64",
        "host": "model",
        "kernel": None,
        "predicted": True,
        "status": "PASS",
        "elapsed": 0.0041,
        "rows": (
            same(24, mmio(0x5000), SOURCES[0]),
            same(25, mmio(0x5008), SOURCES[1]),
            same(26, ENOSYS, SOURCES[2]),
        ),
        "machine": MACHINE,
        "observation": Observation(
            "error",
            (
                store(0x5000, 4),
                store(0x5008, 8),
                Event(0, "error", "ENOSYS", {"ioctl": "KVM_RUN"}, 12),
            ),
            {"x2": 0x5000, "pc": 12},
            {0x5000: bytes(16)},
            0.0009,
        ),
        "memory": {0x5000: {"u64": [1, 2]}},
    }
    return Result(**{**values, **changes})  # type: ignore[arg-type]


def enosys(**changes: object) -> Result:
    """A third mmio was expected, ENOSYS was seen."""
    values: dict[str, object] = {
        "status": "FAIL",
        "host": "ssh:pi@raspberrypi",
        "kernel": "6.1.21-v8+",
        "predicted": False,
        "mismatches": (Mismatch(3, 26, mmio(0x5000), ENOSYS),),
        "rows": (
            same(24, mmio(0x5000), SOURCES[0]),
            same(25, mmio(0x5008), SOURCES[1]),
            StoryRow("!", 26, mmio(0x5000), ENOSYS, ("exit",), SOURCES[2]),
        ),
        "hint": HINT,
    }
    return post_index(**{**values, **changes})


def x86(case: str = "default", status: str = "PASS", **changes: object) -> Result:
    values: dict[str, object] = {
        "file": "scenarios/x86-io.yaml",
        "scenario": "x86-io",
        "case": case,
        "line": 3 if case == "default" else 30,
        "summary": "",
        "arch": "x86_64",
        "host": "kvm",
        "kernel": "6.1.0-18-amd64",
        "predicted": False,
        "status": status,
        "elapsed": 0.0023,
        "machine": MACHINE,
        "observation": Observation(
            "expected",
            (
                Event(
                    0,
                    "exit",
                    "io",
                    {"direction": 1, "size": 1, "port": 0x3F8, "count": 1, "data": 0x41},
                    0x1003,
                ),
                Event(0, "exit", "hlt", {}, 0x1004),
            ),
            {"rax": 0x41, "rip": 0x1004},
            {},
            0.001,
        ),
    }
    return Result(**{**values, **changes})  # type: ignore[arg-type]


def io(data: int) -> str:
    return f"io: {{direction: out, port: 0x3f8, size: 1, data: {data:#x}}}"


def data_and_regs() -> Result:
    """A wrong byte, a wrong register, a missing exit and one too many."""
    return x86(
        "letters",
        "FAIL",
        mismatches=(
            Mismatch(2, 34, io(0x42), io(0x62)),
            Mismatch(3, 35, io(0x43), None),
            Mismatch(0, 0, None, "shutdown: {}"),
            Mismatch(0, 41, "final rbx: 2", "final rbx: 1"),
        ),
        rows=(
            same(33, io(0x41), "18: out %al, %dx"),
            StoryRow(
                "~",
                0,
                "",
                "io: {direction: out, port: 0x80, size: 1, data: 0}",
                (),
                "19: out %al, $0x80",
            ),
            StoryRow("!", 34, io(0x42), io(0x62), ("data", "regs.rbx"), "21: out %al, %dx"),
            StoryRow("-", 35, io(0x43), ""),
            same(36, "hlt: {}", "25: hlt"),
            StoryRow("+", 0, "", "shutdown: {}", (), "26: ud2"),
        ),
    )


def repeated(differs: bool = True) -> Result:
    """A step repeated 1,000 times, one of which, or all of which, differ."""
    right = "mmio: {phys_addr: 0x5000, is_write: true, len: 4}"
    wrong = "mmio: {phys_addr: 0x5000, is_write: true, len: 2}"
    rows = [same(20, right, "12: movl %eax, counter") for _ in range(1000)]
    where = (500,) if differs else range(1000)
    for number in where:
        rows[number] = StoryRow("!", 20, right, wrong, ("len",), "12: movl %eax, counter")
    return x86("loop", "FAIL", mismatches=(Mismatch(1, 20, right, wrong),), rows=tuple(rows))


def skipped(**changes: object) -> Result:
    values: dict[str, object] = {
        "reason": "the host lacks KVM_CAP_X86_USER_SPACE_MSR",
        "observation": None,
        "machine": None,
    }
    return x86(**{"case": "msr", "status": "SKIP", "elapsed": 0.0, **values, **changes})  # type: ignore[arg-type]


def broken() -> Result:
    return x86(
        "crash",
        "ERROR",
        reason="the agent ended by SIGSEGV\nlast lines of its console:\n\x1b[31mSegmentation "
        "fault\x1b[0m",
        observation=None,
        elapsed=0.25,
    )


def xfailed() -> Result:
    return post_index(
        case="sign-extend", status="XFAIL", line=40, reason="ldrsw was zero-extended before v7.2"
    )


def xpassed() -> Result:
    return post_index(
        case="ldrsb",
        status="XPASS",
        line=52,
        reason="the known wrong outcome is gone: ldrsb was zero-extended before v7.2",
        host="qemu:arm64@7.2",
        kernel="7.2.0-arm64",
        flavour="vhe",
        predicted=False,
    )


def timed_out() -> Result:
    return x86(
        "spin",
        "FAIL",
        mismatches=(Mismatch(1, 12, "hlt: {}", None),),
        rows=(StoryRow("-", 12, "hlt: {}", ""), StoryRow("+", 0, "", "timeout: 5", (), "9: jmp .")),
        observation=Observation(
            "timeout",
            (Event(0, "timeout", "", {"timeout": 5.0}, 0x1000),),
            {"rip": 0x1000},
            {},
            5.0,
            "no exit within 5 s",
        ),
        elapsed=5.02,
    )


PROBLEMS = (
    Problem(
        "scenarios/wrong.yaml",
        7,
        14,
        "0o17 is read differently by different YAML readers: write 15 or 0xf",
    ),
    Problem("scenarios/wrong.yaml", 9, 3, "no key `memslot` here: `memslots`"),
    Problem("scenarios/empty.yaml", 0, 0, "the file is empty"),
)


def run(
    *results: Result, problems: tuple[Problem, ...] = (), elapsed: float = 0.84, **changes: object
) -> Run:
    return Run("20261123T083000-4f2a", STARTED, "0.1.0", results, problems, elapsed, **changes)  # type: ignore[arg-type]


def nisv(**changes: object) -> Result:
    row = "arm_nisv: {fault_ipa: 0x5000, esr_iss: 0x47}"
    rows = (
        same(32, mmio(0x5000), SOURCES[0]),
        same(33, mmio(0x5008), SOURCES[1]),
        same(34, row, SOURCES[2]),
    )
    return post_index(**{"case": "nisv-to-user", "line": 28, "rows": rows, **changes})


def emulated() -> Result:
    part = {"phys_addr": 0x5000, "len": 8, "is_write": True, "data": 3}
    event = Event(
        0,
        "exit",
        "arm_nisv",
        {"esr_iss": 0x47, "fault_ipa": 0x5000, "accesses": [part], "emulated": True},
        8,
    )
    lost = Event(
        0, "exit", "mmio", {"phys_addr": 0x5008, "is_write": False, "len": 1, "corrected": True}, 12
    )
    observation = Observation(
        "end",
        (event, lost),
        {"x2": 0x5008, "pc": 16},
        {},
        0.0009,
        notes=("KVM lost a sign (1 reply)",),
    )
    tallies = [
        AccessTally(".data", f"table{n}", "read", 8, n % 2 == 0, 3000 + n) for n in range(22)
    ]
    tallies.append(AccessTally(None, None, "write", 1, False, 1))
    return nisv(
        case="carried-out", observation=observation, rows=(), memory={}, accesses=tuple(tallies)
    )


def hosts() -> Run:
    """Three cases on four hosts."""
    results = []
    for host, kernel in (
        ("ssh:pi@raspberrypi", "6.1.21-v8+"),
        ("qemu:arm64@6.1", "6.1.0-18-arm64"),
        ("qemu:arm64@7.2", "7.2.0-arm64"),
        ("model", None),
    ):
        on = {
            "host": host,
            "kernel": kernel,
            "predicted": host == "model",
            "flavour": "vhe" if kernel else None,
        }
        results.append(post_index(**on))
        results.append(
            enosys(case="mmio-only", **on)
            if host != "model"
            else post_index(case="mmio-only", **on)
        )
        results.append(
            nisv(
                **on,
                **(
                    {"status": "SKIP", "reason": "the host lacks KVM_CAP_ARM_NISV_TO_USER"}
                    if kernel == "6.1.21-v8+"
                    else {}
                ),
            )
        )
    return run(*results)


def thousand() -> Run:
    """1,000 cases with a few that are not as they should be."""
    results = []
    for number in range(1000):
        case = f"form-{number:04}"
        if number in (17, 503):
            results.append(enosys(case=case))
        elif number == 700:
            results.append(broken())
        elif 300 <= number < 340:
            results.append(skipped(case=case))
        else:
            results.append(x86(case))
    return run(*results, elapsed=1.9)


RUNS: dict[str, Run] = {
    "founding": run(post_index(), nisv()),
    "enosys": run(enosys()),
    "mixed": run(
        post_index(),
        x86(),
        data_and_regs(),
        skipped(),
        broken(),
        xfailed(),
        xpassed(),
        timed_out(),
        problems=PROBLEMS,
    ),
    "hosts": hosts(),
    "repeated": run(repeated(), repeated(differs=False)),
    "thousand": thousand(),
    "wrong": run(problems=PROBLEMS, elapsed=0.11),
    "nothing": run(elapsed=0.02),
    "skipped": run(skipped(), skipped(case="msr-write")),
    "emulated": run(emulated(), emulated()),
    "interrupted": run(x86(), interrupted=True),
}
