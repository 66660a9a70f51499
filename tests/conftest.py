"""Tests marked `kvm` need a usable /dev/kvm of x86: elsewhere they are skipped, and the end of the
run counts them, loudly.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy this machine is, not whether it is right.
settings.register_profile("kvmscen", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kvmscen")

NEEDED = "needs a usable /dev/kvm"
QEMU_NEEDED = "needs QEMU and a Debian's package sources"
NEEDED_SSHD = "needs an sshd to log in to"


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


@cache
def without_qemu() -> str | None:
    """Why the tests marked `qemu` cannot run here, None where they can."""
    for program in ("qemu-system-aarch64", "apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            return f"{QEMU_NEEDED}: there is no {program} (Debian: apt install qemu-system-arm)"
    return None


# Prepared machines stay in the user's own cache, so that they are made once; all else is tested as
# if there were none.
OWN_CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")


@pytest.fixture(scope="session", autouse=True)
def _empty_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    # A worker of pytest-xdist has the width of its own terminal there, and what is started would
    # take it.
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session")
def qemu_arm64() -> tuple[str, dict[str, str]]:
    """A prepared arm64 host: its name, and the environment that it is found in."""
    name, environment = "qemu:arm64@6.1", {**os.environ, "XDG_CACHE_HOME": OWN_CACHE}
    argv = [sys.executable, "-m", "kvmscen", "host", "prepare", name]
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name}: ready, kernel 6.1.")
    return name, environment


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Before `-m` chooses.
    for item in items:
        if item.get_closest_marker("qemu"):
            item.add_marker(pytest.mark.slow)
    for marker, reason in (("kvm", without_kvm()), ("qemu", without_qemu())):
        for item in items:
            if reason is not None and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for needed, title, reason in (
        (NEEDED, "NOT TESTED ON KVM", without_kvm()),
        (QEMU_NEEDED, "NOT TESTED ON OTHER KERNELS", without_qemu()),
        (NEEDED_SSHD, "NOT TESTED OVER SSH", "install openssh-server and openssh-client"),
    ):
        skipped = sum(
            needed in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())
        )
        if skipped:
            terminalreporter.section(title, yellow=True, bold=True)
            terminalreporter.write_line(f"{skipped} tests were skipped: {reason}", yellow=True)
