"""What happened, as paste-ready `expect:` YAML."""

from __future__ import annotations

from kvmscen.job import Legend
from kvmscen.kvm import exits
from kvmscen.notation import Notation
from kvmscen.observation import Event
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
    if not any(line.startswith("  - ") for line in lines):
        lines[1] = "expect: []"
    return "\n".join(lines) + "\n"


def _step(notation: Notation, event: Event) -> list[str]:
    if event.kind == "exit" and event.name not in exits.BY_NAME:
        times = f", {event.count} times" if event.count > 1 else ""
        return [f"  # {event.name}{times}: kvmscen does not know this exit"]
    lines = [f"  - {notation.event(event)}"]
    if event.kind == "timeout":
        # A timeout takes no repeat.
        return lines * event.count
    if event.reply:
        lines.append("    reply: " + notation.value(event.name, "", dict(event.reply)))
    if event.count > 1:
        lines.append(f"    repeat: {event.count}")
    return lines
