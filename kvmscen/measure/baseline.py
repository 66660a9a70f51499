"""Baselines: the figures of one `kvmscen measure`, kept by name, and what has changed since.

The test. What disturbs a machine makes it slower, never faster, and mostly for some of the rounds;
so of the rounds' medians the lower quartile is compared. A change is told where the 99 % bootstrap
interval of the ratio of both quartiles (rounds drawn with replacement on either side) lies wholly
beyond the least change, 10 % up or down. Since a machine may be disturbed, or clocked otherwise,
for longer than one measurement, it must be there in each of REPEATS measurements, one after
another, in the same direction: the caller measures again as long as there is something to confirm.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kvmscen.disk import homes, whole
from kvmscen.errors import HostError, UsageError
from kvmscen.measure.confidence import Interval
from kvmscen.results.measured import Measured, number, quantile
from kvmscen.results.result import Mismatch, Result

FORMAT, VERSION = "kvmscen-baseline", 1
LEAST = 0.10
REPEATS = 3
# With fewer rounds their spread says too little.
ROUNDS_LEAST = 5
_CONFIDENCE = 0.99
_RESAMPLES = 2000
_QUARTILE = 0.25
# In nanoseconds: what is left where `less` takes everything off.
_NOTHING = 0.01
# A file of so many bytes holds more than a thousand kinds.
_MOST = 16 << 20
# What a name of a file may have, with room for its ending.
_LONGEST = 200


class Kept(NamedTuple):
    """One kind as it was kept: the medians of its rounds in nanoseconds, by which loop, and of
    which machine.
    """

    medians: tuple[float, ...]
    loop: str
    machine: str
    kernel: str


Baseline = Mapping[tuple[str, str, str], Kept]


def path_of(name: str) -> Path:
    """Where a baseline lies: $XDG_STATE_HOME/kvmscen/baselines/NAME.json. Raises UsageError for a
    name that is none.
    """
    if len(name) > _LONGEST:
        raise UsageError(
            f"the name of a baseline has {_LONGEST} characters at most, this one {len(name):,}"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name):
        raise UsageError(
            f"{name!r} is no name of a baseline: write letters, digits, `_`, `.`, `+` and `-`"
        )
    return homes.folder("XDG_STATE_HOME", ".local/state") / "baselines" / f"{name}.json"


def key(result: Result, measured: Measured) -> tuple[str, str, str]:
    """What tells one kind from another: the case, the host, and its name."""
    return (result.name, result.host, measured.name)


def save(name: str, results: Sequence[Result], started: str) -> Path:
    """Keep the figures of results; a baseline of the same name is replaced. Raises HostError where
    it cannot be written.
    """
    path = path_of(name)
    kinds = [
        {
            "case": case,
            "host": host,
            "name": kind,
            "medians_ns": list(measured.medians_ns),
            "loop": measured.loop,
            "machine": result.machine,
            "kernel": result.kernel or "",
        }
        for result in results
        for measured in result.measured
        for case, host, kind in (key(result, measured),)
    ]
    data = {"format": FORMAT, "version": VERSION, "started": started, "kinds": kinds}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(path, json.dumps(data, indent=1) + "\n", lasting=True)
    except OSError as error:
        raise HostError(
            f"the baseline {path} could not be written: {os.strerror(error.errno or 0)}"
        ) from None
    return path


def load(name: str) -> Baseline:
    """The baseline of a name. Raises UsageError where there is none, or the file is no baseline."""
    path = path_of(name)
    try:
        data = json.loads(whole.read(path, _MOST))
    except FileNotFoundError:
        there = sorted(file.stem for file in path.parent.glob("*.json"))
        others = f"there are {', '.join(there)}" if there else f"keep one first with --save {name}"
        raise UsageError(f"there is no baseline {name}: {others}") from None
    except OSError as error:
        raise UsageError(f"the baseline {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(
            f"the baseline {path} cannot be read: it is damaged, save it again"
        ) from None
    try:
        return _kinds(data)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        raise UsageError(
            f"{path} is no baseline made by kvmscen measure --save: save it again"
        ) from None


def _kinds(data: Any) -> Baseline:
    if data["format"] != FORMAT or data["version"] != VERSION:
        raise ValueError
    out: dict[tuple[str, str, str], Kept] = {}
    for kind in data["kinds"]:
        medians = tuple(float(median) for median in kind["medians_ns"])
        if len(medians) < ROUNDS_LEAST or not all(map(math.isfinite, medians)):
            raise ValueError
        texts = [kind[name] for name in ("case", "host", "name", "loop", "machine", "kernel")]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
        out[texts[0], texts[1], texts[2]] = Kept(medians, *texts[3:])
    return out


def change(kept: Sequence[float], medians: Sequence[float]) -> Interval:
    """The ratio of the lower quartiles of the rounds' medians, now to then, with its interval."""
    draw = random.Random(1)
    value = _quartile(medians) / _quartile(kept)
    resampled = sorted(
        _quartile(_again(medians, draw)) / _quartile(_again(kept, draw)) for _ in range(_RESAMPLES)
    )
    tail = (1 - _CONFIDENCE) / 2
    return Interval(value, quantile(resampled, tail), quantile(resampled, 1 - tail))


