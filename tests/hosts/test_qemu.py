"""The `qemu` hosts: real packages, a real QEMU, a real kernel with KVM inside. The prepared host lies in the user's cache."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "qemu:arm64@6.1"


def kvmscen(*arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "kvmscen", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=seconds)


def run(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    """The results of a run, with its output where there are none."""
    report = tmp_path / "report.json"
    done = kvmscen("run", *arguments, "--report", f"json={report}")
    results = json.loads(report.read_text())["results"]
    assert results, done.stdout + done.stderr
    return list(results)


@pytest.fixture(scope="session")
def arm64() -> str:
    """A prepared arm64 host."""
    done = kvmscen("host", "prepare", HOST)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{HOST}: ready, kernel 6.1.")
    return HOST


@pytest.mark.qemu
def test_the_founding_scenario(arm64: str, tmp_path: Path) -> None:
    results = run(tmp_path, "scenarios/arm64-mmio.yaml", "--on", arm64)
    assert [result["status"] for result in results] == ["PASS", "PASS"]
    assert {result["host"] for result in results} == {arm64}
    assert all(result["kernel"].startswith("6.1.") and not result["predicted"] for result in results)
    plain, told = ([event.get("exit", event.get("error")) for event in result["events"]] for result in results)
    assert (plain, told) == (["mmio", "mmio", "ENOSYS"], ["mmio", "mmio", "arm_nisv"])


@pytest.mark.qemu
def test_every_arm64_scenario_is_as_the_model_says(arm64: str, tmp_path: Path) -> None:
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "scenarios").glob("arm64-*.yaml"))
    results = run(tmp_path, *files, "--on", arm64, "--on", "model@6.1")
    told: dict[tuple[str, str], dict[bool, str]] = {}
    for result in results:
        told.setdefault((result["scenario"], result["case"]), {})[result["predicted"]] = result["status"]
    assert len(told) > 380
    assert {status for one in told.values() for status in one.values()} == {"PASS", "XFAIL", "SKIP"}
    # What the machine's CPU or the model lacks is skipped there; what both ran came out alike.
    ran = [one for one in told.values() if "SKIP" not in one.values()]
    assert len(ran) > 380
    assert [one for one in ran if one[True] != one[False]] == []


@pytest.mark.qemu
def test_timeouts_end_on_a_machine_that_goes_on_from_a_snapshot(arm64: str, tmp_path: Path) -> None:
    # Its EL2 timer is not in the snapshot.
    for _ in range(2):
        results = run(tmp_path, "scenarios/arm64-loop.yaml", "--on", arm64)
        assert [result["status"] for result in results] == ["PASS", "PASS"]


@pytest.mark.qemu
def test_the_prepared_host_is_listed(arm64: str) -> None:
    row = next(line.split() for line in kvmscen("host", "list").stdout.splitlines() if line.startswith(f"{arm64} "))
    assert row[1].startswith("6.1.")
    assert row[3] == "MB"


def test_a_host_that_is_not_prepared_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = kvmscen("run", "scenarios/arm64-mmio.yaml", "--on", "qemu:arm64@6.1")
    assert done.returncode == 3
    assert "host qemu:arm64@6.1 is not prepared: kvmscen host prepare qemu:arm64@6.1" in done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qemu:arm", "there is no host 'qemu:arm'; qemu hosts are qemu:arm64"),
        ("qemu:arm64@six", "a KERNEL is a series as 6.1, newest, or the path of an image, not 'six'"),
        ("qemu:arm64@6.1,cpus=3", "options are cpu=NAME, not 'cpus=3'"),
        ("qemu:arm64,cpu=", "options are cpu=NAME, not 'cpu'"),
    ],
)
def test_names_that_are_none(name: str, said: str) -> None:
    done = kvmscen("run", "scenarios/arm64-mmio.yaml", "--on", name)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_list_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = kvmscen("host", "list")
    assert (done.returncode, done.stdout) == (0, "no host is prepared (kvmscen host prepare qemu:arm64)\n")
    assert kvmscen("host", "remove", "qemu:arm64@6.1").returncode == 2
