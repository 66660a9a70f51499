"""What is known of an outcome: cause and remedy, for the outcomes that puzzle people. A hint says
no more than was seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from kvmscen.job.expectation import Expected, Story
from kvmscen.job.job import Job
from kvmscen.job.legend import Legend
from kvmscen.job.notation import Notation
from kvmscen.job.origin import source
from kvmscen.judge import exceptions, sregs
from kvmscen.results.result import Mismatch, StoryRow
from kvmscen.sent.codec import decode
from kvmscen.sent.machine import Action, Machine, Memslot, Step
from kvmscen.sent.observation import Event, Observation

_NO_SYNDROME = (
    "KVM could not decode this access: its data abort carries no valid syndrome (ESR_EL2.ISV = 0), "
    "as pre- and post-indexed, "
    "pair, SIMD&FP, exclusive and atomic accesses outside the memslots have none. KVM_RUN fails "
    "with ENOSYS and exit_reason "
    "keeps its initial 0. Enable KVM_CAP_ARM_NISV_TO_USER to get it as arm_nisv, write `undecoded: "
    "emulate` to have it carried "
    "out, or access the address with a single register and no write-back"
)
_EMPTY_IDT = (
    "a triple fault: kvmscen's IDT is empty in long and protected mode, so any exception ends like "
    "this. Usual causes: an "
    "address above 4 GiB outside every slot and section, an instruction that this CPU or KVM does "
    "not have, an MSR that KVM "
    "refuses"
)
_OWN_IDT = (
    "a triple fault: an exception whose handler could not be entered. The IDT is the scenario's "
    "own: look at the limit of `idt`, "
    "its gate for that exception, the code segment that the gate names, and the stack"
)
_REAL_IDT = (
    "a triple fault: in real mode an exception whose vector could not be read, or whose "
    "handler raised another"
)
_RESET = (
    "SVM has reset the vCPU by then, so pc and the registers are those of a reset, not of the fault"
)
_EMULATION = (
    "KVM's emulator does not know the instruction, or there is none: it fetches from outside the "
    "memslots, or this KVM (pvm emulates all code at CPL 0) lacks it"
)
_RISCV_UNDECODED = (
    "KVM on riscv64 decodes loads and stores of one integer register outside the memslots, and "
    "nothing else: not atomic, "
    "floating-point or vector accesses"
)
_RISCV_MISALIGNED = "KVM on riscv64 takes no misaligned access outside the memslots"
_NO_SLOT = "the VM has no memslot that the guest can run from"
_FAULT = (
    "host memory behind a memslot could not be had, or a guest_memfd range is of the other kind"
)
_LOOP = (
    "the guest was still running: an endless loop, or an instruction that waits (wfi, hlt "
    "with an irqchip)"
)
_NISV_REPEATS = (
    "an arm_nisv that nothing acts upon repeats for ever: write `emulate` in its "
    "then, add 4 to pc there, or let it end the run"
)
_ENDS = {
    "arm64": "end it with PSCI SYSTEM_OFF (`ldr w0, =0x84000008`, `hvc #0`), which is the exit "
    "system_event",
    "riscv64": (
        "end it with SBI's system reset (`li a7, 0x53525354`, `li a6, 0`, `li a0, 0`, `ecall`), "
        "which is the exit system_event"
    ),
    "x86_64": "end it with `hlt`",
}
# Instructions that use the stack, as they are written in a source line `LINE: TEXT`.
_STACK = re.compile(
    r"\s*(?:\w+:\s*)*(push\w*|pop\w*|call\w*|ret\w*|enter\w*|leave\w*|int|iret\w*)\b", re.IGNORECASE
)
# The atomics of LSE, and the syndrome of a write (WnR) that a translation fault refused.
_ATOMIC = re.compile(
    r"\s*(?:\w+:\s*)*(?:ld|st)?(?:add|clr|eor|set|[su]max|[su]min|swp|casp?)(?:a|l|al)?[bh]?\s",
    re.IGNORECASE,
)
_WRITE_OF_NOTHING, _WNR_AND_KIND = 0x44, 0x7C
_PROBED = (
    "a CPU reports an atomic access to what is mapped nowhere as a read, since it reads first (Arm "
    "ARM, ESR_ELx, WnR). QEMU with "
    "several CPUs tries the write first: if the machine is one that QEMU emulates, boot it with "
    "`-smp 1`"
)
# Where a stack pointer that began as 0 has gone down to, at most.
_BELOW = 0x1000
_SVM_RESET_PC = 0xFFF0


class Case:
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
        """What the host was told."""
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


def hint(case: Case) -> str | None:
    """The hint for what is missing, else for the first event that was not expected; None where no
    cause is known.
    """
    found = (
        _in_a_slot(case)
        or _probed(case)
        or next((said for event in case.unexpected if (said := _of(case, event)) is not None), None)
    )
    if found is None and case.seen.stopped == "timeout":
        found = _still_running(case)
    return found or _inherited(case) or _other_steps(case)


def _of(case: Case, event: Event) -> str | None:
    if event.kind == "timeout":
        return _still_running(case)
    if event.kind == "error":
        return _error(case, event)
    if event.name == "shutdown":
        return _shutdown(case, event)
    if event.name == "internal_error" and event.fields.get("suberror") == 1:
        return _ran_off(case, event.pc) or _EMULATION
    if event.name == "mmio" and event.fields.get("is_write"):
        return _pushed(case, event.fields["phys_addr"], case.source(event))
    return _NISV_REPEATS if event.name == "arm_nisv" and _again(event, case.seen) else None


# --- events that were not expected ----------------------------------------------------------------


def _error(case: Case, event: Event) -> str | None:
    arch, ioctl = case.job.arch, event.fields.get("ioctl")
    if (
        ioctl == "KVM_SET_SREGS"
        and event.name == "EINVAL"
        and arch == "x86_64"
        and case.machine is not None
    ):
        return sregs.refused(case.machine, event.op, _written(case, event.op))
    if ioctl != "KVM_RUN":
        return None
    if arch == "arm64" and event.name == "ENOSYS":
        return _NO_SYNDROME
    known = {"ENOSPC": _NO_SLOT, "EFAULT": _FAULT}
    if arch == "riscv64":
        off = _ran_off(case, event.pc) if event.name == "EOPNOTSUPP" else None
        if off is not None:
            return _exception(case) or off
        known = {**known, "EOPNOTSUPP": _RISCV_UNDECODED, "EIO": _RISCV_MISALIGNED}
    return known.get(event.name)


def _written(case: Case, op: str | None) -> Mapping[str, int]:
    """The registers of the set_regs that an event's `op` names."""
    machine = case.machine
    *path, kind, number = (op or "").split("/") if "/" in (op or "") else ("", "")
    if machine is None or not number.isdigit():
        return {}
    actions: Sequence[Action] = machine.setup if kind == "setup" else ()
    if kind == "then" and path[:1] == ["steps"]:
        steps: Sequence[Step] = machine.vcpus[0].script or ()
        for index in map(int, path[1:]):
            actions, steps = steps[index].then or (), steps[index].steps
    # An action of several parts (write_memory) is several of the Machine's: look for the registers
    # from there on.
    later = [action.args for action in actions[int(number) :] if action.name == "set_regs"]
    return later[0] if later else {}


