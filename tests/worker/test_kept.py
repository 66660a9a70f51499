"""The cache of prepared files never gives what is not so any more: each thing that goes in is
changed in turn. And what it gives is the same as what is made anew.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvmscen
from kvmscen.asm.gnu import targets
from kvmscen.disk.packs import Packs, Writer
from kvmscen.engine.keys import Keys, raw, told_of
from kvmscen.hosts.model import ModelHost
from kvmscen.job.job import Target
from kvmscen.sent.codec import encode
from kvmscen.worker import kept
from kvmscen.worker.worker import Here, Worker

ROOT = Path(__file__).resolve().parents[2]
CASE = """arch: x86_64
mode: real
memslots: [{slot: 0, gpa: 0, size: 0x1000}]
sections: {.text: {at: 0}}
"""
PLAIN = (
    CASE + "asm: |\n  _start: mov al, 1\n  out 0x10, al\n  hlt\nexpect: [{io: {data: 1}}, hlt]\n"
)
BESIDE = CASE + "asm: {file: guest.s}\nexpect: [{io: {data: 1}}, hlt]\n"
GUEST = "_start: mov al, 1\n  out 0x10, al\n  hlt\n"


class Run:
    """Runs of one scenario in one folder with one cache, by workers as `kvmscen run` has them."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "a.yaml"
        self.cache = str(folder / "cache")
        self.kernel = "6.1"
        self.assembler: str | None = None
        self.each = True
        self.request: dict[str, Any] = {}
        self.base: Callable[[], str] = kept.base

    def __call__(self) -> tuple[bool, list[dict[str, Any]]]:
        """Whether it came from the cache, and the parts of the answer."""
        host = ModelHost(f"model@{self.kernel}")
        host.wait()
        told = {
            "targets": [encode(Target(host.name, host.facts))],
            "each": self.each,
            "assembler": self.assembler,
        }
        base, packs = self.base(), Packs(self.cache)
        worker = Worker(Here(False), packs, base)
        worker.handle(told)
        asked = {"text": None, "cases": [], "first": 0, "most": 64, **self.request}
        request = {"run": str(self.file), "job": 0, **asked}
        head, *parts = json.loads(json.dumps(list(worker.handle(json.loads(json.dumps(request))))))
        packs.close()
        if "keep" not in head:
            return True, [head, *parts]
        import base64

        held, writer = raw(str(self.file)), Writer(self.cache)
        assert held is not None
        writer.put(Keys(base, told_of(told)).key(request, held), base64.b64decode(head.pop("keep")))
        writer.close()
        return False, [head, *parts]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path)
    made.file.write_text(PLAIN)
    return made


def test_the_second_time_it_is_the_same_from_the_cache(run: Run) -> None:
    first, second = run(), run()
    assert (first[0], second[0]) == (False, True)
    assert first[1] == second[1]


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "scenarios").glob("*.yaml")))
def test_what_is_kept_is_what_is_made(file: str, run: Run) -> None:
    run.file = ROOT / "scenarios" / file
    first, second = run(), run()
    assert second[0] or first[1][0]["problems"]
    assert first[1] == second[1]


def written(run: Run) -> None:
    run.file.write_text(PLAIN.replace("data: 1", "data: 2"))


def moved(run: Run) -> None:
    run.file = run.file.rename(run.file.with_name("b.yaml"))


def selected(run: Run) -> None:
    run.request = {"text": "nothing has this"}


def named(run: Run) -> None:
    run.request = {"cases": ["default"]}


def another_part(run: Run) -> None:
    run.request = {"first": 1}


def another_kernel(run: Run) -> None:
    run.kernel = "5.10"


def another_assembler(run: Run) -> None:
    run.assembler = "keystone"


def another_way(run: Run) -> None:
    run.each = False


def another_program(run: Run) -> None:
    run.base = lambda: "another version of something"


@pytest.mark.parametrize(
    "change",
    [
        written,
        moved,
        selected,
        named,
        another_part,
        another_kernel,
        another_assembler,
        another_way,
        another_program,
    ],
)
def test_whatever_changes_it_is_made_anew(change: Callable[[Run], None], run: Run) -> None:
    run()
    assert run()[0]
    change(run)
    assert not run()[0]


def beside(run: Run) -> Path:
    run.file.write_text(BESIDE)
    guest = run.file.with_name("guest.s")
    guest.write_text(GUEST)
    return guest


