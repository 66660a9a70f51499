"""`host prepare` from nothing: real packages of the machine's own sources, interrupted, damaged,
renewed, removed.
"""

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

from kvmscen.errors import HostError
from kvmscen.hosts.qemu import packages

ROOT = Path(__file__).resolve().parents[3]
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
    kernel = next(cache.folder.glob("downloads/*/linux-image-*.deb"))
    fetched = kernel.stat().st_mtime_ns

    # Goes on with what is there, and says what it does.
    cache.interrupt(cache.start("host", "prepare", HOST), "building the first file system")
    assert kernel.stat().st_mtime_ns == fetched
    out, err = cache.run("host", "prepare", HOST)
    assert out.startswith(f"{HOST}: ready, kernel 6.1.0-")
    assert [
        line for line in err.splitlines() if line.startswith(("unpacking", "building", "booting"))
    ][-2:] == [
        "building the first file system",
        f"booting {HOST}",
    ]
    assert list(cache.folder.glob("downloads/*")) == []

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
def test_two_at_once_whatever_the_name(cache: Cache) -> None:
    # On a Debian 12 all three are one machine, so one of them makes it and the others find it.
    cache.run("host", "prepare", HOST)
    cache.run("host", "remove", HOST)
    started = [cache.start("host", "prepare", name) for name in (HOST, "qemu:arm64", HOST)]
    ended = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ended
    assert all("Traceback" not in err for _, err in ended)
    assert all(": ready, kernel " in out for out, _ in ended)
    assert sum("building the first file system" in err for _, err in ended) == len(
        list(cache.folder.glob("machines/arm64@*"))
    )
    assert cache.left() == []
    assert list(cache.folder.glob("downloads/*")) == []


def test_a_disk_without_room_is_named_before_anything_is_fetched(tmp_path: Path) -> None:
    packages.room(tmp_path / "not" / "there", 1)
    with pytest.raises(
        HostError,
        match=rf"^{tmp_path}: No space left on device: \d+ MB are free, \d+ MB are needed$",
    ):
        packages.room(tmp_path / "not" / "there", 1 << 60)


@pytest.mark.qemu
def test_a_package_that_cannot_be_unpacked_is_one_line(tmp_path: Path) -> None:
    deb = tmp_path / "a.deb"
    deb.write_bytes(b"!<arch>\nno package")
    with pytest.raises(HostError, match=r"^a\.deb cannot be unpacked into .*: .*$") as told:
        packages.unpack(deb, tmp_path)
    assert len(str(told.value).splitlines()) == 1


