"""Reports: one module a format, each with `render(run) -> str`, the whole report ending in a newline.

A new format is a module here and a line in FORMATS. The modules are imported at first use, since most runs need one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmscen.result import Run


def _report(module: str) -> Callable[[Run], str]:
    def render(run: Run) -> str:
        report: str = import_module(f"kvmscen.reports.{module}").render(run)
        return report

    return render


FORMATS: dict[str, Callable[[Run], str]] = {
    "text": _report("text"),
    "json": _report("json_report"),
    "junit": _report("junit"),
    "ktap": _report("ktap"),
}
# What only `kvmscen measure` has something for.
MEASURED: dict[str, Callable[[Run], str]] = {**FORMATS, "svg": _report("plot")}
