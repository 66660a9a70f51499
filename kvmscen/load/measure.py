"""`measure`: which exits `kvmscen measure` times, and between which exits it times what does not
exit.
"""

from __future__ import annotations

from typing import Any

from kvmscen.load import names
from kvmscen.load.document import Map
from kvmscen.load.steps import exit_of
from kvmscen.load.values import Notes, as_int, as_map, as_text
from kvmscen.scenario import Place, Timed

SAMPLES, WARMUP = 10_000, 100
# Each is one or two of the 63 bits of a record.
KINDS_MAX = 30
_BESIDE = ("from", "to", "per", "less", "samples", "warmup", "reply")


def measure(notes: Notes, value: Any, arch: str) -> tuple[Timed, ...]:
    """The entries of `measure`, by name."""
    held = as_map(value)
    for name in list(held)[KINDS_MAX : KINDS_MAX + 1]:
        notes.add(
            held.at_key(name),
            f"more than {KINDS_MAX} kinds are too many for one run: write several cases",
        )
    out = tuple(
        timed
        for name in held
        if (timed := _timed(notes, name, as_map(held[name]), held.at_key(name), arch))
    )
    plain = [timed.name for timed in out if timed.since is None]
    for timed in out:
        if timed.less is not None and (timed.less not in plain or timed.less == timed.name):
            others = [name for name in plain if name != timed.name]
            say = (
                f"write {names.either(others)}"
                if others
                else "time the exit `to` by itself too, and write that name"
            )
            what = (
                "is itself"
                if timed.less == timed.name
                else "is not the name of an exit that is timed here"
            )
            notes.add(
                as_map(held[timed.name]).at("less"), f"`{names.shorten(timed.less)}` {what}: {say}"
            )
    return out


def _timed(notes: Notes, name: str, held: Map, place: Place, arch: str) -> Timed | None:
    between = [key for key in ("from", "to") if key in held]
    exits = [key for key in held if key not in _BESIDE]
    if exits and between:
        say = (
            f"`{between[0]}` and an exit beside it are two things to time: write `{exits[0]}` "
            f"in a name of its own"
        )
        notes.add(held.at_key(between[0]), say)
        return None
    if len(exits) > 1:
        notes.add(
            held.at_key(exits[1]),
            f"one exit is meant here, `{exits[0]}` stands before: write this one in a name of its "
            f"own",
        )
        return None
    if "per" in held and not between:
        notes.add(
            held.at_key("per"),
            "`per` divides what lies between `from` and `to`: write both, or leave it out",
        )
    if len(between) == 1:
        missing = "to" if between == ["from"] else "from"
        notes.add(
            held.at_key(between[0]),
            f"`{between[0]}` alone is no span of time: write the exit `{missing}` too",
        )
        return None
    if between and "reply" in held:
        notes.add(
            held.at_key("reply"),
            "`reply` belongs to an exit: write that exit in a name of its own, and `reply` beside "
            "it",
        )
    since = None
    if between:
        since = exit_of(notes, held["from"], held.at("from"), arch)
        to = exit_of(notes, held["to"], held.at("to"), arch)
        if since is None:
            return None
    else:
        to = exit_of(notes, held, place, arch, _BESIDE)
    if to is None:
        return None
    return Timed(
        name,
        place,
        to,
        since,
        as_int(held.get("samples"), SAMPLES),
        as_int(held.get("warmup"), WARMUP),
        max(as_int(held.get("per"), 1), 1),
        as_text(held.get("less")) or None,
    )
