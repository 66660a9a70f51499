"""Random stories and runs: does kvmscen's judge say what an oracle says that was written from the
docs alone?

    python tests/judge/property.py 200000 [SEED]

A quarter as many known wrong outcomes, and recordings under an edited story, are tried behind them.
It prints how many passed and how many did not, with what was in the stories, and each seed at which
the two do not agree, or where a difference that is told is none. The status is 1 if there is one.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

import oracle
from property_others import known, replayed
from random_guests import case, plain

from kvmscen.job.expectation import Expected, Story
from kvmscen.job.legend import Legend
from kvmscen.judge.trial import Trial
from kvmscen.results.result import StoryRow
from kvmscen.sent.observation import Observation

_ROUNDS = range(10)  # more than a step can have had


def verdict(seed: int) -> tuple[str, str, set[str]]:
    """What the judge says (`pass`, `not`, `error`), what is wrong with that ("" if nothing), and
    what the case had in it.
    """
    told, seen = case(seed)
    story, run = plain(told, seen)
    trial = Trial(told, seen, Legend({}, ()), "x86_64", None)
    says = "error" if trial.astray else "pass" if trial.holds() else "not"
    due = oracle.passes(story, run)
    wrong = (
        f"the judge says {says}, the oracle {'pass' if due else 'not'}"
        if (says == "pass") != due
        else ""
    )
    return says, wrong or unreal(trial, story, run), features(told, seen)


# --- are the differences real ones? ---------------------------------------------------------------


def unreal(trial: Trial, story: oracle.Plain, run: oracle.Plain) -> str:
    """What a report would tell that is no difference, or leave out; "" if nothing."""
    rows = trial.rows()
    mismatches = trial.mismatches(rows)
    if trial.astray:
        return ""
    if trial.holds() == bool(mismatches):
        return "passes with mismatches" if mismatches else "nothing is told of what differs"
    if story["steps"] is None:
        return ""
    shown = [None if event is None else id(event) for event in trial._shown]
    events = {
        id(event): each
        for event, each in zip((traced.event for traced in trial.trace), run["events"], strict=True)
    }
    for vcpu in {event["vcpu"] for event in run["events"]}:
        right = [
            events[number]
            for number in shown
            if number is not None and events[number]["vcpu"] == vcpu
        ]
        if [each for each in run["events"] if each["vcpu"] == vcpu] != right and len(events) == len(
            run["events"]
        ):
            return "the right column is not what was seen"
    return _left(rows, story) or _marks(rows, shown, events, story)


def _left(rows: Sequence[StoryRow], story: oracle.Plain) -> str:
    """The steps of the left column, those of each vCPU by themselves, are one way to go through the
    whole story.
    """
    walk = oracle.Walk(story, {"events": []})
    for steps in walk.steps.values():
        lines = _lines(steps)
        stands: list[oracle.Path | None] = [None]
        for row in (row for row in rows if row.line in lines):
            ways = [
                path
                for stand in stands
                for path in oracle.following(steps, stand)
                if path is not None
            ]
            here = {
                str(path): path for path in ways if oracle.step_at(steps, path)["line"] == row.line
            }
            stands = list(here.values())
        if not any(None in oracle.following(steps, stand) for stand in stands):
            return "the left column is not how the story can go"
    return ""


def _marks(
    rows: Sequence[StoryRow],
    shown: Sequence[int | None],
    events: dict[int, oracle.Plain],
    story: oracle.Plain,
) -> str:
    lines = _lines(story["steps"])
    for row, key in zip(rows, shown, strict=True):
        event, step = None if key is None else events[key], lines.get(row.line)
        if step is None and row.mark in " ~" and event is not None:
            written = {
                **story["built"],
                **{f"setup/{n}": errno for n, errno in enumerate(story["setup"])},
            }
            fits = (
                event["ignored"] or event["op"] in written or str(event["op"]).startswith("steps/")
            )
        elif step is None or event is None:
            fits = True
        elif row.mark == " ":
            fits = any(oracle.as_written(step, event, nth) for nth in _ROUNDS)
        else:
            acted = "then" in row.differs
            fits = acted or not all(oracle.as_written(step, event, nth) for nth in _ROUNDS)
        if not fits:
            return f"the row {row} is marked wrong"
    return ""


def _lines(steps: list[oracle.Plain]) -> dict[int, oracle.Plain]:
    """Steps by their line, those of groups too."""
    out: dict[int, oracle.Plain] = {}
    for step in steps:
        out.update(_lines(step["steps"]) if step["steps"] else {step["line"]: step})
    return out


# --- what was tried -------------------------------------------------------------------------------


def features(told: Story, seen: Observation) -> set[str]:
    """What is in a case, in words."""
    steps = _all(told.steps or (), 0)
    text = str(told)
    has = {
        "no expect": told.steps is None,
        "groups": any(depth for depth, _ in steps),
        "groups in groups": any(depth > 1 for depth, _ in steps),
        "repeat": any(step.repeat != (1, 1) for _, step in steps),
        "min 0": any(step.repeat[0] == 0 for _, step in steps),
        "series": "'from'" in text,
        "mask, in, min, max": any(word in text for word in ("'mask'", "'in'", "'min'", "'max'")),
        "lists": any(
            isinstance(value, list) for _, step in steps for value in step.fields.values()
        ),
        "ignore": bool(told.ignore),
        "two vCPUs": any(step.vcpu for _, step in steps),
        "errno": any(deed.errno for deed in (*told.built.values(), *told.setup)),
        "then": any(step.then for _, step in steps),
        "then with errno": any(deed.errno for _, step in steps for deed in step.then or ()),
        "replies": any(step.reply for _, step in steps),
        "timeout": any(step.kind == "timeout" for _, step in steps),
        "error": any(step.kind == "error" for _, step in steps),
        "regs, memory": any(step.regs or step.memory for _, step in steps),
        "final": bool(told.regs or told.memory),
        "a step of several rounds was taken": any(
            event.at is not None and event.at[-1][1] > 0 for event in seen.events
        ),
        "a group of several rounds was taken": any(
            nth for event in seen.events for _, nth in (event.at or ())[:-1]
        ),
        "a step took an ioctl's failure": any(
            event.op is not None and event.at is not None for event in seen.events
        ),
    }
    return {name for name, there in has.items() if there}


def _all(steps: Sequence[Expected], depth: int) -> list[tuple[int, Expected]]:
    """Every step with the number of groups around it."""
    out: list[tuple[int, Expected]] = []
    for step in steps:
        out += _all(step.steps, depth + 1) if step.kind == "group" else [(depth, step)]
    return out


def main(count: int, start: int) -> int:
    said: Counter[str] = Counter()
    had: Counter[tuple[str, str]] = Counter()
    wrong = 0
    for seed in range(start, start + count):
        says, problem, words = verdict(seed)
        said[says] += 1
        had.update((word, says) for word in words)
        if problem:
            wrong += 1
            print(f"seed {seed}: {problem}", flush=True)
    print(
        f"{count:,} cases from seed {start}: {said['pass']:,} pass, {said['not']:,} not, "
        f"{said['error']:,} cannot be (error)"
    )
    for word in sorted({word for word, _ in had}):
        print(
            f"  {had[word, 'pass']:7,} pass, {had[word, 'not']:7,} not, {had[word, 'error']:6,} "
            f"error: {word}"
        )
    print(f"{wrong:,} at which judge and oracle do not agree, or a difference is none")
    for what, trial in (
        ("known wrong outcomes", known),
        ("recordings under an edited story", replayed),
    ):
        said.clear()
        for seed in range(start, start + count // 4):
            says, problem = trial(seed)
            said[says] += 1
            if problem:
                wrong += 1
                print(f"seed {seed}: {what}: {problem}", flush=True)
        print(
            f"{count // 4:,} {what}: "
            + ", ".join(f"{number:,} {says}" for says, number in sorted(said.items()))
        )
    print(f"{wrong:,} wrong in all")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(
        main(
            int(sys.argv[1]) if len(sys.argv) > 1 else 10_000,
            int(sys.argv[2]) if len(sys.argv) > 2 else 0,
        )
    )
