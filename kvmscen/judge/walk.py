"""Which step each event took: the host's script gone through again, with what was expected and done in place of numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvmscen.expectation import Deed, Expected, Story
from kvmscen.kvm.script import Script, fits
from kvmscen.machine import Action, Step
from kvmscen.observation import Event


@dataclass(frozen=True)
class Taken:
    """One event (its `count` is 1) and the step that it took, in round `nth` from 0; None: it was extra, or is not compared.

    `deed` is the slot, capability or action whose ioctl failed there; `told`: it says itself that it must fail so.
    """

    event: Event
    step: Expected | None = None
    nth: int = 0
    ignored: bool = False
    deed: Deed | None = None

    @property
    def told(self) -> bool:
        return self.deed is not None and self.deed.errno == self.event.name


def taken(story: Story, events: Sequence[Event]) -> list[Taken]:
    """Each event of a run, as often as it happened."""
    walk = _Walk(story)
    return [walk.take(replace(event, count=1)) for event in events for _ in range(event.count)]


def deed_of(story: Story, events: Sequence[Event], wanted: Event) -> Deed | None:
    """The slot, capability or action whose ioctl an event of these events says has failed."""
    if wanted.op is None:
        return None
    return next((one.deed for one in taken(story, events) if one.event.op == wanted.op and one.event.vcpu == wanted.vcpu), None)


class _Walk:
    def __init__(self, story: Story) -> None:
        self._story = story
        self._of: dict[int, Expected] = {}
        self._scripts: dict[int, Script] = {}
        self._ignore = [Step(step.kind, where=step.fields) for step in story.ignore]
        self._deeds: defaultdict[int, list[Deed]] = defaultdict(list)
        self._deeds[0] = _parts(story.setup)

    def _script(self, vcpu: int) -> Script:
        if vcpu not in self._scripts:
            steps = self._story.steps
            own = None if steps is None else self._mirrored([s for s in steps if s.vcpu == vcpu or s.kind == "group"])
            self._scripts[vcpu] = Script(own)
        return self._scripts[vcpu]

    def _mirrored(self, steps: Sequence[Expected]) -> tuple[Step, ...]:
        return tuple(self._mirror(step) for step in steps if not step.implied)

    def _mirror(self, step: Expected) -> Step:
        where: dict[str, Any] = {key: step.fields[key] for key in step.where}
        then: tuple[Action, ...] | None = None if step.then is None else ()
        made = Step(step.kind, where, step.repeat, then=then, timeout=step.timeout, steps=self._mirrored(step.steps))
        self._of[id(made)] = step
        return made

    def take(self, event: Event) -> Taken:
        deed = self._deed(event)
        if deed is not None and deed.errno == event.name:
            # The script is not asked.
            return Taken(event, deed=deed)
        if any(fits(step, event.kind, event.name, event.fields, 0) for step in self._ignore):
            return Taken(event, ignored=True, deed=deed)
        verdict = self._script(event.vcpu).take(event.kind, event.name, event.fields)
        if verdict.step is None:
            return Taken(event, deed=deed)
        step = self._of[id(verdict.step)]
        self._deeds[event.vcpu] += _parts(step.then or ())
        return Taken(event, step, verdict.nth, deed=deed)

    def _deed(self, event: Event) -> Deed | None:
        kind, _, number = (event.op or "").partition("/")
        if kind != "actions":
            return self._story.built.get(event.op or "")
        done = self._deeds[event.vcpu]
        return done[int(number)] if int(number) < len(done) else None


def _parts(deeds: Sequence[Deed]) -> list[Deed]:
    return [deed for deed in deeds for _ in range(deed.parts)]
