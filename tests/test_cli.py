"""The command line as a user meets it: real processes, real files, and the real /dev/kvm where
there is one.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import pytest

from kvmscen.hosts import HOSTS

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ROOT / "scenarios"

FOUNDING = (SCENARIOS / "arm64-mmio.yaml").read_text()
X86 = """\
summary: One store and a halt.
arch: x86_64
memslots:
  - {slot: 0, gpa: 0x0, size: 0x1000}
sections: {.text: 0x0, .data: 0x5000}
asm: |
  _start:
      mov  rbx, offset counter
      mov  qword ptr [rbx], 7
      hlt
  .data
  counter: .quad 1
expect:
  - mmio: {phys_addr: counter, is_write: true, len: 8, data: 7}
  - hlt
"""
LOOP = """\
summary: An endless loop.
arch: x86_64
memslots:
  - {slot: 0, gpa: 0x0, size: 0x1000}
asm: |
  _start:
      nop
  again:
      jmp  again
expect:
  - hlt
limits: {timeout: 0.2}
"""


def kvmscen(
    *arguments: object, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One run of the program, as a process of its own."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("KVMSCEN_")
    } | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "kvmscen", *map(str, arguments)],
        cwd=cwd,
        env=environment | (env or {}),
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )


def report(*arguments: object, cwd: Path = ROOT) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON report of a run."""
    done = kvmscen("run", *arguments, "--report", "json", cwd=cwd)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


# --- the founding question ------------------------------------------------------------------------


def test_the_founding_scenario_on_the_model() -> None:
    status, told = report("scenarios/arm64-mmio.yaml", "--on", "model")
    assert status == 0
    default, nisv = told["results"]
    assert [
        (e.get("exit"), e.get("phys_addr"), e.get("error"), e["pc"]) for e in default["events"]
    ] == [
        ("mmio", 0x5000, None, 4),
        ("mmio", 0x5008, None, 8),
        (None, None, "ENOSYS", 12),
    ]
    assert default["events"][2]["ioctl"] == "KVM_RUN"
    source = "17: str  xzr, [x2], #8"
    assert nisv["events"][2] == {
        "vcpu": 0,
        "exit": "arm_nisv",
        "esr_iss": 0x47,
        "fault_ipa": 0x5000,
        "pc": 12,
        "source": source,
        "step": [[2, 0]],
    }
    assert default["predicted"] is True
    assert default["kernel"] is None
    assert default["stopped"] == "error"
    assert default["final"]["regs"]["x2"] == 0x5000
    assert told["summary"] == {"PASS": 2, "FAIL": 0, "ERROR": 0, "SKIP": 0, "XFAIL": 0, "XPASS": 0}


def test_enosys_is_explained_and_never_called_unknown(tmp_path: Path) -> None:
    wrong = FOUNDING.split("cases:")[0].replace(
        "- error: {ioctl: KVM_RUN, errno: ENOSYS}",
        "- mmio: {phys_addr: counter, is_write: true, len: 8, data: 0}",
    )
    (tmp_path / "post.yaml").write_text(wrong)
    done = kvmscen("run", "post.yaml", "--on", "model", cwd=tmp_path)
    assert done.returncode == 1
    assert "post.yaml:24" in done.stdout
    assert "error: {ioctl: KVM_RUN, errno: ENOSYS}" in done.stdout
    assert "17: str  xzr, [x2], #8" in done.stdout
    assert "ESR_EL2.ISV = 0" in done.stdout
    assert "kvmscen run post.yaml --case default --on model" in done.stdout
    assert "unknown" not in done.stdout.lower()


# --- hosts ----------------------------------------------------------------------------------------


@pytest.mark.kvm
def test_every_x86_scenario_passes_on_the_real_kvm() -> None:
    status, told = report(*sorted(SCENARIOS.glob("x86_64-*.yaml")), "--on", "kvm")
    assert status == 0
    assert {result["status"] for result in told["results"]} == {"PASS"}
    assert {result["host"] for result in told["results"]} == {"kvm"}
    assert not any(result["predicted"] for result in told["results"])
    assert all(result["kernel"] == os.uname().release for result in told["results"])


