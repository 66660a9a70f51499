"""Recordings: the Observation of one case on one host, in a JSON file of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from kvmscen.disk import whole
from kvmscen.errors import HostError
from kvmscen.hosts.process import bounded, shapes
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.facts import Facts
from kvmscen.sent.observation import Observation

FORMAT, VERSION = "kvmscen-observation", 3
# Bytes of a file: more than --record writes of the largest run that there can be.
_MOST = 192 << 20
# Bytes of a file's name.
_NAME = 255
_NOT_PLAIN = re.compile(r"[^\w.-]+")
_OURS = re.compile(r"-[0-9a-f]{8}(?:-[0-9a-f]{8})?")

Json = dict[str, Any]


class Recording(NamedTuple):
    """What a file holds: `name` is the case's, `host` the text given to --on, `machine` the digest
    of what was run.
    """

    format: str
    version: int
    name: str
    host: str
    facts: Facts
    machine: str
    observation: Observation


def recording(name: str, host: str, facts: Facts, digest: str, observation: Observation) -> str:
    """The text of a recording."""
    recording = Recording(FORMAT, VERSION, name, host, facts, digest, observation)
    return json.dumps(encode(recording), indent=1) + "\n"


def keep(
    folder: Path, name: str, host: str, facts: Facts, digest: str, observation: Observation
) -> None:
    """Write a recording into a folder; that of the same case, host and Machine is replaced. Raises
    OSError.
    """
    whole.write(
        folder / file_name(name, host, digest), recording(name, host, facts, digest, observation)
    )
    old = folder / (
        _NOT_PLAIN.sub("-", f"{name.replace(':', '-', 1)}@{host}-{digest[7:15]}") + ".json"
    )
    try:
        held = read(old)
        if (held.name, held.host, held.machine) == (name, host, digest):
            # As an earlier kvmscen called it.
            old.unlink()
    except (HostError, OSError):
        pass


def file_name(name: str, host: str, digest: str) -> str:
    """What a recording's file is called: never as that of another case, host or Machine, and never
    too long.

    `a-b@kvm` and `a+b@kvm` look alike once they are plain, so the end tells what was meant.
    """
    exact = hashlib.sha256(json.dumps([name, host]).encode()).hexdigest()[:8]
    end = f"-{digest[7:15]}-{exact}.json"
    plain = _NOT_PLAIN.sub("-", f"{name}@{host}").encode()[: _NAME - len(end)]
    # What is cut may be cut inside a letter.
    return plain.decode("utf-8", "ignore") + end


def may_be_of(file: Path, name: str, digest: str) -> bool:
    """Whether a file, which cannot be read, may be the recording of this case, as far as its name
    tells.
    """
    if not _OURS.search(file.stem):
        return True
    plain = _NOT_PLAIN.sub("-", name)
    return digest[7:15] in file.stem or file.stem.startswith(
        (f"{plain}-", plain[:100] if len(plain) > 100 else f"{plain}-")
    )


def read(file: Path) -> Recording:
    """Read and validate a recording. Raises HostError."""
    try:
        data: Json = bounded.parse(whole.read(file, _MOST).decode())
        if data["format"] != FORMAT or data["version"] != VERSION:
            raise HostError(
                f"{file} is not a recording that this kvmscen reads ({FORMAT} version {VERSION})"
            )
        held = decode(Recording, data)
        if not all(isinstance(text, str) for text in (held.name, held.host, held.machine)):
            raise TypeError
        shapes.facts(held.facts)
        shapes.check(held.observation)
    except OSError as error:
        raise HostError(
            f"{file} cannot be read: {error.strerror or os.strerror(error.errno or 0)}"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        raise HostError(f"{file} is not a recording made by kvmscen run --record") from None
    return held
