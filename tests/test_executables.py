"""Programs compiled by the real gcc run from `elf:`, on the real KVM where it is there; exits are
told by symbol and line.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvmscen.asm import Executable, from_elf
from kvmscen.errors import ScenarioError

ROOT = Path(__file__).resolve().parent.parent
GUEST = """\
volatile unsigned long counter = 5;
volatile unsigned int zeros[4];
static const char text[] = "hi";
const char *message = text;

static void stop(void)
{
#ifdef __x86_64__
\tasm volatile("hlt");
#elif defined(__riscv)
\tasm volatile("wfi");
#else
\tregister unsigned long x0 asm("x0") = 0x84000008;
\tasm volatile("hvc #0" : : "r"(x0));
#endif
\tfor (;;) ;
}

__attribute__((noinline)) static void add(unsigned long n)
{
\tcounter += n;
}

void _start(void)
{
\tadd(message[0] - 'h' + 2);
\tzeros[1] = counter;
\tstop();
}
"""
ADD = GUEST.split("\n").index("\tcounter += n;") + 1
COMPILERS = {
    "x86_64": "gcc" if os.uname().machine == "x86_64" else "x86_64-linux-gnu-gcc",
    "arm64": "aarch64-linux-gnu-gcc",
}
COMPILERS["riscv64"] = "riscv64-linux-gnu-gcc"
OWN = {
    "x86_64": ["-mgeneral-regs-only"],
    "arm64": ["-mgeneral-regs-only", "-mstrict-align"],
    "riscv64": [],
}
FLAGS = [
    "-O2",
    "-g",
    "-ffreestanding",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-fno-stack-protector",
    "-fcf-protection=none",
]
SCENARIO = """\
arch: {arch}
memslots: [{{slot: 0, gpa: 0x1000, size: 0x3000}}]
regs: {{{stack}: 0x4000}}
elf: guest.elf
expect:
  - mmio: {{phys_addr: message, is_write: false, len: 8}}
  - mmio: {{phys_addr: counter, is_write: false, len: 8}}
  - mmio: {{phys_addr: counter, is_write: true, len: 8, data: 7}}
  - mmio: {{phys_addr: counter, is_write: false, len: 8}}
  - mmio: {{phys_addr: zeros + 4, is_write: true, len: 4, data: {data}}}
  - {end}
