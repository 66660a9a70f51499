"""What happened, as paste-ready `expect:` YAML."""

from __future__ import annotations

from kvmscen.job import Legend
from kvmscen.kvm import exits
from kvmscen.notation import Notation
from kvmscen.observation import Event
from kvmscen.result import Result


def observed(result: Result, legend: Legend) -> str:
    """One case's events as steps; equal events in a row are one step with `repeat`. Empty where nothing ran.

    What the scenario did at a step (`then`) is not an event, and is not among them.
    """
    if result.observation is None:
        return ""
    notation = Notation(legend, result.arch)
    kind = "predicted by" if result.predicted else "observed on"
    unpredicted = result.observation.unpredicted
    if unpredicted is not None:
        return f"# {result.file}, case {result.case}: nothing to paste, the model does not predict this: {unpredicted}\n"
    lines = [f"# {result.file}, case {result.case}, {kind} {result.host}", "expect:"]
    events = result.observation.events
    for number, event in enumerate(events):
        lines += _step(notation, event, last=number == len(events) - 1)
    if not any(line.startswith("  - ") for line in lines):
        lines[1] = "expect: []"
    return "\n".join(lines) + "\n"


def _step(notation: Notation, event: Event, last: bool) -> list[str]:
    if event.kind == "error" and event.fields.get("ioctl") != "KVM_RUN" and not last:
        # The run went on, so an `errno` of the slot or action that failed says it already.
        return [f"  # {notation.event(event)}"]
    if event.kind == "exit" and event.name not in exits.BY_NAME:
        times = f", {event.count} times" if event.count > 1 else ""
        return [f"  # {event.name}{times}: kvmscen does not know this exit"]
    lines = [f"  - {notation.event(event)}"]
    if event.kind == "timeout":
        # A timeout takes no repeat.
        return lines * event.count
    if event.reply:
        lines.append("    reply: " + notation.value(event.name, "", dict(event.reply)))
    ends = event.kind == "error" or exits.BY_NAME[event.name].ends
    ends = ends or (event.name == "arm_nisv" and not event.fields.get("emulated"))
    if ends and (event.count > 1 or not last):
        lines.append("    then: []  # and whatever the scenario did here")
    if event.count > 1:
        lines.append(f"    repeat: {event.count}")
    return lines
