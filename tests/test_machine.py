"""Machine, Observation and Facts go to JSON and back unchanged, and a Machine's digest is of what
the guest is and is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmscen.sent.codec import decode, encode
from kvmscen.sent.facts import Facts
from kvmscen.sent.header import exits
from kvmscen.sent.machine import Action, Bytes, Capability, Machine, Memslot, Step, Tables, Vcpu
from kvmscen.sent.observation import Event, Observation

T = TypeVar("T")


def made(kind: Callable[..., T], *members: st.SearchStrategy[Any]) -> st.SearchStrategy[T]:
    """Values of these members, in their order; `builds` looks for strategies of the members that
    are left out too.
    """
    return st.tuples(*members).map(lambda values: kind(*values))


u64 = st.integers(0, 2**64 - 1)
names = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=8)
errnos = st.none() | st.sampled_from(["EINVAL", "EEXIST"])
matchers = (
    u64
    | st.builds(lambda a, b: {"mask": a, "value": b}, u64, u64)
    | st.builds(lambda a: {"in": a}, st.lists(u64, max_size=3))
)
regs = st.dictionaries(names, st.integers(0, 2**128 - 1), max_size=3)
values = u64 | st.booleans() | st.lists(u64, max_size=3)
slots = made(Memslot, u64, u64, u64, u64, errnos)
parts = made(Bytes.at, u64, st.binary(max_size=20), st.integers(0, 40))
caps = made(Capability, names, u64, st.lists(u64, max_size=4).map(tuple), st.booleans(), errnos)
actions = made(Action, names, st.dictionaries(names, values, max_size=3), st.integers(0, 3), errnos)
ranges = st.lists(st.tuples(u64, u64), max_size=2).map(tuple)
name_lists = st.lists(names, max_size=2).map(tuple)
repeats = st.tuples(st.integers(0, 9), st.integers(0, 9))
steps = st.recursive(
    made(
        Step,
        st.sampled_from([*exits.BY_NAME, "error", "timeout"]),
        st.dictionaries(names, matchers, max_size=2),
        repeats,
        st.none() | st.dictionaries(names, values, max_size=2),
        st.none() | st.lists(actions, max_size=2).map(tuple),
        name_lists,
        ranges,
        st.sampled_from([0.0, 0.05, 3.0]),
    ),
    lambda inner: st.builds(
        lambda r, s: Step("group", repeat=r, steps=tuple(s)), repeats, st.lists(inner, max_size=2)
    ),
    max_leaves=3,
)
scripts = st.none() | st.lists(steps, max_size=3).map(tuple)
vcpus = made(Vcpu, st.integers(0, 7), st.sampled_from(["long", "el1"]), regs, name_lists, scripts)
machines = made(
    Machine,
    st.sampled_from(["x86_64", "arm64"]),
    st.lists(slots, max_size=2).map(tuple),
    st.lists(parts, max_size=2).map(tuple),
    st.lists(parts, max_size=2).map(tuple),
    st.lists(vcpus, min_size=1, max_size=2).map(tuple),
    st.lists(caps, max_size=2).map(tuple),
    st.none() | made(Tables, u64, u64, u64, ranges),
    st.lists(actions, max_size=2).map(tuple),
    st.lists(steps, max_size=2).map(tuple),
    name_lists,
    ranges,
    st.floats(0, 600),
    st.integers(1, 100_000),
)


def crossed(data: Any) -> Any:
    return json.loads(json.dumps(data))


@settings(max_examples=150, deadline=None)
@given(machines)
def test_a_machine_crosses_the_border(machine: Machine) -> None:
    assert decode(Machine, crossed(encode(machine))) == machine
    sealed = machine.seal("a name")
    assert decode(Machine, json.loads(sealed.text)) == machine
    assert (sealed.name, sealed.digest, sealed.arch, sealed.timeout) == (
        "a name",
        machine.digest(),
        machine.arch,
        machine.timeout,
    )


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Events with the members that their exits have: the names that stand beside them in JSON must
    not clash.
    """
    kind = draw(st.sampled_from(["exit", "error", "timeout"]))
    more = (
        draw(st.none() | regs),
        draw(st.none() | st.dictionaries(u64, st.binary(max_size=8), max_size=2)),
    )
    reply, count = (
        draw(st.none() | st.dictionaries(names, values, max_size=2)),
        draw(st.integers(1, 9)),
    )
    pc = draw(st.none() | u64)
    if kind == "timeout":
        return Event(0, kind, "", {"timeout": 0.05}, pc, *more, reply, count)
    if kind == "error":
        fields: dict[str, Any] = {"ioctl": "KVM_RUN"}
        if draw(st.booleans()):
            fields["memory_fault"] = {"flags": 0, "gpa": 0x5000, "size": 0x1000}
        return Event(
            1, kind, draw(st.sampled_from(["EFAULT", "ENOSYS"])), fields, pc, *more, reply, count
        )
    name, arch = (
        draw(st.sampled_from(sorted(exits.BY_NAME))),
        draw(st.sampled_from(["x86_64", "arm64"])),
    )
    members = {field.name: draw(values) for field in exits.fields_of(name, arch)}
    return Event(draw(st.integers(0, 7)), kind, name, members, pc, *more, reply, count)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(events(), max_size=4),
    regs,
    st.dictionaries(u64, st.binary(max_size=8)),
    st.none() | names,
)
def test_an_observation_crosses_the_border(
    seen: list[Event], regs: Any, memory: Any, detail: str | None
) -> None:
    observation = Observation("end", tuple(seen), regs, memory, 0.25, detail, detail)
    assert decode(Observation, crossed(encode(observation))) == observation


