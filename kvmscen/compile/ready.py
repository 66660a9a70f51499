"""A planned case made ready for one host: conditions, the script that the host follows, and what
must be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kvmscen.compile import measure
from kvmscen.compile.ambiguity import MOST, TooMany, ambiguous, mistaken
from kvmscen.compile.conditions import other_cpu, undecided, unmet
from kvmscen.compile.measure import Sampling
from kvmscen.compile.plan import Plan
from kvmscen.compile.resolve import Resolver, actions_of
from kvmscen.compile.slots import later_slots
from kvmscen.compile.start import mode_of, names_pc
from kvmscen.compile.steps import Steps, ranges, watching
from kvmscen.errors import ScenarioError
from kvmscen.job.expectation import Expectation, Story
from kvmscen.job.job import Wanted
from kvmscen.job.notation import Notation
from kvmscen.scenario import Case, Enable, Final, Overlay, Step
from kvmscen.sent.arch import ARCHES, arm64_tables
from kvmscen.sent.facts import Facts
from kvmscen.sent.header.actions import BY_NAME
from kvmscen.sent.machine import Machine, Tables, Vcpu, seconds
from kvmscen.sent.machine import Step as ScriptStep

_DEFAULT_TIMEOUT = 5.0
# A round that is timed ends when it has its samples, or when none comes; this is for one in which
# they hardly come.
_MEASURE = 600.0
_NISV = "KVM_CAP_ARM_NISV_TO_USER"
_EXITS_ABOVE, _EXITS_MOST = 1000, 100_000


class Ready(NamedTuple):
    """What one host gets of a case, or why it is skipped there."""

    skip: str | None
    machine: Machine | None = None
    expectation: Expectation | None = None
    wanted: tuple[Wanted, ...] = ()


def ready(
    file: str, case: Case, plan: Plan, facts: Facts, kind: str, timing: Sampling | None = None
) -> Ready:
    """One case for the host of these facts; `kind` is kvm, model, qemu, ssh or replay; `timing`: it
    is timed, not judged.

    Raises ScenarioError for what cannot be resolved, whichever overlay it stands in.
    """
    resolver = Resolver(file, plan.symbols)
    maker = _Maker(resolver, case, plan)
    made = maker.timed(maker.machine(facts, kind), facts, timing)
    if resolver.problems:
        raise ScenarioError(dict.fromkeys(resolver.problems))
    return made


def stories(file: str, case: Case, plan: Plan) -> tuple[Story, list[tuple[Overlay, Story]]]:
    """What must be seen, and what by each entry of `when`; of a case without problems."""
    resolver = Resolver(file, plan.symbols)
    made = [(overlay, Steps(resolver, overlay.over(case)).story) for overlay in case.when]
    return Steps(resolver, case).story, made


class _Maker:
    def __init__(self, resolver: Resolver, case: Case, plan: Plan) -> None:
        self.resolver = resolver
        self.case = case
        self.plan = plan
        self.steps = Steps(resolver, case)

    def machine(self, facts: Facts, kind: str) -> Ready:
        case, plan = self.case, self.plan
        # All of them, so that what is wrong in one is told wherever it is checked.
        overlays = [
            (overlay, _Maker(self.resolver, overlay.over(case), plan)) for overlay in case.when
        ]
        for maker in (self, *(maker for _, maker in overlays)):
            _ = maker.steps.story
            maker.told_apart()
            maker.in_time(maker.case.expect or ())
        chosen = next(
            ((one, maker) for one, maker in overlays if unmet(one.conditions, facts, kind) is None),
            None,
        )
        if chosen is None:
            made = self.run(facts, [case.final], self.steps.script, Expectation(self.steps.story))
        else:
            overlay, there = chosen
            finals, script = (
                [there.case.final, case.final],
                watching(there.steps.script, self.steps.script),
            )
            expectation = Expectation(self.steps.story, there.steps.story, overlay.reason)
            if not overlay.xfail:
                # Whether a known wrong outcome is gone shows only if what should be is looked at
                # too.
                finals, script, expectation = (
                    [there.case.final],
                    there.steps.script,
                    Expectation(there.steps.story, None, overlay.reason),
                )
            made = there.run(facts, finals, script, expectation)
        skip = unmet(case.requires, facts, kind) or undecided(case.when, facts, kind) or made.skip
        return Ready(skip) if skip else made

    def run(
        self,
        facts: Facts,
        finals: Sequence[Final | None],
        script: tuple[ScriptStep, ...] | None,
        expectation: Expectation,
    ) -> Ready:
        """What the host is given; `script` also looks at what another story looks at, `finals` are
        those of both.
        """
        case, plan = self.case, self.plan
        if case.when and case.expect is None and case.final is None:
            return Ready(
                "only entries of `when` have something to check, and none of those applies here"
            )
        skip = self.lacking(facts, case.expect or ())
        if skip is not None:
            return Ready(skip)
        memory = self.resolver.memory(
            tuple(check for final in finals if final is not None for check in final.memory)
        )
        errnos = [slot.errno for slot in case.memslots]
        made = Machine(
            arch=case.arch,
            memslots=tuple(
                slot._replace(errno=errno)
                for slot, errno in zip(plan.memslots, errnos, strict=True)
            ),
            image=plan.image,
            devices=plan.devices,
            vcpus=self.vcpus(script),
            enable=tuple(map(self.resolver.capability, self.enables())),
            tables=self.tables(facts),
            setup=self.resolver.actions(case.setup, case.arch),
            ignore=tuple(self.steps.ignored(step) for step in case.ignore),
            observe_regs=tuple(
                dict.fromkeys(name for final in finals if final is not None for name in final.regs)
            ),
            observe_memory=ranges(memory),
            timeout=case.timeout or _DEFAULT_TIMEOUT,
            undecoded=case.undecoded,
            exits=case.exits or min(_EXITS_MOST, _most(case.expect or ()) + _EXITS_ABOVE),
        )
        return Ready(None, made, expectation)

    def timed(self, made: Ready, facts: Facts, timing: Sampling | None) -> Ready:
        """What `measure` makes of a case; its names are looked up whether or not it is timed."""
        timed = measure.host_measure(
            self.case, timing or Sampling(), self.steps, self.case.timeout or _DEFAULT_TIMEOUT
        )
        if timing is None:
            only = not self.case.has_story and made.skip is None
            return Ready("there is nothing to check: kvmscen measure times it") if only else made
        if facts.predicted or facts.kind == "replay":
            what = (
                "the model predicts exits, not what they cost"
                if facts.predicted
                else "a recording has no times"
            )
            return Ready(f"{what}: measure on a host that runs KVM")
        if made.machine is None:
            return made
        vcpus = tuple(vcpu._replace(script=None) for vcpu in made.machine.vcpus)
        bare = made.machine._replace(vcpus=vcpus, ignore=(), observe_regs=(), observe_memory=())
        machine = bare._replace(timeout=_MEASURE, measure=timed)
        return Ready(
            None,
            machine,
            None,
            measure.wanted(self.case, self.steps, Notation(self.plan.legend, self.case.arch)),
        )

    def lacking(self, facts: Facts, expect: Iterable[Step]) -> str | None:
        """A capability that the case enables and the host lacks, or a page size that its slots do
        not suit.
        """
        actions = [
            action for action in (*self.case.setup, *actions_of(expect)) if action.errno is None
        ]
        enables = [enable for enable in self.enables() if enable.errno is None]
        enables += [action.args["enable"] for action in actions if action.name == "enable"]
        for enable in enables:
            if not facts.capabilities.get(enable.cap) and not _expects_error(
                expect, "KVM_ENABLE_CAP"
            ):
                return f"the host has no {enable.cap}{other_cpu(enable.cap, facts.kind)}"
        feature = self.unknown_feature(facts)
        if feature is not None and not _expects_error(expect, "KVM_ARM_VCPU_INIT"):
            return feature
        for action in actions:
            needs = BY_NAME[action.name].needs
            if needs and not facts.capabilities.get(needs):
                return f"the host has no {needs}"
        slots = [slot for slot in self.plan.memslots if slot.errno is None]
        slots += [
            self.resolver.memslot(action.args["memslot"])
            for action in actions
            if action.name == "set_memslot"
        ]
        for slot in slots:
            if (slot.gpa | slot.size) % facts.page_size:
                return (
                    f"slot {slot.slot} is not aligned to this host's pages of "
                    f"{facts.page_size // 1024} KiB"
                )
        return None

    def unknown_feature(self, facts: Facts) -> str | None:
        """A vCPU feature whose capability the host lacks, in words."""
        needs = ARCHES[self.case.arch].FEATURE_CAPABILITIES
        for name in (name for vcpu in self.case.vcpus for name in vcpu.features or ()):
            if name in needs and not facts.capabilities.get(needs[name]):
                other = other_cpu(needs[name], facts.kind)
                return f"the host has no {needs[name]}, which the vCPU feature {name} needs{other}"
        return None

    def enables(self) -> tuple[Enable, ...]:
        """The capabilities that are written, and the one that `undecoded: emulate` implies."""
        case = self.case
        if case.undecoded is None or any(enable.cap == _NISV for enable in case.enable):
            return case.enable
        return (*case.enable, Enable(_NISV, (), None, case.place))

    def told_apart(self) -> None:
        """Note steps that the host could not tell apart where either may come next."""
        try:
            for first, second in ambiguous(self.case.expect or (), self.steps.script or ()):
                self.resolver.problem(second.place, mistaken(first, second))
        except TooMany as error:
            say = f"more than {MOST} steps may come next at one place, this one among them"
            self.resolver.problem(
                error.step.place, f"{say}: give some of those before it a `min` of 1 or more"
            )

    def in_time(self, expect: Iterable[Step]) -> None:
        """Timeout steps that take longer than the whole run may."""
        limit, total = self.case.timeout or _DEFAULT_TIMEOUT, 0.0
        for step, rounds in _waits(expect, 1):
            before, total = total, total + step.timeout * rounds
            if before <= limit < total:
                say = (
                    f"the timeouts up to here take {seconds(total)} s, and the whole run may "
                    f"take {seconds(limit)} s"
                )
                self.resolver.problem(
                    step.place,
                    f"{say}: write `limits: {{timeout: {seconds(total + _DEFAULT_TIMEOUT)}}}`",
                )

    def tables(self, facts: Facts) -> Tables | None:
        if self.plan.tables is None:
            return None
        at, size = self.plan.tables
        taken = {slot.slot for slot in self.plan.memslots} | {
            slot.slot for slot in later_slots(self.case)
        }
        number = max(facts.capabilities.get("KVM_CAP_NR_MEMSLOTS", 32), 2) - 1
        while number in taken:
            number -= 1
        return Tables(at, size, number, self.plan.spans)

    def vcpus(self, script: tuple[ScriptStep, ...] | None) -> tuple[Vcpu, ...]:
        arch = ARCHES[self.case.arch]
        out: list[Vcpu] = []
        for index, vcpu in enumerate(self.case.vcpus):
            regs = {
                name: self.resolver.number(value, self.steps.widths.get(name, 64))
                for name, value in vcpu.regs.items()
            }
            if not names_pc(self.case, regs):
                regs[arch.PC] = self.plan.entry
            if vcpu.mmu is not None and self.plan.tables is not None:
                regs = {**arm64_tables.boot(self.plan.tables[0]), **regs}
            features = arch.DEFAULT_FEATURES if vcpu.features is None else vcpu.features
            own = script if index == 0 else ()
            out.append(Vcpu(index, mode_of(self.case, index), regs, tuple(features), own))
        return tuple(out)


def _expects_error(steps: Iterable[Step], ioctl: str) -> bool:
    """Whether a step expects this ioctl to fail."""
    return any(
        step.fields.get("ioctl") == ioctl or _expects_error(step.steps, ioctl) for step in steps
    )


def _waits(steps: Iterable[Step], rounds: int) -> Iterator[tuple[Step, int]]:
    for step in steps:
        if step.kind == "timeout":
            yield step, rounds
        yield from _waits(step.steps, rounds * step.repeat[0])


def _most(steps: Iterable[Step]) -> int:
    return sum(step.repeat[1] * (_most(step.steps) if step.steps else 1) for step in steps)
