"""What happened, as paste-ready `expect:` YAML."""

from __future__ import annotations

from kvmscen.job import Legend
from kvmscen.machine import Event
from kvmscen.notation import Notation
from kvmscen.result import Result


def observed(result: Result, legend: Legend) -> str:
    """One case's events as steps; equal events in a row are one step with `repeat`. Empty where nothing ran."""
    if result.observation is None:
        return ""
    notation = Notation(legend, result.arch)
    kind = "predicted by" if result.predicted else "observed on"
    lines = [f"# {result.file}, case {result.case}, {kind} {result.host}", "expect:"]
    for event in result.observation.events:
        lines += _step(notation, event)
    if len(lines) == 2:
        lines[1] = "expect: []"
    return "\n".join(lines) + "\n"


def _step(notation: Notation, event: Event) -> list[str]:
    lines = [f"  - {notation.event(event)}"]
    if event.reply:
        lines.append("    reply: " + notation.value(event.name, "", dict(event.reply)))
    if event.count > 1:
        lines.append(f"    repeat: {event.count}")
    return lines