def test_every_scenario_passes_on_the_model_or_says_why_not() -> None:
    status, told = report("scenarios", "--on", "model")
    assert status == 0
    assert {result["status"] for result in told["results"]} <= {"PASS", "SKIP"}
    assert all(result["reason"] for result in told["results"] if result["status"] == "SKIP")
    assert told["summary"]["PASS"] >= 40


@pytest.mark.kvm
def test_without_on_the_best_host_is_taken_and_named() -> None:
    _, told = report("scenarios/arm64-mmio.yaml", "scenarios/x86_64-ends.yaml")
    assert {(r["arch"], r["host"], r["predicted"]) for r in told["results"]} == {
        ("arm64", "model", True),
        ("x86_64", "kvm", False),
    }


@pytest.mark.kvm
def test_two_hosts_are_two_columns() -> None:
    files = ("scenarios/x86_64-modes.yaml", "tests/cases/report/bug-extra-memory.yaml")
    done = kvmscen("run", *files, "--on", "kvm", "--on", "model")
    assert done.returncode == 1
    head = next(line for line in done.stdout.splitlines() if line.startswith("case "))
    assert head.split() == ["case", "kvm", "model"]
    assert re.search(r"^bug-extra-memory +FAIL +FAIL$", done.stdout, re.MULTILINE)
    assert "5 more cases passed on every host" in done.stdout
    assert "6 of the 12 that ran were predicted by the model, not run on KVM" in done.stdout
    # What each case came to stands in its line alone where nothing differs.
    done = kvmscen("run", files[0], "--on", "kvm", "--on", "model")
    assert done.returncode == 0
    assert not any(line.startswith("case ") for line in done.stdout.splitlines())


def test_a_host_that_does_not_exist_is_wrong_usage() -> None:
    done = kvmscen("run", "scenarios", "--on", "kvn")
    assert (done.returncode, done.stdout) == (2, "")
    usages = "kvm, model[@KERNEL], replay:FILE, qemu:ARCH[@KERNEL], ssh:USER@HOST[:PORT]"
    assert done.stderr == f"kvmscen: there is no host 'kvn'; hosts are {usages}\n"


