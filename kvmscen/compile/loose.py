"""Known wrong outcomes that are told so loosely that the right one is among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvmscen.compile.plan import Plan
from kvmscen.compile.ready import stories
from kvmscen.errors import Problem
from kvmscen.job.expectation import Expected, Story
from kvmscen.scenario import Case


def loose(file: str, case: Case, plan: Plan) -> Iterator[Problem]:
    """A note for each entry of `when` with `xfail` that all runs satisfy which are as the case
    itself says.
    """
    base, overlays = stories(file, case, plan)
    for overlay, story in overlays:
        if overlay.xfail and _within(base, story):
            say = (
                "note: whatever is as the case itself says is as this known wrong outcome says "
                "too, so it can only be XPASS"
            )
            yield Problem(
                file, overlay.place.line, overlay.place.column, f"{say}: write what is wrong in it"
            )


def _within(base: Story, other: Story) -> bool:
    """Whether all that the other story asks is asked by the base too."""
    if other.steps is not None and (base.steps is None or not _steps(base.steps, other.steps)):
        return False
    return _some(base.regs, other.regs) and set(map(repr, other.memory)) <= set(
        map(repr, base.memory)
    )


def _steps(base: Sequence[Expected], other: Sequence[Expected]) -> bool:
    return len(base) == len(other) and all(map(_step, base, other))


def _step(base: Expected, other: Expected) -> bool:
    same = ("kind", "vcpu", "repeat", "timeout", "reply")
    if any(getattr(base, name) != getattr(other, name) for name in same) or (base.then is None) != (
        other.then is None
    ):
        return False
    if [deed.text for deed in base.then or ()] != [deed.text for deed in other.then or ()]:
        return False
    checks = set(map(repr, other.memory)) <= set(map(repr, base.memory))
    return (
        _some(base.fields, other.fields)
        and _some(base.regs, other.regs)
        and checks
        and _steps(base.steps, other.steps)
    )


def _some(base: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(name in base and base[name] == matcher for name, matcher in other.items())
