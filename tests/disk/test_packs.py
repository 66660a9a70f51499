"""Packs: what is put in comes out, whatever else lies there; what is damaged is not there."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmscen.disk import packs
from kvmscen.disk.packs import Packs, Writer


def put(folder: Path, **entries: bytes) -> None:
    writer = Writer(str(folder))
    for key, body in entries.items():
        writer.put(key.encode(), body)
    writer.close()


def read(folder: Path, *keys: str) -> list[bytes | None]:
    held = Packs(str(folder))
    try:
        return [held.get(key.encode()) for key in keys]
    finally:
        held.close()


def test_what_is_put_in_comes_out(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "cache"
    assert read(folder, "x") == [None]
    put(folder, x=b"1", y=b"", z=os.urandom(100_000))
    put(folder, x=b"2")
    assert read(folder, "x", "y", "w") == [b"2", b"", None]
    assert packs.size(str(folder)).entries == 3
    assert (folder.stat().st_mode & 0o777, packs.clear(str(folder)).entries) == (0o700, 3)
    assert list(folder.iterdir()) == []


def test_a_writer_without_entries_leaves_nothing(tmp_path: Path) -> None:
    put(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_what_is_read_stays_when_it_is_cleared_meanwhile(tmp_path: Path) -> None:
    put(tmp_path / "cache", x=b"1")
    held = Packs(str(tmp_path / "cache"))
    packs.clear(str(tmp_path / "cache"))
    assert held.get(b"x") == b"1"
    held.close()


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_pack_gives_the_right_bytes_or_none(at: int, flip: int) -> None:
    """Whatever byte is another one, and wherever the file is cut."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cache"
        put(folder, x=b"first" * 20, y=b"second" * 20)
        (pack,) = folder.iterdir()
        whole = pack.read_bytes()
        at %= len(whole)
        for damaged in (
            whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :],
            whole[:at],
            whole + bytes(flip),
        ):
            pack.write_bytes(damaged)
            x, y = read(folder, "x", "y")
            assert x in (None, b"first" * 20)
            assert y in (None, b"second" * 20)


def test_an_entry_of_another_key_is_none(tmp_path: Path) -> None:
    """An index that leads to another entry: both are whole."""
    put(tmp_path / "cache", x=b"1", y=b"2")
    held = Packs(str(tmp_path / "cache"))
    held._at[b"x"], held._at[b"y"] = held._at[b"y"], held._at[b"x"]
    assert (held.get(b"x"), held.get(b"y")) == (None, None)
    held.close()


@pytest.mark.parametrize("wrong", ["mode", "link", "owner", "file"])
def test_what_is_not_ours_alone_is_not_read(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    put(folder, x=b"1")
    if wrong == "mode":
        folder.chmod(0o770)
    elif wrong == "link":
        folder.rename(tmp_path / "real")
        folder.symlink_to(tmp_path / "real")
    elif wrong == "owner":
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    else:
        (pack,) = folder.iterdir()
        target = tmp_path / "elsewhere"
        pack.rename(target)
        pack.symlink_to(target)
    assert read(folder, "x") == [None]
    # Nor is it written to, and nothing fails.
    put(folder, y=b"2")


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    put(tmp_path / "cache", x=b"1")
    assert read(tmp_path / "cache", "x") == [None]
    assert (tmp_path / "cache").read_text() == "a file"


def test_there_are_few_packs_and_none_is_lost_by_that(tmp_path: Path) -> None:
    for n in range(40):
        put(tmp_path, **{f"k{n}": b"%d" % n})
    assert len(list(tmp_path.iterdir())) <= packs._PACKS + 1
    assert read(tmp_path, *(f"k{n}" for n in range(40))) == [b"%d" % n for n in range(40)]


def test_they_are_bounded_and_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "MOST", 100_000)
    for n in range(30):
        put(tmp_path, **{f"k{n}": random.Random(n).randbytes(10_000)})
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 110_000
    first, last = read(tmp_path, "k0", "k29")
    assert first is None
    assert last == random.Random(29).randbytes(10_000)


def test_a_pack_that_was_never_finished_goes(tmp_path: Path) -> None:
    put(tmp_path, x=b"1")
    (tmp_path / ".old.part").write_bytes(b"half")
    (tmp_path / ".new.part").write_bytes(b"half")
    os.utime(tmp_path / ".old.part", (1, 1))
    put(tmp_path, y=b"1")
    assert not (tmp_path / ".old.part").exists()
    assert (tmp_path / ".new.part").exists()
