"""The interpreter of scripts: which step an event takes, what is replied, when a vCPU stops. Held
against regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvmscen.sent.header import exits
from kvmscen.sent.machine import Action, Bytes, Step
from kvmscen.sent.script.interpreter import EXTRA_LIMIT, Devices, Script, Verdict, matches, reply_of

MMIO = {"phys_addr": 0x5000, "is_write": True, "len": 8, "data": 0}
ACTION = Action("set_regs", {"rax": 1})


def store(at: int = 0x5000, low: int = 1, high: int | None = None, **more: Any) -> Step:
    return Step(
        "mmio", {"phys_addr": at, "is_write": True}, (low, low if high is None else high), **more
    )


def group(low: int, high: int, *steps: Step) -> Step:
    return Step("group", repeat=(low, high), steps=steps)


def take(script: Script, name: str = "mmio", **fields: Any) -> Verdict:
    return script.take("exit", name, {**MMIO, **fields} if name == "mmio" else fields)


# --- matchers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matcher", "value", "nth", "fits"),
    [
        (5, 5, 0, True),
        (5, 6, 0, False),
        (5, None, 0, False),
        (None, None, 0, True),
        ("hlt", "hlt", 0, True),
        (True, 1, 0, True),
        ({"mask": 0xF0, "value": 0x30}, 0x35, 0, True),
        ({"mask": 0xF0, "value": 0x30}, 0x45, 0, False),
        ({"mask": 0xF0, "value": 0x31}, 0x31, 0, False),
        ({"in": [1, 3]}, 3, 0, True),
        ({"in": [1, 3]}, 2, 0, False),
        ({"in": []}, 2, 0, False),
        ({"min": 2, "max": 4}, 2, 0, True),
        ({"min": 2, "max": 4}, 4, 0, True),
        ({"min": 2, "max": 4}, 5, 0, False),
        ({"min": 2, "max": 4}, 1, 0, False),
        ({"min": 2}, 1 << 80, 0, True),
        ({"max": 2}, -(1 << 80), 0, True),
        ({"from": 0x5000, "step": 8}, 0x5000, 0, True),
        ({"from": 0x5000, "step": 8}, 0x5010, 2, True),
        ({"from": 0x5000, "step": 8}, 0x5010, 1, False),
        ({"from": 0x5000, "step": -8}, 0x4FF8, 1, True),
        ({"min": 0}, None, 0, False),
        ({"min": 0}, "EFAULT", 0, False),
        ({"in": ["a"]}, [1], 0, False),
        ([1, {"min": 2}], [1, 9], 0, True),
        ([1, {"min": 2}], [1, 1], 0, False),
        ([1], [1, 1], 0, True),  # the beginning of a list is compared
        ([1, 1], [1], 0, False),
        ([1], 1, 0, False),
        (1, [1], 0, False),
        ([], [], 0, True),
    ],
)
def test_matchers(matcher: Any, value: Any, nth: int, fits: bool) -> None:
    assert matches(matcher, value, nth) is fits


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-5, 5))
def test_a_range_is_both_ends_included(low: int, high: int, value: int) -> None:
    assert matches({"min": low, "max": high}, value) == (value in range(low, high + 1))


# --- single rules ---------------------------------------------------------------------------------


def test_a_step_is_told_by_its_telling_fields_only() -> None:
    script = Script([store()])
    assert take(script, data=77, len=1).stop == "end"


def test_extra_exits_stay_where_they_are() -> None:
    script = Script([store(), Step("hlt")])
    assert take(script, phys_addr=0x6000).step is None
    assert take(script, is_write=False).step is None
    assert take(script).step == store()
    assert take(script, "hlt") == Verdict(Step("hlt"), 0, (), "expected", ((1, 0),))
    assert script.extras == 2


def test_sixteen_extras_stop_the_vcpu() -> None:
    script = Script([store(), Step("hlt")])
    stops = [take(script, phys_addr=0x6000 + n).stop for n in range(EXTRA_LIMIT)]
    assert stops == [None] * 15 + ["extra"]


def test_extras_count_over_the_whole_story() -> None:
    script = Script([store(), store(), Step("hlt")])
    for n in range(15):
        assert take(script, phys_addr=0x6000).stop is None
        if n == 7:
            assert take(script).step == store()
    assert take(script, phys_addr=0x6000).stop == "extra"


@pytest.mark.parametrize(("steps", "ignore"), [(None, ()), ((), ()), ([store()], [Step("io")])])
def test_the_limit_of_extras_is_off_without_steps_and_with_ignore(steps: Any, ignore: Any) -> None:
    script = Script(steps, ignore)
    assert {take(script, phys_addr=0x6000).stop for _ in range(3 * EXTRA_LIMIT)} <= {None, "end"}


def test_a_script_without_steps_records_until_an_ending_exit() -> None:
    script = Script(None)
    assert not script.over()
    assert take(script).stop is None
    assert take(script, "hlt").stop == "expected"


def test_an_empty_script_is_over_before_the_first_exit() -> None:
    assert Script([]).over()
    assert Script([]).finished()


def test_ignored_exits_take_no_step_and_are_never_extra() -> None:
    script = Script([store(), Step("hlt")], [store(0x6000), Step("io", {"port": 0x3F8})])
    for _ in range(40):
        assert take(script, phys_addr=0x6000) == Verdict(None, 0, (), None, ignored=True)
        assert take(script, "io", port=0x3F8, direction=1) == Verdict(
            None, 0, (), None, ignored=True
        )
    assert script.extras == 0
    assert take(script, "io", port=0x3F9, direction=1).step is None
    assert script.extras == 1
    assert take(script).step == store()


def test_an_ignored_ending_exit_does_not_end() -> None:
    script = Script([store()], [Step("hlt")])
    assert take(script, "hlt").stop is None


@pytest.mark.parametrize("row", exits.EXITS, ids=lambda row: row.name)
def test_what_ends_a_vcpu(row: exits.Exit) -> None:
    ending = row.name in (
        "unknown",
        "hlt",
        "shutdown",
        "system_event",
        "fail_entry",
        "internal_error",
        "arm_nisv",
    )
    tail = Step("intr")
    assert Script([Step(row.name), tail]).take("exit", row.name, {}).stop == (
        "expected" if ending else None
    )
    # `then: []` just enters again.
    assert Script([Step(row.name, then=()), tail]).take("exit", row.name, {}).stop is None
    assert Script([Step(row.name, then=(ACTION,)), tail]).take("exit", row.name, {}).then == (
        ACTION,
    )
    assert Script(None).take("exit", row.name, {}).stop == ("expected" if ending else None)


def test_an_exit_that_nobody_knows_ends() -> None:
    assert Script(None).take("exit", "KVM_EXIT_77", {}).stop == "expected"


def test_the_vcpu_stops_right_after_the_last_step() -> None:
    script = Script([store(), store(0x5008, then=(ACTION,))])
    assert take(script).stop is None
    assert take(script, phys_addr=0x5008) == Verdict(
        store(0x5008, then=(ACTION,)), 0, (ACTION,), "end", ((1, 0),)
    )


def test_errors() -> None:
    fault = Step("error", {"ioctl": "KVM_RUN", "errno": "EFAULT"})
    assert Script([fault]).take("error", "EFAULT", {"ioctl": "KVM_RUN"}) == Verdict(
        fault, 0, (), "error", ((0, 0),)
    )
    assert Script([fault]).take("error", "ENOSYS", {"ioctl": "KVM_RUN"}) == Verdict(
        None, 0, (), "error"
    )
    assert Script([fault]).take("exit", "hlt", {"ioctl": "KVM_RUN"}).step is None
    again = Step("error", {"ioctl": "KVM_RUN", "errno": "EFAULT"}, then=())
    assert Script([again, Step("hlt")]).take("error", "EFAULT", {"ioctl": "KVM_RUN"}).stop is None
    either = Step("error", {"ioctl": "KVM_RUN", "errno": "EFAULT"}, (1, 3), then=())
    script = Script([either, Step("hlt")])
    assert script.take("error", "EFAULT", {"ioctl": "KVM_RUN"}).step == either
    assert script.take("error", "ENOSYS", {"ioctl": "KVM_RUN"}) == Verdict(None, 0, (), "error")


def test_a_timeout_is_a_step() -> None:
    wait = Step("timeout", timeout=0.05, then=(ACTION,))
    script = Script([wait, store()])
    assert script.timeout() == 0.05
    assert script.take("timeout", "", {"timeout": 0.05}) == Verdict(
        wait, 0, (ACTION,), None, ((0, 0),)
    )
    assert script.timeout() is None
    assert script.take("timeout", "", {"timeout": 5.0}) == Verdict(None, 0, (), "timeout")


def test_a_timeout_step_may_follow_optional_ones() -> None:
    # Three exits came of up to ten, and then nothing: that is the story, not the end of the run's
    # time.
    script = Script([store(low=1, high=10), Step("timeout", timeout=0.05), Step("hlt")])
    assert script.timeout() is None
    assert take(script).step is not None
    assert script.timeout() == 0.05
    assert take(script).step is not None
    assert script.take("timeout", "", {"timeout": 0.05}).stop is None
    assert script.timeout() is None
    assert take(script, "hlt").stop == "expected"


def test_nth_counts_a_steps_own_repeat_else_its_groups() -> None:
    own = Step("mmio", {"phys_addr": {"from": 0x5000, "step": 8}}, (3, 3))
    script = Script([own])
    assert [take(script, phys_addr=0x5000 + 8 * n).nth for n in range(3)] == [0, 1, 2]
    inner = Step("mmio", {"phys_addr": {"from": 0x5000, "step": 8}})
    script = Script([group(3, 3, inner, Step("io"))])
    for n in range(3):
        assert take(script, phys_addr=0x5000 + 8 * ((n + 1) % 3)).step is None
        assert take(script, phys_addr=0x5000 + 8 * n).nth == n
        assert take(script, "io").step is not None
    assert script.over()
    # A step's own repeat begins anew in each round of its group.
    script = Script([group(2, 2, own)])
    assert [take(script, phys_addr=0x5000 + 8 * (n % 3)).nth for n in range(6)] == [
        0,
        1,
        2,
        0,
        1,
        2,
    ]


@pytest.mark.parametrize("low", [0, 1, 2, 3])
def test_a_group_of_optional_steps_may_be_empty_each_time(low: int) -> None:
    script = Script([group(low, 3, store(low=0, high=1), Step("io", repeat=(0, 1))), Step("hlt")])
    assert take(script, "hlt").stop == "expected"
    assert script.finished()


def test_an_enormous_repeat_costs_nothing() -> None:
    script = Script(
        [group(0, 10**9, group(0, 10**9, store(low=0, high=10**9), Step("io", repeat=(0, 10**9))))]
    )
    for n in range(500):
        assert take(script, "io" if n % 3 else "mmio").step is not None
    assert script.finished()
    assert not script.over()


# --- any script at all ----------------------------------------------------------------------------

LETTERS = "abcdefghijklmnop"
NAMES = dict(
    zip(
        LETTERS,
        (row.name for row in exits.EXITS if not row.ends and row.name != "arm_nisv"),
        strict=False,
    )
)
repeats = st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(
    lambda r: r[0] <= r[1] and r[1] > 0
)


def leaf(names: str) -> st.SearchStrategy[Step]:
    return st.builds(lambda n, r: Step(NAMES[n], repeat=r), st.sampled_from(names), repeats)


any_steps = st.lists(
    st.recursive(
        leaf("abc"),
        lambda inner: st.builds(
            lambda r, s: group(*r, *s), repeats, st.lists(inner, min_size=1, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(
    any_steps, st.lists(st.sampled_from(["a", "b", "c", "hlt", "timeout", "error"]), max_size=30)
)
def test_no_script_loops_or_raises(steps: list[Step], events: list[str]) -> None:
    script = Script(steps)
    for event in events:
        before, ended = script._at, script.over()
        if event in ("timeout", "error"):
            verdict = script.take(event, "EIO", {"ioctl": "KVM_RUN"})
        else:
            verdict = script.take("exit", NAMES.get(event, event), {})
        assert (verdict.step is None) == (script._at == before)
        if ended:
            assert verdict.step is None
        if script.over():
            assert script.finished()
        assert script.timeout() is None


# A regular expression by derivatives (Brzozowski): None is no word, () the empty word, a letter, or
# a tuple of parts in order. It knows nothing of positions and counts: {m,n} is written out.


def written_out(steps: Sequence[Step]) -> tuple[Any, ...]:
    out: list[Any] = []
    back = {name: letter for letter, name in NAMES.items()}
    for step in steps:
        piece = back[step.exit] if step.exit != "group" else written_out(step.steps)
        low, high = step.repeat
        tail: Any = ()
        for _ in range(high - low):
            tail = ("?", (piece, tail))
        out += [piece] * low + [tail]
    return tuple(out)


def nullable(e: Any) -> bool:
    if isinstance(e, str):
        return False
    return e[:1] == ("?",) or all(map(nullable, e))


def derive(e: Any, letter: str) -> set[Any]:
    """What may follow `letter` at the start of a word, as a set of expressions."""
    if isinstance(e, str):
        return {()} if e == letter else set()
    if e[:1] == ("?",):
        return derive(e[1], letter)
    if e == ():
        return set()
    out = {(d, e[1:]) for d in derive(e[0], letter)}
    return out | derive(e[1:], letter) if nullable(e[0]) else out


@st.composite
def determined(
    draw: st.DrawFn, letters: list[str] | None = None, depth: int = 0, first_fixed: bool = False
) -> list[Step]:
    """Scripts in which a letter tells where one stands: each letter once, and a repeated group
    begins with a fixed step.
    """
    pool = list(LETTERS) if letters is None else letters
    steps: list[Step] = []
    for n in range(draw(st.integers(1, 3))):
        if not pool:
            break
        fixed = first_fixed and n == 0
        if not fixed and depth < 3 and len(pool) > 2 and draw(st.booleans()):
            steps.append(group(*draw(repeats), *draw(determined(pool, depth + 1, True))))
        else:
            low, high = draw(repeats)
            steps.append(
                Step(NAMES[pool.pop()], repeat=(max(low, high), high) if fixed else (low, high))
            )
    return steps


@settings(max_examples=400, deadline=None)
@given(determined(), st.data())
def test_agrees_with_a_regular_expression(steps: list[Step], data: st.DataObject) -> None:
    check(steps, lambda choice: data.draw(st.sampled_from(choice)), 25)


@settings(max_examples=200, deadline=None)
@given(st.lists(leaf("abcd"), max_size=4, unique_by=lambda s: s.exit), repeats, st.data())
def test_agrees_where_all_of_a_group_is_optional(
    steps: list[Step], times: tuple[int, int], data: st.DataObject
) -> None:
    optional = [Step(step.exit, repeat=(0, 1)) for step in steps]
    # The letter after the group tells when it is over; inside, an optional letter met again begins
    # the next round.
    check(
        [group(*times, *optional), Step(NAMES["p"])] if optional else [],
        lambda c: data.draw(st.sampled_from(c)),
        15,
    )


def check(steps: list[Step], choose: Any, length: int) -> None:
    script, left = Script(steps), {written_out(steps)}
    used = sorted(set(re.findall("[a-p]", repr(left)))) or ["a"]
    for _ in range(length):
        assert script.finished() == any(map(nullable, left))
        following = {letter: set().union(*(derive(e, letter) for e in left)) for letter in used}
        assert script.over() == (not any(following.values()))
        # Extra letters now and then; most of the time one that fits, so that stories get to their
        # end.
        likely = [letter for letter in used if following[letter]] or used
        letter = choose(likely * 4 + used)
        verdict = script.take("exit", NAMES[letter], {})
        assert (verdict.step is not None) == bool(following[letter])
        if following[letter]:
            assert verdict.step is not None
            assert verdict.step.exit == NAMES[letter]
            left = following[letter]


# --- devices and replies --------------------------------------------------------------------------


def test_devices_hold_their_bytes() -> None:
    devices = Devices([Bytes.at(0x5000, b"\1\2\3\4", 8), Bytes.at(0x5008, b"\xff" * 4)])
    assert devices.read(0x5000, 8) == b"\1\2\3\4\0\0\0\0"
    assert devices.read(0x5006, 4) == b"\0\0\xff\xff"
    assert devices.read(0x500A, 4) == b"\xff\xff\0\0"
    devices.write(0x4FFE, b"abcd")
    assert devices.read(0x4FFC, 8) == b"\0\0\0\0cd\3\4"
    devices.write(0x500A, b"wxyz")
    assert devices.read(0x5008, 8) == b"\xff\xffwx\0\0\0\0"


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=10)), max_size=20))
@example([(15, b"ab"), (31, b"cd")])
def test_devices_are_like_memory_with_holes(writes: list[tuple[int, bytes]]) -> None:
    devices, flat = Devices([Bytes.at(8, b"", 8), Bytes.at(16, b"x", 16)]), bytearray(64)
    flat[16] = ord("x")
    for at, data in writes:
        devices.write(at, data)
        flat[at : at + len(data)] = data
    flat[:8], flat[32:] = bytes(8), bytes(32)
    assert devices.read(0, 64) == flat


def test_replies() -> None:
    devices = Devices([Bytes.at(0x5000, b"\1\2\3\4")])
    read = {"phys_addr": 0x5002, "is_write": False, "len": 4}
    assert reply_of(None, "mmio", read, devices) == {"data": 0x0403}
    assert reply_of(Step("mmio"), "mmio", read, devices) == {"data": 0x0403}
    assert reply_of(Step("mmio", reply={"data": 9}), "mmio", read, devices) == {"data": 9}
    # What lies in no section reads zero, not what the last exit left in kvm_run.
    assert reply_of(None, "mmio", {**read, "phys_addr": 0x9000}, devices) == {"data": 0}
    assert reply_of(None, "mmio", MMIO, devices) == {}
    assert reply_of(None, "io", {"direction": 0, "port": 1}, devices) == {"data": 0}
    assert reply_of(None, "io", {"direction": 1, "port": 1}, devices) == {}
    assert reply_of(Step("x86_rdmsr", reply={"error": 1}), "x86_rdmsr", {}, devices) == {
        "error": 1,
        "data": 0,
    }
    assert reply_of(Step("x86_wrmsr", reply={"error": 1}), "x86_wrmsr", {}, devices) == {"error": 1}
    assert reply_of(Step("hypercall", reply={"ret": 7}), "hypercall", {}, devices) == {"ret": 7}
    assert reply_of(None, "hlt", {}, devices) == {}
    assert reply_of(None, "KVM_EXIT_77", {}, devices) == {}


def test_thousands_of_steps_that_may_be_missing() -> None:
    steps = tuple(Step("io", {"port": n}, repeat=(0, 1)) for n in range(20_000))
    script = Script((*steps, Step("hlt")))
    assert script.take("exit", "io", {"port": 19_999}).at == ((19_999, 0),)
    assert script.take("exit", "hlt", {}).stop == "expected"
