"""Try the newest of everything that pyproject.toml allows: `python tools/newest.py [ARGUMENT OF
PYTEST ...]`.

A venv of its own, without the locks, and the suite in it. `--run`: only `kvmscen run scenarios/`,
as CI does. What is not as in the locks is told first; when all is well with it, `python
tools/lock.py` takes it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """The status of the suite, or of the run."""
    arguments = sys.argv[1:]
    run = arguments[:1] == ["--run"]
    with tempfile.TemporaryDirectory(prefix="kvmscen-newest-") as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        what = "." if run else ".[test]"
        subprocess.run(
            [
                python,
                "-m",
                "pip",
                "install",
                "-q",
                "--upgrade",
                "--upgrade-strategy",
                "eager",
                "-e",
                what,
            ],
            cwd=ROOT,
            check=True,
        )
        tell(python)
        rest = (
            ["kvmscen", "run", "scenarios/", *arguments[1:]]
            if run
            else ["pytest", "-q", *arguments]
        )
        return subprocess.run([python, "-m", *rest], cwd=ROOT).returncode


def tell(python: Path) -> None:
    """What is installed there in another version than the locks say."""
    argv = [str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    packages = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
    text = (ROOT / "requirements.lock").read_text() + (ROOT / "requirements-test.lock").read_text()
    locked: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        locked.setdefault(plain(name), set()).add(version)
    for package in packages:
        there = locked.get(plain(package["name"]))
        if there is not None and package["version"] not in there:
            print(
                f"{package['name']} {package['version']}: the lock has "
                f"{' and '.join(sorted(there))}",
                flush=True,
            )


def plain(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
