"""Scratch folders: gone afterwards, whatever happens, and never another's."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from kvmscen.disk import scratch

ROOT = Path(__file__).resolve().parent.parent.parent
CASES = ROOT / "tests" / "cases" / "security"
needs_as = pytest.mark.skipif(shutil.which("as") is None, reason="needs GNU as")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of our own in which scratch folders lie."""
    monkeypatch.setattr(scratch, "_SHARED", str(tmp_path))
    monkeypatch.setattr(scratch, "_ROOM", 0)
    return tmp_path


def left(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir() if entry.name.startswith(scratch.PREFIX))


def test_a_folder_is_private_and_goes(place: Path) -> None:
    with scratch.folder(scratch.places()[0]) as folder:
        assert folder.parent == place
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").write_text("a")
        scratch.sweep()
        assert (folder / "a").exists()
    assert left(place) == []


def test_what_a_program_holds_a_moment_longer_than_its_owner_is_waited_for(place: Path) -> None:
    """One that was about to start when its process was ended."""
    kept = place / f"{scratch.PREFIX}1000000-other"
    gone = place / f"{scratch.PREFIX}1000001-mine"
    locks = []
    for path in (kept, gone):
        path.mkdir()
        locks.append(os.open(path, os.O_RDONLY))
        fcntl.flock(locks[-1], fcntl.LOCK_EX)
    scratch.sweep(1000002)
    assert left(place) == [kept.name, gone.name]
    release = threading.Timer(0, os.close, [locks[1]])
    release.start()
    scratch.sweep(1000001)
    release.join()
    assert left(place) == [kept.name]
    os.close(locks[0])
    scratch.sweep()
    assert left(place) == []


def test_what_a_dead_process_left_is_swept_and_what_a_living_one_has_is_not(place: Path) -> None:
    code = (
        "import sys, time; from kvmscen.disk import scratch\n"
        "with scratch.folder(sys.argv[1]) as folder: (folder / 'a').write_text('a'); print(folder, "
        "flush=True); time.sleep(600)"
    )
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(2)
    )
    try:
        folders = [
            Path(child.stdout.readline().strip()) for child in (first, second) if child.stdout
        ]
        first.kill()
        first.wait()
        assert all(folder.exists() for folder in folders)
        scratch.sweep()
        assert [folder.exists() for folder in folders] == [False, True]
    finally:
        for child in (first, second):
            child.kill()
            child.wait()
    scratch.sweep()
    assert left(place) == []


def test_nothing_but_our_own_dead_folders_is_swept(place: Path) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (place / f"{scratch.PREFIX}link").symlink_to(elsewhere)
    (place / f"{scratch.PREFIX}file").write_text("a")
    os.mkfifo(place / f"{scratch.PREFIX}pipe")
    (place / "kvmscen-other").mkdir()
    (place / f"{scratch.PREFIX}1").mkdir()
    stay = ["file", "link", "pipe"]
    if os.geteuid() == 0:
        stay.insert(0, "another-users")
        (place / f"{scratch.PREFIX}another-users").mkdir()
        os.chown(place / f"{scratch.PREFIX}another-users", 12345, -1)
    scratch.sweep()
    assert left(place) == [f"{scratch.PREFIX}{name}" for name in stay]
    assert elsewhere.exists()


def test_a_folder_that_was_swept_before_it_was_locked_is_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = fcntl.flock, []

    def flock(descriptor: int, how: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            # Somebody else has it at this moment, and removes it.
            shutil.rmtree(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with scratch.folder(str(place)) as folder:
        assert folder.exists()
        assert len(calls) == 2


@pytest.fixture
def long_assembly(tmp_path: Path) -> Iterator[Path]:
    """A scenario that GNU as works at for some seconds."""
    file = tmp_path / "long.yaml"
    loop = ".rept 65536\\n.rept 20\\n.4byte 0, 1f-0b\\n.endr\\n.endr"
    cases = "".join(f'  c{n}:\n    macros: {{m: "{loop}"}}\n' for n in range(8))
    head = "arch: x86_64\nassembler: gnu\nmemslots: [{slot: 0, gpa: 0, size: 0x4000000}]\n"
    file.write_text(
        head + f"asm: |\n  _start:\n      hlt\n  0:\n  1:\n  m\nexpect: [hlt]\ncases:\n{cases}"
    )
    yield file
    scratch.sweep()


def ours(pid: int) -> set[str]:
    """Scratch folders of the workers of a process, which another process has forked for it."""
    found = set()
    for folder in [
        entry for place in scratch.places() for entry in Path(place).glob(f"{scratch.PREFIX}*")
    ]:
        owner = int(folder.name.removeprefix(scratch.PREFIX).split("-")[0])
        try:
            parent = _parent(_parent(owner))
        except (OSError, ValueError):
            continue
        if parent == pid:
            found.add(str(folder))
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


@needs_as
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ended_run_leaves_no_folder_and_no_assembler(
    number: signal.Signals, long_assembly: Path
) -> None:
    command = [sys.executable, "-m", "kvmscen", "check", str(long_assembly)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        folders = wait(lambda: ours(process.pid))
        assert wait(lambda: at_work(folders)), "as did not start"
        process.send_signal(number)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    # At once where the program ends itself; else as soon as its child has seen that it is gone.
    wait(lambda: not any(map(os.path.exists, folders)))
    assert [folder for folder in folders if os.path.exists(folder)] == []
    wait(lambda: not at_work(folders))
    assert at_work(folders) == []


def at_work(folders: set[str]) -> list[str]:
    """Processes whose working folder is in one of these, removed or not."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = os.readlink(process / "cwd").removesuffix(" (deleted)")
        except OSError:
            continue
        if where.startswith(tuple(folders)):
            found.append(process.name)
    return found


Found = TypeVar("Found")


def wait(until: Callable[[], Found]) -> Found:
    """What `until` gives as soon as that is something, for a minute at most."""
    for _ in range(6000):
        if found := until():
            return found
        time.sleep(0.01)
    return until()


BIG = """\
arch: x86_64
assembler: gnu
memslots: [{slot: 0, gpa: 0, size: 0x4000000}]
asm: |
  _start:
      hlt
  .fill 0xe00000, 1, 1
expect: [hlt]
"""


@needs_as
@pytest.mark.parametrize(
    ("memory", "disk", "status"),
    [("20m", "200m", 0), ("17m", "200m", 0), ("1m", "200m", 0), ("17m", "3m", 3), ("1m", "4k", 3)],
)
def test_where_memory_has_no_room_the_temporary_folder_is_used(
    memory: str, disk: str, status: int, tmp_path: Path
) -> None:
    (tmp_path / "big.yaml").write_text(BIG)
    mounts = (
        f"mount -t tmpfs -o size={memory} none /dev/shm && mount -t tmpfs -o size={disk} none /mnt"
    )
    own = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m", "sh", "-c"]
    if subprocess.run([*own, mounts], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here, not even in a namespace of its own")
    command = [sys.executable, "-m", "kvmscen", "check", str(tmp_path / "big.yaml")]
    shell = f'{mounts} && TMPDIR=/mnt "$@"; status=$?; ls -A /dev/shm /mnt >&2; exit $status'
    done = subprocess.run([*own, shell, "sh", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    # Nothing is left in either.
    assert done.stderr.endswith("/dev/shm:\n\n/mnt:\n")
    if status:
        assert "there is no room for the files of GNU as in" in done.stdout
