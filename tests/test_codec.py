"""Values to JSON and back: each that crosses a border comes back as it was, and what is none is
refused in one way.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layers import PACKAGE, pythons

from kvmscen.compile.measure import Sampling
from kvmscen.errors import Problem
from kvmscen.hosts.recordings import Recording
from kvmscen.job.expectation import Deed, Expectation, Expected, MemoryExpected, Story
from kvmscen.job.job import Job, Target, Wanted
from kvmscen.job.legend import Legend, Line, Span
from kvmscen.sent.codec import Rows, decode, encode
from kvmscen.sent.facts import Facts
from kvmscen.sent.machine import (
    Action,
    Bytes,
    Capability,
    Machine,
    Memslot,
    Sealed,
    Step,
    Tables,
    Vcpu,
)
from kvmscen.sent.measure import Kind, Measure, Series, TimedExit, Timing
from kvmscen.sent.observation import Event, Observation
from kvmscen.sent.sandbox import InForce

CROSSING = (
    *(Action, Bytes, Capability, Machine, Memslot, Sealed, Step, Tables, Vcpu),
    *(Kind, Measure, TimedExit, Series, Timing, Event, Observation, Facts, InForce),
    *(
        Target,
        Job,
        Legend,
        Line,
        Span,
        Wanted,
        Sampling,
        Problem,
        Deed,
        Expectation,
        Expected,
        MemoryExpected,
        Story,
        Recording,
    ),
)
PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
DATA = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    str: st.text(max_size=6),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    bytes: st.binary(max_size=6),
    Any: DATA,
    type(None): st.none(),
}


@cache
def of(kind: Any, depth: int = 2) -> st.SearchStrategy[Any]:
    """Any value that an annotation allows; what is nested in itself up to `depth`."""
    if kind in LEAVES:
        return LEAVES[kind]
    if hasattr(kind, "_fields"):
        return st.deferred(
            lambda: st.tuples(*members(kind, depth)).map(lambda values: kind(*values))
        )
    outer, inner = get_origin(kind), get_args(kind)
    if outer is tuple and inner[-1] is Ellipsis:
        return st.lists(of(inner[0], depth), max_size=2 if depth else 0).map(tuple)
    if outer is tuple:
        return st.tuples(*(of(inner_kind, depth) for inner_kind in inner))
    if outer in (Mapping, dict):
        return st.dictionaries(of(inner[0]), of(inner[1], depth), max_size=2)
    return st.one_of(*(of(inner_kind, depth) for inner_kind in inner))


def members(kind: Any, depth: int) -> list[st.SearchStrategy[Any]]:
    hints = get_type_hints(kind)
    defaults = kind._field_defaults
    made = [of(hints[name], depth - (kind in (Step, Expected))) for name in kind._fields]
    return [
        strategy | st.just(defaults[name]) if name in defaults else strategy
        for name, strategy in zip(kind._fields, made, strict=True)
    ]


def crossed(value: Any) -> Any:
    return json.loads(json.dumps(encode(value)))


@pytest.mark.parametrize("kind", CROSSING)
def test_each_value_comes_back_as_it_was(kind: Any) -> None:
    @settings(max_examples=60, deadline=None)
    @given(of(kind))
    def comes_back(value: Any) -> None:
        for there in (encode(value), crossed(value)):
            back = decode(kind, there)
            assert back == value
            assert same_kinds(back, value)

    comes_back()


def same_kinds(value: Any, other: Any) -> bool:
    """Whether two equal values are of the same classes all the way down: to Python a NamedTuple
    equals any tuple.
    """
    if hasattr(value, "_fields") or hasattr(other, "_fields"):
        return type(value) is type(other) and all(map(same_kinds, value, other))
    if isinstance(value, tuple):
        return isinstance(other, tuple) and all(map(same_kinds, value, other))
    return not isinstance(other, tuple)


class Leaf(NamedTuple):
    number: int
    text: str = ""


class Tree(NamedTuple):
    leaf: Leaf
    raw: bytes = b""
    rows: Rows[Leaf] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    by_name: Mapping[str, Leaf] = {}
    by_number: Mapping[int, bytes] = {}
    maybe: Leaf | None = None
    data: Any = None
    trees: tuple[Tree, ...] = ()


def test_the_shape() -> None:
    assert encode(Tree(Leaf(1))) == {"leaf": {"number": 1}}
    whole = Tree(
        Leaf(1, "x"),
        b"\1\2",
        (Leaf(3),),
        ((4, 5),),
        {"a": Leaf(6)},
        {7: b"\7"},
        Leaf(8),
        [9],
        (Tree(Leaf(10)),),
    )
    assert encode(whole) == {
        "leaf": {"number": 1, "text": "x"},
        "raw": "0102",
        "rows": [[3, ""]],
        "pairs": [[4, 5]],
        "by_name": {"a": {"number": 6}},
        "by_number": {"7": "07"},
        "maybe": {"number": 8},
        "data": [9],
        "trees": [{"leaf": {"number": 10}}],
    }


_BESIDE: list[dict[str, Any]] = [
    {"raw": 1},
    {"raw": "0"},
    {"rows": {}},
    {"rows": [1]},
    {"rows": [[1, 2, 3]]},
    {"pairs": [[1]]},
    {"pairs": "ab"},
    {"by_name": []},
    {"by_number": {"x": "00"}},
    {"maybe": 1},
    {"trees": [1]},
    {"trees": "ab"},
]
WRONG: list[Any] = [
    None,
    [],
    "leaf",
    {},
    {"leaf": None},
    {"leaf": {}},
    {"leaf": {"number": 1, "color": 2}},
    *({"leaf": {"number": 1}, **beside} for beside in _BESIDE),
]


@pytest.mark.parametrize("data", WRONG)
def test_what_is_no_such_value_is_refused(data: Any) -> None:
    with pytest.raises((LookupError, TypeError, ValueError, AttributeError, OverflowError)):
        decode(Tree, data)


class Either(NamedTuple):
    which: Leaf | Tree


class Mixed(NamedTuple):
    which: tuple[Leaf, int]


class Nested(NamedTuple):
    rows: Rows[Tree]


@pytest.mark.parametrize("kind", [Either, Mixed, Nested])
def test_a_class_that_json_cannot_tell_is_refused_at_once(kind: Callable[..., Any]) -> None:
    with pytest.raises(TypeError):
        encode(kind(Leaf(1)))


# The classes that cross are read by Python 3.9 too, which cannot evaluate `X | None`.
OLD = """
import sys
sys.path.insert(0, sys.argv[1])
from kvmscen.sent.codec import decode, encode
from kvmscen.sent.machine import Action, Bytes, Machine, Memslot, Step, Vcpu
from kvmscen.sent.observation import Event, Observation
then = (Action("emulate", {}),)
step = Step("mmio", {"data": 1}, reply={"data": 2}, then=then, steps=(Step("io"),))
vcpu = Vcpu(0, "el1", {"pc": 0}, (), (step,))
machine = Machine("arm64", (Memslot(0, 0, 4096),), (Bytes.at(0, b"x", 9),), (), (vcpu,))
event = Event(0, "exit", "mmio", {}, None, memory={8: b"y"}, at=((0, 0),))
seen = Observation("end", (event,), {}, {0: b"z"}, 0.5)
assert decode(Machine, encode(machine)) == machine and decode(Observation, encode(seen)) == seen
print(encode(machine), encode(seen))
"""


def test_all_pythons_make_the_same_of_it() -> None:
    said = set()
    for python in pythons():
        done = subprocess.run(
            [python, "-I", "-S", "-c", OLD, str(PACKAGE.parent)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        said.add(done.stdout)
    assert len(said) == 1
