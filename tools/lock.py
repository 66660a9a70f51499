"""Renew the locks: `python tools/lock.py`. What the README's two lines install, to the byte, on
every machine they are for.

requirements.lock has what kvmscen needs to be built and to run, requirements-test.lock what the
tests need besides. The ranges stay in pyproject.toml. The newest versions that fit them are taken
(by uv, in a venv of its own), with the hashes of all their files, and it is tried that they install
for each Python and processor that kvmscen is used with. Read `git diff` and run the tests before
you commit.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE, TEST = ROOT / "requirements.lock", ROOT / "requirements-test.lock"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
HEAD = "# Made by tools/lock.py from pyproject.toml: {what}. Do not edit.\n"


def main() -> None:
    """Write both files and try them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # An editable install needs one more than is written there: what hatchling asks for itself.
    build = [*project["build-system"]["requires"], "editables"]
    with tempfile.TemporaryDirectory() as folder:
        uv = installed_uv(Path(folder))
        needed = Path(folder) / "build.in"
        needed.write_text("\n".join(build) + "\n")
        base = blocks(resolve(uv, needed, []))
        known = Path(folder) / "known"
        known.write_text("".join(base))
        test = [
            block
            for block in blocks(
                resolve(uv, needed, ["--extra", "test", "--constraint", str(known)])
            )
            if block not in base
        ]
        BASE.write_text(HEAD.format(what="what is needed to build and to run") + "".join(base))
        more = HEAD.format(what="what the tests need besides") + "-r requirements.lock\n"
        TEST.write_text(more + "".join(test))
        for python in PYTHONS:
            for platform in PLATFORMS:
                fits(uv, Path(folder), python, platform)
    print(
        f"{len(base)} packages to run and {len(test)} to test install for {', '.join(PYTHONS)} on "
        f"{' and '.join(PLATFORMS)}"
    )


def installed_uv(folder: Path) -> str:
    """The newest uv."""
    venv.create(folder / "uv", with_pip=True)
    subprocess.run([folder / "uv" / "bin" / "pip", "install", "-q", "uv"], check=True)
    return str(folder / "uv" / "bin" / "uv")


def resolve(uv: str, build: Path, options: list[str]) -> str:
    """The newest of everything that fits, for every machine: lines with markers and hashes."""
    argv = [
        uv,
        "pip",
        "compile",
        "-q",
        "--universal",
        "--python-version",
        PYTHONS[0],
        "--upgrade",
        "--generate-hashes",
    ]
    argv += ["--no-header", "--no-annotate", *options, "pyproject.toml", str(build)]
    return subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def blocks(text: str) -> list[str]:
    """One text for each version: its line, and those of its hashes."""
    return re.findall(r"^\S.*\n(?:^ +--hash=.*\n)*", text, re.MULTILINE)


def fits(uv: str, folder: Path, python: str, platform: str) -> None:
    """See that wheels of the locks, and nothing else, would be installed there."""
    argv = [
        uv,
        "pip",
        "install",
        "-q",
        "--dry-run",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--target",
        str(folder / "none"),
    ]
    argv += ["--python-version", python, "--python-platform", platform, "-r", str(TEST)]
    if subprocess.run(argv, cwd=ROOT).returncode:
        sys.exit(f"the locks do not install for Python {python} on {platform}")


if __name__ == "__main__":
    main()
