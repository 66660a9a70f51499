"""Tests marked `kvm` need a usable /dev/kvm of x86: elsewhere they are skipped, and the end of the run counts them, loudly."""

from __future__ import annotations

import os
import platform
from functools import cache

import pytest

NEEDED = "needs a usable /dev/kvm"


@cache
def without_kvm() -> str | None:
    """Why the tests marked `kvm` cannot run here, None where they can."""
    if platform.machine() != "x86_64":
        return f"{NEEDED} of x86_64, this machine is {platform.machine()}"
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{NEEDED}: {error.strerror}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = without_kvm()
    if reason is not None:
        for item in items:
            if item.get_closest_marker("kvm"):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = sum(NEEDED in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ()))
    if skipped:
        terminalreporter.section("NOT TESTED ON KVM", yellow=True, bold=True)
        terminalreporter.write_line(f"{skipped} tests were skipped: {without_kvm()}", yellow=True)
