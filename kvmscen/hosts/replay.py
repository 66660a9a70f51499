"""The `replay:FILE` host: Observations recorded earlier with --record, FILE being one of them or a folder of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kvmscen.errors import HostError
from kvmscen.facts import Facts
from kvmscen.hosts.retrace import retraced
from kvmscen.machine import Machine, Sealed
from kvmscen.observation import Observation

FORMAT, VERSION = "kvmscen-observation", 2


class NotRecorded(HostError):
    """There is no recording of this machine."""


class ReplayHost:
    """Gives back what was recorded of the same machine; runs nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = name.partition(":")[2]
        self.facts: tuple[Facts, ...] = ()
        self._found: dict[tuple[str, str], Observation] = {}
        if not self.path:
            raise HostError("replay needs a recording: write replay:FILE or replay:FOLDER")

    def start(self) -> None:
        """Nothing to start."""

    def wait(self) -> None:
        """Read the recordings."""
        path = Path(self.path)
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        kept: dict[str, list[tuple[Facts, dict[str, Any]]]] = {}
        for file in files:
            data = _read(file)
            known = Facts.from_json(data["facts"])
            kept.setdefault(known.arch, []).append((known, data))
        if not kept:
            raise HostError(f"there are no recordings in {self.path}")
        self.facts = tuple(_chosen([known for known, _ in recordings]) for recordings in kept.values())
        for known, data in (recording for recordings in kept.values() for recording in recordings):
            if known in self.facts:
                self._found[data["name"], data["machine"]] = Observation.from_json(data["observation"])

    def executor(self) -> ReplayHost:
        """Itself: it only reads."""
        return self

    def execute(self, machine: Sealed) -> Observation:
        """The recorded Observation of this machine. Raises NotRecorded; HostError where its version is another."""
        try:
            seen = self._found[machine.name, machine.digest]
        except KeyError:
            if any(name == machine.name for name, _ in self._found):
                raise HostError("this case was recorded from another version of it: record it again") from None
            raise NotRecorded("this case was not recorded") from None
        try:
            return retraced(Machine.from_json(json.loads(machine.text)), seen)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise HostError(f"the recording of {machine.name} holds what no host writes: record it again") from None

    def close(self) -> None:
        """Nothing to close."""


def _chosen(found: list[Facts]) -> Facts:
    """Of several hosts of one architecture in a folder: the first that is real, else the first."""
    return next((facts for facts in found if not facts.predicted), found[0])


def _read(file: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(file.read_text())
        if data["format"] != FORMAT or data["version"] != VERSION:
            raise HostError(f"{file} is not a recording that this kvmscen reads ({FORMAT} version {VERSION})")
        facts, seen = Facts.from_json(data["facts"]), Observation.from_json(data["observation"])
        shapes = ((facts.arch, str), (facts.kernel or "", str), (facts.capabilities, dict), (seen.regs, dict))
        named = ((data["name"], str), (data["machine"], str), (facts.predicted, bool))
        if not all(isinstance(value, kind) for value, kind in (*shapes, *named)):
            raise TypeError
    except OSError as error:
        raise HostError(f"{file} cannot be read: {os.strerror(error.errno or 0)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HostError(f"{file} is not a recording made by kvmscen run --record") from None
    return data


def recording(name: str, host: str, facts: Facts, digest: str, observation: Observation) -> str:
    """The text of a recording."""
    data = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "host": host,
        "facts": facts.to_json(),
        "machine": digest,
        "observation": observation.to_json(),
    }
    return json.dumps(data, indent=1) + "\n"
