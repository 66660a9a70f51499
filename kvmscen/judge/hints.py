"""What is known of an outcome: one clause of cause and remedy, for the outcomes that puzzle people."""

from __future__ import annotations

from kvmscen.observation import Event, Observation

_NO_SYNDROME = (
    "KVM could not decode this access: its data abort carries no valid syndrome (ESR_EL2.ISV = 0), as pre- and post-indexed, "
    "pair, SIMD&FP, exclusive and atomic accesses outside the memslots have none. KVM_RUN fails with ENOSYS and exit_reason "
    "keeps its initial 0. Enable KVM_CAP_ARM_NISV_TO_USER to get it as arm_nisv, write `undecoded: emulate` to have it carried "
    "out, or access the address with a single register and no write-back"
)
_SHUTDOWN = (
    "a triple fault: kvmscen's IDT is empty in long and protected mode, so any exception ends like this. Usual causes: an "
    "address above 4 GiB outside every slot and section, an instruction that this CPU or KVM does not have, an MSR that KVM "
    "refuses"
)
_NO_STACK = "; a push, call or ret without a stack (rsp is 0 at the start: set it with regs: {rsp: ...})"
_EMULATION = (
    "KVM's emulator does not know the instruction, or there is none: it fetches from outside the memslots, or this KVM "
    "(pvm emulates all code at CPL 0) lacks it"
)
_RISCV_UNDECODED = (
    "KVM on riscv64 decodes loads and stores of one integer register outside the memslots, and nothing else: not atomic, "
    "floating-point or vector accesses"
)
_RISCV_MISALIGNED = "KVM on riscv64 takes no misaligned access outside the memslots"
_NO_SLOT = "the VM has no memslot that the guest can run from"
_FAULT = "host memory behind a memslot could not be had, or a guest_memfd range is of the other kind"
_LOOP = "the guest was still running: an endless loop, or an instruction that waits (wfi, hlt with an irqchip)"
_NISV_REPEATS = (
    "an arm_nisv that nothing acts upon repeats for ever: write `emulate` in its then, add 4 to pc there, or let it end the run"
)


def hint(arch: str, observation: Observation, unexpected: list[Event]) -> str | None:
    """The hint for the first event that was not expected and has a known cause; None where nothing is known."""
    for event in unexpected:
        found = _of(arch, event, observation)
        if found is not None:
            return found
    return _LOOP if observation.stopped == "timeout" else None


def _of(arch: str, event: Event, observation: Observation) -> str | None:
    if event.kind == "timeout":
        return _LOOP
    if event.kind == "error":
        if arch == "arm64" and event.name == "ENOSYS" and event.fields.get("ioctl") == "KVM_RUN":
            return _NO_SYNDROME
        known = {"ENOSPC": _NO_SLOT, "EFAULT": _FAULT}
        if arch == "riscv64":
            known = {**known, "EOPNOTSUPP": _RISCV_UNDECODED, "EIO": _RISCV_MISALIGNED}
        return known.get(event.name) if event.fields.get("ioctl") == "KVM_RUN" else None
    if event.name == "shutdown":
        stack = observation.regs.get("rsp", 0)
        return _SHUTDOWN + (_NO_STACK if stack == 0 or stack > 1 << 63 else "")
    if event.name == "internal_error" and event.fields.get("suberror") == 1:
        return _EMULATION
    return _NISV_REPEATS if event.name == "arm_nisv" and _again(event, observation) else None


def _again(event: Event, observation: Observation) -> bool:
    """Whether the same exit came at the same instruction more than once."""
    same = (one for one in observation.events if one.name == event.name and one.fields == event.fields and one.pc == event.pc)
    return sum(one.count for one in same) > 1