def holding(cache: Cache, name: str) -> subprocess.Popen[str]:
    """A process that is at work on something."""
    code = (
        f"from kvmscen.hosts.qemu import store\nwith store.locked({name!r}):\n    "
        f"print('held', flush=True)\n    input()\n"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=pipe,
        stdout=pipe,
        text=True,
        env=cache.environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_what_another_is_at_is_not_removed(tmp_path: Path) -> None:
    own = Cache(tmp_path)
    with holding(own, "arm64@6.1") as process:
        downloads = own.folder / "downloads" / "arm64@6.1"
        downloads.mkdir(parents=True)
        err = own.run("host", "remove", "--all", status=3)[1]
        assert (
            err == "kvmscen: another kvmscen is at work on arm64@6.1: try again when it is done\n"
        )
        assert downloads.exists()
        process.kill()
    # A dead one holds nothing.
    own.run("host", "remove", "--all")
    assert not downloads.exists()


def test_who_waits_says_so(tmp_path: Path) -> None:
    own = Cache(tmp_path)
    told = "lambda what: print(what, flush=True)"
    code = (
        f"from kvmscen.hosts.qemu import store\nwith store.locked('x', {told}):\n    "
        f"print('mine', flush=True)\n"
    )
    with holding(own, "x") as process:
        argv = [sys.executable, "-c", code]
        with subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=own.environment
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "another kvmscen is at work on x: waiting for it\n"
            process.kill()
            assert other.communicate(timeout=600)[0] == "mine\n"


@pytest.mark.parametrize(
    "verb",
    [("run", "scenarios/arm64-psci.yaml"), ("hosts",), ("host", "list"), ("host", "prepare", HOST)],
)
@pytest.mark.parametrize("kind", ["a file", "a link to nowhere", "no home"])
def test_a_cache_that_cannot_be_is_named(verb: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    own = Cache(tmp_path / "cache")
    if kind == "a file":
        (tmp_path / "cache").write_text("")
    elif kind == "a link to nowhere":
        (tmp_path / "cache").symlink_to("/proc/nowhere/at/all")
    else:
        # A user that the system does not know, without HOME.
        own.environment = {**own.environment, "XDG_CACHE_HOME": "relative", "HOME": "relative"}
    process = own.start(*verb)
    out, err = process.communicate(timeout=600)
    assert "Traceback" not in err
    assert "itself broke" not in err
    writes = verb[:2] == ("host", "prepare")
    needed = verb[0] == "host" and (writes or kind != "a link to nowhere")
    assert process.returncode == (3 if needed else 0), out + err
    if kind == "no home":
        assert "there is no home folder: set HOME, or XDG_CACHE_HOME to a folder" in " ".join(
            (out + err).split()
        )
    elif kind == "a file":
        assert "Not a directory" in " ".join((out + err).split())


@pytest.mark.qemu
def test_ones_own_kernel_and_root_file_system(cache: Cache, tmp_path: Path) -> None:
    # A kernel of one's own: the one that is there.
    made = cache.folder / "machines" / "arm64@6.1"
    if not made.exists():
        cache.run("host", "prepare", HOST)
    image, root = tmp_path / "Image", tmp_path / "root"
    shutil.copy(made / "kernel", image)
    # The archive of the prepared machine has a root file system in it, and the modules that this
    # kernel needs.
    root.mkdir()
    subprocess.run(
        ["cpio", "-idm", "--quiet"], input=(made / "base").read_bytes(), cwd=root, check=True
    )
    modules = tmp_path / "modules"
    shutil.move(root / "modules", modules)
    for module in modules.iterdir():
        module.rename(modules / module.name[3:])
    argv = (
        "host",
        "prepare",
        "qemu:arm64",
        "--kernel",
        image,
        "--rootfs",
        root,
        "--modules",
        modules,
    )
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
def test_a_machine_that_does_not_come_up_says_what_its_console_said(
    cache: Cache, tmp_path: Path
) -> None:
    image = cache.folder / "machines" / "arm64@6.1" / "kernel"
    if not image.exists():
        cache.run("host", "prepare", HOST)
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3").write_text("not for this machine")
    (tmp_path / "usr/bin/python3").chmod(0o755)
    err = cache.run(
        "host", "prepare", "qemu:arm64", "--kernel", image, "--rootfs", tmp_path, status=3
    )[1]
    assert "a probable finding: the kernel of" in err
    assert "panicked" in err


@pytest.mark.qemu
def test_all_is_removed(cache: Cache) -> None:
    cache.run("host", "remove", "--all")
    # The files of the locks stay, since another kvmscen may wait for one.
    assert {path.name for path in cache.folder.glob("*")} <= {"locks"}
    assert "no host is prepared" in cache.run("host", "list")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("qemu:arm64@6.1", "--kernel", "Image"),
            "qemu:arm64@6.1 has a kernel in its name: with --kernel write qemu:arm64",
        ),
        (
            ("qemu:arm64", "--kernel", "/nowhere/Image"),
            "/nowhere/Image cannot be read: No such file or directory",
        ),
        (("kvm",), "there is no host 'kvm'"),
    ],
)
def test_what_cannot_be_prepared(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    process = Cache(tmp_path).start("host", "prepare", *arguments)
    out, err = process.communicate(timeout=600)
    assert process.returncode in (2, 3)
    assert (out, "Traceback" in err) == ("", False)
    assert said in err
