"""The archives that kernels unpack, as cpio itself reads them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kvmscen.hosts.qemu.cpio import Archive


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_them(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/lib/skipped").mkdir(parents=True)
    (tree / "usr/lib/skipped/file").write_text("x")
    (tree / "usr/lib/odd name").write_bytes(b"abc")
    (tree / "usr/lib/tool").write_bytes(bytes(4097))
    (tree / "usr/lib/tool").chmod(0o755)
    (tree / "lib").symlink_to("usr/lib")
    archive = Archive()
    archive.tree(tree, frozenset({"usr/lib/skipped"}))
    archive.file("a/b/c", b"made", 0o600)
    made = archive.finish()
    assert len(made) % 512 == 0
    out = tmp_path / "out"
    out.mkdir()
    # Two of them in a row, as a kernel takes them; cpio stops at the end of the first.
    subprocess.run(["cpio", "-idm", "--quiet"], input=made, cwd=out, check=True)
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    assert found == [
        "a",
        "a/b",
        "a/b/c",
        "lib",
        "usr",
        "usr/lib",
        "usr/lib/odd name",
        "usr/lib/tool",
    ]
    assert (out / "usr/lib/odd name").read_bytes() == b"abc"
    assert (out / "usr/lib/tool").stat().st_mode & 0o777 == 0o755
    assert (out / "usr/lib/tool").read_bytes() == bytes(4097)
    assert os.readlink(out / "lib") == "usr/lib"
    assert (out / "a/b/c").stat().st_mode & 0o777 == 0o600
