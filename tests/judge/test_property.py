"""A sample of what `python tests/judge/property.py 200000` tries."""

from __future__ import annotations

from collections import Counter

import oracle
from property import features, verdict
from property_others import known, replayed
from random_guests import case, plain

_SAMPLE = 3000


def test_the_judge_says_what_the_docs_say() -> None:
    said: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for seed in range(_SAMPLE):
        says, wrong, words = verdict(seed)
        assert not wrong, f"seed {seed}: {wrong}"
        said[says] += 1
        passed.update(words if says == "pass" else ())
    # It tries something: each outcome, and whatever can be in a story that passes.
    assert all(said[outcome] > _SAMPLE // 50 for outcome in ("pass", "not", "error"))
    everything = set().union(*(features(*case(seed)) for seed in range(_SAMPLE)))
    assert {word for word in everything if passed[word] < 3} <= {"a step took an ioctl's failure"}


def test_known_wrong_outcomes() -> None:
    said: Counter[str] = Counter()
    for seed in range(_SAMPLE // 2):
        status, wrong = known(seed)
        assert not wrong, f"seed {seed}: {wrong}"
        said[status] += 1
    assert set(said) == {"XPASS", "XFAIL", "FAIL", "ERROR"}
    assert min(said.values()) > 10


def test_recordings_under_an_edited_story() -> None:
    said: Counter[str] = Counter()
    for seed in range(_SAMPLE // 2):
        says, wrong = replayed(seed)
        assert not wrong, f"seed {seed}: {wrong}"
        said[says] += 1
    assert set(said) == {"pass", "not", "error"}
    assert min(said.values()) > 100


def test_the_oracle_tells_a_wrong_judge() -> None:
    """What was right is wrong with one event less: it must come, or the run cannot have ended
    there.
    """
    lost = 0
    for seed in range(900):
        story, run = plain(*case(seed))
        if not oracle.passes(story, run) or not run["events"]:
            continue
        optional = any(
            f"'repeat': [{few}" in str(story["steps"]) for few in ("0", "1, 2", "1, 3", "2, 3")
        )
        if story["steps"] and not story["ignore"] and not optional:
            lost += 1
            for at in range(len(run["events"])):
                assert not oracle.passes(
                    story, {**run, "events": run["events"][:at] + run["events"][at + 1 :]}
                )
    assert lost > 20
