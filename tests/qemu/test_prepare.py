"""`host prepare` from nothing: real packages of the machine's own sources, interrupted, damaged, renewed, removed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "qemu:arm64@6.1"


class Cache:
    """A cache of its own, and kvmscen with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "kvmscen" / "qemu"
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "kvmscen", *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            argv,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env=self.environment,
            start_new_session=True,
        )

    def run(self, *arguments: object, status: int = 0) -> tuple[str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=600)
        assert process.returncode == status, out + err
        assert "Traceback" not in err
        return out, err

    def interrupt(self, process: subprocess.Popen[str], at: str) -> None:
        """^C as soon as it says `at`."""
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(at):
                break
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 130, out + err
        assert "Traceback" not in err

    def left(self) -> list[str]:
        """What lies beside whole machines."""
        return [path.name for path in self.folder.glob("machines/.*")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    made = Cache(tmp_path_factory.mktemp("cache"))
    yield made
    shutil.rmtree(made.folder.parent, ignore_errors=True)


@pytest.mark.qemu
def test_from_nothing_interrupted_and_damaged(cache: Cache) -> None:
    cache.interrupt(cache.start("host", "prepare", HOST), "7 packages")
    assert cache.left() == []
    assert "no host is prepared" in cache.run("host", "list")[0]
    kernel = next(cache.folder.glob("apt/*/debs/linux-image-*.deb"))
    fetched = kernel.stat().st_mtime_ns

    # Goes on with what is there, and says what it does.
    cache.interrupt(cache.start("host", "prepare", HOST), "building the first file system")
    assert kernel.stat().st_mtime_ns == fetched
    out, err = cache.run("host", "prepare", HOST)
    assert out.startswith(f"{HOST}: ready, kernel 6.1.0-")
    assert [line for line in err.splitlines() if line.startswith(("unpacking", "building", "booting"))][-2:] == [
        "building the first file system",
        f"booting {HOST}",
    ]
    assert list(cache.folder.glob("apt/*/debs/*")) == []

    # Whole: nothing to do. Damaged: made anew.
    assert cache.run("host", "prepare", HOST)[1].splitlines()[0] == f"{HOST} is there"
    image = cache.folder / "machines" / "arm64@6.1" / "kernel"
    with image.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"a byte or two")
    err = cache.run("host", "prepare", HOST)[1]
    assert "building the first file system" in err
    assert "PASS" in cache.run("run", "scenarios/arm64-mmio.yaml", "--on", HOST)[0]


@pytest.mark.qemu
def test_ones_own_kernel_and_root_file_system(cache: Cache, tmp_path: Path) -> None:
    # A kernel of one's own: the one that is there.
    made = cache.folder / "machines" / "arm64@6.1"
    if not made.exists():
        cache.run("host", "prepare", HOST)
    image, root = tmp_path / "Image", tmp_path / "root"
    shutil.copy(made / "kernel", image)
    # The archive of the prepared machine has a root file system in it, and the modules that this kernel needs.
    root.mkdir()
    subprocess.run(["cpio", "-idm", "--quiet"], input=(made / "base").read_bytes(), cwd=root, check=True)
    modules = tmp_path / "modules"
    shutil.move(root / "modules", modules)
    for module in modules.iterdir():
        module.rename(modules / module.name[3:])
    argv = ("host", "prepare", "qemu:arm64", "--kernel", image, "--rootfs", root, "--modules", modules)
    out, err = cache.run(*argv)
    name = f"qemu:arm64@{image}"
    assert out.startswith(f"{name}: ready, kernel 6.1.0-")
    assert "lists of packages" not in err
    assert "PASS" in cache.run("run", "scenarios/arm64-mmio.yaml", "--on", name)[0]

    # Built anew: the next run boots the new one.
    time.sleep(0.01)
    image.write_bytes(image.read_bytes() + bytes(4096))
    assert "PASS" in cache.run("run", "scenarios/arm64-mmio.yaml", "--on", name)[0]
    image.write_bytes(b"no kernel" * 1000)
    err = cache.run("run", "scenarios/arm64-mmio.yaml", "--on", name, status=3)[1]
    assert err == f"kvmscen: {image} is no kernel image for arm64\n"
    image.unlink()
    gone = cache.run("run", "scenarios/arm64-mmio.yaml", "--on", name, status=3)[1]
    assert f"{image} is not as it was when {name} was prepared: prepare it again" in gone

    cache.run("host", "remove", name)
    assert name not in cache.run("host", "list")[0]


@pytest.mark.qemu
def test_a_machine_that_does_not_come_up_says_what_its_console_said(cache: Cache, tmp_path: Path) -> None:
    image = cache.folder / "machines" / "arm64@6.1" / "kernel"
    if not image.exists():
        cache.run("host", "prepare", HOST)
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3").write_text("not for this machine")
    (tmp_path / "usr/bin/python3").chmod(0o755)
    err = cache.run("host", "prepare", "qemu:arm64", "--kernel", image, "--rootfs", tmp_path, status=3)[1]
    assert "a probable finding: the kernel of" in err
    assert "panicked" in err


@pytest.mark.qemu
def test_all_is_removed(cache: Cache) -> None:
    cache.run("host", "remove", "--all")
    assert not cache.folder.exists()
    assert "no host is prepared" in cache.run("host", "list")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("qemu:arm64@6.1", "--kernel", "Image"), "qemu:arm64@6.1 has a kernel in its name: with --kernel write qemu:arm64"),
        (("qemu:arm64", "--kernel", "/nowhere/Image"), "/nowhere/Image cannot be read: No such file or directory"),
        (("kvm",), "there is no host 'kvm'"),
    ],
)
def test_what_cannot_be_prepared(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    process = Cache(tmp_path).start("host", "prepare", *arguments)
    out, err = process.communicate(timeout=600)
    assert process.returncode in (2, 3)
    assert (out, "Traceback" in err) == ("", False)
    assert said in err
