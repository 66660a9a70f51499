"""What a file was prepared to, kept for the next run: the keys, and the entries.

A key is a digest of all that goes in: this program, its libraries and tools (`base`), what the
workers were told (hosts, options), the request, and the bytes of the scenario. Files beside the
scenario are known once it is read: an entry has their digests, and is none where one has changed.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kvmscen
from kvmscen.asm.gnu import targets
from kvmscen.compile.prepare import Made, Prepared
from kvmscen.job.job import Job
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.machine import Machine
from kvmscen.sent.sandbox import effects_allowed, mode

Json = dict[str, Any]
# Entries that are larger are not kept.
_MOST = 1 << 20
_MODULES = ("yaml", "jsonschema", "keystone", "elftools")


def base() -> str:
    """A digest of what prepares: the files of this package and of the libraries, Python, as and ld,
    and what the environment allows.
    """
    held = hashlib.blake2b(digest_size=32)
    root = Path(kvmscen.__file__).parent
    files = [str(path) for path in sorted(root.rglob("*.py"))]
    files += [str(path) for path in sorted((root.parent / "schema").glob("*.json"))]
    files += [str(path) for path in sorted((root / "schema").glob("*.json"))]
    for name in _MODULES:
        if (spec := find_spec(name)) is not None and spec.origin:
            folder = Path(spec.origin).parent
            files += sorted(str(path) for path in folder.iterdir() if path.is_file())
    for found in map(targets.find, targets.TARGETS):
        files += [] if found is None else [found.assembler, found.linker]
    for file in files:
        held.update(_seen(file).encode("utf-8", "surrogateescape"))
    held.update(f"{sys.version} {mode()} {effects_allowed()}".encode())
    return held.hexdigest()


def _seen(file: str) -> str:
    """A file as it is now, without its bytes: it is another one when it was written."""
    try:
        status = Path(file).stat()
    except OSError:
        return f"{file} -\n"
    return f"{file} {status.st_ino} {status.st_size} {status.st_mtime_ns}\n"


def pack(prepared: Prepared) -> bytes | None:
    """An entry, None where it is not kept: something is wrong in the file, or it is too large."""
    if prepared.problems:
        return None
    jobs = [
        (encode(made.job), None if made.machine is None else encode(made.machine))
        for made in prepared.jobs
    ]
    files = [(path, real, _digest(data)) for path, (real, data) in sorted(prepared.beside.items())]
    entry = marshal.dumps((files, jobs, list(prepared.names), prepared.cases), 4)
    return entry if len(entry) <= _MOST else None


def unpack(entry: bytes) -> Prepared | None:
    """What an entry holds, None where a file beside the scenario is not as it was."""
    files, jobs, names, cases = marshal.loads(entry)
    if not all(map(_same, files)):
        return None
    made = [
        Made(decode(Job, job), None if machine is None else decode(Machine, machine))
        for job, machine in jobs
    ]
    return Prepared(made, [], names, cases)


def _same(file: tuple[str, str, bytes]) -> bool:
    path, real, digest = file
    try:
        return os.path.realpath(path) == real and _digest(Path(real).read_bytes()) == digest
    except OSError:
        return False


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()
