"""Events as a host records them whose script is a story's: each with the step that it took."""

from __future__ import annotations

from collections.abc import Iterable

from kvmscen.job.expectation import Story, parts
from kvmscen.judge.walk import Course
from kvmscen.sent.observation import Event, behind
from kvmscen.sent.script.interpreter import Script


def walked(story: Story, events: Iterable[Event]) -> tuple[Event, ...]:
    """The events with `at`, `ignored` and `done`; equal ones in a row folded where they take one
    step after the other.
    """
    course = Course(story)
    scripts: dict[int, Script] = {}
    out: list[Event] = []
    for whole in events:
        for _ in range(whole.times):
            event = whole._replace(times=1)
            deed = course.deed(event)
            if event.kind != "succeeded" and not (deed is not None and deed.errno == event.name):
                script = scripts.setdefault(event.vcpu, course.script(event.vcpu))
                verdict = script.take(event.kind, event.name, event.fields)
                slot = None if verdict.at is None else course.occurrence(event.vcpu, verdict.at)
                done = 0 if slot is None else len(parts(slot.step.then or ()))
                event = event._replace(at=verdict.at, ignored=verdict.ignored, done=done)
            if out and out[-1]._replace(times=1, at=behind(out[-1].at, out[-1].times)) == event:
                out[-1] = out[-1]._replace(times=out[-1].times + 1)
            else:
                out.append(event)
    return tuple(out)
