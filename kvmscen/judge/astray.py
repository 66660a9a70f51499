"""Whether what a host tells of a run can be: of a damaged recording nothing can be said, and of a
host that is wrong neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kvmscen.job.expectation import parts
from kvmscen.judge.walk import Course, TracedEvent
from kvmscen.sent.observation import Event, Observation
from kvmscen.sent.script.interpreter import Script
from kvmscen.sent.script.recorder import op_of

# What must have come last where a run stopped for these reasons.
_STOPPED_BY = {"error": ("error", "succeeded"), "timeout": ("timeout",)}

# Of what is built, the stages of which one wholly comes before the next; `enable` is before or
# behind them, by the capability. And the ioctl that each is.
_STAGES = ("memslots", "vcpus", "setup")
_IOCTLS = {"memslots": "KVM_SET_USER_MEMORY_REGION", "enable": "KVM_ENABLE_CAP"}


def astray(course: Course, walk: Sequence[TracedEvent], seen: Observation) -> bool:
    """Whether events took other steps than the host's script takes, or they contradict each other
    or why the run stopped.

    `course` is the story that the script was made of, `walk` the events along it as the host tells
    them.
    """
    # What a model does not predict leaves off anywhere.
    stopped = "" if seen.unpredicted is not None else seen.stopped
    return _apart(course, walk, stopped) or _contradicted(course, seen.events, stopped)


def _apart(course: Course, walk: Sequence[TracedEvent], stopped: str) -> bool:
    """Whether the script goes otherwise, or is not where it ends though the run stopped for
    that.
    """
    scripts: dict[int, Script] = {vcpu: course.script(vcpu) for vcpu in {0, *course.vcpus}}
    # vCPUs that stopped, and of these the ones whose exit leaves nothing to complete: nothing more
    # can come of them. What became of an arm_nisv that was to be emulated shows only behind it.
    ended: set[int] = set()
    left: set[int] = set()
    for traced in walk:
        event = traced.event
        if event.kind == "succeeded" or traced.failed_as_written:
            if event.at is not None or event.ignored:
                return True
            continue
        if event.vcpu not in scripts:
            scripts[event.vcpu] = course.script(event.vcpu)
        if event.kind == "timeout" and scripts[event.vcpu].over():
            # Nobody waits for it any more.
            return True
        verdict = scripts[event.vcpu].take(event.kind, event.name, event.fields)
        if (traced.at, event.at is None, event.ignored) != (
            verdict.at,
            verdict.at is None,
            verdict.ignored,
        ):
            return True
        entered = event.op is None and (
            event.kind != "error" or event.fields.get("ioctl") == "KVM_RUN"
        )
        if entered and course.story.steps and not course.steps(event.vcpu):
            # A vCPU without steps is not entered.
            return True
        if event.vcpu in left:
            return True
        if verdict.stop in ("expected", "error") and event.name != "arm_nisv":
            left.add(event.vcpu)
        if verdict.stop is not None:
            ended.add(event.vcpu)
    return stopped in ("end", "expected") and not all(
        vcpu in ended or script.over() for vcpu, script in scripts.items()
    )


def _contradicted(course: Course, events: Sequence[Event], stopped: str) -> bool:
    """An event without a step has no reply and no actions; and what failed as an action says is an
    event, no more and no less.
    """
    kinds = _STOPPED_BY.get(stopped)
    if kinds is not None and (
        not events or events[-1].kind not in kinds or _failed_as_written(course, events[-1])
    ):
        return True
    if _built_otherwise(events):
        return True
    failed: Counter[tuple[int, str]] = Counter()
    for event in events:
        occurrence = None if event.at is None else course.occurrence(event.vcpu, event.at)
        if event.op is not None and event.op.startswith("steps/"):
            failed[event.vcpu, event.op] -= event.times * _failed_as_written(course, event)
        if occurrence is None:
            if event.reply is not None or event.done:
                return True
        elif event.at is not None and event.done:
            for n, deed in enumerate(parts(occurrence.step.then or ())[: event.done]):
                if deed.errno is not None:
                    failed[event.vcpu, f"{op_of(event.at)}/then/{n}"] += event.times
    return any(failed.values())


def _built_otherwise(events: Sequence[Event]) -> bool:
    """Whether ioctls of building are told in an order, or behind an exit, as no host does them; or
    by another's name.
    """
    built: set[str] = set()
    last, begun = (-1, 0), False
    for event in events:
        if event.op is None or event.op.startswith("steps/"):
            begun = True
            continue
        where, _, number = event.op.rpartition("/")
        if begun or event.times > 1 or event.op in built or not number.isdecimal():
            return True
        built.add(event.op)
        called = event.fields.get("ioctl")
        if event.kind == "error" and called != _IOCTLS.get(where, called):
            return True
        if where in _STAGES:
            here = _STAGES.index(where), int(number)
            if here < last:
                return True
            last = here
    return False


def _failed_as_written(course: Course, event: Event) -> bool:
    deed = course.deed(event)
    return event.kind == "error" and deed is not None and deed.errno == event.name