def least(kept: Baseline, results: Sequence[Result]) -> dict[str, float]:
    """For each kind that is in both, by name, the smallest slow-down that would have been told, as
    a share (0.12 is 12 %).

    So much slower the interval of what was seen would lie beyond the least change.
    """
    out: dict[str, float] = {}
    several = len({(result.name, result.host) for result in results if result.measured}) > 1
    for result in results:
        for measured in result.measured:
            then = kept.get(key(result, measured))
            if then is not None:
                ratio = change(then.medians, measured.medians_ns)
                name = (
                    f"{result.name}:{measured.name} on {result.host}" if several else measured.name
                )
                out[name] = (1 + LEAST) * ratio.value / max(ratio.low, _NOTHING) - 1
    return out


def beyond(ratio: Interval) -> bool:
    """Whether a change is larger than the least that is reported."""
    return ratio.low > 1 + LEAST or ratio.high < 1 / (1 + LEAST)


def _quartile(values: Sequence[float]) -> float:
    # With `less` a figure may be nothing or less than nothing.
    return max(quantile(sorted(values), _QUARTILE), _NOTHING)


def _again(values: Sequence[float], draw: random.Random) -> list[float]:
    return draw.choices(values, k=len(values))


# --- results --------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """A result held against a baseline: FAIL where something `changed`, which maps names to whether
    they are slower now.
    """

    result: Result
    changed: Mapping[str, bool] = {}


def judge(name: str, kept: Baseline, results: Sequence[Result]) -> list[Judged]:
    """Results held against a baseline. Raises UsageError where nothing can be compared."""
    judged = [(result, _compared(name, kept, result)) for result in results]
    if any(result.measured for result in results) and all(
        compared is None for _, compared in judged
    ):
        raise UsageError(
            f"the baseline {name} has none of what was timed: keep it with --save {name} first"
        )
    return [compared or Judged(result) for result, compared in judged]


def _compared(name: str, kept: Baseline, result: Result) -> Judged | None:
    """One result held against its baseline; None where that has nothing of it."""
    mismatches: list[Mismatch] = []
    changed: dict[str, bool] = {}
    known = False
    for measured in result.measured:
        then = kept.get(key(result, measured))
        if then is None:
            continue
        known = True
        if then.loop != measured.loop:
            raise UsageError(
                f"the baseline {name} is of the {then.loop} loop, this of the {measured.loop} "
                "loop: measure with that one"
            )
        ratio = change(then.medians, measured.medians_ns)
        if beyond(ratio):
            expected = (
                f"measure {measured.name}: {number(_quartile(then.medians))} ns within "
                f"{LEAST:.0%} (baseline {name})"
            )
            what = (
                f"{number(_quartile(measured.medians_ns))} ns, {ratio.value:.3f} times that "
                f"({ratio.low:.3f} to {ratio.high:.3f})"
            )
            mismatches.append(Mismatch(0, measured.line, expected, what))
            changed[measured.name] = ratio.value > 1
    if not known:
        return None
    if not mismatches:
        return Judged(result)
    return Judged(
        result._replace(status="FAIL", mismatches=tuple(mismatches), options=("--against", name)),
        changed,
    )


def confirmed(before: Sequence[Judged], again: Sequence[Judged]) -> list[Judged]:
    """The judgements after another measurement: a change counts if both have it, with the figures
    of the last one.
    """
    later = {_case(judged.result): judged for judged in again}
    return [_confirmed(judged, later.get(_case(judged.result))) for judged in before]


def _case(result: Result) -> tuple[str, str, str]:
    return (result.file, result.case, result.host)


def _confirmed(before: Judged, now: Judged | None) -> Judged:
    if not before.changed or now is None or not now.result.measured:
        # What was not timed again stands as it was; what could not be timed tells so itself.
        return before if not before.changed or now is None else now
    changed = {
        name: slower for name, slower in now.changed.items() if before.changed.get(name) == slower
    }
    lines = {measured.line for measured in now.result.measured if measured.name in changed}
    mismatches = tuple(mismatch for mismatch in now.result.mismatches if mismatch.line in lines)
    return Judged(
        now.result._replace(status="FAIL" if changed else "PASS", mismatches=mismatches), changed
    )
