"""An event of vCPU 1 never satisfies a step of vCPU 0: along the host's way, in the verdict, and
where reports lay expected beside observed.

The observations are made up, and the step that each event took is written by hand: `walked` goes
by the same `Course` as the judge.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from walked import walked

from kvmscen.job.expectation import Deed, Expectation, Expected, Story
from kvmscen.job.job import Job
from kvmscen.job.legend import Legend
from kvmscen.judge.align import aligned
from kvmscen.judge.trial import Trial
from kvmscen.judge.verdict import judge
from kvmscen.judge.walk import Course
from kvmscen.results.result import Result
from kvmscen.sent.machine import Machine, Memslot, Vcpu
from kvmscen.sent.observation import Event, Observation

LEGEND = Legend({}, ())
Position = tuple[tuple[int, int], ...]


def out(port: int, vcpu: int, at: Position | None = None, times: int = 1) -> Event:
    """The exit of an `out` to a port, and the step that the host says it took."""
    fields = {"direction": 1, "size": 1, "port": port, "count": 1, "data": 0}
    return Event(vcpu, "exit", "io", fields, 4, at=at, times=times)


def step(port: int, line: int, vcpu: int = 0, repeat: tuple[int, int] = (1, 1)) -> Expected:
    where = ("direction", "port")
    return Expected("io", line, 5, vcpu, {"direction": 1, "port": port}, where, repeat)


def group(*steps: Expected, repeat: tuple[int, int]) -> Expected:
    return Expected("group", 9, 5, repeat=repeat, steps=steps)


def judged(story: Story, events: Sequence[Event], stopped: str = "end") -> Result:
    vcpus = (Vcpu(0, "long", {}, (), ()), Vcpu(1, "long", {}, (), ()))
    machine = Machine("x86_64", (Memslot(0, 0, 4096),), (), (), vcpus).seal("two:default")
    job = Job(
        file="two.yaml",
        scenario="two",
        case="default",
        line=1,
        summary="",
        arch="x86_64",
        host="kvm",
        kernel="6.1",
        flavour=None,
        predicted=False,
        skip=None,
        machine=machine,
        expectation=Expectation(story),
        legend=LEGEND,
    )
    return judge(job, Observation(stopped, tuple(events), {}, {}, 0.1))


# vCPU 0 writes to port 1 and vCPU 1 to port 2; each then to port 3.
BOTH = Story((step(1, 10), step(2, 11, 1), step(3, 12), step(3, 13, 1)))
RIGHT = [
    out(1, 0, ((0, 0),)),
    out(2, 1, ((0, 0),)),
    out(3, 0, ((1, 0),)),
    out(3, 1, ((1, 0),)),
]


def test_a_position_is_that_of_the_events_own_vcpu() -> None:
    lines = [traced.step and traced.step.line for traced in Course(BOTH).walk(RIGHT)]
    assert lines == [10, 11, 12, 13]
    # vCPU 2 has no steps, whatever is said of its event.
    assert [traced.step for traced in Course(BOTH).walk([out(1, 2, ((0, 0),))])] == [None]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 3, 0, 2), (1, 0, 3, 2)])
def test_the_vcpus_may_come_in_any_order(order: tuple[int, ...]) -> None:
    assert judged(BOTH, [RIGHT[n] for n in order]).status == "PASS"


TWICE = Story((group(step(1, 10), repeat=(2, 2)), step(2, 11, 1)))
OFTEN = Story((step(1, 10, repeat=(0, 5)), step(3, 12), step(2, 11, 1)))


@pytest.mark.parametrize(
    ("story", "events", "rows"),
    [
        # The step of vCPU 0 is missing, and vCPU 1 has one exit too many.
        (
            BOTH,
            [out(1, 1), out(2, 1, ((0, 0),)), *RIGHT[3:]],
            [("+", 0), (" ", 11), (" ", 13), ("-", 10), ("-", 12)],
        ),
        # vCPU 1 makes the write of vCPU 0 between those that it has to make itself.
        (
            BOTH,
            [RIGHT[0], RIGHT[1], out(3, 1, ((1, 0),))],
            [(" ", 10), (" ", 11), (" ", 13), ("-", 12)],
        ),
        # In a group: the second round is made by vCPU 1.
        (
            TWICE,
            [out(1, 0, ((0, 0), (0, 0))), out(1, 1), out(2, 1, ((0, 0),))],
            [(" ", 10), ("+", 0), (" ", 11), ("-", 10)],
        ),
        # A repeat that need not come.
        (
            OFTEN,
            [out(1, 1), out(2, 1, ((0, 0),)), out(3, 0, ((1, 0),))],
            [("+", 0), (" ", 11), (" ", 12)],
        ),
    ],
)
def test_an_exit_of_vcpu_1_takes_no_step_of_vcpu_0(
    story: Story, events: list[Event], rows: list[tuple[str, int]]
) -> None:
    result = judged(story, events, "extra")
    assert result.status == "FAIL", result.reason
    assert [(row.mark, row.line) for row in result.rows] == rows
    missing = [line for mark, line in rows if mark == "-"]
    assert [m.line for m in result.mismatches if m.observed is None] == missing


@pytest.mark.parametrize("at", [((0, 0),), ((1, 0),)])
def test_a_host_that_takes_it_there_all_the_same_is_an_error(at: Position) -> None:
    assert judged(BOTH, [*RIGHT[1:], out(1, 1, at)]).status == "ERROR"
    alone = Story((step(1, 10), step(3, 12)))
    assert judged(alone, [out(1, 1, at), out(3, 0, ((1, 0),))]).status == "ERROR"


def test_ignored_exits_of_vcpu_1_are_no_steps_of_vcpu_0() -> None:
    story = BOTH._replace(ignore=(step(9, 8),))
    ignored = out(9, 1)._replace(ignored=True)
    assert judged(story, [*RIGHT[:2], ignored, *RIGHT[2:]]).status == "PASS"
    # `ignore` hides no exit that only another vCPU's step expects.
    assert judged(story, [out(1, 1), ignored, *RIGHT], "extra").status == "FAIL"
    lying = out(1, 1)._replace(ignored=True)
    assert judged(story, [lying, *RIGHT[1:]]).status == "ERROR"


def test_what_must_still_come_is_told_by_vcpu() -> None:
    course = Course(BOTH)
    taken = list(course.walk([RIGHT[1], RIGHT[3]]))
    assert [(vcpu, slot.step.line) for vcpu, slot in course.owed(taken)] == [(0, 10), (0, 12)]
    # Along another story, here one in which vCPU 1 writes to port 1.
    other = Course(Story((step(1, 20, 1),)))
    retraced = list(course.retrace(other.walk([out(1, 1, ((0, 0),))])))
    assert [(traced.step, traced.host_step and traced.host_step.line) for traced in retraced] == [
        (None, 20)
    ]
    assert [slot.step.line for _, slot in course.owed(retraced)] == [10, 12, 11, 13]


def test_an_action_is_that_of_the_vcpus_own_step() -> None:
    mine, other = Deed("set_regs: {rax: 1}", 31, "EINVAL"), Deed("set_regs: {rbx: 1}", 41)
    story = Story((step(1, 10)._replace(then=(mine,)), step(2, 11, 1)._replace(then=(other,))))
    course = Course(story)
    for vcpu, deed in ((0, mine), (1, other), (2, None)):
        failed = Event(vcpu, "error", "EINVAL", {"ioctl": "KVM_SET_REGS"}, 4, op="steps/0/then/0")
        assert course.deed(failed) == deed


STEPS = st.builds(
    step,
    st.sampled_from([1, 2]),
    st.integers(10, 99),
    st.sampled_from([0, 1]),
    st.sampled_from([(1, 1), (0, 1), (2, 2), (1, 3), (0, 3)]),
)
GROUPS = st.builds(
    lambda steps, repeat: group(
        *(step_._replace(vcpu=steps[0].vcpu) for step_ in steps), repeat=repeat
    ),
    st.lists(STEPS, min_size=1, max_size=2),
    st.sampled_from([(1, 1), (0, 2), (2, 3)]),
)
EVENTS = st.lists(st.builds(out, st.sampled_from([1, 2]), st.sampled_from([0, 1])), max_size=8)


@given(st.lists(STEPS | GROUPS, max_size=4), EVENTS)
def test_no_pair_is_of_two_vcpus(steps: list[Expected], events: list[Event]) -> None:
    story = Story(tuple(steps), ignore=(step(2, 8),))
    course = Course(story)
    seen = walked(story, events)
    taken = list(course.walk(seen))
    trial = Trial(story, Observation("end", seen, {}, {}, 0.1), LEGEND, "x86_64", None)
    pairs = aligned(course, taken, trial.differences)
    assert pairs is not None
    pairs += [(traced.occurrence, traced) for traced in [*taken, *course.retrace(taken)]]
    for slot, traced in pairs:
        assert slot is None or traced is None or slot.step.vcpu == traced.event.vcpu
