"""The verdict along the host's own way: steps, replies, actions, ioctls, ends; no other alignment
counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from walked import walked

from kvmscen.job.expectation import Deed, Expected, MemoryExpected, Story
from kvmscen.job.legend import Legend
from kvmscen.judge.trial import Trial
from kvmscen.sent.observation import Event, Observation

LEGEND = Legend({}, ())
HLT = Event(0, "exit", "hlt", {}, 8)


def io(port: int, way: int = 1, data: int = 0, **more: Any) -> Event:
    fields = {"direction": way, "size": 1, "port": port, "count": 1, "data": data}
    return Event(more.pop("vcpu", 0), "exit", "io", fields, 4, **more)


def step(kind: str = "io", line: int = 10, **more: Any) -> Expected:
    fields = more.pop("fields", {})
    where = tuple(key for key in ("direction", "port", "ioctl", "errno") if key in fields)
    return Expected(kind, line, 5, fields=fields, where=where, **more)


def trial(
    story: Story,
    events: Sequence[Event],
    stopped: str = "end",
    walk: bool = True,
    other: Story | None = None,
) -> Trial:
    seen = walked(other or story, events) if walk else tuple(events)
    return Trial(
        story, Observation(stopped, seen, {"rax": 1}, {}, 0.1), LEGEND, "x86_64", None, other
    )


def story(*steps: Expected, **more: Any) -> Story:
    return Story(steps, **more)


READ = {"direction": 0, "port": 1}


# --- replies and actions --------------------------------------------------------------------------


def test_an_exit_must_have_got_its_own_steps_reply() -> None:
    many = step(fields=READ, repeat=(0, 9), reply={"data": 1}, answer="1")
    told = story(many, step(fields=READ, line=12, reply={"data": 0}, answer="0"))
    reads = [io(1, 0, reply={"data": 1}), io(1, 0, reply={"data": 1})]
    found = trial(told, reads)
    assert not found.holds()
    rows = found.rows()
    assert [(row.mark, row.line, row.differs) for row in rows] == [
        (" ", 10, ()),
        ("!", 12, ("reply",)),
    ]
    assert (
        rows[1].note
        == "the reply 0 was not given; when it came, the host took this exit as the step of line 10"
    )


@pytest.mark.parametrize("reply", [None, {"data": 6}, {"data": 5, "error": 1}])
def test_a_reply_that_is_not_the_steps(reply: Any) -> None:
    told = story(step(fields=READ, reply={"data": 5}, answer="5"), step("hlt"))
    assert trial(told, [io(1, 0, reply={"data": 5}), HLT]).holds()
    assert not trial(told, [io(1, 0, reply=reply), HLT]).holds()
    assert not trial(
        story(step(fields=READ), step("hlt")), [io(1, 0, reply={"data": 5}), HLT]
    ).holds()


def test_a_reply_that_cannot_be_given() -> None:
    told = story(step(fields=READ, reply={"data": 300}, answer="300"), step("hlt"))
    found = trial(told, [io(1, 0, reply={"data": 300}), HLT])
    assert not found.holds()
    assert (
        found.rows()[0].note
        == "the reply could not be given: this exit is a write, or narrower than the reply"
    )


@pytest.mark.parametrize("done", [0, 1, 2, 4])
def test_all_actions_must_have_ended_as_written(done: int) -> None:
    deeds = (Deed("write_memory: ...", 11, None, 2), Deed("set_regs: ...", 12))
    told = story(step(fields={"port": 1}, then=deeds), step("hlt"))
    events = list(walked(told, [io(1), HLT]))
    assert trial(told, events, walk=False).holds()
    events[0] = events[0]._replace(done=done)
    found = trial(told, events, walk=False)
    assert not found.holds()
    assert found.rows()[0].differs == ("then",)
    assert f"{done} of" in found.rows()[0].note


def test_actions_that_are_not_the_steps() -> None:
    events = [io(1)._replace(at=((0, 0),), done=1), HLT._replace(at=((1, 0),))]
    assert not trial(story(step(fields={"port": 1}), step("hlt")), events, walk=False).holds()


# --- the way --------------------------------------------------------------------------------------


def test_what_another_alignment_would_satisfy_does_not_pass() -> None:
    told = story(
        step(fields={"port": 1}, repeat=(0, 2)), step(fields={"port": 1}, line=11), step("hlt", 12)
    )
    found = trial(told, [io(1), HLT], "expected")
    assert not found.holds()
    # Nothing would differ in the cheapest alignment, so the host's way is shown.
    assert [(row.mark, row.line) for row in found.rows()] == [
        (" ", 10),
        ("+", 0),
        ("-", 11),
        ("-", 12),
    ]


@pytest.mark.parametrize(
    "at", [None, ((1, 0),), ((0, 1),), ((5, 0),), ((0, 0), (0, 0)), ((-1, 0),), ()]
)
def test_a_step_that_the_host_cannot_have_taken(at: Any) -> None:
    told = story(step(fields={"port": 1}), step("hlt"))
    events = [io(1)._replace(at=at), HLT._replace(at=((1, 0),))]
    found = trial(told, events, walk=False)
    assert found.astray
    assert not found.holds()


def test_a_step_that_must_come_cannot_be_jumped_over() -> None:
    told = story(step(fields={"port": 1}), step(fields={"port": 2}), step("hlt"))
    found = trial(told, [io(1)._replace(at=((0, 0),)), HLT._replace(at=((2, 0),))], walk=False)
    assert found.astray
    assert not found.holds()


def test_an_event_of_one_vcpu_takes_no_step_of_another() -> None:
    told = story(
        step(fields={"port": 1}),
        step(fields={"port": 2}, line=11, vcpu=1),
        step(fields={"port": 3}, line=12),
    )
    right = [io(1), io(2, vcpu=1), io(3)]
    assert trial(told, right).holds()
    assert trial(told, [right[1], right[0], right[2]]).holds()
    wrong = trial(told, [io(1), io(2), io(3)])
    assert not wrong.holds()
    assert [(row.mark, row.line) for row in wrong.rows()] == [
        (" ", 10),
        ("+", 0),
        (" ", 12),
        ("-", 11),
    ]
    assert not trial(told, right[:1] + right[2:]).holds()
    # A group is that of its steps.
    group = Expected("group", 9, 5, repeat=(2, 2), steps=(step(fields={"port": 2}, vcpu=1),))
    assert trial(story(group), [io(2, vcpu=1), io(2, vcpu=1)]).holds()
    assert not trial(story(group), [io(2), io(2)]).holds()


def test_ignored_events_must_fit_what_is_ignored() -> None:
    told = story(step("hlt"), ignore=(step(fields={"port": 3}),))
    assert trial(told, [io(3), HLT]).holds()
    assert not trial(
        told, [io(4)._replace(ignored=True), HLT._replace(at=((0, 0),))], walk=False
    ).holds()


# --- ioctls ---------------------------------------------------------------------------------------


def fails(errno: str, op: str) -> Event:
    return Event(0, "error", errno, {"ioctl": "KVM_SET_USER_MEMORY_REGION"}, None, op=op)


SLOT = {"memslots/1": Deed("{slot: 1}", 5, "EEXIST")}


@pytest.mark.parametrize("steps", [None, (), (step("hlt"),)])
def test_each_ioctl_ends_as_written(steps: Any) -> None:
    told = Story(steps, built=SLOT, line=3)
    rest = [] if steps == () else [HLT]
    assert trial(told, [fails("EEXIST", "memslots/1"), *rest]).holds()
    for events in (
        rest,
        [fails("EINVAL", "memslots/1"), *rest],
        [fails("EEXIST", "memslots/0"), *rest],
        [Event(0, "succeeded", "set_memslot", {}, None, op="memslots/1"), *rest],
    ):
        found = trial(told, events)
        assert not found.holds()
        assert any(m.line in (5, 0) for m in found.mismatches(found.rows()))


def test_failures_never_cancel_out() -> None:
    both = {"memslots/1": Deed("{slot: 1}", 5, "EEXIST"), "memslots/2": Deed("{slot: 2}", 6)}
    told = story(step("hlt"), built=both)
    succeeded = Event(0, "succeeded", "set_memslot", {}, None, op="memslots/1")
    found = trial(told, [succeeded, fails("EEXIST", "memslots/2"), HLT])
    assert not found.holds()
    assert [(row.mark, row.line) for row in found.rows()] == [("!", 5), ("+", 6), (" ", 10)]


def test_a_step_may_take_the_failure_of_an_action_that_says_nothing() -> None:
    fields = {"ioctl": "KVM_SET_USER_MEMORY_REGION", "errno": "EEXIST"}
    told = story(step("error", fields=fields), setup=(Deed("set_memslot: ...", 6),))
    assert trial(told, [fails("EEXIST", "setup/0")], "error").holds()
    assert not trial(told, [fails("EINVAL", "setup/0")], "error").holds()
    written = story(step("error", fields=fields), setup=(Deed("set_memslot: ...", 6, "EINVAL"),))
    assert not trial(written, [fails("EEXIST", "setup/0")], "error").holds()


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "stopped", "holds"),
    [
        (HLT, "expected", True),
        (HLT._replace(name="system_event", fields={"type": 1}), "expected", True),
        (HLT._replace(name="system_event", fields={"type": 3}), "expected", False),
        (HLT._replace(name="shutdown"), "expected", False),
        (HLT._replace(name="fail_entry"), "expected", False),
        (HLT._replace(name="internal_error", fields={"suberror": 1}), "expected", False),
        (HLT._replace(name="KVM_EXIT_99"), "expected", False),
        (Event(0, "error", "ENOSYS", {"ioctl": "KVM_RUN"}, 4), "error", False),
        (Event(0, "timeout", "", {"timeout": 5.0}, 4), "timeout", False),
        (io(1), "exits", False),
    ],
)
def test_a_run_without_steps_ends_as_somebody_wanted(
    last: Event, stopped: str, holds: bool
) -> None:
    told = Story(None, regs={"rax": 1}, line=20)
    found = trial(told, [io(1), last], stopped)
    assert found.holds() == holds
    if not holds:
        ended = [m.observed or "" for m in found.mismatches(found.rows())]
        assert any("ended by" in text or "limit" in text for text in ended)
    # With steps that have it the same end is right.
    if stopped in ("expected", "error") and last.name != "KVM_EXIT_99":
        fields = {**last.fields, "errno": last.name} if last.kind == "error" else last.fields
        kind = last.name if last.kind == "exit" else last.kind
        assert trial(story(step(), step(kind, fields=fields)), [io(1), last], stopped).holds()


def test_memory_where_none_is() -> None:
    told = story(step("hlt"), memory=(MemoryExpected(0x9000, "u8", [0]),))
    seen = Observation("expected", walked(told, [HLT]), {}, {0x9000: b""}, 0.1)
    found = Trial(told, seen, LEGEND, "x86_64", None)
    assert not found.holds()
    assert [m.observed for m in found.mismatches(found.rows())] == ["final 0x9000: no memory there"]


@pytest.mark.parametrize(
    ("start", "by", "bits", "values"), [(254, 1, 8, [254, 255, 0, 1]), (1, -1, 8, [1, 0, 255, 254])]
)
def test_a_series_wraps_at_the_width_of_the_access(
    start: int, by: int, bits: int, values: list[int]
) -> None:
    told = story(step(fields={"data": {"from": start, "step": by}}, repeat=(4, 4)))
    assert trial(told, [io(1, data=value) for value in values]).holds()
    wrong = [*values[:-1], values[-1] + 1]
    assert not trial(told, [io(1, data=value) for value in wrong]).holds()


# --- a known wrong outcome ------------------------------------------------------------------------


def test_what_should_be_is_looked_for_along_the_way_of_a_host_that_goes_by_another_story() -> None:
    base = story(step(fields={"port": 1, "data": 5}), step("hlt"))
    loose = story(step(), step("hlt"))
    events = [io(1, data=5), HLT]
    assert trial(base, events, other=loose).holds()
    assert trial(loose, events).holds()
    assert not trial(base, [io(1, data=6), HLT], other=loose).holds()
    # It was not replied and done as the case says, so it was not the case.
    replied = story(step(fields=READ, reply={"data": 5}, answer="5"), step("hlt"))
    other = story(step(fields=READ, reply={"data": 6}, answer="6"), step("hlt"))
    assert not trial(replied, [io(1, 0, reply={"data": 6}), HLT], other=other).holds()
    acted = story(step(then=(Deed("set_regs: {rax: 1}", 11),)), step("hlt"))
    assert not trial(acted, [io(1), HLT], other=loose).holds()
    assert trial(acted, [io(1), HLT], other=acted).holds()


def test_a_story_whose_replies_and_actions_were_not_given_was_not_tried() -> None:
    base = story(step(fields=READ, reply={"data": 5}, answer="5"), step("hlt"))
    other = story(step(fields=READ, reply={"data": 6}, answer="6", line=20), step("hlt"))
    events = [io(1, 0, reply={"data": 6}), HLT]
    assert trial(base, events, other=other).untried() == 20
    acted = story(step(then=(Deed("set_regs: {rax: 1}", 11),)), step("hlt"))
    assert trial(acted, [io(1), HLT], other=story(step(), step("hlt"))).untried() is not None
    # Without steps of its own a case replies as by default, and does nothing.
    assert trial(Story(None), events, other=other).untried() is not None
    assert trial(base, [io(1, 0), HLT], other=Story(None)).untried() is not None
    # Nor was one that goes on where the host ended, or ends where it went on.
    longer = story(step(), step(fields={"port": 2}))
    assert trial(longer, [io(1)], other=story(step(line=20))).untried() == 20
    assert trial(Story(None), [io(1)], other=story(step(line=20))).untried() == 20
    ending = story(step(), regs={"rax": 2})
    assert trial(ending, [io(1), io(2)], other=longer).untried() is not None
    halts = story(step("hlt"), regs={"rax": 2})
    assert (
        trial(halts, [HLT, io(1)], other=story(step("hlt", then=()), step())).untried() is not None
    )
    assert trial(
        story(step("hlt")), [HLT, io(1)], other=story(step("hlt", then=()), step())
    ).holds()
    # Nor one that waits for longer than the host did.
    waits, less = (story(step("timeout", timeout=t), step()) for t in (0.5, 0.1))
    waited = Event(0, "timeout", "", {"timeout": 0.1}, 8)
    assert trial(waits, [waited, io(1)], other=less).untried() is not None
    assert trial(waits, [io(1)], other=story(step())).untried() is not None
    # An exit that comes before its time is over, or one that does not come in time, is a real
    # difference.
    assert (
        trial(
            less, [io(1)], other=story(step("timeout", repeat=(0, 1), timeout=0.5), step())
        ).untried()
        is not None
    )
    assert (
        trial(
            waits, [io(1)], other=story(step("timeout", repeat=(0, 1), timeout=0.5), step())
        ).untried()
        is None
    )
    assert trial(longer, [waited], other=story(step("timeout", timeout=0.1))).untried() is None
    # Where something else differed first, the case was tried up to there.
    early = story(step(fields={"port": 2}), *base.steps or ())
    late = story(step(fields={"port": 1}), *other.steps or ())
    assert trial(early, [io(1), *events], other=late).untried() is None
    # The same replies with another outcome are a known wrong outcome as it should be written.
    wrong = story(step(fields=READ, reply={"data": 5}, answer="5"), step("shutdown"))
    assert trial(wrong, [io(1, 0, reply={"data": 5}), HLT], other=base).untried() is None


def test_a_run_cut_short_where_only_optional_steps_were_left_is_not_what_should_be() -> None:
    """Whether the guest does something else then was not seen, whoever ended the run."""
    optional = step(fields={"port": 2}, repeat=(0, 1))
    base, other = story(step(), optional), story(step(line=20))
    found = trial(base, [io(1)], other=other)
    assert found.holds()
    assert found.untried() == 20
    # So it is behind an action that failed as written, a failing KVM_RUN, and 16 extra exits.
    deed = Deed("enable: X", 11, "EINVAL")
    failing = story(step(then=(deed,)), optional)
    failed = Event(0, "error", "EINVAL", {"ioctl": "KVM_ENABLE_CAP"}, 8, op="steps/0/then/0")
    found = trial(
        failing, [io(1)._replace(done=1), failed], other=story(step(then=(deed,), line=20))
    )
    assert found.holds()
    assert found.untried() == 20
    enosys = Event(0, "error", "ENOSYS", {"ioctl": "KVM_RUN"}, 8)
    goes_on = story(step("error", then=()), optional)
    ends = story(step("error", line=20))
    assert trial(goes_on, [enosys], "error", other=ends).untried() == 20
    many = story(step(repeat=(0, 99)))
    assert trial(many, [io(1)] * 16, "extra", other=story(step("hlt"))).untried() is not None
    # The end of a run is that of the case where the case has no more to come; but the final state
    # is then that of a longer run.
    longer = story(step(), step(fields={"port": 2}))
    assert trial(other, [io(1), io(2)], other=longer).untried() is None
    assert trial(story(step(), regs={"rax": 1}), [io(1), io(2)], other=longer).untried() is not None


def test_a_limit_that_ends_the_run_before_the_story_is_over_is_a_difference() -> None:
    waits = step("timeout", timeout=0.1)
    waited = Event(0, "timeout", "", {"timeout": 0.1}, 8)
    optional = step(fields={"port": 2}, repeat=(0, 1))
    assert trial(story(waits), [waited], "timeout").holds()
    cut = trial(story(waits, optional), [waited], "timeout")
    assert not cut.holds()
    assert [found.observed for found in cut.mismatches(cut.rows())] == [
        "the time limit was reached before the story was over"
    ]


# --- accounts that cannot be ----------------------------------------------------------------------


ACTS = story(
    step(
        fields={"port": 1}, then=(Deed("set_memslot: ...", 11, "EEXIST"), Deed("set_regs: ...", 12))
    ),
    step("hlt"),
)


@pytest.mark.parametrize(
    ("told", "events", "stopped"),
    [
        # The second round of an optional step is lost: the host would not have stopped here.
        (story(step(fields={"port": 1}, repeat=(1, 2))), [io(1)], "end"),
        (story(step(repeat=(0, 1)), step("hlt", repeat=(0, 1))), [], "expected"),
        (story(step(), step("hlt", repeat=(0, 1))), [io(1)], "timeout"),
        (story(step(), step("error", repeat=(0, 1))), [io(1)], "error"),
        # The failure of an action that is done, and one of an action that is not.
        (ACTS, [io(1), HLT], "expected"),
        (ACTS, [io(1), *[fails("EEXIST", "steps/0/then/0")] * 2, HLT], "expected"),
        # A reply and actions of no step.
        (
            story(step("hlt"), ignore=(step(fields={"port": 3}),)),
            [io(3, reply={"data": 1}), HLT],
            "expected",
        ),
        (
            story(step("hlt"), built=SLOT),
            [fails("EEXIST", "memslots/1")._replace(done=1), HLT],
            "expected",
        ),
        (Story(None), [io(1, reply={"data": 1}), HLT], "expected"),
    ],
)
def test_an_account_that_cannot_be(told: Story, events: list[Event], stopped: str) -> None:
    found = trial(told, events, stopped)
    assert found.astray
    assert not found.holds()


TWO = {"memslots/1": Deed("{slot: 1}", 5, "EEXIST"), "memslots/2": Deed("{slot: 2}", 6, "EEXIST")}
OTHER_NAME = fails("EEXIST", "memslots/2")._replace(fields={"ioctl": "KVM_SET_REGS"})


@pytest.mark.parametrize(
    "events",
    [
        [fails("EEXIST", "memslots/2"), fails("EEXIST", "memslots/1"), HLT],
        [fails("EEXIST", "memslots/1"), *[fails("EEXIST", "memslots/2")] * 2, HLT],
        [fails("EEXIST", "memslots/1"), fails("EEXIST", "memslots/2")._replace(times=2), HLT],
        [fails("EEXIST", "memslots/1"), HLT, fails("EEXIST", "memslots/2")],
        [fails("EEXIST", "memslots/1"), OTHER_NAME, HLT],
    ],
)
def test_ioctls_of_building_that_no_host_does_so_are_an_error(events: list[Event]) -> None:
    told = story(step("hlt"), built=TWO)
    right = [fails("EEXIST", "memslots/1"), fails("EEXIST", "memslots/2"), HLT]
    assert trial(told, right, "expected").holds()
    assert trial(told, events, "expected").astray


def test_an_account_that_can_be() -> None:
    found = trial(ACTS, [io(1), fails("EEXIST", "steps/0/then/0"), HLT], "expected")
    assert (found.astray, found.holds()) == (False, True)


@pytest.mark.parametrize(("behind", "holds"), [((), True), ((Deed("set_regs: ...", 13),), False)])
def test_a_step_may_take_the_failure_of_the_last_action(
    behind: tuple[Deed, ...], holds: bool
) -> None:
    acts = step(then=(Deed("set_regs: ...", 11), Deed("set_memslot: ...", 12), *behind))
    told = story(acts, step("error", fields={"errno": "EEXIST"}))
    taken = [
        io(1)._replace(at=((0, 0),), done=1),
        fails("EEXIST", "steps/0/then/1")._replace(at=((1, 0),)),
    ]
    assert trial(told, taken, "error", walk=False).holds() == holds
    assert not trial(
        story(acts), [taken[0], taken[1]._replace(at=None)], "error", walk=False
    ).holds()
