"""Reports: one module a format, each with `render(run) -> str`, the whole report ending in a
newline.

A new format is a module here and a line in FORMATS, with the function of kvmscen.reports.harmless
that its whole text goes through. The modules are imported at first use, since most runs need one of
them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from kvmscen.reports import harmless
from kvmscen.results.result import Run


def _report(module: str, border: Callable[[str], str]) -> Callable[[Run], str]:
    def render(run: Run) -> str:
        return border(import_module(f"kvmscen.reports.{module}").render(run))

    return render


FORMATS: dict[str, Callable[[Run], str]] = {
    "text": _report("text", harmless.text),
    "json": _report("json_report", harmless.json),
    "junit": _report("junit", harmless.xml),
    "ktap": _report("ktap", harmless.text),
}
# What only `kvmscen measure` has something for.
MEASURED: dict[str, Callable[[Run], str]] = {**FORMATS, "svg": _report("plot", harmless.xml)}
