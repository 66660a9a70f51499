"""Steps that a host cannot tell apart where more than one of them may come next.

Of `repeat: {min: 0, max: 9}` of a read of port 0x64 and then one more read of port 0x64, a host
cannot know which read is the last one: each would take the first step, and the reply of the second
would never be given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from kvmscen.scenario import Step
from kvmscen.sent.header import exits
from kvmscen.sent.machine import Step as ScriptStep
from kvmscen.sent.script.interpreter import matches, series

# So many steps may be open at one place.
MOST = 32


class TooMany(Exception):
    """More than MOST steps may come next, this one among them."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step


class _Leaf(NamedTuple):
    """One step that is no group: as it is written, as the host has it, and the members that tell
    it, a series as its values.
    """

    written: Step
    step: ScriptStep
    where: Mapping[str, Any]


class _Group(NamedTuple):
    step: ScriptStep
    members: tuple[_Leaf | _Group, ...]


# A sequence of steps, and how many of it are passed.
_Level = tuple[tuple["_Leaf | _Group", ...], int]


def ambiguous(written: Sequence[Step], script: Sequence[ScriptStep]) -> Iterator[tuple[Step, Step]]:
    """Pairs of steps that may both come next at some place, where the first takes an exit that is
    meant for the second.

    Raises TooMany.
    """
    tree = _tree(written, script, 1)
    reported: set[tuple[int, int]] = set()
    for options in _all_options(tree):
        if len(options) > MOST:
            raise TooMany(options[MOST].written)
        for first, second in combinations(options, 2):
            key = (id(first.written), id(second.written))
            if key not in reported and (first is second or _both(first, second)):
                reported.add(key)
                yield first.written, second.written


def _tree(
    written: Sequence[Step], script: Sequence[ScriptStep], rounds: int
) -> tuple[_Leaf | _Group, ...]:
    out: list[_Leaf | _Group] = []
    for step, script_step in zip(written, script, strict=True):
        if script_step.exit == "group":
            out.append(
                _Group(script_step, _tree(step.steps, script_step.steps, script_step.repeat[1]))
            )
        else:
            own = rounds if script_step.repeat == (1, 1) else script_step.repeat[1]
            out.append(
                _Leaf(
                    step,
                    script_step,
                    {key: _values(matcher, own) for key, matcher in script_step.where.items()},
                )
            )
    return tuple(out)


def _all_options(tree: tuple[_Leaf | _Group, ...]) -> Iterator[list[_Leaf]]:
    """For each place where a host can stand, the steps that an exit may take there, in the order in
    which they are tried.
    """
    yield list(_first(tree, 0))
    yield from _inside(tree, ())


def _inside(
    sequence: tuple[_Leaf | _Group, ...], outer: tuple[tuple[_Group, _Level], ...]
) -> Iterator[list[_Leaf]]:
    for index, node in enumerate(sequence):
        here = (sequence, index)
        if isinstance(node, _Group):
            yield from _inside(node.members, (*outer, (node, here)))
            continue
        for behind in _behind((sequence, index + 1), outer):
            # Once more and going on are open at the same time only where `min` is below `max`.
            again = node.step.repeat[0] < node.step.repeat[1]
            yield [node, *behind] if again else behind


def _behind(level: _Level, outer: tuple[tuple[_Group, _Level], ...]) -> Iterator[list[_Leaf]]:
    """What may come from a place of a sequence on; several where it depends on how many rounds
    there were.
    """
    sequence, index = level
    here = list(_first(sequence, index))
    if not all(map(_may_be_missing, sequence[index:])) or not outer:
        yield here
        return
    group, (around, place) = outer[-1]
    low, high = group.step.repeat
    left = list(_behind((around, place + 1), outer[:-1]))
    again = list(_first(group.members, 0)) if high > 1 else []
    if again and (low < high or _may_be_missing(group)):
        yield from ([*here, *again, *behind] for behind in left)
        return
    if again:
        yield [*here, *again]
    yield from ([*here, *behind] for behind in left)


def _first(sequence: tuple[_Leaf | _Group, ...], index: int) -> Iterator[_Leaf]:
    """The steps of a sequence that may come first from an index on."""
    for node in sequence[index:]:
        if isinstance(node, _Group):
            yield from _first(node.members, 0)
        else:
            yield node
        if not _may_be_missing(node):
            return


def _may_be_missing(node: _Leaf | _Group) -> bool:
    return node.step.repeat[0] == 0 or (
        isinstance(node, _Group) and all(map(_may_be_missing, node.members))
    )


def _both(first: _Leaf, second: _Leaf) -> bool:
    """Whether one exit could take either step."""
    if first.step.exit != second.step.exit:
        return False
    return not any(
        _apart(matcher, second.where[key])
        for key, matcher in first.where.items()
        if key in second.where
    )


def _values(matcher: Any, rounds: int) -> Any:
    """A matcher without a series: the values that a series has."""
    if isinstance(matcher, dict) and "from" in matcher:
        return {"in": {series(matcher, nth) for nth in range(rounds)}}
    return matcher


def _apart(matcher: Any, other: Any) -> bool:
    """Whether no value fits both; False where that is not certain."""
    if not isinstance(matcher, dict):
        return not matches(other, matcher)
    if not isinstance(other, dict):
        return not matches(matcher, other)
    if "in" in matcher and "in" in other:
        return not set(matcher["in"]) & set(other["in"])
    if "in" in matcher:
        return not any(matches(other, value) for value in matcher["in"])
    if "in" in other:
        return not any(matches(matcher, value) for value in other["in"])
    if "mask" in matcher and "mask" in other:
        return bool((matcher["value"] ^ other["value"]) & matcher["mask"] & other["mask"])
    if "mask" in matcher or "mask" in other:
        return False
    return bool(
        matcher.get("max", 1 << 64) < other.get("min", 0)
        or other.get("max", 1 << 64) < matcher.get("min", 0)
    )


def mistaken(first: Step, second: Step) -> str:
    """What to say of such a pair, at the place of the second."""
    if first is second:
        say = (
            "this step may be repeated, and so may the group around it: an exit could be the "
            "next round of either"
        )
        return f"{say}: give one of them a fixed `repeat`"
    row = exits.BY_NAME.get(second.kind)
    telling = ("ioctl", "errno") if second.kind == "error" else row.where if row is not None else ()
    by = (
        f"one `{second.kind}` from another by {' and '.join(telling)} alone"
        if telling
        else f"no `{second.kind}` from another"
    )
    say = (
        f"the step of line {first.place.line} may still come here, and takes each exit that is "
        f"meant for this one"
    )
    return f"{say}, since a host tells {by}: write other values there, or a fixed `repeat`"
