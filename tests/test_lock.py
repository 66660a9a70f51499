"""The locks hold what pyproject.toml asks for, for every machine, and the README's two lines
install from them.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
BASE, TEST = ROOT / "requirements.lock", ROOT / "requirements-test.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MACHINES = [
    {
        "python_version": python,
        "python_full_version": f"{python}.2",
        "platform_machine": machine,
        "sys_platform": "linux",
    }
    for python in ("3.11", "3.12", "3.13")
    for machine in ("x86_64", "aarch64")
]


def entries(path: Path) -> Iterator[tuple[str, Version, Marker | None, list[str]]]:
    """Name, version, marker and hashes of each entry."""
    for block in re.split(r"\n(?=\S)", path.read_text()):
        if block.startswith(("#", "-r ")):
            continue
        line, *hashes = block.split(" \\\n    --hash=")
        wanted = Requirement(line)
        (pin,) = wanted.specifier
        assert pin.operator == "==", line
        yield (
            canonicalize_name(wanted.name),
            Version(pin.version),
            wanted.marker,
            [digest.strip() for digest in hashes],
        )


def installed(paths: tuple[Path, ...], machine: dict[str, str]) -> dict[str, Version]:
    """What the locks install on a machine."""
    out: dict[str, Version] = {}
    for path in paths:
        for name, version, marker, _ in entries(path):
            if marker is None or marker.evaluate(machine):
                assert out.setdefault(name, version) == version, f"{name} is there in two versions"
    return out


@pytest.mark.parametrize("path", [BASE, TEST], ids=lambda path: path.name)
def test_each_entry_has_hashes_and_no_place(path: Path) -> None:
    found = list(entries(path))
    assert len(found) > 10
    for name, _, _, hashes in found:
        assert hashes, name
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes), name
    assert not re.search(r"://|index-url|find-links|trusted-host", path.read_text())


@pytest.mark.parametrize(
    "machine",
    MACHINES,
    ids=lambda machine: f"{machine['python_version']}-{machine['platform_machine']}",
)
def test_what_is_asked_for_is_locked(machine: dict[str, str]) -> None:
    project = PROJECT["project"]
    asked = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for wanted, paths in (
        (asked, (BASE,)),
        (project["optional-dependencies"]["test"], (BASE, TEST)),
    ):
        there = installed(paths, machine)
        for requirement in map(Requirement, wanted):
            if requirement.marker is None or requirement.marker.evaluate(machine):
                assert requirement.specifier.contains(there[canonicalize_name(requirement.name)]), (
                    requirement
                )


def test_the_readme_installs_from_the_locks() -> None:
    text = (ROOT / "README.md").read_text()
    for which, lock, ending in (
        ("the scenarios", BASE, ". && .venv/bin/kvmscen run scenarios/*.yaml"),
        ("the tests", TEST, "-e . && .venv/bin/python -m pytest -q -n auto --dist worksteal"),
    ):
        found = re.search(rf"<!-- {which} -->\n```sh\n(.*)\n```", text)
        assert found is not None
        install = (
            f"install -q --require-hashes -r {lock.name} && .venv/bin/pip install -q "
            f"--no-deps --no-build-isolation {ending}"
        )
        assert found[1].endswith(install)


def test_ci_runs_the_newest_first_and_the_readmes_line_last() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert text.index("python3 tools/newest.py --run") < text.index(
        'bash -euo pipefail -c "$command"'
    )
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"]).returncode == 0
