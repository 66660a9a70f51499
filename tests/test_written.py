"""Reports, recordings and baselines, by the program as it is started: whole or not at all, and
named for what it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "tests" / "cases" / "security"
SCENARIO = "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x1000}]\nasm: hlt\nexpect: [hlt]\n"


def kvmscen(
    *arguments: object, before: str = "", cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """One run of the program; `before` is a shell's line that mounts something, in a mount
    namespace of its own.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KVMSCEN_")} | {
        "PYTHONPATH": str(ROOT)
    }
    command = [sys.executable, "-m", "kvmscen", *map(str, arguments)]
    if before:
        own = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m", "sh", "-c"]
        if subprocess.run([*own, "mount -t tmpfs none /mnt"], capture_output=True).returncode:
            pytest.skip("no file system can be mounted here, not even in a namespace of its own")
        command = [*own, f'{before} && "$@"', "sh", *command]
    return subprocess.run(
        command,
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "a.yaml"
    file.write_text(SCENARIO + "cases:\n  one: {summary: one}\n  two: {summary: two}\n")
    return file


@pytest.mark.parametrize("name", ["text", "json", "junit", "ktap"])
def test_a_report_that_cannot_be_written(name: str, scenario: Path) -> None:
    done = kvmscen("run", scenario, "--on", "model", "--report", f"{name}=/dev/full")
    assert (done.returncode, done.stderr) == (
        3,
        "kvmscen: /dev/full could not be written: No space left on device\n",
    )
    assert "3 passed" in done.stdout
    done = kvmscen(
        "run",
        scenario,
        "--on",
        "model",
        "--report",
        f"{name}=/proc/no",
        "--report",
        "ktap=kept",
        cwd=scenario.parent,
    )
    assert done.returncode == 3
    assert "/proc/no could not be written: " in done.stderr
    assert (scenario.parent / "kept").read_text().startswith("KTAP")


def test_a_full_disk(scenario: Path) -> None:
    full = (
        "mount -t tmpfs -o size=16k,nr_inodes=20 none /mnt && echo old > /mnt/report && head "
        "-c 12288 /dev/zero > /mnt/fill"
    )
    show = f'{full} && trap "ls -A /mnt; cat /mnt/report" EXIT'
    done = kvmscen("run", scenario, "--on", "model", "--report", "json=/mnt/report", before=show)
    assert done.returncode == 3
    assert "kvmscen: /mnt/report could not be written: No space left on device" in done.stderr
    assert done.stdout.endswith("fill\nreport\nold\n")
    # The run goes on, and what was kept is whole.
    show = f'{full} && trap "ls -A /mnt/kept; cat /mnt/kept/*" EXIT'
    done = kvmscen("run", scenario, "--on", "model", "--record", "/mnt/kept", before=show)
    assert done.returncode == 3
    assert "3 passed" in done.stdout
    assert "kvmscen: --record /mnt/kept: No space left on device: a:" in done.stderr
    assert ".part" not in done.stdout
    done = kvmscen(
        "run",
        scenario,
        "--on",
        "model",
        "--record",
        "/mnt/kept",
        before="mount -t tmpfs -o ro none /mnt",
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "kvmscen: --record /mnt/kept: Read-only file system" in done.stderr


def test_a_folder_that_is_a_file_is_wrong_usage(scenario: Path) -> None:
    done = kvmscen("run", scenario, "--on", "model", "--record", scenario)
    assert (done.returncode, done.stderr) == (2, f"kvmscen: --record {scenario}: File exists\n")


def test_a_report_to_a_pipe_and_to_standard_output(scenario: Path, tmp_path: Path) -> None:
    for name in ("/dev/stdout", "/proc/self/fd/1"):
        done = kvmscen("run", scenario, "--on", "model", "--report", f"json={name}")
        assert done.returncode == 0
        # The screen is there too: the report was not asked for as what goes to standard output.
        assert json.loads(done.stdout[done.stdout.index('{"format"') :])["summary"]["PASS"] == 3
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        assert (
            kvmscen(
                "run", scenario, "--on", "model", "--report", f"json={tmp_path / 'pipe'}"
            ).returncode
            == 0
        )
        assert json.loads(reader.communicate()[0])["summary"]["PASS"] == 3


def test_cases_of_long_and_like_names_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text((CASES / "longcase.yaml").read_text())
    many = ["a+b", "a-b", "c" * 250 + "x", "c" * 250 + "y"]
    (tmp_path / "like.yaml").write_text(
        SCENARIO + "cases:\n" + "".join(f"  {name}: {{summary: x}}\n" for name in many)
    )
    files = [tmp_path / "long.yaml", tmp_path / "like.yaml"]
    done = kvmscen("run", *files, "--on", "model", "--record", tmp_path / "kept")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "kept").iterdir())) == 7
    done = kvmscen("run", *files, "--on", f"replay:{tmp_path / 'kept'}")
    assert done.returncode == 0
    assert "7 passed" in done.stdout


def test_a_damaged_recording_of_a_folder(scenario: Path, tmp_path: Path) -> None:
    assert kvmscen("run", scenario, "--on", "model", "--record", tmp_path / "kept").returncode == 0
    recording = next((tmp_path / "kept").glob("a-one-*"))
    recording.write_bytes(recording.read_bytes()[:-20])
    done = kvmscen(
        "run",
        scenario,
        "--on",
        f"replay:{tmp_path / 'kept'}",
        "--report",
        f"json={tmp_path / 'json'}",
    )
    assert done.returncode == 3
    assert f"{recording}:0:0: this recording is not replayed" in done.stdout
    told = {
        result["case"]: result for result in json.loads((tmp_path / "json").read_text())["results"]
    }
    assert {case: result["status"] for case, result in told.items()} == {
        "default": "PASS",
        "one": "ERROR",
        "two": "PASS",
    }
    assert (
        told["one"]["reason"]
        == f"{recording}, which may be the recording of this case, is damaged: record it again"
    )


def test_a_baseline(scenario: Path, tmp_path: Path) -> None:
    done = kvmscen("measure", scenario, "--against", "x" * 300, XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "the name of a baseline has 200 characters at most, this one 300" in done.stderr
    folder = tmp_path / "kvmscen" / "baselines"
    folder.mkdir(parents=True)
    head = '{"format": "kvmscen-baseline", "version": 1, "kinds": [{"medians_ns": [1, 1, 1, 1, '
    for wrong in (
        "",
        "[" * 100_000,
        "null",
        "[1]",
        '{"format": []}',
        head + "1e999",
        head + "NaN",
        head + "1" * 5000,
        '{"kinds": 1}',
    ):
        (folder / "x.json").write_text(wrong + "]}]}" * wrong.startswith(head))
        done = kvmscen("measure", scenario, "--against", "x", XDG_STATE_HOME=str(tmp_path))
        assert done.returncode == 2, wrong
        assert done.stderr.startswith("kvmscen: "), done.stderr
        assert "Traceback" not in done.stderr
