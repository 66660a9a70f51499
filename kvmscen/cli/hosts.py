"""`kvmscen hosts`: each host, whether it can run here, and why not. Prints, and returns the exit
status.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import textwrap
from collections.abc import Iterator

from tabulate import tabulate

from kvmscen.errors import HostError
from kvmscen.hosts import HOSTS, host, prepared
from kvmscen.hosts.process import confinement
from kvmscen.hosts.process.children import ChildHost

# A narrower column of notes is no table any more.
_NOTE_WIDTH = 30
_HEAD = ("host", "runs here", "architectures", "kernel", "note")

Row = tuple[str, str, str, str, str]


def hosts(arguments: argparse.Namespace) -> int:
    """`kvmscen hosts`."""
    rows = list(_rows())
    width = shutil.get_terminal_size((120, 24)).columns
    # The note is what can be broken into lines: it gets the width that the other columns leave.
    # tabulate widens each by 2.
    columns = zip(_HEAD[:-1], *(row[:-1] for row in rows), strict=True)
    left = width - sum(max(len(title) + 2, *map(len, cells)) + 2 for title, *cells in columns)
    if left >= _NOTE_WIDTH:
        print(
            tabulate(
                rows,
                headers=_HEAD,
                disable_numparse=True,
                maxcolwidths=[None, None, None, None, left],
            )
        )
        print(f"\n{confinement.here()}")
        return 0
    for name, *told, note in rows:
        print(
            textwrap.fill(f"{name}: {' '.join(filter(None, told))}", width, subsequent_indent="  ")
        )
        print(textwrap.fill(note, width, initial_indent="  ", subsequent_indent="  "))
    print(textwrap.fill(confinement.here(), width))
    return 0


def _rows() -> Iterator[Row]:
    for kind, row in HOSTS.items():
        if kind == "qemu":
            yield from _qemu(row.usage, row.note)
        elif row.usage == kind or row.usage.startswith(f"{kind}["):
            yield _tried(kind, row.usage, row.note)
        else:
            # It needs a name of the user's: without one there is nothing to try.
            lacking = _lacking(kind)
            yield (
                row.usage,
                "no" if lacking else "if named",
                "",
                "",
                f"{row.note}: {lacking}" if lacking else row.note,
            )


def _lacking(kind: str) -> str:
    """What every host of a kind needs and is not here."""
    if kind != "ssh":
        return ""
    try:
        client = (shlex.split(os.environ.get("KVMSCEN_SSH", "")) or ["ssh"])[0]
    except ValueError as error:
        return f"KVMSCEN_SSH is not a command: {error}"
    return "" if shutil.which(client) else f"there is no {client} here"


def _qemu(usage: str, note: str) -> Iterator[Row]:
    """The machines that are prepared, each tried; of the kind only whether there are any."""
    try:
        there = [machine.name for machine in prepared()]
    except HostError as error:
        yield (usage, "no", "", "", f"{note}: {error}")
        return
    how = "below" if there else "no"
    yield (
        usage,
        how,
        "",
        "",
        note if there else f"{note}: none is prepared (kvmscen host prepare qemu:arm64)",
    )
    for name in there:
        yield _tried(name, name, "prepared")


def _tried(name: str, usage: str, note: str) -> Row:
    """A host that is started, and that has said that guests can run on it."""
    opened = None
    try:
        opened = host(name)
        opened.start()
        opened.wait()
        if isinstance(opened, ChildHost):
            opened.prove()
    except (HostError, OSError) as error:
        why = str(error).removeprefix(f"host {name} cannot run here: ")
        return (usage, "no", "", "", f"{note}: {why}")
    finally:
        if opened is not None:
            opened.close()
    archs = " ".join(facts.arch for facts in opened.facts)
    kernel = next((facts.kernel for facts in opened.facts if facts.kernel), "")
    flavour = next((facts.flavour for facts in opened.facts if facts.flavour), None)
    return (usage, "yes", archs, kernel, note + (f", flavour {flavour}" if flavour else ""))