final: {{memory: {{counter: 7, zeros: {{u32: [0, 7]}}}}}}
"""
STACKS = {"x86_64": "rsp", "arm64": "sp_el1", "riscv64": "sp"}
END = {"riscv64": "timeout: 0.1", "x86_64": "hlt", "arm64": "system_event: {type: shutdown}"}


def scenario(arch: str, data: int = 7) -> str:
    return SCENARIO.format(arch=arch, stack=STACKS[arch], data=data, end=END[arch])


def compiled(folder: Path, arch: str, *more: str) -> Path:
    """guest.elf in a folder: .text at one address, .data and .bss outside every memslot."""
    compiler = COMPILERS[arch]
    if shutil.which(compiler) is None:
        pytest.skip(f"NOT TESTED: {compiler} is not installed")
    (folder / "guest.c").write_text(GUEST)
    flags = [*FLAGS, *OWN[arch]]
    flags = [flag for flag in flags if arch == "x86_64" or not flag.startswith("-fcf")]
    command = [
        compiler,
        *flags,
        "-Wl,-Ttext=0x1000,-Tdata=0x8000",
        *more,
        "-o",
        "guest.elf",
        "guest.c",
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
    return folder / "guest.elf"


def kvmscen(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("KVMSCEN_")
    }
    command = [sys.executable, "-m", "kvmscen", *arguments]
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600
    )


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_on_the_model(arch: str, tmp_path: Path) -> None:
    compiled(tmp_path, arch)
    (tmp_path / "s.yaml").write_text(scenario(arch))
    done = kvmscen("run", str(tmp_path / "s.yaml"), "--on", "model", cwd=Path("/"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arch", COMPILERS)
def test_what_it_needs_is_there_on_each_architecture(arch: str, tmp_path: Path) -> None:
    compiled(tmp_path, arch)
    (tmp_path / "s.yaml").write_text(scenario(arch))
    done = kvmscen("check", str(tmp_path / "s.yaml"), cwd=Path("/"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.kvm
def test_on_kvm(tmp_path: Path) -> None:
    compiled(tmp_path, "x86_64")
    (tmp_path / "s.yaml").write_text(scenario("x86_64"))
    done = kvmscen("run", "s.yaml", "--on", "kvm", "--record", "kept", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        kvmscen(
            "run", str(tmp_path / "s.yaml"), "--on", f"replay:{tmp_path}/kept", cwd=Path("/")
        ).returncode
        == 0
    )


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_reports_tell_symbol_offset_and_source_line(arch: str, tmp_path: Path) -> None:
    compiled(tmp_path, arch)
    (tmp_path / "s.yaml").write_text(scenario(arch, data=8))
    line = GUEST.split("\n").index("\tzeros[1] = counter;") + 1
    done = kvmscen(
        "run",
        "s.yaml",
        "--on",
        "model",
        "--report",
        "json=r.json",
        "--report",
        "junit=r.xml",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    for told in (done.stdout, (tmp_path / "r.xml").read_text()):
        assert re.search(rf"at _start \+ 0x[0-9a-f]+ \(guest\.c:{line}\)", told)
    assert (
        "mmio: {phys_addr: zeros + 4, is_write: true, len: 4, data: 7}"
        in (tmp_path / "r.xml").read_text()
    )
    (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
    sources = [event["source"] for event in result["events"]]
    assert len(sources) == 6
    assert any(
        re.match(rf"add( \+ 0x[0-9a-f]+)? \(guest\.c:{ADD}\)$", source) for source in sources[1:3]
    )
    assert re.match(rf"_start \+ 0x[0-9a-f]+ \(guest\.c:{line}\)$", sources[4])


def test_show_lists_source_lines(tmp_path: Path) -> None:
    compiled(tmp_path, "arm64")
    (tmp_path / "s.yaml").write_text(scenario("arm64"))
    shown = kvmscen("show", "s.yaml", cwd=tmp_path).stdout
    assert re.search(r"^0x8000 .* section \.data, outside every memslot", shown, re.MULTILINE)
    assert re.search(rf"^0x[0-9a-f]+ +[0-9a-f]+ +guest\.c:{ADD} +add", shown, re.MULTILINE)
    assert re.search(r"^0x8\w+ +[0-9a-f]+ +counter$", shown, re.MULTILINE)
    rows = json.loads(kvmscen("show", "--json", "s.yaml", cwd=tmp_path).stdout)["cases"][0][
        "listing"
    ]
    assert {row.get("file") for row in rows} == {"guest.c", None}


def test_without_debug_information_and_without_symbols(tmp_path: Path) -> None:
    elf = compiled(tmp_path, "x86_64", "-g0")
    program = from_elf("x86_64", 64, Executable(elf.read_bytes(), "guest.elf", "s.yaml", 1, 1), ())
    assert program.debug == ()
    assert "add" in [line.text for line in program.lines]
    stripped = compiled(tmp_path, "x86_64", "-s").read_bytes()
    program = from_elf("x86_64", 64, Executable(stripped, "guest.elf", "s.yaml", 1, 1), ())
    assert (program.lines[0].text, program.entry) == (".text", program.symbols["_start"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-c"], "is not linked yet: link it"),
        (["-shared", "-fPIC"], "is a shared object or a position-independent executable"),
        (["-static-pie", "-fPIE"], "is a shared object or a position-independent executable"),
    ],
)
def test_what_gcc_makes_besides(flags: list[str], message: str, tmp_path: Path) -> None:
    compiled(tmp_path, "arm64")
    kept = [flag for flag in FLAGS if flag not in ("-static", "-no-pie", "-fcf-protection=none")]
    subprocess.run(
        [COMPILERS["arm64"], *kept, *flags, "-o", "guest.elf", "guest.c"],
        cwd=tmp_path,
        check=True,
        timeout=600,
    )
    (tmp_path / "s.yaml").write_text(scenario("arm64"))
    done = kvmscen("check", "s.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert f"s.yaml:4:6: `guest.elf` {message}" in done.stdout + done.stderr


def test_a_compiled_file_that_is_damaged(tmp_path: Path) -> None:
    good = compiled(tmp_path, "arm64").read_bytes()
    chance = random.Random(4)
    for round_number in range(120):
        raw = bytearray(good)
        # Headers, symbols and debug information are towards the end.
        for _ in range(chance.randint(1, 20)):
            at = chance.choice(
                (
                    chance.randrange(64),
                    chance.randrange(len(raw)),
                    chance.randrange(len(raw) - 4000, len(raw)),
                )
            )
            raw[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        cut = len(raw) if round_number % 3 else chance.randrange(len(raw))
        try:
            from_elf("arm64", 64, Executable(bytes(raw[:cut]), "guest.elf", "s.yaml", 1, 1), ())
        except ScenarioError as error:
            said = str(error)
            assert said.startswith("s.yaml:1:1: `guest.elf` "), said