def _shutdown(case: Case, event: Event) -> str:
    machine = case.machine
    plan = machine.vcpus[0] if machine is not None and machine.vcpus else None
    regs = plan.regs if plan is not None else {}
    mode = plan.mode if plan is not None else "long"
    reset = case.job.flavour == "svm" and event.pc == _SVM_RESET_PC
    own = any(name.startswith("idt") for name in regs) or any(
        name.startswith("idt")
        for action in case.actions()
        if action.name == "set_regs"
        for name in action.args
    )
    say = _REAL_IDT if mode == "real" else _OWN_IDT if own else _EMPTY_IDT
    stack = None if mode == "real" else _no_stack(case, event, regs, reset)
    if stack is not None and stack.startswith("line"):
        return f"a triple fault: {stack}"
    return say + (f"; {stack}" if stack else "") + (f". {_RESET}" if reset else "")


def _no_stack(case: Case, event: Event, regs: Mapping[str, int], reset: bool) -> str | None:
    if any(name in regs for name in ("rsp", "esp", "sp")):
        return None
    if not reset:
        # 0, or just below the end of the addresses.
        rsp = case.seen.regs.get("rsp", 0)
        if 0 < rsp < (1 << 64) - _BELOW:
            return None
        told = case.source(event)
        line, _, text = told.partition(": ")
        used = _STACK.match(text)
        if used:
            return (
                f"line {line} ({text.strip()}) needs a stack, and rsp is {rsp:#x}: write "
                f"`regs: {{rsp: ...}}`"
            )
        # Where the instruction is not known it may be one.
        known = bool(text) and line.rpartition(":")[2].isdigit()
        return (
            None
            if known
            else f"or a push, call or ret without a stack: rsp is {rsp:#x}, set it with `regs: "
            f"{{rsp: ...}}`"
        )
    using = [
        (line.number, line.text.strip())
        for line in case.legend.lines
        if line.number and _STACK.match(line.text)
    ]
    if not using:
        return None
    return (
        "or that of line {} ({}), which needs a stack: rsp is 0 at the start, write `regs: "
        "{{rsp: ...}}`"
    ).format(*min(using))


