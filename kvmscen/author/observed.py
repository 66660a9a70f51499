"""What happened, as `expect:` YAML that can be put in place of a scenario's own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from kvmscen.job.expectation import Expectation, Expected
from kvmscen.job.legend import Legend
from kvmscen.job.notation import Notation, seen
from kvmscen.judge.walk import Course, TracedEvent
from kvmscen.results.result import Result
from kvmscen.sent.header import exits
from kvmscen.sent.observation import Event
from kvmscen.sent.script.interpreter import matches

# What says whether an exit is a read, and so what may stand beside it: a matcher there would say
# less.
_PLAIN = ("is_write", "direction")


def observed(result: Result, legend: Legend, expectation: Expectation) -> str:
    """One case's events as steps; equal events in a row are one step with `repeat`. Empty where
    nothing ran.

    A step that the scenario has keeps its `reply`, `then` and the matchers that hold, and shows the
    registers and memory that it names. What the scenario ignores, or says elsewhere with `errno`,
    is left out.
    """
    if result.observation is None:
        return ""
    notation = Notation(legend, result.arch)
    kind = "predicted by" if result.predicted else "observed on"
    unpredicted = result.observation.unpredicted
    if unpredicted is not None:
        return (
            f"# {result.file}, case {result.case}: nothing to paste, the model does not "
            f"predict this: {unpredicted}\n"
        )
    story = expectation.xfail or expectation.story
    line = next((f":{step.line}" for step in story.steps or ()), "")
    lines = [f"# {result.file}{line}, case {result.case}, {kind} {result.host}", "expect:"]
    kept = [
        traced
        for traced in Course(story).walk(result.observation.events)
        if not traced.ignored and not traced.failed_as_written
    ]
    groups = [
        list(same)
        for _, same in groupby(
            kept, lambda traced: (id(traced.step), traced.event._replace(at=None, done=0))
        )
    ]
    for number, same in enumerate(groups):
        lines += _step(notation, same[0], len(same), last=number == len(groups) - 1)
    if not any(line.startswith("  - ") for line in lines):
        del lines[1]
        lines.append("# nothing happened that can be expected")
    return "\n".join(lines) + "\n"


def _step(notation: Notation, traced: TracedEvent, count: int, last: bool) -> list[str]:
    event, step = traced.event, traced.step
    if event.kind == "error" and event.fields.get("ioctl") != "KVM_RUN" and not last:
        # The run went on, so something that is not known here says that it must fail.
        return [f"  # {notation.event(event)}"]
    if event.kind == "exit" and event.name not in exits.BY_NAME:
        times = f", {count} times" if count > 1 else ""
        return [f"  # {event.name}{times}: kvmscen does not know this exit"]
    varied = _varied(notation, event, step) if step is not None and step.kind == event.name else []
    if step is not None and step.kind == event.name:
        event = event._replace(fields=_as_written(step.fields, event.fields))
    lines = [*varied, f"  - {notation.event(event)}"]
    lines += [f"    vcpu: {event.vcpu}"] * (event.vcpu > 0)
    if step is not None:
        lines += _beside(notation, event, step)
    elif event.reply:
        lines.append("    reply: " + notation.value(event.name, "", dict(event.reply)))
    lines += _then(event, step, count > 1 or not last)
    if event.kind == "timeout":
        # A timeout takes no repeat.
        return lines * count
    return lines + [f"    repeat: {count}"] * (count > 1)


def _then(event: Event, step: Expected | None, more: bool) -> list[str]:
    if step is not None and step.then is not None:
        return (
            ["    then:", *(f"      - {deed.text}" for deed in step.then)]
            if step.then
            else ["    then: []"]
        )
    ends = event.kind == "error" or (event.kind == "exit" and exits.BY_NAME[event.name].ends)
    ends = ends or (event.name == "arm_nisv" and not event.fields.get("emulated"))
    return ["    then: []"] if ends and more else []


def _beside(notation: Notation, event: Event, step: Expected) -> list[str]:
    """Registers and memory where the step looks at them, and its reply."""
    out: list[str] = []
    regs = _as_written(
        step.regs, {name: value for name, value in (event.regs or {}).items() if name in step.regs}
    )
    if regs:
        out.append(
            "    regs: {"
            + ", ".join(f"{name}: {_register(notation, name, regs[name])}" for name in regs)
            + "}"
        )
    memory = event.memory or {}
    looked = [check for check in step.memory if memory.get(check.gpa)]
    if looked:
        out.append("    memory:")
    for check in looked:
        observed = seen(check, memory)
        if observed.unit != "hex":
            values = [
                want if _holds(want, value) else value
                for want, value in zip(check.values, observed.values, strict=False)
            ]
            observed = observed._replace(values=values)
        out.append(f"      {notation.memory(observed)}")
    if step.answer:
        out.append(f"    reply: {step.answer}")
    return out


def _register(notation: Notation, name: str, value: Any) -> str:
    # As a pc may be written: by its label.
    return (
        notation.value("", "fault_addr", value)
        if name in ("pc", "rip")
        else notation.register(value)
    )


def _varied(notation: Notation, event: Event, step: Expected) -> list[str]:
    """What was seen where a matcher of the step is kept, as a comment."""
    out = [
        f"{name} {notation.value(event.name, name, event.fields[name])}"
        for name, matcher in step.fields.items()
        if name not in _PLAIN and _holds(matcher, event.fields.get(name))
    ]
    regs, memory = event.regs or {}, event.memory or {}
    out += [
        f"{name} {_register(notation, name, regs[name])}"
        for name in step.regs
        if _holds(step.regs[name], regs.get(name))
    ]
    for check in step.memory:
        observed = seen(check, memory)
        if observed.unit != "hex" and any(map(_holds, check.values, observed.values)):
            out.append(notation.memory(observed))
    return [f"  # observed: {', '.join(out)}"] if out else []


def _as_written(written: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, but the matcher that is written where it holds: what may vary stays free to."""
    held = {
        key: matcher
        for key, matcher in written.items()
        if key not in _PLAIN and _holds(matcher, values.get(key))
    }
    return {**values, **held}


def _holds(matcher: Any, value: Any) -> bool:
    # A series counts rounds, and each of these has a step of its own.
    return (
        isinstance(matcher, dict)
        and "from" not in matcher
        and isinstance(value, int)
        and matches(matcher, value)
    )
