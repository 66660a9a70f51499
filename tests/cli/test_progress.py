"""The bar on a terminal: of how much, how many failed, what runs."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_status import ROOT, SCENARIO


def bars(folder: Path, *options: str, **env: str) -> tuple[int, list[str]]:
    """The status of a run on a terminal, and each bar that it showed."""
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "kvmscen", "run", str(folder), *options]
    environment = os.environ | {"COLUMNS": "100", "TERM": "xterm", "PYTHONPATH": str(ROOT)} | env
    seen = b""
    with subprocess.Popen(
        argv, stdin=slave, stdout=slave, stderr=slave, env=environment
    ) as process:
        os.close(slave)
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            seen += chunk
    os.close(master)
    return process.returncode, [
        part for part in re.split(r"[\r\n]+", seen.decode()) if re.match(r"\[[# ]+\] ", part)
    ]


def test_the_total_does_not_grow_and_failures_are_counted(tmp_path: Path) -> None:
    for number in range(30):
        cases = "cases: {again: {summary: x}}\n"
        wrong = SCENARIO.replace("[mmio]", "[{mmio: {phys_addr: 0x6000}}]")
        (tmp_path / f"{number:02}.yaml").write_text(
            (wrong if number % 10 == 5 else SCENARIO) + cases
        )
    status, shown = bars(tmp_path, "--on", "model")
    assert status == 1
    totals = {match[1] for bar in shown if (match := re.search(r"\d+/(\d+) files", bar))}
    assert totals == {"30"}
    done = [int(re.findall(r"(\d+)/30 files", bar)[0]) for bar in shown]
    assert done == sorted(done)
    assert shown[-1].rstrip().endswith("30/30 files, 60 cases, 6 failed")
    assert any(re.search(r": \d\d:(default|again) on model", bar) for bar in shown)


@pytest.mark.kvm
def test_what_takes_long_is_named(tmp_path: Path) -> None:
    loop = (
        "arch: x86_64\nmemslots: [{slot: 0, gpa: 0, size: 0x1000}]\nasm: 'a: jmp a'\nexpect: "
        "[hlt]\nlimits: {timeout: 3}\n"
    )
    (tmp_path / "loop.yaml").write_text(loop)
    status, shown = bars(tmp_path, "--on", "kvm")
    assert status == 1
    assert any("loop:default on kvm" in bar for bar in shown)


def test_no_bar_where_nobody_sees_it(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}.yaml").write_text(SCENARIO)
    assert bars(tmp_path, "--on", "model", TERM="dumb") == (0, [])
