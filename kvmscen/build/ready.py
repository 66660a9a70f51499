"""A planned case made ready for one host: conditions, the script that the host follows, and what must be seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from kvmscen.arch import ARCHES
from kvmscen.build.plan import Plan, mode_of
from kvmscen.build.resolve import MemoryExpected, Resolver, memory_size
from kvmscen.errors import ScenarioError
from kvmscen.expectation import Expectation, Expected, Story
from kvmscen.kvm import exits
from kvmscen.machine import Facts, Machine, Tables, Vcpu
from kvmscen.machine import Step as ScriptStep
from kvmscen.scenario import Action, Case, Conditions, Final, Overlay, Place, Step

_DEFAULT_TIMEOUT = 5.0
_EXITS_ABOVE, _EXITS_MOST = 1000, 100_000


@dataclass(frozen=True)
class Ready:
    """What one host gets of a case, or why it is skipped there."""

    skip: str | None
    machine: Machine | None = None
    expectation: Expectation | None = None


def ready(file: str, case: Case, plan: Plan, facts: Facts, kind: str) -> Ready:
    """One case for the host of these facts; `kind` is kvm, model, qemu, ssh or replay.

    Raises ScenarioError for what cannot be resolved, whichever overlay it stands in.
    """
    resolver = Resolver(file, plan.symbols)
    made = _Maker(resolver, case, plan).machine(facts, kind)
    if resolver.problems:
        raise ScenarioError(resolver.problems)
    return made


def unmet(conditions: Conditions, facts: Facts, kind: str) -> str | None:
    """Which condition a host does not meet, in words; None when it meets all."""
    for name in conditions.capabilities:
        if not facts.capabilities.get(name):
            return f"the host has no {name}"
    if conditions.kernel_from or conditions.kernel_before:
        if facts.kernel is None:
            return "the condition is on the kernel, and this host has none of its own"
        have = _version(facts.kernel)
        if conditions.kernel_from and have < _version(conditions.kernel_from):
            return f"kernel {facts.kernel} is older than {conditions.kernel_from}"
        if conditions.kernel_before and have >= _version(conditions.kernel_before):
            return f"kernel {facts.kernel} is not before {conditions.kernel_before}"
    if conditions.kvm and facts.flavour not in conditions.kvm:
        return f"KVM is {facts.flavour or 'of a flavour that cannot be told'}, not {' or '.join(conditions.kvm)}"
    for feature in conditions.cpu:
        if feature not in facts.cpu:
            return f"the CPU has no {feature}"
    if conditions.host and kind not in conditions.host:
        return f"the host is {kind}, not {' or '.join(conditions.host)}"
    return None


def _version(text: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


@cache
def _widths(arch: str) -> Mapping[str, int]:
    """The bits of each register."""
    return {name: row.bits for name, row in ARCHES[arch].REGISTERS.items()}


class _Maker:
    def __init__(self, resolver: Resolver, case: Case, plan: Plan) -> None:
        self.resolver = resolver
        self.case = case
        self.plan = plan
        self.widths = _widths(case.arch)

    def machine(self, facts: Facts, kind: str) -> Ready:
        case, plan = self.case, self.plan
        base = self.story(case.expect, case.final)
        told = [(overlay, self.overlay(overlay)) for overlay in case.when]
        skip = unmet(case.requires, facts, kind) or self.lacking(facts)
        chosen = next(((o, story) for o, story in told if unmet(o.conditions, facts, kind) is None), None)
        expect, final, expectation = case.expect, case.final, Expectation(base)
        if chosen is not None:
            overlay, story = chosen
            expect = overlay.expect if overlay.expect is not None else expect
            final = overlay.final if overlay.final is not None else final
            expectation = Expectation(base, story, overlay.reason) if overlay.xfail else Expectation(story, None, overlay.reason)
        script = None if expect is None else tuple(map(self.step, expect))
        memory = self.resolver.memory(final.memory) if final is not None else ()
        made = Machine(
            arch=case.arch,
            memslots=plan.memslots,
            image=plan.image,
            devices=plan.devices,
            vcpus=self.vcpus(script),
            enable=tuple(map(self.resolver.capability, case.enable)),
            tables=self.tables(facts),
            setup=self.resolver.actions(case.setup, self.widths),
            ignore=tuple(self.ignored(step) for step in case.ignore),
            observe_regs=() if final is None else tuple(final.regs),
            observe_memory=_ranges(memory),
            timeout=case.timeout or _DEFAULT_TIMEOUT,
            exits=case.exits or min(_EXITS_MOST, _most(expect or ()) + _EXITS_ABOVE),
        )
        return Ready(skip) if skip else Ready(None, made, expectation)

    def overlay(self, overlay: Overlay) -> Story:
        case = self.case
        return self.story(
            case.expect if overlay.expect is None else overlay.expect,
            case.final if overlay.final is None else overlay.final,
        )

    def lacking(self, facts: Facts) -> str | None:
        """A capability that the case enables and the host lacks, or a page size that its slots do not suit."""
        for enable in self.case.enable:
            if enable.errno is None and not facts.capabilities.get(enable.cap) and not self.expects_error("KVM_ENABLE_CAP"):
                return f"the host has no {enable.cap}"
        for slot in self.plan.memslots:
            if slot.errno is None and (slot.gpa | slot.size) % facts.page_size:
                return f"slot {slot.slot} is not aligned to this host's pages of {facts.page_size // 1024} KiB"
        return None

    def expects_error(self, ioctl: str) -> bool:
        """Whether the story has a step that expects this ioctl to fail."""
        return any(step.kind == "error" and step.fields.get("ioctl") == ioctl for step in self.case.expect or ())

    def tables(self, facts: Facts) -> Tables | None:
        if self.plan.tables is None:
            return None
        at, size = self.plan.tables
        taken = {slot.slot for slot in self.plan.memslots}
        number = max(facts.capabilities.get("KVM_CAP_NR_MEMSLOTS", 32), 2) - 1
        while number in taken:
            number -= 1
        return Tables(at, size, number, self.plan.spans)

    def vcpus(self, script: tuple[ScriptStep, ...] | None) -> tuple[Vcpu, ...]:
        arch = ARCHES[self.case.arch]
        out: list[Vcpu] = []
        for index, vcpu in enumerate(self.case.vcpus):
            regs = {name: self.resolver.number(value, self.widths.get(name, 64)) for name, value in vcpu.regs.items()}
            if not {"pc", arch.PC} & regs.keys():
                regs[arch.PC] = self.plan.entry
            features = arch.DEFAULT_FEATURES if vcpu.features is None else vcpu.features
            own = script if index == 0 else ()
            out.append(Vcpu(index, mode_of(self.case, index), regs, tuple(features), own))
        return tuple(out)

    # --- steps ------------------------------------------------------------------------------------------------------

    def story(self, expect: Iterable[Step] | None, final: Final | None) -> Story:
        steps = None if expect is None else tuple(self.before()) + tuple(e for s in expect for e in self.expected(s))
        return Story(
            steps,
            tuple(e for step in self.case.ignore for e in self.expected(step)),
            {} if final is None else self.regs(final.regs),
            () if final is None else self.resolver.memory(final.memory),
            0 if final is None else final.place.line,
        )

    def before(self) -> Iterable[Expected]:
        """The ioctls that must fail before the first entry, in the order of building."""
        enables = [e for e in self.case.enable if e.errno is not None]
        capabilities = {e.cap: self.resolver.capability(e).on_vcpu for e in enables}
        yield from (_failing("KVM_ENABLE_CAP", e.errno, e.place) for e in enables if not capabilities[e.cap])
        for slot in self.case.memslots:
            if slot.errno is not None:
                yield _failing("KVM_SET_USER_MEMORY_REGION", slot.errno, slot.place)
        yield from (_failing("KVM_ENABLE_CAP", e.errno, e.place) for e in enables if capabilities[e.cap])
        yield from _failing_actions(self.case.setup)

    def regs(self, regs: object) -> dict[str, object]:
        assert hasattr(regs, "items")
        return {name: self.resolver.matcher(value, self.widths.get(name, 64)) for name, value in regs.items()}

    def expected(self, step: Step) -> Iterable[Expected]:
        """A step and, behind it, the ioctls of its `then` that must fail."""
        row = exits.BY_NAME.get(step.kind)
        if step.kind == "error":
            where: tuple[str, ...] = tuple(key for key in ("ioctl", "errno") if key in step.fields)
        else:
            where = tuple(key for key in row.where if key in step.fields) if row is not None else ()
        made = Expected(
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
            steps=tuple(e for inner in step.steps for e in self.expected(inner)),
        )
        failing = tuple(_failing_actions(step.then or ()))
        if failing and step.repeat != (1, 1):
            yield Expected("group", made.line, made.column, step.vcpu, repeat=step.repeat, steps=(_once(made), *failing))
        else:
            yield made
            yield from failing

    def fields(self, step: Step) -> dict[str, object]:
        if step.kind == "error":
            out: dict[str, object] = {key: value for key, value in step.fields.items() if key != "memory_fault"}
            fault = step.fields.get("memory_fault")
            if isinstance(fault, dict):
                out["memory_fault"] = self.resolver.fields("memory_fault", fault, self.case.arch, step.place)
            return out
        if step.kind not in exits.BY_NAME:
            return {}
        return self.resolver.fields(step.kind, step.fields, self.case.arch, step.place)

    def step(self, step: Step) -> ScriptStep:
        """Where the host stands at this step, and what it does there; nothing of what the exit should hold."""
        row = exits.BY_NAME.get(step.kind)
        telling = ("ioctl", "errno") if step.kind == "error" else row.where if row is not None else ()
        fields = self.fields(step)
        reply = None
        if step.reply is not None:
            # A reply is as wide as the exit's length says, which the step need not know.
            reply = self.resolver.fields(step.kind, {**step.fields, **step.reply}, self.case.arch, step.place)
            reply = {key: reply[key] for key in step.reply}
        return ScriptStep(
            exit=step.kind,
            where={key: fields[key] for key in telling if key in fields},
            repeat=step.repeat,
            reply=reply,
            then=None if step.then is None else self.resolver.actions(step.then, self.widths),
            observe_regs=tuple(step.regs),
            observe_memory=_ranges(self.resolver.memory(step.memory)),
            timeout=step.timeout,
            steps=tuple(map(self.step, step.steps)),
        )

    def ignored(self, step: Step) -> ScriptStep:
        return ScriptStep(exit=step.kind, where=self.fields(step))


def _once(step: Expected) -> Expected:
    return replace(step, repeat=(1, 1))


def _ranges(memory: tuple[MemoryExpected, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((check[0], memory_size(check)) for check in memory)


def _failing(ioctl: str, errno: str | None, place: Place) -> Expected:
    fields = {"ioctl": ioctl, "errno": errno}
    return Expected("error", place.line, place.column, fields=fields, where=("ioctl", "errno"))


_IOCTL_OF = {
    "set_regs": "KVM_SET_REGS",
    "set_memslot": "KVM_SET_USER_MEMORY_REGION",
    "delete_memslot": "KVM_SET_USER_MEMORY_REGION",
    "enable": "KVM_ENABLE_CAP",
}


def _failing_actions(actions: Iterable[Action]) -> Iterable[Expected]:
    for action in actions:
        if action.errno is not None:
            yield _failing(_IOCTL_OF.get(action.name, action.name), action.errno, action.place)


def _most(steps: Iterable[Step]) -> int:
    return sum(step.repeat[1] * (_most(step.steps) if step.steps else 1) for step in steps)
