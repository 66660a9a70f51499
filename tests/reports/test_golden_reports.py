"""Each report of each sample run, byte for byte as in tests/golden/reports/.

After a wanted change: `KVMSCEN_UPDATE_GOLDEN=1 pytest tests/reports`, then read `git diff
tests/golden/reports` before the commit. Where CI is set nothing is rewritten.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from report_samples import RUNS

from kvmscen.cli.screen import Screen
from kvmscen.engine.work import Progress
from kvmscen.reports import FORMATS, harmless, text
from kvmscen.results.result import Run

GOLDEN = Path(__file__).parent.parent / "golden" / "reports"
SUFFIX = {"text": "txt", "json": "json", "junit": "xml", "ktap": "ktap"}
# 1,000 results are worth a file only in the format that leaves most of them out.
LONG = {"thousand"}
SCREENS = ("mixed", "hosts", "enosys")
WIDTHS = (40, 80, 120, 200)


def screens(run: Run, width: int, **how: bool) -> str:
    """What a terminal shows of a run."""
    out = io.StringIO()
    screen = Screen(out, **how)
    screen.color, screen.width = False, width
    for problem in run.problems:
        screen.problem(problem)
    for result in run.results:
        screen.result(result, Progress(0.0, 0, 1))
    screen.end(run)
    return out.getvalue()


def compare(path: Path, report: str) -> None:
    if os.environ.get("KVMSCEN_UPDATE_GOLDEN") == "1":
        if os.environ.get("CI"):
            pytest.fail("golden files are not rewritten where CI is set", pytrace=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(report.encode())
    assert path.is_file(), f"no {path}: make it with KVMSCEN_UPDATE_GOLDEN=1"
    assert report == path.read_bytes().decode()


REPORTS = [
    (name, format) for name in RUNS for format in FORMATS if name not in LONG or format == "text"
]


@pytest.mark.parametrize(("name", "format"), REPORTS)
def test_report(name: str, format: str) -> None:
    compare(GOLDEN / f"{name}.{SUFFIX[format]}", FORMATS[format](RUNS[name]))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SCREENS)
def test_screen(name: str, width: int) -> None:
    compare(GOLDEN / f"screen-{name}-{width}.txt", screens(RUNS[name], width))


@pytest.mark.parametrize("name", SCREENS)
def test_quiet_and_verbose(name: str) -> None:
    compare(GOLDEN / f"screen-{name}-quiet.txt", screens(RUNS[name], 120, quiet=True))
    compare(GOLDEN / f"screen-{name}-verbose.txt", screens(RUNS[name], 120, verbose=True))


def test_annotations() -> None:
    compare(GOLDEN / "mixed.annotations", harmless.text(text.annotations(RUNS["mixed"])) + "\n")


def test_no_golden_file_is_left_over() -> None:
    reports = {f"{name}.{SUFFIX[format]}" for name, format in REPORTS}
    screens = {
        f"screen-{name}-{width}.txt" for name in SCREENS for width in (*WIDTHS, "quiet", "verbose")
    }
    assert {path.name for path in GOLDEN.iterdir()} == reports | screens | {"mixed.annotations"}
