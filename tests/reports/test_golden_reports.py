"""Each report of each sample run, byte for byte as in tests/golden/reports/.

After a wanted change: `KVMSCEN_UPDATE_GOLDEN=1 pytest tests/reports`, then read `git diff tests/golden/reports` before the
commit. Where CI is set nothing is rewritten.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from report_samples import RUNS, Run

from kvmscen.reports import FORMATS, text

GOLDEN = Path(__file__).parent.parent / "golden" / "reports"
SUFFIX = {"text": "txt", "json": "json", "junit": "xml", "ktap": "ktap"}
# 1,000 results are in the formats that leave most of them out.
LONG = {"thousand"}


def screens(run: Run, width: int) -> str:
    """What a terminal shows of a run: lines while it runs, failures, table."""
    lines = [text.line(result, False) for result in run.results]
    failures = [text.failure(result, False, width) for result in run.results]
    return "\n\n".join(["\n".join(lines), *filter(None, failures), text.table(run, width)]) + "\n"


def compare(path: Path, report: str) -> None:
    if os.environ.get("KVMSCEN_UPDATE_GOLDEN") == "1":
        assert not os.environ.get("CI"), "golden files are not rewritten where CI is set"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(report.encode())
    assert path.is_file(), f"no {path}: make it with KVMSCEN_UPDATE_GOLDEN=1"
    assert report == path.read_bytes().decode()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", RUNS)
def test_report(name: str, format: str) -> None:
    if name in LONG and format != "text":
        pytest.skip("too long for a golden file")
    compare(GOLDEN / f"{name}.{SUFFIX[format]}", FORMATS[format](RUNS[name]))


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("name", ["mixed", "hosts", "enosys"])
def test_screen(name: str, width: int) -> None:
    compare(GOLDEN / f"screen-{name}-{width}.txt", screens(RUNS[name], width))


def test_annotations() -> None:
    compare(GOLDEN / "mixed.annotations", text.annotations(RUNS["mixed"]) + "\n")
