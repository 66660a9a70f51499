"""`kvmscen host`: machines that QEMU boots are prepared, listed and removed. Prints, and returns
the exit status.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from kvmscen.cli.streams import again
from kvmscen.errors import UsageError
from kvmscen.hosts.qemu import snapshot, store, tools
from kvmscen.hosts.qemu.host import QemuHost
from kvmscen.hosts.qemu.prepare import Own, prepare


class _Progress:
    """A line for each step; on a terminal how far it is behind it."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.live = out.isatty() and os.environ.get("TERM") != "dumb"
        self.step = ""

    def __call__(self, step: str, percent: float | None) -> None:
        if step != self.step:
            self._end()
            self.step = step
            self.out.write(step if self.live else f"{step}\n")
        if self.live and percent is not None:
            again(self.out, f"{step} {percent:3.0f}%")
        self.out.flush()

    def _end(self) -> None:
        if self.live and self.step:
            self.out.write("\n")

    def close(self) -> None:
        """End the line of progress that a terminal shows."""
        self._end()
        self.step = ""


def host(arguments: argparse.Namespace) -> int:
    """`kvmscen host prepare|list|remove`."""
    return _VERBS[arguments.what](arguments)


def _prepare(arguments: argparse.Namespace) -> int:
    own = Own(
        *(
            Path(path).absolute() if path else None
            for path in (arguments.kernel, arguments.rootfs, arguments.modules)
        )
    )
    tell = _Progress(sys.stderr)
    try:
        for text in arguments.names:
            name = store.parse(text)
            tools.get(name.row, tell)
            entry = prepare(name, own, tell)
            tell(f"booting {entry.name}", None)
            qemu_host = QemuHost(entry.name + (f",cpu={name.cpu}" if name.cpu else ""))
            try:
                qemu_host.start()
                qemu_host.wait()
            finally:
                qemu_host.close()
            kernel = qemu_host.facts[0].kernel
            tell.close()
            print(
                f"{qemu_host.name}: ready, kernel {kernel}, {_size(entry.size)} in {entry.folder}"
            )
    finally:
        tell.close()
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from tabulate import tabulate

    rows = [
        (
            entry.name,
            entry.manifest["kernel"],
            _size(entry.size),
            entry.manifest["made"],
            snapshot.state(entry),
        )
        for entry in store.entries()
    ]
    if not rows:
        print("no host is prepared (kvmscen host prepare qemu:arm64)")
        return 0
    print(
        tabulate(
            rows, headers=("host", "kernel", "disk", "prepared", "snapshots"), disable_numparse=True
        )
    )
    rest = store.usage(store.home()) - sum(entry.size for entry in store.entries())
    print(f"\nlists of packages and what was downloaded: {_size(rest)}, in {store.home()}")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    if bool(arguments.names) == arguments.all:
        raise UsageError("name the hosts to remove, or give --all")
    before = store.usage(store.home()) if store.home().exists() else 0
    if arguments.all:
        store.clear()
    for text in arguments.names:
        entry = store.find(store.parse(text))
        if entry is None:
            raise UsageError(f"{text} is not prepared (kvmscen host list)")
        with store.locked(entry.folder.name, wait=False):
            store.remove(entry)
    after = store.usage(store.home()) if store.home().exists() else 0
    print(f"removed: {_size(before - after)}")
    return 0


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB"


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "prepare": _prepare,
    "list": _list,
    "remove": _remove,
}
