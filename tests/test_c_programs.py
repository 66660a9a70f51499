"""The C programs of the scenarios: compiled anew by the real gcc, linked by a real linker script, run on the model."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from kvmscen.load import load
from kvmscen.machine import Bytes, Capability, Machine, Memslot, Vcpu
from kvmscen.model.predict import execute

SCENARIOS = Path(__file__).parent.parent / "scenarios"
PROGRAMS = ("sort", "crc", "copy")
CASES = {"sort": "default", "crc": "crc", "copy": "copy"}
COMPILERS = {"arm64": "aarch64-linux-gnu-gcc", "x86_64": "x86_64-linux-gnu-gcc"}
BUILDS = [
    pytest.param(arch, marks=pytest.mark.skipif(not shutil.which(gcc), reason=f"no {gcc}")) for arch, gcc in COMPILERS.items()
]


def built(tmp_path: Path, arch: str) -> Path:
    """A copy of the sources, compiled: the folder with the scenario and programs/."""
    shutil.copytree(SCENARIOS / "programs", tmp_path / "programs", ignore=shutil.ignore_patterns("*.s"))
    shutil.copy(SCENARIOS / f"{arch}-programs.yaml", tmp_path)
    gcc = {"arm64": "ARM64", "x86_64": "X86_64"}[arch]
    targets = [f"{name}-{arch}.s" for name in PROGRAMS]
    subprocess.run(["make", "-s", *targets, f"{gcc}={COMPILERS[arch]}"], cwd=tmp_path / "programs", check=True)
    return tmp_path


@pytest.mark.parametrize("arch", BUILDS)
def test_what_gcc_makes_of_them_today_runs_too(tmp_path: Path, arch: str) -> None:
    folder = built(tmp_path, arch)
    argv = [sys.executable, "-m", "kvmscen", "run", str(folder), "--on", "model", "--report", f"json={folder / 'report.json'}"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((folder / "report.json").read_text())["results"]
    assert len(results) == 3
    for result in results:
        assert {row["section"] for row in result["accesses"]} == {".data", ".bss"}
        assert any(row["emulated"] for row in result["accesses"]) == (arch == "arm64")


def linked(folder: Path, arch: str, name: str) -> Path:
    gcc, out = COMPILERS[arch], folder / f"{name}.elf"
    script = folder / "programs" / "program.ld"
    argv = [gcc, "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-T", str(script), "-o", str(out)]
    subprocess.run([*argv, str(folder / "programs" / f"{name}-{arch}.s")], check=True)
    return out


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.skipif(not shutil.which(COMPILERS["arm64"]), reason="no gcc for arm64")
def test_linked_with_data_in_the_hole_it_runs_to_its_end(tmp_path: Path, name: str) -> None:
    elf = ELFFile(linked(built(tmp_path, "arm64"), "arm64", name).open("rb"))
    symbols = {symbol.name: symbol["st_value"] for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
    image, devices = [], []
    for section in elf.iter_sections():
        if section["sh_flags"] & 2 and section["sh_size"]:
            data = b"" if section["sh_type"] == "SHT_NOBITS" else section.data()
            where = devices if section["sh_addr"] >= 0x100000 else image
            where.append(Bytes(section["sh_addr"], data, section["sh_size"]))
    assert devices[0].gpa == 0x100000
    checks = next(case for case in load(str(SCENARIOS / "arm64-programs.yaml")).cases if case.name == CASES[name]).final
    assert checks is not None
    wanted = {symbols[check.at.symbol or ""] + check.at.offset: check for check in checks.memory}
    regs = {"pc": elf["e_entry"], "sp_el1": 0x4000, "cpacr_el1": 3 << 20}
    machine = Machine(
        "arm64",
        (Memslot(0, 0, 0x4000),),
        tuple(image),
        tuple(devices),
        (Vcpu(0, "el1", regs, ("psci_0_2",), None),),
        enable=(Capability("KVM_CAP_ARM_NISV_TO_USER", 177),),
        observe_memory=tuple((at, 8) for at in wanted),
        timeout=60.0,
        exits=100_000,
        undecoded="emulate",
    )
    seen = execute(machine)
    assert (seen.events[-1].name, seen.unpredicted) == ("system_event", None)
    for at, check in wanted.items():
        if check.unit in ("u64", "u32") and not isinstance(check.values, bytes):
            size = int(check.unit[1:]) // 8
            assert int.from_bytes(seen.memory[at][:size], "little") == check.values[0].offset % (1 << 8 * size)  # type: ignore[union-attr]


@pytest.mark.kvm
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the x86_64 programs")
def test_kvm_and_the_model_count_the_same(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    argv = ["run", str(SCENARIOS / "x86_64-programs.yaml"), "--on", "kvm", "--on", "model", "--report", f"json={report}"]
    subprocess.run([sys.executable, "-m", "kvmscen", *argv], check=True, capture_output=True)
    results = json.loads(report.read_text())["results"]
    seen = {host: [r["accesses"] for r in results if r["host"] == host] for host in ("kvm", "model")}
    assert len(seen["kvm"]) == 3
    totals = {host: [sum(row["len"] * row["count"] for row in rows) for rows in all_rows] for host, all_rows in seen.items()}
    assert totals["kvm"] == totals["model"]
