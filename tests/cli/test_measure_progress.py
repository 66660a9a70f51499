"""What is told while a measurement runs: over and over in one line of a terminal, now and then
elsewhere, nothing with -q.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvmscen.cli import progress
from kvmscen.cli.screen import Screen
from kvmscen.measure.rounds import RoundDone

ROOT = Path(__file__).resolve().parent.parent.parent
GUEST = """\
arch: x86_64
memslots: [{slot: 0, gpa: 0, size: 0x1000}]
asm: |
  _start: out 0x10, al
      jmp _start
measure: {pio: {io: {port: 0x10}, samples: 500}}
"""
STEP = RoundDone(24, 80, 3, 10, "cost", "kvm", {"ram": (0.2, 0.3, 0.25), "mmio": (14400.0,)})


def test_without_a_terminal_it_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = progress.Progress(Screen(sys.stdout), False)
    told(STEP)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    told(STEP)
    shown = capsys.readouterr()
    assert shown.err.startswith(
        "kvmscen: round 3 of 10: cost on kvm (24 of 80 runs); so far ram 0.25 ns, mmio 14.4 us; 0 "
        "s so far"
    )
    assert shown.out == ""
    told(RoundDone(80, 80, 10, 10))
    assert capsys.readouterr().err == ""


def test_quiet_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    progress.Progress(Screen(sys.stdout), True)(STEP)
    assert capsys.readouterr().err == ""


def on_a_terminal(path: Path, *options: str) -> str:
    """What `kvmscen measure` writes to a terminal."""
    primary, secondary = os.openpty()
    command = [sys.executable, "-m", "kvmscen", "measure", str(path), *options]
    child = subprocess.Popen(
        command,
        stdout=secondary,
        stderr=secondary,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(secondary)
    said = b""
    while True:
        try:
            piece = os.read(primary, 4096)
        except OSError:  # how a terminal ends
            break
        if not piece:
            break
        said += piece
    os.close(primary)
    assert child.wait() == 0, said.decode()
    return said.decode()


@pytest.mark.kvm
def test_on_a_terminal_one_line_is_written_over_and_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(GUEST)
    shown = on_a_terminal(path, "--rounds", "4")
    for number in range(1, 5):
        assert f"round {number} of 4: a on kvm" in shown
    # From the second round on with figures.
    assert "so far pio " in shown
    *_, last = shown.replace("\r\n", "\n").split("\r")
    assert "round" not in last.splitlines()[0]
    assert "round 1" not in on_a_terminal(path, "--rounds", "4", "-q")
