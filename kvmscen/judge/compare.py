"""One event against one step: what of it is not as written. Pure; knows no host and no YAML."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any

from kvmscen.job.expectation import Expected, MemoryExpected, parts
from kvmscen.job.notation import seen
from kvmscen.sent.observation import Event
from kvmscen.sent.script.interpreter import answered, matches

# The member that says how wide `data` is, in bytes.
_LENGTH = {"mmio": "len", "io": "size"}


def differences(step: Expected, event: Event, nth: int) -> tuple[str, ...]:
    """What of a step an event does not hold in round `nth`: names of members, `regs.x2`,
    `memory.0x5000`, `timeout`, `reply`.

    `exit` alone, where it is another exit. `reply` also where it did not get the step's reply, or
    could not.
    """
    if step.kind != (event.name if event.kind == "exit" else event.kind):
        return ("exit",)
    fields: Mapping[str, Any] = (
        {**event.fields, "errno": event.name} if event.kind == "error" else event.fields
    )
    out = [
        key
        for key, matcher in step.fields.items()
        if not _member(event, key, matcher, fields.get(key), nth)
    ]
    if step.kind == "timeout" and event.fields["timeout"] < step.timeout:
        # The run's own time was over first.
        out.append("timeout")
    # What was not read, since the host did not take the exit as this step, differs only where
    # nothing else does.
    regs, unread = event.regs or {}, bool(out)
    if not (unread and event.regs is None):
        out += [
            f"regs.{name}"
            for name, matcher in step.regs.items()
            if not matches(matcher, regs.get(name), nth)
        ]
    if not (unread and event.memory is None):
        out += [
            f"memory.{check.gpa:#x}"
            for check in step.memory
            if not memory_holds(check, event.memory or {}, nth)
        ]
    if event.reply != step.reply or (
        event.reply and not answered(event.name, event.fields, event.reply)
    ):
        out.append("reply")
    return tuple(out)


def undone(step: Expected, event: Event, failed: bool = False) -> bool:
    """Whether not all actions of the step ended as written behind an event that the host took as
    this step.

    `failed`: a step `error` took the failure of the last one.
    """
    return event.done + failed != len(parts(step.then or ()))


def at_width(step: Expected, event: Event) -> Expected:
    """The step with a series of `data` as wide as the access was, as it is compared."""
    if "data" not in step.fields or step.kind != event.name or event.name not in _LENGTH:
        return step
    data = _narrowed(step.fields["data"], 8 * event.fields[_LENGTH[event.name]])
    return step._replace(fields={**step.fields, "data": data})


def _member(event: Event, key: str, matcher: Any, value: Any, nth: int) -> bool:
    if key == "data" and event.kind == "exit" and event.name in _LENGTH:
        # A series wraps at the width of the access, which the step need not say.
        matcher = _narrowed(matcher, 8 * event.fields[_LENGTH[event.name]])
    return holds(matcher, value, nth, event.name == "io")


def _narrowed(matcher: Any, bits: int) -> Any:
    if isinstance(matcher, list):
        return [_narrowed(member, bits) for member in matcher]
    return {**matcher, "bits": bits} if isinstance(matcher, dict) and "from" in matcher else matcher


def holds(matcher: Any, value: Any, nth: int, whole: bool = False) -> bool:
    """As `matches`, and a member that is a map (memory_fault) by its own members. `whole`: a list
    must have no more.
    """
    if isinstance(matcher, dict) and isinstance(value, dict):
        return all(matches(inner, value.get(key), nth) for key, inner in matcher.items())
    if (
        isinstance(value, list)
        and value
        and isinstance(value[0], dict)
        and isinstance(matcher, list)
    ):
        return len(matcher) == len(value) and all(map(holds, matcher, value, repeat(nth)))
    # The elements of an io exit are all there is; an array member of a struct is as long as the
    # header says.
    if (
        whole
        and isinstance(matcher, list)
        and isinstance(value, list)
        and len(matcher) != len(value)
    ):
        return False
    return matches(matcher, value, nth)


def memory_holds(check: MemoryExpected, memory: Mapping[int, bytes], nth: int) -> bool:
    """Whether memory at a check's place is what it says."""
    if not memory.get(check.gpa):
        return False
    observed = seen(check, memory).values
    return (
        bool(observed == check.values)
        if check.unit == "hex"
        else matches(check.values, observed, nth)
    )


def counts_rounds(step: Expected) -> bool:
    """Whether a series is in the step, so that its rounds are not all alike."""
    return (
        _counts(step.fields)
        or _counts(step.regs)
        or _counts([check.values for check in step.memory])
    )


def _counts(value: Any) -> bool:
    if isinstance(value, int):
        return False
    if isinstance(value, Mapping):
        return "from" in value or any(map(_counts, value.values()))
    return isinstance(value, list) and any(map(_counts, value))
