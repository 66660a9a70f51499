"""The C programs of the scenarios: compiled anew by the real gcc, linked by a real linker script,
run on the model.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCENARIOS = Path(__file__).parent.parent / "scenarios"
PROGRAMS = ("sort", "crc", "copy", "packed")
COMPILERS = {"arm64": "aarch64-linux-gnu-gcc", "x86_64": "x86_64-linux-gnu-gcc"}
BUILDS = [
    pytest.param(arch, marks=pytest.mark.skipif(not shutil.which(gcc), reason=f"no {gcc}"))
    for arch, gcc in COMPILERS.items()
]


def here(arch: str) -> bool:
    """Whether this machine's KVM runs it."""
    return platform.machine() == arch and os.access("/dev/kvm", os.R_OK | os.W_OK)


def run(folder: Path, *hosts: str) -> list[dict[str, Any]]:
    """The results of what lies in a folder, all of which must pass."""
    argv = [
        sys.executable,
        "-m",
        "kvmscen",
        "run",
        str(folder),
        *hosts,
        "--report",
        f"json={folder / 'report.json'}",
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results: list[dict[str, Any]] = json.loads((folder / "report.json").read_text())["results"]
    return results


def built(tmp_path: Path, arch: str) -> Path:
    """A copy of the sources, compiled: the folder with the scenario and programs/."""
    shutil.copytree(
        SCENARIOS / "programs", tmp_path / "programs", ignore=shutil.ignore_patterns("*.s")
    )
    shutil.copy(SCENARIOS / f"{arch}-programs.yaml", tmp_path)
    gcc = {"arm64": "ARM64", "x86_64": "X86_64"}[arch]
    targets = [f"{name}-{arch}.s" for name in PROGRAMS]
    subprocess.run(
        ["make", "-s", *targets, f"{gcc}={COMPILERS[arch]}"], cwd=tmp_path / "programs", check=True
    )
    return tmp_path


@pytest.mark.parametrize("arch", BUILDS)
def test_what_gcc_makes_of_them_today_runs_too(tmp_path: Path, arch: str) -> None:
    folder = built(tmp_path, arch)
    results = run(folder, "--on", "model")
    assert len(results) == 4
    for result in results:
        assert {row["section"] for row in result["accesses"]} == {".data", ".bss"}
        assert any(row["emulated"] for row in result["accesses"]) == (
            arch == "arm64" and result["case"] != "packed"
        )


def linked(folder: Path, arch: str, name: str) -> Path:
    gcc, out = COMPILERS[arch], folder / f"{name}.elf"
    script = folder / "programs" / "program.ld"
    argv = [
        gcc,
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-T",
        str(script),
        "-o",
        str(out),
    ]
    subprocess.run([*argv, str(folder / "programs" / f"{name}-{arch}.s")], check=True)
    return out


@pytest.mark.parametrize("arch", BUILDS)
def test_linked_with_data_in_the_hole_they_run_to_their_end(tmp_path: Path, arch: str) -> None:
    folder = built(tmp_path, arch)
    text = (folder / f"{arch}-programs.yaml").read_text()
    for name in PROGRAMS:
        linked(folder, arch, name)
        text = text.replace(f"asm: {{file: programs/{name}-{arch}.s}}", f"elf: {name}.elf")
    start = text.index("sections:")
    scenario = folder / "linked.yaml"
    scenario.write_text(text[:start] + text[text.index("regs:") :])
    (folder / f"{arch}-programs.yaml").unlink()
    assert text.count("elf:") == 4
    results = run(folder, "--on", "model", *(("--on", "kvm") if here(arch) else ()))
    assert len(results) == (8 if here(arch) else 4)
    for result in results:
        assert {row["section"] for row in result["accesses"]} == {".data", ".bss"}


@pytest.mark.kvm
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the x86_64 programs")
def test_kvm_and_the_model_count_the_same(tmp_path: Path) -> None:
    shutil.copytree(SCENARIOS / "programs", tmp_path / "programs")
    shutil.copy(SCENARIOS / "x86_64-programs.yaml", tmp_path)
    results = run(tmp_path, "--on", "kvm", "--on", "model")
    seen = {
        host: [r["accesses"] for r in results if r["host"] == host] for host in ("kvm", "model")
    }
    assert len(seen["kvm"]) == 4
    totals = {
        host: [sum(row["len"] * row["count"] for row in rows) for rows in all_rows]
        for host, all_rows in seen.items()
    }
    assert totals["kvm"] == totals["model"]