def _ran_off(case: Case, pc: int | None) -> str | None:
    """The guest fetches where no memslot is: behind the end of one, or somewhere else."""
    slots = case.slots
    if pc is None or not slots or case.slot(pc) is not None:
        return None
    ended = next((slot for slot in slots if slot.gpa + slot.size == pc), None)
    if ended is not None:
        return (
            f"the guest ran off the end of slot {ended.slot} (at {pc:#x}): {_ENDS[case.job.arch]}"
        )
    return (
        f"the guest went to {pc:#x}, where no memslot is and nothing can be fetched: look at "
        f"the jump, call or ret that led there"
    )


# The stack pointer by its names, and where it has gone down from, by mode.
_POINTERS = {"x86_64": ("rsp", "esp", "sp"), "arm64": ("sp_el1",), "riscv64": ("sp", "x2")}
_TOPS = {"real": 1 << 16, "protected": 1 << 32}


def _pushed(case: Case, at: int | None, told: str) -> str | None:
    """An access just below 0, by a stack pointer that is 0 at the start; `told` is the source line
    that made it.
    """
    arch = case.job.arch
    plan = case.machine.vcpus[0] if case.machine is not None and case.machine.vcpus else None
    if plan is None or at is None or any(name in plan.regs for name in _POINTERS[arch]):
        return None
    top = _TOPS.get(plan.mode, 1 << 64)
    if not top - _BELOW <= at < top:
        return None
    if arch == "x86_64":
        using = [
            (line.number, line.text.strip())
            for line in case.legend.lines
            if line.number and _STACK.match(line.text)
        ]
        told = "{}: {}".format(*min(using)) if using else ""
    line, _, text = told.partition(": ")
    if not text or (arch != "x86_64" and not re.search(r"\bsp\b", text)):
        return None
    return (
        f"there is no stack: its pointer is 0 at the start, and line {line} ({text.strip()}) goes "
        f"below it: write " + (f"`regs: {{{_POINTERS[arch][0]}: ...}}`")
    )


def _again(event: Event, observation: Observation) -> bool:
    """Whether the same exit came at the same instruction more than once."""
    same = (
        one
        for one in observation.events
        if one.name == event.name and one.fields == event.fields and one.pc == event.pc
    )
    return sum(one.times for one in same) > 1


def _still_running(case: Case) -> str:
    return _exception(case) or f"{_LOOP}. A guest that is done must say so: {_ENDS[case.job.arch]}"


