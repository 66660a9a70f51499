"""Steps that may both come next and that a host cannot tell apart are refused; all others are
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscen.compile.ambiguity import MOST, TooMany, ambiguous, mistaken
from kvmscen.scenario import Place
from kvmscen.scenario import Step as Written
from kvmscen.sent.machine import Step as ScriptStep
from kvmscen.sent.script.interpreter import Script, fits, iteration

Made = tuple[Written, ScriptStep]
_lines = iter(range(1, 1 << 30))


def out(port: Any = None, repeat: tuple[int, int] = (1, 1)) -> Made:
    where = {} if port is None else {"port": port}
    return Written("io", {}, Place(next(_lines), 5), repeat=repeat), ScriptStep("io", where, repeat)


def hlt(repeat: tuple[int, int] = (1, 1)) -> Made:
    return Written("hlt", {}, Place(next(_lines), 5), repeat=repeat), ScriptStep("hlt", {}, repeat)


def group(*members: Made, repeat: tuple[int, int] = (1, 1)) -> Made:
    written = Written(
        "steps", {}, Place(next(_lines), 5), repeat=repeat, steps=tuple(step for step, _ in members)
    )
    return written, ScriptStep("group", repeat=repeat, steps=tuple(step for _, step in members))


def found(members: Sequence[Made]) -> list[tuple[int, int]]:
    """The pairs, each step by its number among those that are no groups."""
    leaves: list[Written] = []

    def number(steps: Sequence[Written]) -> None:
        for step in steps:
            leaves.extend([] if step.steps else [step])
            number(step.steps)

    number([step for step, _ in members])
    pairs = ambiguous([step for step, _ in members], [step for _, step in members])
    at = {id(step): n for n, step in enumerate(leaves)}
    return [(at[id(first)], at[id(second)]) for first, second in pairs]


MAY = (0, 1)


@pytest.mark.parametrize(
    ("members", "pairs"),
    [
        ([out(1, (0, 9)), out(1)], [(0, 1)]),
        ([out(1, (1, 3)), out(1)], [(0, 1)]),
        ([out(1, (3, 3)), out(1)], []),
        ([out(1, (0, 9)), out(2)], []),
        ([out(1, (0, 9)), hlt(), out(1)], []),
        ([out(1, (0, 9)), hlt(MAY), out(1)], [(0, 2)]),
        ([out(None, MAY), out(1)], [(0, 1)]),
        # A series has as many values as it has rounds.
        ([out({"from": 8, "step": 4}, (1, 3)), out(16)], [(0, 1)]),
        ([out({"from": 8, "step": 4}, (1, 3)), out(20)], []),
        ([out({"from": 8, "step": 4}, (1, 3)), out({"from": 32, "step": -4}, (1, 3))], []),
        ([out({"from": 8, "step": 4}, (1, 3)), out({"from": 24, "step": -4}, (1, 3))], [(0, 1)]),
        ([out({"mask": 0xF0, "value": 0x10}, MAY), out({"mask": 0xFF, "value": 0x23})], []),
        ([out({"mask": 0xF0, "value": 0x10}, MAY), out({"mask": 0x0F, "value": 0x03})], [(0, 1)]),
        ([out({"min": 4}, MAY), out({"max": 3})], []),
        ([out({"min": 4}, MAY), out({"max": 4})], [(0, 1)]),
        ([out({"in": [1, 2]}, MAY), out({"in": [3]})], []),
        ([out({"in": [1, 2]}, MAY), out({"in": [2, 3]})], [(0, 1)]),
        ([out({"mask": 1, "value": 1}, MAY), out({"min": 4})], [(0, 1)]),
        # The end of a group leads to its next round and to what is behind it.
        ([group(out(1), out(2), repeat=(1, 2)), out(1)], [(0, 2)]),
        ([group(out(1), out(2), repeat=(2, 2)), out(1)], []),
        ([group(out(1), out(2), repeat=(1, 2)), out(2)], []),
        ([group(out(1), out(2, MAY), repeat=(1, 2)), out(3)], []),
        ([group(out(1), out(2, MAY), repeat=(2, 2)), out(2)], [(1, 2)]),
        ([group(out(1, (1, 2)), repeat=(1, 2)), hlt()], [(0, 0)]),
        ([group(group(out(1), repeat=(1, 2)), out(2, MAY), repeat=(1, 2)), hlt()], [(0, 0)]),
        ([group(out(1), repeat=MAY), group(hlt(), out(1), repeat=MAY), out(1)], [(0, 3)]),
    ],
)
def test_pairs(members: list[Made], pairs: list[tuple[int, int]]) -> None:
    assert found(members) == pairs


def test_what_is_said() -> None:
    first, second = out(1, (0, 9))[0], out(1)[0]
    assert mistaken(first, second) == (
        f"the step of line {first.place.line} may still come here, and takes each exit that is "
        f"meant for this one, since a host "
        "tells one `io` from another by port and direction alone: write other values there, or a "
        "fixed `repeat`"
    )
    assert "tells no `hlt` from another" in mistaken(hlt(MAY)[0], hlt()[0])
    assert "the next round of either" in mistaken(first, first)


def test_too_many_at_one_place_are_refused_before_they_are_compared() -> None:
    members = [out(n, MAY) for n in range(MOST)]
    assert found(members) == []
    with pytest.raises(TooMany):
        found([*members, out(99), hlt()])


_leaf = st.builds(
    out, st.integers(0, 2), st.sampled_from([(1, 1), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)])
)
_stories = st.lists(
    st.recursive(
        _leaf,
        lambda inner: st.builds(
            lambda members, repeat: group(*members, repeat=repeat),
            st.lists(inner, min_size=1, max_size=3),
            st.sampled_from([(1, 1), (2, 2), (0, 1), (1, 2)]),
        ),
        max_leaves=4,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=400)
@given(_stories, st.lists(st.integers(0, 2), max_size=12))
def test_a_host_never_has_to_choose_in_what_is_not_refused(
    members: list[Made], ports: list[int]
) -> None:
    clear = not found(members)
    script = Script([step for _, step in members])
    for port in ports:
        fields = {"port": port}
        options = list(script.options())
        fitting = [
            at
            for at, step in options
            if step and fits(step, "exit", "io", fields, iteration(at, step.repeat))
        ]
        assert len(fitting) < 2 or not clear
        script.take("exit", "io", fields)
