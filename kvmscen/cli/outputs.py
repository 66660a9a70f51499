"""Where what a verb says goes: standard error, standard output, and the files of --report."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection

from kvmscen.disk import whole
from kvmscen.errors import HostError, UsageError
from kvmscen.reports import FORMATS

# The exit status of a run that ^C ended.
INTERRUPTED = 130


def say(message: str) -> None:
    """Print a line with `kvmscen: ` before it on standard error."""
    print(f"kvmscen: {message}", file=sys.stderr)


def report_of(wanted: str, formats: Collection[str] = FORMATS.keys()) -> tuple[str, str | None]:
    """Format and file of a --report, file None for standard output."""
    name, equals, file = wanted.partition("=")
    if name not in formats:
        raise UsageError(f"there is no report {name!r}; reports are {', '.join(formats)}")
    if equals and not file:
        raise UsageError(f"--report {wanted}: write a file name behind the =")
    if file and (os.path.isdir(file) or not os.path.isdir(os.path.dirname(file) or ".")):
        raise UsageError(f"--report {wanted}: {file} cannot be written there")
    return name, file or None


def write_report(report: str, file: str | None) -> None:
    """A report to its file, or to standard output."""
    if file is None:
        sys.stdout.write(report)
        return
    try:
        whole.write(file, report, lasting=True)
    except OSError as error:
        raise HostError(f"{file} could not be written: {os.strerror(error.errno or 0)}") from None