def test_a_file_beside_it_counts_too(run: Run) -> None:
    guest = beside(run)
    first = run()
    assert run() == (True, first[1])
    status = guest.stat()
    guest.write_text(GUEST.replace("al, 1", "al, 2"))
    # Its bytes count, not its time.
    os.utime(guest, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = run()
    assert not changed[0]
    assert changed[1] != first[1]


def test_a_link_to_a_file_beside_it_that_leads_elsewhere_now(run: Run) -> None:
    guest = beside(run)
    guest.rename(run.file.with_name("one.s"))
    guest.symlink_to("one.s")
    run()
    assert run()[0]
    guest.unlink()
    shutil.copy(run.file.with_name("one.s"), run.file.with_name("two.s"))
    guest.symlink_to("two.s")
    assert not run()[0]
    guest.unlink()
    _, parts = run()
    assert "guest.s" in parts[0]["problems"][0]["message"]


def test_what_is_wrong_is_not_kept(run: Run) -> None:
    run.file.write_text(PLAIN.replace("hlt]", "htl]"))
    for _ in range(2):
        found, parts = run()
        assert found
        assert parts[0]["problems"]
    assert not Path(run.cache).exists()


@pytest.mark.parametrize("entry", [b"", b"nonsense", b"\xe9" * 100, b"N", b"(\x00\x00\x00\x00"])
def test_an_entry_of_another_kind_is_none(entry: bytes, run: Run) -> None:
    first = run()
    packs = Packs(run.cache)
    ((key, _),) = packs.items()
    packs.close()
    writer = Writer(run.cache)
    writer.put(key, entry)
    writer.close()
    again = run()
    assert again == (False, first[1])


# --- what prepares --------------------------------------------------------------------------------


def base() -> str:
    """As of a process that has just been started."""
    targets.find.cache_clear()
    return kept.base()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, and programs on PATH, that the base is made of."""
    shutil.copytree(ROOT / "kvmscen", tmp_path / "kvmscen", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copytree(ROOT / "schema", tmp_path / "schema")
    (tmp_path / "bin").mkdir()
    for tool in ("as", "ld", "aarch64-linux-gnu-as", "aarch64-linux-gnu-ld"):
        (tmp_path / "bin" / tool).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(kvmscen, "__file__", str(tmp_path / "kvmscen" / "__init__.py"))
    return tmp_path


@pytest.mark.parametrize(
    "file",
    [
        "kvmscen/compile/ready.py",
        "kvmscen/sent/header/exits.py",
        "kvmscen/asm/keystone/encoder.py",
        "schema/scenario.schema.json",
        "bin/aarch64-linux-gnu-as",
        "bin/ld",
    ],
)
def test_a_file_of_what_prepares_is_another(file: str, tree: Path) -> None:
    before = base()
    assert base() == before
    with (tree / file).open("a") as stream:
        stream.write("\n")
    changed = base()
    assert changed != before
    (tree / file).unlink()
    assert base() not in (before, changed)


@pytest.mark.parametrize("name", kept._MODULES)
def test_a_library_is_another(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = base()
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert base() != before


@pytest.mark.parametrize(
    ("variable", "value"),
    [("KVMSCEN_SANDBOX", "off"), ("KVMSCEN_ALLOW_HOST_EFFECTS", "1"), ("PATH", "/nowhere")],
)
def test_the_environment_is_another(
    variable: str, value: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = base()
    monkeypatch.setenv(variable, value)
    assert base() != before


def test_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    before = base()
    monkeypatch.setattr(sys, "version", "3.99")
    assert base() != before


# --- from the command line ------------------------------------------------------------------------


def kvmscen_run(folder: Path, *arguments: str) -> tuple[int, str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "home")}
    argv = [sys.executable, "-m", "kvmscen", *arguments]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout + done.stderr


def test_it_is_used_cleared_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(PLAIN)
    home = tmp_path / "home" / "kvmscen" / "prepared"
    assert kvmscen_run(tmp_path, "run", "a.yaml", "--on", "model", "--no-cache")[0] == 0
    assert not home.exists()
    first = kvmscen_run(tmp_path, "run", "a.yaml", "--on", "model", "--report", "json=first")
    again = kvmscen_run(tmp_path, "run", "a.yaml", "--on", "model", "--report", "json=again")
    assert (first[0], again[0], len(list(home.iterdir()))) == (0, 0, 1)
    results = [json.loads((tmp_path / name).read_text())["results"] for name in ("first", "again")]
    for (result,) in results:
        result.pop("elapsed_s")
    assert results[0] == results[1]
    assert kvmscen_run(tmp_path, "cache", "show") == (0, f"{home}: 1 file, 0.0 of 64 MiB\n")
    (tmp_path / "a.yaml").write_text(PLAIN.replace("data: 1", "data: 2"))
    assert kvmscen_run(tmp_path, "run", "a.yaml", "--on", "model")[0] == 1
    status, said = kvmscen_run(tmp_path, "cache", "clear")
    assert (status, said) == (0, f"{home}: removed 2 files, 0.0 of 64 MiB\n")
    assert list(home.iterdir()) == []


def test_two_at_once_share_it(tmp_path: Path) -> None:
    for n in range(40):
        (tmp_path / f"{n}.yaml").write_text(PLAIN)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "home")}
    argv = [sys.executable, "-m", "kvmscen", "run", ".", "--on", "model", "-q"]
    runs = [
        subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for started in runs:
        assert started.communicate(timeout=600)[0].startswith("40 passed")
    assert "40 files" in kvmscen_run(tmp_path, "cache", "show")[1]
