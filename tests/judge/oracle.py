"""What passes, by docs/language.md alone: brute force on plain data, with nothing of kvmscen in it.

kvmscen's own judge is held against it. The headings named below are those of docs/language.md.
Stories and runs are as random_guests.plain gives them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Plain = dict[str, Any]
Path = list[list[int]]  # [index, round] of a step in each list of steps, from the outermost in
ENDING = (
    "hlt",
    "shutdown",
    "fail_entry",
    "internal_error",
    "system_event",
    "unknown",
    "arm_nisv",
)  # "Exits": column `ends`
CRASHES = (3, 6, 7)  # "When it ends": crash, sev_term, tdx_fatal


def fits(matcher: Any, value: Any, nth: int, wide: int | None = None) -> bool:
    """Values: is this value as written, in round `nth`? A series wraps at the width of what it is
    compared with.
    """
    if isinstance(matcher, list):
        values = value[: len(matcher)] if isinstance(value, list) else []
        return len(matcher) == len(values) and all(
            fits(expected, seen, nth, wide) for expected, seen in zip(matcher, values, strict=True)
        )
    if isinstance(value, list):
        return False
    if not isinstance(matcher, dict):
        return bool(matcher == value)
    if isinstance(value, dict):
        return all(
            key in value and fits(expected, value[key], nth) for key, expected in matcher.items()
        )
    if "from" in matcher:
        due = matcher["from"] + nth * matcher["step"]
        return bool(value == due % (1 << (matcher.get("bits", 64) if wide is None else wide)))
    if "mask" in matcher:
        return bool(value & matcher["mask"] == matcher["value"])
    if "in" in matcher:
        return value in matcher["in"]
    return bool(matcher.get("min", value) <= value <= matcher.get("max", value))


def rounds(steps: list[Plain], path: Path) -> int:
    """Repetition: the rounds that a series counts: the step's own, or of one without a `repeat`
    those of its group.
    """
    return (
        path[-1][1] if step_at(steps, path)["repeat"] != [1, 1] or len(path) == 1 else path[-2][1]
    )


def holds(written: Plain, event: Plain, nth: int, names: Any) -> bool:
    """Do these members of an event hold? A member that is not there does not."""
    seen = (
        {**event["members"], "errno": event["name"]}
        if event["kind"] == "error"
        else event["members"]
    )
    wide = 8 * seen.get("len", seen.get("size", 8))
    elements = written.get("data") if event["name"] == "io" and "data" in names else None
    if (
        isinstance(elements, list) and len(elements) != seen["count"]
    ):  # "the `data` of `io` is compared whole"
        return False
    narrow = wide if event["name"] in ("mmio", "io") else None
    return all(
        key in seen and fits(written[key], seen[key], nth, narrow if key == "data" else None)
        for key in names
    )


def can_be_given(name: str, members: Plain, reply: Plain) -> bool:
    """What passes: the exit is a read, and as wide as the value. An MSR is 64 bits wide."""
    if name not in ("mmio", "io"):
        return True
    values = reply["data"] if isinstance(reply["data"], list) else [reply["data"]]
    read = members["direction"] == 0 if name == "io" else not members["is_write"]
    size, count = (members["size"], members["count"]) if name == "io" else (members["len"], 1)
    return read and len(values) <= count and all(value < 1 << 8 * size for value in values)


def may_be_missing(step: Plain) -> bool:
    return step["repeat"][0] == 0 or (
        bool(step["steps"]) and all(map(may_be_missing, step["steps"]))
    )


def begin(steps: list[Plain], before: Path, index: int = 0) -> Iterator[Path | None]:
    """The steps that may come first of those from an index on, in order; None behind them if all
    may be missing.
    """
    for at in range(index, len(steps)):
        yield from enter(steps[at], [*before, [at, 0]])
        if not may_be_missing(steps[at]):
            return
    yield None


def enter(step: Plain, path: Path) -> Iterator[Path | None]:
    if step["exit"] != "group":
        yield path
    else:
        yield from (inner for inner in begin(step["steps"], path) if inner is not None)


def following(steps: list[Plain], path: Path | None) -> Iterator[Path | None]:
    """Which step an exit takes, 2: what may come after a step, in order; None at the end if the
    story may end.
    """
    if path is None:
        yield from begin(steps, [])
        return
    levels = [steps]
    for index, _ in path[:-1]:
        levels.append(levels[-1][index]["steps"])
    for level in reversed(range(len(path))):
        index, nth = path[level]
        least, most = levels[level][index]["repeat"]
        if nth + 1 < most:
            yield from enter(levels[level][index], [*path[:level], [index, nth + 1]])
        if nth + 1 < least and not may_be_missing(levels[level][index]):
            return
        behind = list(begin(levels[level], path[:level], index + 1))
        yield from (path for path in behind if path is not None)
        if None not in behind:
            return
    yield None


def step_at(steps: list[Plain], path: Path) -> Plain:
    step = steps[path[0][0]]
    for index, _ in path[1:]:
        step = step["steps"][index]
    return step


class Wrong(Exception):
    """The run does not pass."""


def demand(what: Any) -> None:
    if not what:
        raise Wrong


def memory_holds(checks: list[Any], memory: dict[int, bytes], nth: int) -> bool:
    """Every value of every range; all of these are bytes."""
    return all(
        len(memory.get(gpa, b"")) >= len(values)
        and all(fits(want, memory[gpa][n], nth) for n, want in enumerate(values))
        for gpa, _, values in checks
    )


def as_written(step: Plain, event: Plain, nth: int) -> bool:
    """What passes: every member, register and memory of the step is as written, and it got the
    step's reply.
    """
    return (
        step["exit"] == (event["name"] if event["kind"] == "exit" else event["kind"])
        and holds(step["members"], event, nth, step["members"])
        and all(
            name in event["regs"] and fits(want, event["regs"][name], nth)
            for name, want in step["regs"].items()
        )
        and memory_holds(step["memory"], event["memory"], nth)
        and (step["exit"] != "timeout" or event["members"]["timeout"] >= step["timeout"])
        and event["reply"] == step["reply"]
        and (step["reply"] is None or can_be_given(event["name"], event["members"], step["reply"]))
    )


class Walk:
    """Goes through the events as the docs say that a host does, and demands of each what "What
    passes" says.
    """

    def __init__(self, story: Plain, run: Plain) -> None:
        self.story, self.rest = story, list(run["events"])
        self.steps: dict[int, list[Plain]] = {0: []}
        for step in story["steps"] or []:
            self.steps.setdefault(step["vcpu"], []).append(step)
        self.last: dict[int, Path | None] = dict.fromkeys(self.steps)
        self.ended: set[int] = set()
        self.as_written: list[Plain] = []  # ioctls that failed as they should: the run goes on

    def ioctl(self, op: str, vcpu: int | None, errno: str | None) -> bool:
        """Failing ioctls, Host actions: one ioctl ended as written; False: a step `error` took the
        failure, and the run ends.
        """
        here = bool(self.rest) and self.rest[0]["op"] == op
        if errno is None and not here:
            return True
        demand(here)
        event = self.rest.pop(0)
        demand(event["kind"] == "error" and vcpu in (None, event["vcpu"]) and not event["ignored"])
        if errno is not None:
            demand(
                event["name"] == errno
                and (event["step"], event["reply"], event["done"]) == (None, None, 0)
            )
            self.as_written.append(event)
            return True
        demand(event["vcpu"] in self.steps)
        self.take(event)
        demand(not self.rest)
        return False

    def take(self, event: Plain) -> None:
        """Which step an exit takes, and is it as that step says?"""
        steps, kind = (
            self.steps[event["vcpu"]],
            event["name"] if event["kind"] == "exit" else event["kind"],
        )
        open_ = [path for path in following(steps, self.last[event["vcpu"]]) if path is not None]
        if event["op"] is None:
            demand(event["vcpu"] not in self.ended and self.goes_on(event["vcpu"]))
        if event["kind"] == "exit" and kind not in ENDING and self.ignores(event):
            demand(
                event["ignored"]
                and (event["step"], event["reply"], event["done"]) == (None, None, 0)
            )
            return
        demand(not event["ignored"])
        if self.story["steps"] is None:
            demand(
                event["kind"] == "exit"
                and (event["step"], event["reply"], event["done"]) == (None, None, 0)
            )
            if kind in ENDING:
                self.ended.add(event["vcpu"])
            return
        path = next(
            (
                at
                for at in open_
                if self.is_this(event, kind, step_at(steps, at), rounds(steps, at))
            ),
            None,
        )
        demand(path is not None and event["step"] == path)
        step, nth = step_at(steps, path or []), rounds(steps, path or [])
        self.last[event["vcpu"]] = path
        demand(as_written(step, event, nth))
        if event["op"] is None:
            self.actions(event, step, path or [])
        else:  # The run has ended, so none of its actions was done.
            demand(not step["then"] and not event["done"])

    def actions(self, event: Plain, step: Plain, path: Path) -> None:
        if step["then"] is None and (step["exit"] in ENDING or step["exit"] == "error"):
            self.ended.add(event["vcpu"])
        here = "/".join(["steps", *(str(index) for index, _ in path), "then"])
        count = len(step["then"] or [])
        for n, errno in enumerate(step["then"] or []):
            if not self.ioctl(f"{here}/{n}", event["vcpu"], errno):
                demand(n == count - 1)
                demand(event["done"] == n)
                return
        demand(event["done"] == count)

    def goes_on(self, vcpu: int) -> bool:
        return self.story["steps"] is None or any(
            path is not None for path in following(self.steps[vcpu], self.last[vcpu])
        )

    def ignores(self, event: Plain) -> bool:
        return any(
            item["exit"] == event["name"] and holds(item["members"], event, 0, item["members"])
            for item in self.story["ignore"]
        )

    def is_this(self, event: Plain, kind: str, step: Plain, nth: int) -> bool:
        return bool(step["exit"] == kind and holds(step["members"], event, nth, step["bold"]))

    def through(self) -> None:
        building = [
            *self.story["built"].items(),
            *((f"setup/{n}", errno) for n, errno in enumerate(self.story["setup"])),
        ]
        for n, (op, errno) in enumerate(building):
            if not self.ioctl(op, None, errno):
                demand(all(later is None for _, later in building[n + 1 :]))
                return
        while self.rest:
            event = self.rest.pop(0)
            if self.story["steps"] is None:  # Nothing says how many vCPUs there are.
                self.steps.setdefault(event["vcpu"], [])
                self.last.setdefault(event["vcpu"], None)
            demand(event["vcpu"] in self.steps and event["op"] is None)
            self.take(event)
            demand(
                event["kind"] != "error" or event["members"]["ioctl"] == "KVM_RUN" or not self.rest
            )


def passes(story: Plain, run: Plain) -> bool:
    """Does the run pass?"""
    walk = Walk(story, run)
    try:
        demand(run["stopped"] not in ("exits", "extra", "crash"))
        walk.through()
        stopped_by = {"timeout": ("timeout",), "error": ("error", "succeeded")}.get(run["stopped"])
        demand(stopped_by is None or (run["events"] and run["events"][-1]["kind"] in stopped_by))
        demand(
            run["stopped"] != "error"
            or not any(event is run["events"][-1] for event in walk.as_written)
        )
        if run["stopped"] in (
            "end",
            "expected",
            "timeout",
        ):  # When it ends: each vCPU at such an exit, or right behind its last step
            demand(all(vcpu in walk.ended or not walk.goes_on(vcpu) for vcpu in walk.steps))
        demand(all(None in following(steps, walk.last[vcpu]) for vcpu, steps in walk.steps.items()))
        if story["steps"] is None:
            end: Plain = run["events"][-1] if run["events"] else {"name": "", "kind": ""}
            demand(
                end["name"] == "hlt"
                or (end["name"] == "system_event" and end["members"]["type"] not in CRASHES)
            )
        demand(
            all(
                name in run["regs"] and fits(want, run["regs"][name], 0)
                for name, want in story["final_regs"].items()
            )
        )
        demand(memory_holds(story["final_memory"], run["memory"], 0))
    except Wrong:
        return False
    return True


def untried(story: Plain, known: Plain, run: Plain) -> bool:
    """When: the host went by `known`, and so replied or acted otherwise than the story, before
    anything else differed.

    Of stories with the same steps and actions that end alike.
    """
    mine, theirs = Walk(story, run), Walk(known, run)
    for event in run["events"]:
        vcpu, path = event["vcpu"], event["step"]
        if path is None:
            continue
        mine_there, theirs_there = (
            step_at(mine.steps[vcpu], path),
            step_at(theirs.steps[vcpu], path),
        )
        if not as_written(
            {**mine_there, "reply": None}, {**event, "reply": None}, rounds(mine.steps[vcpu], path)
        ):
            return False
        if (mine_there["reply"], mine_there["deeds"]) != (
            theirs_there["reply"],
            theirs_there["deeds"],
        ):
            return True
    return False
