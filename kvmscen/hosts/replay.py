"""The `replay:FILE` host: Observations recorded earlier with --record, FILE being one of them or a
folder of them.
"""

from __future__ import annotations

import json
from pathlib import Path

from kvmscen.errors import HostError, Problem
from kvmscen.hosts import recordings
from kvmscen.hosts.retrace import retraced
from kvmscen.sent.codec import decode
from kvmscen.sent.facts import Facts
from kvmscen.sent.machine import Machine, Sealed
from kvmscen.sent.observation import Observation

# Bytes of files whose Observations are held; those of others are read when they are asked for.
_HELD = 32 << 20


class NotRecorded(HostError):
    """There is no recording of this machine."""


class ReplayHost:
    """Gives back what was recorded of the same machine; runs nothing."""

    archs: tuple[str, ...] | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = name.partition(":")[2]
        self.facts: tuple[Facts, ...] = ()
        self.problems: tuple[Problem, ...] = ()
        self._found: dict[tuple[str, str], tuple[Path, Observation | None]] = {}
        self._damaged: list[Path] = []
        self.timing = False
        if not self.path:
            raise HostError("replay needs a recording: write replay:FILE or replay:FOLDER")

    def start(self) -> None:
        """Nothing to start."""

    def wait(self) -> None:
        """Read the recordings. One of a folder that is damaged is a problem of its own case; the
        others count.
        """
        path = Path(self.path)
        # The newer of two recordings of one case is the one that counts.
        files = sorted(path.rglob("*.json"), key=_age) if path.is_dir() else [path]
        kept: dict[str, list[tuple[Facts, tuple[str, str], Path, Observation | None]]] = {}
        held, problems = 0, []
        for file in files:
            try:
                recording = recordings.read(file)
            except HostError as error:
                if not path.is_dir():
                    raise
                self._damaged.append(file)
                problems.append((file, error))
                continue
            known = recording.facts
            held += file.stat().st_size
            seen = recording.observation if held <= _HELD else None
            kept.setdefault(known.arch, []).append(
                (known, (recording.name, recording.machine), file, seen)
            )
        if not kept:
            raise (
                problems[0][1] if problems else HostError(f"there are no recordings in {self.path}")
            )
        self.problems = tuple(
            Problem(str(file), 0, 0, f"this recording is not replayed: {error}", ours=True)
            for file, error in problems
        )
        self.facts = tuple(_chosen([known for known, *_ in several]) for several in kept.values())
        for known, of, file, seen in (recorded for group in kept.values() for recorded in group):
            if known in self.facts:
                self._found[of] = (file, seen)

    def executor(self) -> ReplayHost:
        """The host itself, since reading recordings needs no state per thread."""
        return self

    def execute(self, machine: Sealed) -> Observation:
        """The recorded Observation of this machine. Raises NotRecorded; HostError where its version
        is another.
        """
        try:
            file, seen = self._found[machine.name, machine.digest]
        except KeyError:
            raise self._missing(machine) from None
        if seen is None:
            seen = recordings.read(file).observation
        try:
            return retraced(decode(Machine, json.loads(machine.text)), seen)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise HostError(
                f"the recording of {machine.name} holds what no host writes: record it again"
            ) from None

    def _missing(self, machine: Sealed) -> HostError:
        """Why there is no recording of a machine."""
        for file in self._damaged:
            if recordings.may_be_of(file, machine.name, machine.digest):
                return HostError(
                    f"{file}, which may be the recording of this case, is damaged: record it again"
                )
        if any(name == machine.name for name, _ in self._found):
            return HostError("this case was recorded from another version of it: record it again")
        return NotRecorded("this case was not recorded")

    def close(self) -> None:
        """Nothing to close."""


def _age(file: Path) -> tuple[int, str]:
    try:
        return file.stat().st_mtime_ns, str(file)
    except OSError:
        return 0, str(file)


def _chosen(several: list[Facts]) -> Facts:
    """Of several hosts of one architecture in a folder: the first that is real, else the first."""
    return next((facts for facts in several if not facts.predicted), several[0])
