"""Steps as they are written, to what the host does at each and what must be seen there."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from kvmscen.compile import deeds
from kvmscen.compile.resolve import Resolver, memory_size, widths
from kvmscen.job.expectation import Expected, MemoryExpected, Story
from kvmscen.scenario import Case, Step
from kvmscen.sent.header import exits
from kvmscen.sent.machine import Step as ScriptStep


class Steps:
    """The steps of one case, with what its names mean. What is wrong with one goes to the
    resolver.
    """

    def __init__(self, resolver: Resolver, case: Case) -> None:
        self.resolver = resolver
        self.case = case
        self.widths = widths(case.arch)

    @cached_property
    def story(self) -> Story:
        """What must be seen."""
        case, final = self.case, self.case.final
        return Story(
            None if case.expect is None else tuple(map(self.expected, case.expect)),
            tuple(map(self.expected, case.ignore)),
            {} if final is None else self.regs(final.regs),
            () if final is None else self.resolver.memory(final.memory),
            0 if final is None else final.place.line,
            deeds.built(case),
            deeds.done(case.setup),
        )

    @cached_property
    def script(self) -> tuple[ScriptStep, ...] | None:
        """Where the host stands in it, and what it does there."""
        return None if self.case.expect is None else tuple(map(self.step, self.case.expect))

    def regs(self, regs: object) -> dict[str, object]:
        assert hasattr(regs, "items")
        return {
            name: self.resolver.matcher(value, self.widths.get(name, 64))
            for name, value in regs.items()
        }

    def expected(self, step: Step) -> Expected:
        """What must be seen at a step."""
        row = exits.BY_NAME.get(step.kind)
        if step.kind == "error":
            where: tuple[str, ...] = tuple(key for key in ("ioctl", "errno") if key in step.fields)
        else:
            where = tuple(key for key in row.where if key in step.fields) if row is not None else ()
        return Expected(
            kind=step.kind,
            line=step.place.line,
            column=step.place.column,
            vcpu=step.vcpu,
            fields=self.fields(step),
            where=where,
            repeat=step.repeat,
            regs=self.regs(step.regs),
            memory=self.resolver.memory(step.memory),
            timeout=step.timeout,
            steps=tuple(map(self.expected, step.steps)),
            answer=step.answer,
            then=None if step.then is None else deeds.done(step.then),
            reply=self.reply(step),
        )

    def fields(self, step: Step) -> dict[str, object]:
        if step.kind == "error":
            out: dict[str, object] = {
                key: value for key, value in step.fields.items() if key != "memory_fault"
            }
            fault = step.fields.get("memory_fault")
            if isinstance(fault, dict):
                out["memory_fault"] = self.resolver.fields(
                    "memory_fault", fault, self.case.arch, step.place
                )
            return out
        if step.kind not in exits.BY_NAME:
            return {}
        return self.resolver.fields(step.kind, step.fields, self.case.arch, step.place)

    def step(self, step: Step) -> ScriptStep:
        """Where the host stands at this step, and what it does there; nothing of what the exit
        should hold.
        """
        row = exits.BY_NAME.get(step.kind)
        telling = (
            ("ioctl", "errno") if step.kind == "error" else row.where if row is not None else ()
        )
        fields = self.fields(step)
        return ScriptStep(
            exit=step.kind,
            where={key: fields[key] for key in telling if key in fields},
            repeat=step.repeat,
            reply=self.reply(step),
            then=None if step.then is None else self.resolver.actions(step.then, self.case.arch),
            observe_regs=tuple(step.regs),
            observe_memory=ranges(self.resolver.memory(step.memory)),
            timeout=step.timeout,
            steps=tuple(map(self.step, step.steps)),
        )

    def reply(self, step: Step) -> dict[str, object] | None:
        """The members that user space writes back."""
        if step.reply is None:
            return None
        # A reply is as wide as the exit's length says, which the step need not know.
        fields = self.resolver.fields(
            step.kind, {**step.fields, **step.reply}, self.case.arch, step.place
        )
        return {key: fields[key] for key in step.reply}

    def ignored(self, step: Step) -> ScriptStep:
        return ScriptStep(exit=step.kind, where=self.fields(step))


def ranges(memory: tuple[MemoryExpected, ...]) -> tuple[tuple[int, int], ...]:
    """Where to look, and how many bytes: what lies at one address is read once."""
    return _merged((check.gpa, memory_size(check)) for check in memory)


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    sizes: dict[int, int] = {}
    for at, size in ranges:
        sizes[at] = max(size, sizes.get(at, 0))
    return tuple(sizes.items())


def watching(
    script: tuple[ScriptStep, ...] | None, other: tuple[ScriptStep, ...] | None
) -> tuple[ScriptStep, ...] | None:
    """A script that also looks at what another one looks at, as long as both are at the same
    exits.
    """
    if script is None or other is None:
        return script
    out = list(script)
    for n, (one, two) in enumerate(zip(script, other, strict=False)):
        if (one.exit, one.where, one.repeat) != (two.exit, two.where, two.repeat):
            break
        out[n] = one._replace(
            observe_regs=tuple(dict.fromkeys((*one.observe_regs, *two.observe_regs))),
            observe_memory=_merged((*one.observe_memory, *two.observe_memory)),
            steps=watching(one.steps, two.steps) or (),
        )
    return tuple(out)
