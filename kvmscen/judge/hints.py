"""What is known of an outcome: cause and remedy, for the outcomes that puzzle people. A hint says
no more than was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvmscen.judge import sregs
from kvmscen.judge.guest_faults import exception, no_stack, pushed, ran_off, still_running
from kvmscen.judge.missing import in_a_slot, inherited, other_steps, probed
from kvmscen.judge.outcome import Outcome
from kvmscen.sent.machine import Action, Step
from kvmscen.sent.observation import Event, Observation

_NO_SYNDROME = (
    "KVM could not decode this access: its data abort carries no valid syndrome (ESR_EL2.ISV = 0), "
    "as pre- and post-indexed, pair, SIMD&FP, exclusive and atomic accesses outside the memslots "
    "have none. KVM_RUN fails with ENOSYS and exit_reason keeps its initial 0. Enable "
    "KVM_CAP_ARM_NISV_TO_USER to get it as arm_nisv, write `undecoded: emulate` to have it carried "
    "out, or access the address with a single register and no write-back"
)
_EMPTY_IDT = (
    "a triple fault: kvmscen's IDT is empty in long and protected mode, so any exception ends like "
    "this. Usual causes: an address above 4 GiB outside every slot and section, an instruction "
    "that this CPU or KVM does not have, an MSR that KVM refuses"
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
    "nothing else: not atomic, floating-point or vector accesses"
)
_RISCV_MISALIGNED = "KVM on riscv64 takes no misaligned access outside the memslots"
_NO_SLOT = "the VM has no memslot that the guest can run from"
_FAULT = (
    "host memory behind a memslot could not be had, or a guest_memfd range is of the other kind"
)
_NISV_REPEATS = (
    "an arm_nisv that nothing acts upon repeats for ever: write `emulate` in its "
    "then, add 4 to pc there, or let it end the run"
)
_SVM_RESET_PC = 0xFFF0


def hint(outcome: Outcome) -> str | None:
    """The hint for what is missing, else for the first event that was not expected; None where no
    cause is known.
    """
    cause = (
        in_a_slot(outcome)
        or probed(outcome)
        or next(
            (said for event in outcome.unexpected if (said := _of(outcome, event)) is not None),
            None,
        )
    )
    if cause is None and outcome.seen.stopped == "timeout":
        cause = still_running(outcome)
    return cause or inherited(outcome) or other_steps(outcome)


def _of(outcome: Outcome, event: Event) -> str | None:
    if event.kind == "timeout":
        return still_running(outcome)
    if event.kind == "error":
        return _error(outcome, event)
    if event.name == "shutdown":
        return _shutdown(outcome, event)
    if event.name == "internal_error" and event.fields.get("suberror") == 1:
        return ran_off(outcome, event.pc) or _EMULATION
    if event.name == "mmio" and event.fields.get("is_write"):
        return pushed(outcome, event.fields["phys_addr"], outcome.source(event))
    return _NISV_REPEATS if event.name == "arm_nisv" and _again(event, outcome.seen) else None


# --- events that were not expected ----------------------------------------------------------------


def _error(outcome: Outcome, event: Event) -> str | None:
    arch, ioctl = outcome.job.arch, event.fields.get("ioctl")
    if (
        ioctl == "KVM_SET_SREGS"
        and event.name == "EINVAL"
        and arch == "x86_64"
        and outcome.machine is not None
    ):
        return sregs.refused(outcome.machine, event.op, _written(outcome, event.op))
    if ioctl != "KVM_RUN":
        return None
    if arch == "arm64" and event.name == "ENOSYS":
        return _NO_SYNDROME
    known = {"ENOSPC": _NO_SLOT, "EFAULT": _FAULT}
    if arch == "riscv64":
        off = ran_off(outcome, event.pc) if event.name == "EOPNOTSUPP" else None
        if off is not None:
            return exception(outcome) or off
        known = {**known, "EOPNOTSUPP": _RISCV_UNDECODED, "EIO": _RISCV_MISALIGNED}
    return known.get(event.name)


def _written(outcome: Outcome, op: str | None) -> Mapping[str, int]:
    """The registers of the set_regs that an event's `op` names."""
    machine = outcome.machine
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


def _shutdown(outcome: Outcome, event: Event) -> str:
    machine = outcome.machine
    plan = machine.vcpus[0] if machine is not None and machine.vcpus else None
    regs = plan.regs if plan is not None else {}
    mode = plan.mode if plan is not None else "long"
    reset = outcome.job.flavour == "svm" and event.pc == _SVM_RESET_PC
    own = any(name.startswith("idt") for name in regs) or any(
        name.startswith("idt")
        for action in outcome.actions()
        if action.name == "set_regs"
        for name in action.args
    )
    say = _REAL_IDT if mode == "real" else _OWN_IDT if own else _EMPTY_IDT
    stack = None if mode == "real" else no_stack(outcome, event, regs, reset)
    if stack is not None and stack.startswith("line"):
        return f"a triple fault: {stack}"
    return say + (f"; {stack}" if stack else "") + (f". {_RESET}" if reset else "")


def _again(event: Event, observation: Observation) -> bool:
    """Whether the same exit came at the same instruction more than once."""
    same = (
        one
        for one in observation.events
        if one.name == event.name and one.fields == event.fields and one.pc == event.pc
    )
    return sum(one.times for one in same) > 1