def test_a_host_that_cannot_run_here_is_a_host_error_and_still_in_the_report(
    tmp_path: Path,
) -> None:
    done = kvmscen(
        "run",
        "scenarios",
        "--on",
        "qemu:arm64",
        "--report",
        "json",
        env={"XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.returncode == 3
    why = "host qemu:arm64 is not prepared: kvmscen host prepare qemu:arm64"
    assert done.stderr == f"kvmscen: {why}\n"
    told = json.loads(done.stdout)
    assert (told["results"], told["errors"][0]["message"]) == ([], why)


def test_hosts_tells_what_can_run_here() -> None:
    done = kvmscen("hosts", env={"COLUMNS": "200"})
    assert done.returncode == 0
    table = done.stdout.partition("\n\n")[0].splitlines()[2:]
    assert [line.split()[0] for line in table] == [row.usage for row in HOSTS.values()]
    assert {
        "kvm",
        "model[@KERNEL]",
        "replay:FILE",
        "qemu:ARCH[@KERNEL]",
        "ssh:USER@HOST[:PORT]",
    } <= set(done.stdout.split())


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_hosts_fits_the_terminal(columns: int) -> None:
    done = kvmscen("hosts", env={"COLUMNS": str(columns)})
    assert max(map(len, done.stdout.splitlines())) <= columns
    assert "ssh:USER@HOST" in done.stdout
    notes = sum(row.note.count("python3") for row in HOSTS.values())
    assert " ".join(done.stdout.split()).count("python3") == notes > 0


def test_the_model_predicts_the_kernel_that_is_named() -> None:
    told = {
        host: report("scenarios/arm64-sign-extend.yaml", "--on", host)
        for host in ("model@6.1", "model@7.2", "model")
    }
    assert [(told[host][0], told[host][1]["results"][0]["status"]) for host in told] == [
        (0, "XFAIL"),
        (0, "PASS"),
        (4, "SKIP"),
    ]
    assert told["model@6.1"][1]["results"][0]["kernel"] == "6.1"
    assert "model@KERNEL" in told["model"][1]["results"][0]["reason"]


# --- record and replay ----------------------------------------------------------------------------


def test_a_recording_replays_without_a_host(tmp_path: Path) -> None:
    assert (
        kvmscen(
            "run", "scenarios/arm64-mmio.yaml", "--on", "model", "--record", tmp_path / "kept"
        ).returncode
        == 0
    )
    status, told = report("scenarios/arm64-mmio.yaml", "--on", f"replay:{tmp_path / 'kept'}")
    assert status == 0
    assert [(r["status"], r["predicted"]) for r in told["results"]] == [("PASS", True)] * 2
    assert told["results"][0]["host"] == f"replay:{tmp_path / 'kept'}"


@pytest.mark.kvm
def test_a_folder_of_recordings_of_several_hosts_keeps_them_apart(tmp_path: Path) -> None:
    files = ("scenarios/arm64-psci.yaml", "scenarios/x86_64-msr.yaml", "scenarios/x86_64-loop.yaml")
    assert kvmscen("run", *files, "--record", tmp_path).returncode == 0
    assert kvmscen("run", files[2], "--on", "model", "--record", tmp_path).returncode == 0
    status, told = report(*files, "--on", f"replay:{tmp_path}")
    assert status == 0
    assert {(r["arch"], r["predicted"], r["status"]) for r in told["results"]} == {
        ("arm64", True, "PASS"),
        ("x86_64", False, "PASS"),
    }


def test_a_changed_expectation_is_judged_anew_and_a_changed_guest_is_not_green(
    tmp_path: Path,
) -> None:
    file = tmp_path / "case.yaml"
    text = FOUNDING.split("cases:")[0]
    file.write_text(text)
    assert kvmscen("run", file, "--on", "model", "--record", tmp_path / "kept").returncode == 0
    file.write_text(
        text.replace(
            "counter + 8, is_write: true, len: 8, data: 0",
            "counter + 8, is_write: true, len: 8, data: 1",
        )
    )
    assert report(file, "--on", f"replay:{tmp_path / 'kept'}")[0] == 1
    file.write_text(text.replace("[x2, #8]\n", "[x2, #16]\n"))
    status, told = report(file, "--on", f"replay:{tmp_path / 'kept'}")
    assert (status, told["results"][0]["status"]) == (3, "ERROR")
    assert (
        told["results"][0]["reason"]
        == "this case was recorded from another version of it: record it again"
    )


def test_a_file_that_is_no_recording_is_a_host_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    done = kvmscen("run", "scenarios", "--on", f"replay:{tmp_path / 'x.json'}")
    assert done.returncode == 3
    assert "is not a recording" in done.stderr


# --- selection, reports, what is printed ----------------------------------------------------------


def test_selection_by_case_and_text() -> None:
    _, told = report("scenarios/arm64-mmio.yaml", "--on", "model", "--case", "nisv-to-user")
    assert [r["case"] for r in told["results"]] == ["nisv-to-user"]
    _, told = report("scenarios", "--on", "model", "-k", "NISV-TO")
    assert {r["scenario"] for r in told["results"]} == {"arm64-mmio"}
    assert report("scenarios", "--on", "model", "--case", "no-such-case")[0] == 2
    assert report("scenarios", "--on", "model", "-k", "no such text")[0] == 4


def test_all_reports_of_one_run(tmp_path: Path) -> None:
    wanted = [f"--report={name}={tmp_path / name}" for name in ("text", "json", "junit", "ktap")]
    assert kvmscen("run", "scenarios/arm64-psci.yaml", "--on", "model", *wanted).returncode == 0
    told = json.loads((tmp_path / "json").read_text())
    jsonschema.validate(told, json.loads((ROOT / "schema" / "report.schema.json").read_text()))
    assert (tmp_path / "ktap").read_text().startswith("KTAP version 1\n1..1\n")
    assert "<testsuites" in (tmp_path / "junit").read_text()
    assert "3 passed" in (tmp_path / "text").read_text()


def test_a_report_to_standard_output_owns_it() -> None:
    done = kvmscen("run", "scenarios/arm64-psci.yaml", "--on", "model", "--report", "ktap")
    assert done.stdout.startswith("KTAP version 1\n")
    assert "3 passed" in done.stderr
    assert kvmscen("run", "scenarios", "--report", "ktap", "--report", "json").returncode == 2


def test_observed_is_pasted_back_and_passes(tmp_path: Path) -> None:
    text = FOUNDING.split("expect:")[0]
    (tmp_path / "a.yaml").write_text(text + "final: {}\n")
    done = kvmscen("run", "a.yaml", "--on", "model", "--observed", cwd=tmp_path)
    assert "phys_addr: counter + 8" in done.stdout
    before = (tmp_path / "a.yaml").read_text()
    (tmp_path / "b.yaml").write_text(text + done.stdout)
    assert report("b.yaml", "--on", "model", cwd=tmp_path)[0] == 0
    assert (tmp_path / "a.yaml").read_text() == before


def test_the_environment_stands_in_for_options() -> None:
    done = kvmscen(
        "run",
        "scenarios",
        env={"KVMSCEN_ON": "model", "KVMSCEN_CASE": "reset", "KVMSCEN_REPORT": "json"},
    )
    assert [(r["scenario"], r["host"]) for r in json.loads(done.stdout)["results"]] == [
        ("arm64-psci", "model")
    ]


def test_no_assembler_is_needed_for_what_no_host_runs() -> None:
    done = kvmscen("run", "scenarios/riscv64-sbi.yaml", "--on", "model", env={"PATH": "/nowhere"})
    assert done.returncode == 4
    assert "the scenario is riscv64, the host runs arm64 and x86_64" in done.stdout
    done = kvmscen("check", "scenarios/riscv64-sbi.yaml", env={"PATH": "/nowhere"})
    assert done.returncode == 2
    assert "no GNU as for riscv64 is installed here: apt install binutils" in done.stdout


def test_an_option_wins_over_the_environment() -> None:
    env = {"KVMSCEN_ON": "kvm", "KVMSCEN_CASE": "default", "KVMSCEN_OBSERVED": "0"}
    done = kvmscen(
        "run",
        "scenarios/arm64-psci.yaml",
        "--on",
        "model",
        "--case",
        "reset",
        "--report",
        "json",
        env=env,
    )
    assert [(r["case"], r["host"]) for r in json.loads(done.stdout)["results"]] == [
        ("reset", "model")
    ]
    done = kvmscen("run", "scenarios", env={"KVMSCEN_J": "many"})
    assert (done.returncode, done.stderr) == (
        2,
        "kvmscen: KVMSCEN_J: 'many' is not a number from 1 to 1024\n",
    )


def test_colour_only_where_it_is_wanted() -> None:
    arguments = ("run", "scenarios/arm64-psci.yaml", "--on", "model")
    assert "\x1b[" not in kvmscen(*arguments).stdout
    assert "\x1b[" in kvmscen(*arguments, env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b[" not in kvmscen(*arguments, env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout


def test_help_and_version() -> None:
    assert kvmscen("--version").stdout.startswith("kvmscen 0.")
    for verb in ((), ("run",), ("check",), ("show",), ("hosts",), ("measure",)):
        done = kvmscen(*verb, "--help")
        assert done.returncode == 0
        assert "example" in done.stdout
    assert kvmscen().returncode == 2


def test_show_as_json() -> None:
    done = kvmscen("show", "scenarios/arm64-mmio.yaml", "--json")
    case = json.loads(done.stdout)["cases"][0]
    assert case["case"] == "default"
    assert case["symbols"]["counter"] == 0x5000
    text = next(section for section in case["sections"] if section["name"] == ".text")
    assert (text["gpa"], text["bytes"][8:16]) == (0, "5f0000f9")
    assert case["memslots"][0]["size"] == 0x1000


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_folder_without_scenarios_is_status_4(tmp_path: Path) -> None:
    done = kvmscen("run", tmp_path)
    assert done.returncode == 4
    assert f"{tmp_path}: there are no scenarios (*.yaml) in this folder" in done.stdout
    assert kvmscen("check", tmp_path).returncode == 4


def test_a_wrong_file_never_hides_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("")
    (tmp_path / "b.yaml").write_text(FOUNDING)
    (tmp_path / "c.yaml").write_text("[" * 100_000)
    status, told = report(tmp_path / "a.yaml", tmp_path / "missing.yaml", tmp_path, "--on", "model")
    assert status == 2
    assert told["summary"]["PASS"] == 2
    assert [Path(error["file"]).name for error in told["errors"]] == [
        "missing.yaml",
        "a.yaml",
        "c.yaml",
    ]


@pytest.mark.kvm
def test_a_loop_is_reported_with_pc_and_source_line(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(LOOP)
    done = kvmscen("run", "loop.yaml", "--on", "kvm", "--report", "json=r.json", cwd=tmp_path)
    assert done.returncode == 1
    assert "timeout: 0.2" in done.stdout
    assert "at 9: jmp  again" in done.stdout
    told = json.loads((tmp_path / "r.json").read_text())["results"][0]
    assert told["stopped"] == "timeout"
    assert told["events"] == [{"vcpu": 0, "timeout": 0.2, "pc": 1, "source": "9: jmp  again"}]


@pytest.mark.kvm
def test_an_agent_that_is_killed_is_an_error_of_its_case_and_the_next_one_runs(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.yaml").write_text(LOOP.replace("0.2", "600"))
    (tmp_path / "b.yaml").write_text(X86)
    command = [
        sys.executable,
        "-m",
        "kvmscen",
        "run",
        "a.yaml",
        "b.yaml",
        "--on",
        "kvm",
        "-j",
        "1",
        "--report",
        "json",
    ]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        agent = _wait_for(lambda: _looping(process.pid))
        assert agent is not None
        os.kill(agent, signal.SIGKILL)
        told = json.loads(process.communicate(timeout=600)[0])
    assert process.returncode == 3
    assert [result["status"] for result in told["results"]] == ["ERROR", "PASS"]
    assert "SIGKILL" in told["results"][0]["reason"]


@pytest.mark.kvm
def test_interrupting_reports_what_ran_and_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(X86)
    (tmp_path / "b.yaml").write_text(LOOP.replace("0.2", "600"))
    command = [
        sys.executable,
        "-m",
        "kvmscen",
        "run",
        "a.yaml",
        "b.yaml",
        "--on",
        "kvm",
        "-j",
        "1",
        "--report",
        "json",
    ]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        _wait_for(lambda: _looping(process.pid))
        children = _children(process.pid)
        process.send_signal(signal.SIGINT)
        told = json.loads(process.communicate(timeout=600)[0])
    assert process.returncode == 130
    assert told["interrupted"] is True
    assert [result["status"] for result in told["results"]] == ["PASS"]
    assert children
    _wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


@pytest.mark.parametrize(("module", "status"), [("argparse", 130), ("queue", 130)])
def test_an_interrupt_while_it_starts_is_no_traceback(
    module: str, status: int, tmp_path: Path
) -> None:
    # At a certain place: while this module is loaded, which is before and after the command line
    # can answer.
    (tmp_path / f"{module}.py").write_text(
        f"import os, signal, sys\nos.kill(os.getpid(), signal.SIGINT)\n"
        f"sys.path.remove({str(tmp_path)!r}); del sys.modules[{module!r}]\nimport {module}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "kvmscen", "check", "scenarios"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stderr) == (status, "")


def test_more_at_once_than_there_can_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(FOUNDING)
    done = kvmscen("run", tmp_path, "--on", "model", "-j", "100")
    assert (done.returncode, done.stderr) == (0, "kvmscen: -j 100: 64 run at once, more never do\n")
    assert kvmscen("run", tmp_path, "--on", "model", "-j", "64").stderr == ""


def test_a_closed_pipe_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m kvmscen show scenarios/x86_64-mmio.yaml | head -1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("scenarios/x86_64-mmio.yaml, case default")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_terminals_of_any_width(columns: int, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(30):
        (many / f"case{number:02}.yaml").write_text(FOUNDING.split("cases:")[0])
    master, slave = pty.openpty()
    env = os.environ | {"COLUMNS": str(columns), "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "kvmscen", "run", str(many), "--on", "model"],
        stdout=slave,
        stderr=slave,
        stdin=slave,
        env=env,
    ) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk
    os.close(master)
    assert process.returncode == 0
    text = seen.decode()
    assert "30 passed" in text
    assert "30/30" in text
    bars = [part for part in text.replace("\n", "\r").split("\r") if part.startswith("[")]
    assert max(map(len, bars)) <= columns


_Found = TypeVar("_Found")


def _wait_for(found: Callable[[], _Found], seconds: float = 300.0) -> _Found:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def _children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    ]


def _looping(pid: int) -> int | None:
    """The worker of kvmscen whose guest runs, once it has taken some CPU time in KVM_RUN."""
    for child in (worker for forks in _children(pid) for worker in _children(forks)):
        try:
            command = Path(f"/proc/{child}/comm").read_text().strip()
            fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if command == "kvmscen-worker" and int(fields[11]) + int(fields[12]) >= 40:
            return child
    return None


# --- outputs, inputs and ends that a review found -------------------------------------------------


@pytest.mark.kvm
def test_the_json_report_of_everything_fits_its_schema() -> None:
    _, told = report("scenarios")
    jsonschema.validate(told, json.loads((ROOT / "schema" / "report.schema.json").read_text()))
    msr = next(r for r in told["results"] if r["scenario"] == "x86_64-msr")
    assert msr["events"][0]["msr_error"] == 0
    assert "error" not in msr["events"][0]


def shell(line: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A line of shell in which $K is kvmscen."""
    env = os.environ | {"K": f"{sys.executable} -m kvmscen", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", line], cwd=cwd, env=env, capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("$K run scenarios/arm64-psci.yaml --on model > /dev/full", 3),
        ("$K show scenarios/arm64-psci.yaml > /dev/full", 3),
        ("$K run scenarios/arm64-psci.yaml --on model --report json=/dev/full", 3),
        ("$K run scenarios/arm64-psci.yaml --on model >&-", 0),
        ("$K run scenarios/arm64-psci.yaml --on model 2>&-", 0),
        ("$K run scenarios/arm64-psci.yaml --on model --observed --report json", 2),
        ("$K run scenarios/arm64-psci.yaml --on model --report json=a --report junit=a", 2),
        ("cat scenarios/arm64-psci.yaml | $K run /dev/stdin --on model", 2),
    ],
)
def test_outputs_and_inputs_that_cannot_be(line: str, status: int) -> None:
    done = shell(line)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == status, done.stderr


def test_files_of_one_name_keep_their_own_recordings(tmp_path: Path) -> None:
    text = FOUNDING.split("cases:")[0]
    for folder, word in (("a", "#8"), ("b", "#16")):
        (tmp_path / folder).mkdir()
        changed = text.replace("[x2, #8]", f"[x2, {word}]").replace(
            "counter + 8", f"counter + {word[1:]}"
        )
        (tmp_path / folder / "same.yaml").write_text(changed)
    files = (tmp_path / "a" / "same.yaml", tmp_path / "b" / "same.yaml")
    assert kvmscen("run", *files, "--on", "model", "--record", tmp_path / "kept").returncode == 0
    assert len(list((tmp_path / "kept").iterdir())) == 2
    status, told = report(*files, "--on", f"replay:{tmp_path / 'kept'}")
    assert (status, [r["status"] for r in told["results"]]) == (0, ["PASS", "PASS"])


def test_a_selection_of_nothing_says_so() -> None:
    done = kvmscen("run", "scenarios", "--on", "model", "-k", "no such text")
    assert done.returncode == 4
    assert "no case of these files is selected by -k no such text" in done.stdout
    # What is selected runs, and what is not there is told.
    done = kvmscen(
        "run", "scenarios", "--on", "model", "--case", "nisv-to-usr", "--case", "read-only"
    )
    assert done.returncode == 2
    assert "no file here has a case nisv-to-usr: did you mean nisv-to-user?" in done.stdout
    assert ":read-only on model" in done.stdout
    # So that `*.yaml --case NAME` is of use, a file of which nothing is selected is told and is no
    # error.
    mine, others = "scenarios/arm64-mmio.yaml", "scenarios/arm64-psci.yaml"
    done = kvmscen("run", mine, others, "--on", "model", "--case", "nisv-to-user")
    assert done.returncode == 0
    assert f"1 path has no case that is selected by --case nisv-to-user: {others}" in done.stdout


def test_a_program_without_a_start_is_told(tmp_path: Path) -> None:
    text = X86.replace("  _start:\n", "  again:\n")
    assert text != X86
    (tmp_path / "a.yaml").write_text(text)
    for verb, more in (("check", ()), ("run", ("--on", "model"))):
        done = kvmscen(verb, "a.yaml", *more, cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        assert (
            "note: the program has no `_start`: it begins at its first instruction, 0x0 (line "
            in done.stdout
        )
    (tmp_path / "a.yaml").write_text(text.replace("expect:", "regs: {pc: again}\nexpect:"))
    assert "no `_start`" not in kvmscen("check", "a.yaml", cwd=tmp_path).stdout


@pytest.mark.kvm
def test_a_reply_to_a_write_is_a_difference(tmp_path: Path) -> None:
    wrong = X86.replace(
        "- mmio: {phys_addr: counter, is_write: true, len: 8, data: 7}",
        "- mmio: {phys_addr: counter}\n    reply: 5",
    )
    (tmp_path / "a.yaml").write_text(wrong)
    done = kvmscen("run", "a.yaml", "--on", "kvm", cwd=tmp_path)
    assert done.returncode == 1
    assert "reply" in done.stdout


@pytest.mark.kvm
def test_sigterm_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(LOOP.replace("0.2", "60"))
    command = [sys.executable, "-m", "kvmscen", "run", "b.yaml", "--on", "kvm"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    ) as process:
        _wait_for(lambda: _looping(process.pid))
        children = _children(process.pid)
        process.terminate()
        assert process.wait(600) == 128 + signal.SIGTERM
    _wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_an_agent_without_its_greeting_ends() -> None:
    from kvmscen.hosts.process import pack

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", pack.BOOT], stdin=subprocess.DEVNULL, timeout=600
    )
    assert done.returncode == 1


def test_a_wrong_key_does_not_hide_a_wrong_instruction(tmp_path: Path) -> None:
    wrong = X86.replace("size: 0x1000", "size: 0x1800").replace(
        "      hlt\n", "      foo eax\n      jmp nowhere\n      hlt\n", 1
    )
    (tmp_path / "a.yaml").write_text(wrong.replace("\n  - hlt", "\n  - hltt"))
    done = kvmscen("check", "a.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert [
        line.split(": ", 1)[1].removesuffix(": no such instruction (GNU as)")
        for line in done.stdout.splitlines()
    ] == [
        "`0x1800` is not a multiple of 4096: write 0x2000",
        "this does not assemble: foo eax",
        "undefined symbol nowhere",
        "`hltt` is no exit: did you mean `hlt`",
    ]


def test_the_assembler_is_chosen_by_option_variable_and_key(tmp_path: Path) -> None:
    if shutil.which("as") is None or shutil.which("aarch64-linux-gnu-as") is None:
        pytest.skip("GNU as is not installed")
    file = tmp_path / "a.yaml"

    def shown(key: str, *options: str, **env: str) -> str:
        file.write_text(
            f"arch: x86_64\nmemslots:\n  - {{slot: 0, gpa: 0x0, size: 0x1000}}\n{key}asm: |\n  "
            f"_start: hlt\nexpect: [mmio]\n"
        )
        done = kvmscen("show", file, "--json", *options, env=env)
        return (
            str(json.loads(done.stdout)["cases"][0]["assembler"])
            if done.returncode == 0
            else done.stderr
        )

    assert shown("") == "keystone"
    assert shown("assembler: gnu\n") == "gnu"
    assert shown("", KVMSCEN_ASSEMBLER="gnu") == "gnu"
    assert shown("assembler: gnu\n", KVMSCEN_ASSEMBLER="keystone") == "keystone"
    assert shown("", "--assembler", "keystone", KVMSCEN_ASSEMBLER="gnu") == "keystone"
    assert "KVMSCEN_ASSEMBLER: 'nasm' is no assembler" in shown("", KVMSCEN_ASSEMBLER="nasm")
    assert (
        kvmscen(
            "run", SCENARIOS / "arm64-mmio.yaml", "--on", "model", "--assembler", "gnu"
        ).returncode
        == 0
    )


def test_what_is_hidden_in_a_folder_is_left_alone(tmp_path: Path) -> None:
    text = "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x1000}]\nasm: hlt\nexpect: [hlt]\n"
    for name in ("a.yaml", ".b.yaml", ".git/c.yaml", "sub/d.yaml", "sub/.venv/e.yaml", "f.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    _, told = report(".", "--on", "model", cwd=tmp_path)
    assert [result["file"] for result in told["results"]] == ["a.yaml", "sub/d.yaml"]
    _, told = report(".b.yaml", ".git", "f.yml", "--on", "model", cwd=tmp_path)
    assert [result["file"] for result in told["results"]] == [".b.yaml", ".git/c.yaml", "f.yml"]
    shown = kvmscen("show", ".", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (
        2,
        "kvmscen: . is a folder: name one scenario of it\n",
    )


@pytest.mark.parametrize("name", [b"a\nb", b"a\xff'b", b"\\ \x1b[31m", b"plain", b"a b"])
def test_the_command_that_repeats_a_case_can_be_copied(name: bytes, tmp_path: Path) -> None:
    text = "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x1000}]\nasm: hlt\nexpect: [mmio]\n"
    with open(os.path.join(os.fsencode(tmp_path), name + b".yaml"), "w") as file:
        file.write(text)
    done = kvmscen("run", os.fsdecode(name + b".yaml"), "--on", "model", cwd=tmp_path)
    again = next(
        line.partition("again: kvmscen ")[2]
        for line in done.stdout.splitlines()
        if "again: " in line
    )
    assert again.isprintable()
    twice = subprocess.run(
        ["bash", "-c", f"exec {sys.executable} -m kvmscen {again}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (twice.returncode, "0 wrong" in twice.stdout, "1 failed" in twice.stdout) == (
        1,
        False,
        True,
    )


@pytest.mark.kvm
def test_a_host_that_cannot_run_has_errors_of_the_cases_that_it_would_run(tmp_path: Path) -> None:
    files = ("scenarios/x86_64-loop.yaml", "scenarios/arm64-mmio.yaml")
    done = kvmscen(
        "run",
        *files,
        "--on",
        "kvm",
        "--on",
        "qemu:arm64",
        "--report",
        "json",
        env={"XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.returncode == 3
    found = {
        (r["arch"], r["status"])
        for r in json.loads(done.stdout)["results"]
        if r["host"] == "qemu:arm64"
    }
    assert found == {("x86_64", "SKIP"), ("arm64", "ERROR")}