def _exception(case: Case) -> str | None:
    """The exception that a guest took which hangs, and where in its program."""
    found = exceptions.taken(case.job.arch, case.seen)
    if found is None:
        return None
    told = None if found.at is None else case.legend.source(found.at, False)
    where = (
        f" at line {told}"
        if told and told[:1].isdigit()
        else f" at {told}"
        if told
        else f" at pc {found.at:#x}"
    )
    off = (
        _ran_off(case, found.at)
        if found.fetch
        else _pushed(case, found.address, told or "") or _no_end(case, found.at, told)
    )
    return found.text(where if found.at is not None else "") + (
        f". {off[0].upper()}{off[1:]}" if off else ""
    )


def _no_end(case: Case, at: int | None, told: str | None) -> str | None:
    """The guest has run on behind its last instruction, or was to end by arm64's hlt, which is for
    a debugger.
    """
    if at is None:
        return None
    if told is not None:
        word = told.partition(":")[2].split(":")[-1].split()[:1]
        return (
            f"arm64's hlt is for a debugger: {_ENDS['arm64']}"
            if word == ["hlt"] and case.job.arch == "arm64"
            else None
        )
    before = case.legend.source(at - 1, False)
    return (
        f"it ran on behind line {before}: {_ENDS[case.job.arch]}"
        if before is not None and before[:1].isdigit()
        else None
    )


# --- what is missing ------------------------------------------------------------------------------


def _in_a_slot(case: Case) -> str | None:
    """An mmio that was expected at an address that a memslot has."""
    missing = {row.line for row in case.rows if row.mark in "!-" and row.expected}
    for step in _steps(case.story.steps or ()):
        at = step.fields.get("phys_addr", step.fields.get("fault_ipa"))
        if (
            step.line not in missing
            or step.kind not in ("mmio", "arm_nisv")
            or not isinstance(at, int)
        ):
            continue
        slot = case.slot(at)
        # A write to a read-only slot exits.
        if slot is None or (slot.flags & 2 and step.fields.get("is_write") is not False):
            continue
        name = Notation(case.legend, case.job.arch).address(at)
        section = next((s.name for s in case.legend.sections if s.gpa <= at < s.gpa + s.size), None)
        remedy = "write an address outside every slot"
        if section:
            remedy = f"place {section} outside every slot (`sections: {{{section}: 0x...}}`)"
        return f"`{name}` lies in slot {slot.slot}, where no access exits: {remedy}"
    return None


def _probed(case: Case) -> str | None:
    """An atomic whose fault is that of a write, and differs by nothing else."""
    if case.job.arch != "arm64":
        return None
    alone = any(
        row.differs == ("esr_iss",) and _ATOMIC.match(row.source.partition(":")[2])
        for row in case.rows
    )
    writes = (
        event.fields["esr_iss"]
        for event in case.seen.events
        if event.kind == "exit" and event.name == "arm_nisv"
    )
    return (
        _PROBED
        if alone and any(iss & _WNR_AND_KIND == _WRITE_OF_NOTHING for iss in writes)
        else None
    )


def _steps(steps: Sequence[Expected]) -> Iterator[Expected]:
    for step in steps:
        yield step
        yield from _steps(step.steps)


def _inherited(case: Case) -> str | None:
    """A final state that a case has from the scenario."""
    first = next(iter(case.mismatches), None)
    above = first is not None and first.step == 0 and 0 < first.line < case.job.line
    if (
        first is None
        or case.job.case == "default"
        or not above
        or not (first.expected or "").startswith("final")
    ):
        return None
    return (
        f"`final` is the scenario's (line {first.line}), and the case has none: write its own, "
        f"or `final: null`"
    )


def _other_steps(case: Case) -> str | None:
    """Steps that a case with a program of its own has from the scenario."""
    lines = [step.line for step in _steps(case.story.steps or ())]
    program = [line.number for line in case.legend.lines if line.number]
    if case.job.case == "default" or not lines or not program or case.legend.file:
        return None
    if max(lines) < case.job.line < min(program):
        return (
            f"the steps are the scenario's (line {lines[0]}), and the case has a program of "
            f"its own: write its own `expect` too"
        )
    return None
