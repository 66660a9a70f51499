"""One outcome that is not as it should be, with all that its hint is looked for in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property

from kvmscen.job.expectation import Story
from kvmscen.job.job import Job
from kvmscen.job.legend import Legend
from kvmscen.job.origin import source
from kvmscen.results.result import Mismatch, StoryRow
from kvmscen.sent.codec import decode
from kvmscen.sent.machine import Action, Machine, Memslot, Step
from kvmscen.sent.observation import Event, Observation


class Outcome:
    """One outcome that is not as it should be: the Job, what was seen, and what of it was not
    expected.
    """

    def __init__(
        self,
        job: Job,
        story: Story,
        seen: Observation,
        unexpected: Sequence[Event] = (),
        mismatches: Sequence[Mismatch] = (),
        rows: Sequence[StoryRow] = (),
    ) -> None:
        self.job = job
        self.story = story
        self.seen = seen
        self.unexpected = unexpected
        self.mismatches = mismatches
        self.rows = rows

    @cached_property
    def machine(self) -> Machine | None:
        """The Machine that the host ran."""
        return (
            None if self.job.machine is None else decode(Machine, json.loads(self.job.machine.text))
        )

    @property
    def legend(self) -> Legend:
        """The names of addresses and lines."""
        return self.job.legend or Legend({}, ())

    def source(self, event: Event) -> str:
        """Where an event comes from, `LINE: TEXT`."""
        return source(event, self.legend, self.job.arch, self.job.flavour)

    def actions(self) -> Iterator[Action]:
        """All host actions, in the order in which they are written."""
        if self.machine is None:
            return
        yield from self.machine.setup
        for vcpu in self.machine.vcpus:
            yield from _actions(vcpu.script or ())

    @cached_property
    def slots(self) -> tuple[Memslot, ...] | None:
        """The memslots, None where an action changes them."""
        moved = any(action.name in ("set_memslot", "delete_memslot") for action in self.actions())
        if self.machine is None or moved:
            return None
        return tuple(slot for slot in self.machine.memslots if slot.errno is None)

    def slot(self, gpa: int) -> Memslot | None:
        """The memslot that has an address."""
        return next((s for s in self.slots or () if s.gpa <= gpa < s.gpa + s.size), None)


def _actions(steps: Sequence[Step]) -> Iterator[Action]:
    for step in steps:
        yield from step.then or ()
        yield from _actions(step.steps)
