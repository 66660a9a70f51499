"""Files that are written whole or not at all, and read where they are not too large."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kvmscen.disk import whole

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_file_is_new_or_replaced_and_nothing_else_is_there(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for text, lasting in (("one", False), ("two \udc80 ö", True)):
        whole.write(file, text, lasting)
        assert file.read_bytes() == text.encode("utf-8", "backslashreplace")
        assert os.listdir(tmp_path) == ["a"]


def test_rights_and_links_stay(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    real = tmp_path / "sub" / "a"
    real.write_text("old")
    real.chmod(0o640)
    (tmp_path / "link").symlink_to("sub/a")
    (tmp_path / "second").symlink_to(tmp_path / "link")
    whole.write(tmp_path / "second", "new")
    assert (tmp_path / "second").is_symlink()
    assert (tmp_path / "link").is_symlink()
    assert (real.read_text(), stat.S_IMODE(real.stat().st_mode)) == ("new", 0o640)
    (tmp_path / "dangling").symlink_to("sub/b")
    whole.write(tmp_path / "dangling", "new")
    assert (tmp_path / "sub" / "b").read_text() == "new"


def test_a_new_file_has_the_rights_that_the_user_gives_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        whole.write(tmp_path / "a", "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    whole.write(pipe, "x" * 200_000)
    reader.join(60)
    assert got == ["x" * 200_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_its_name_goes_on_where_it_is(tmp_path: Path, name: str) -> None:
    write = f"whole.write({name!r}, 'text\\n')"
    code = f"from kvmscen.disk import whole; print('before', flush=True); {write}; print('behind')"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True
    ).stdout
    assert said == b"before\ntext\nbehind\n"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == said


def test_a_full_disk_leaves_what_was_there() -> None:
    """On a file system of 64 KiB, in a mount namespace of its own."""
    code = """
import errno, os, sys
from kvmscen.disk import whole
where = sys.argv[1]
whole.write(where + "/a", "old")
for name in ("a", "b"):
    try:
        whole.write(where + "/" + name, "x" * 200_000, lasting=True)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    else:
        raise AssertionError("it fits")
assert os.listdir(where) == ["a"], os.listdir(where)
assert open(where + "/a").read() == "old"
print("ok")
"""
    shell = 'mount -t tmpfs -o size=64k none /mnt && exec "$0" -c "$1" /mnt'
    done = subprocess.run(
        [
            "unshare",
            *([] if os.geteuid() == 0 else ["-r"]),
            "-m",
            "sh",
            "-c",
            shell,
            sys.executable,
            code,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_dev_full() -> None:
    with pytest.raises(OSError, match="No space left") as told:
        whole.write("/dev/full", "x")
    assert told.value.errno == errno.ENOSPC


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    class Interrupting(str):
        def encode(self, *arguments: object) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        whole.write(tmp_path / "a", Interrupting("a"))
    assert os.listdir(tmp_path) == []


def test_reading(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert whole.read(file, 5) == b"12345"
    with pytest.raises(whole.TooLarge):
        whole.read(file, 4)
    # What has no size before it is read.
    assert b"Linux" in whole.read("/proc/version", 10_000)
    with pytest.raises(whole.TooLarge):
        whole.read("/proc/version", 3)
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(whole.TooLarge, match="more than 1,000 bytes"):
        whole.read(sparse, 1000)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="no regular file"):
            whole.read(other, 5)
    with pytest.raises(IsADirectoryError):
        whole.read(tmp_path, 5)