def test_facts_cross_the_border() -> None:
    facts = Facts(
        "x86_64", "6.18.0", {"KVM_CAP_USER_MEMORY": 1}, 4096, "pvm", ("fpu", "sse"), "3.11.2"
    )
    assert decode(Facts, crossed(encode(facts))) == facts
    bare = Facts("arm64", None, {})
    assert decode(Facts, crossed(encode(bare))) == bare


def test_bytes_are_as_large_as_their_data_at_least() -> None:
    assert [Bytes.at(0, b"abc", n).size for n in (0, 2, 3, 9)] == [3, 3, 3, 9]


# --- the digest -----------------------------------------------------------------------------------

STEP = Step(
    "mmio", {"phys_addr": 0x5000}, reply={"data": 1}, then=(Action("set_regs", {"rax": 1}),)
)
HERE = Machine(
    "x86_64",
    (Memslot(0, 0, 0x1000),),
    (Bytes.at(0, b"\xf4"),),
    (Bytes.at(0x5000, b"x"),),
    (Vcpu(0, "long", {"rip": 0}, (), (STEP, Step("hlt"))),),
)


def with_step(**changes: Any) -> Machine:
    return HERE._replace(
        vcpus=(HERE.vcpus[0]._replace(script=(STEP._replace(**changes), Step("hlt"))),)
    )


@pytest.mark.parametrize(
    "other",
    [
        with_step(observe_regs=("rax",)),
        with_step(observe_memory=((0, 8),)),
        HERE._replace(vcpus=(HERE.vcpus[0]._replace(script=(STEP,)),)),
        HERE._replace(
            observe_regs=("rax",),
            observe_memory=((0, 8),),
            timeout=9.0,
            exits=7,
            ignore=(Step("io"),),
        ),
    ],
)
def test_what_is_expected_does_not_change_the_digest(other: Machine) -> None:
    assert other.digest() == HERE.digest()


@pytest.mark.parametrize(
    "other",
    [
        # Where it is replied and done.
        with_step(where={"phys_addr": 0x6000}),
        with_step(exit="io"),
        with_step(repeat=(2, 2)),
        with_step(reply={"data": 2}),
        with_step(reply=None),
        with_step(then=(Action("set_regs", {"rax": 2}),)),
        with_step(then=None),
        HERE._replace(arch="arm64"),
        HERE._replace(memslots=(Memslot(0, 0, 0x2000),)),
        HERE._replace(image=(Bytes.at(0, b"\x90"),)),
        HERE._replace(devices=(Bytes.at(0x5000, b"y"),)),
        HERE._replace(vcpus=(HERE.vcpus[0]._replace(regs={"rip": 1}),)),
        HERE._replace(vcpus=(HERE.vcpus[0]._replace(mode="real"),)),
        HERE._replace(enable=(Capability("KVM_CAP_ARM_NISV_TO_USER", 177),)),
        HERE._replace(tables=Tables(0xFFFC0000, 0x8000, 509)),
        HERE._replace(setup=(Action("set_regs", {"rax": 1}),)),
    ],
)
def test_what_the_guest_is_and_is_told_changes_it(other: Machine) -> None:
    assert other.digest() != HERE.digest()
    assert other.digest().startswith("sha256:")


def test_where_a_timeout_is_due_is_in_the_digest() -> None:
    def digest(first: Step, *more: Step) -> str:
        vcpu = Vcpu(0, "long", {}, (), (first, *more))
        return Machine("x86_64", (Memslot(0, 0, 0x1000),), (), (), (vcpu,)).seal("a").digest

    waits = Step("timeout", timeout=0.5)
    assert digest(Step("hlt"), Step("mmio")) == digest(Step("hlt", repeat=(0, 1)), Step("mmio"))
    # As soon as the first step may be missing, the guest that takes its time to `hlt` has not
    # passed the timeout.
    assert digest(Step("hlt"), waits) != digest(Step("hlt", repeat=(0, 1)), waits)
    group = Step("group", repeat=(1, 2), steps=(waits,))
    assert digest(Step("hlt"), group) != digest(Step("hlt", repeat=(0, 1)), group)
