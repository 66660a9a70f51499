"""What a guest did wrong: it ran off its slot, used a stack that is none, took an exception that
hangs, or never ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kvmscen.judge import exceptions
from kvmscen.judge.outcome import Outcome
from kvmscen.sent.observation import Event

_LOOP = (
    "the guest was still running: an endless loop, or an instruction that waits (wfi, hlt "
    "with an irqchip)"
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
# Where a stack pointer that began as 0 has gone down to, at most.
_BELOW = 0x1000


def no_stack(outcome: Outcome, event: Event, regs: Mapping[str, int], reset: bool) -> str | None:
    """A triple fault of a push, call or ret of x86 whose stack pointer is 0; `reset`: the registers
    are those of a reset, and tell nothing.
    """
    if any(name in regs for name in ("rsp", "esp", "sp")):
        return None
    if not reset:
        # 0, or just below the end of the addresses.
        rsp = outcome.seen.regs.get("rsp", 0)
        if 0 < rsp < (1 << 64) - _BELOW:
            return None
        told = outcome.source(event)
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
        for line in outcome.legend.lines
        if line.number and _STACK.match(line.text)
    ]
    if not using:
        return None
    return (
        "or that of line {} ({}), which needs a stack: rsp is 0 at the start, write `regs: "
        "{{rsp: ...}}`"
    ).format(*min(using))


def ran_off(outcome: Outcome, pc: int | None) -> str | None:
    """The guest fetches where no memslot is: behind the end of one, or somewhere else."""
    slots = outcome.slots
    if pc is None or not slots or outcome.slot(pc) is not None:
        return None
    ended = next((slot for slot in slots if slot.gpa + slot.size == pc), None)
    if ended is not None:
        return (
            f"the guest ran off the end of slot {ended.slot} (at {pc:#x}): "
            f"{_ENDS[outcome.job.arch]}"
        )
    return (
        f"the guest went to {pc:#x}, where no memslot is and nothing can be fetched: look at "
        f"the jump, call or ret that led there"
    )


# The stack pointer by its names, and where it has gone down from, by mode.
_POINTERS = {"x86_64": ("rsp", "esp", "sp"), "arm64": ("sp_el1",), "riscv64": ("sp", "x2")}
_TOPS = {"real": 1 << 16, "protected": 1 << 32}


def pushed(outcome: Outcome, at: int | None, told: str) -> str | None:
    """An access just below 0, by a stack pointer that is 0 at the start; `told` is the source line
    that made it.
    """
    arch = outcome.job.arch
    plan = (
        outcome.machine.vcpus[0] if outcome.machine is not None and outcome.machine.vcpus else None
    )
    if plan is None or at is None or any(name in plan.regs for name in _POINTERS[arch]):
        return None
    top = _TOPS.get(plan.mode, 1 << 64)
    if not top - _BELOW <= at < top:
        return None
    if arch == "x86_64":
        using = [
            (line.number, line.text.strip())
            for line in outcome.legend.lines
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


def still_running(outcome: Outcome) -> str:
    """A guest that had not ended when its time was over."""
    return (
        exception(outcome)
        or f"{_LOOP}. A guest that is done must say so: {_ENDS[outcome.job.arch]}"
    )


def exception(outcome: Outcome) -> str | None:
    """The exception that a guest took which hangs, and where in its program."""
    exception = exceptions.last_exception(outcome.job.arch, outcome.seen)
    if exception is None:
        return None
    told = None if exception.at is None else outcome.legend.source(exception.at, False)
    where = (
        f" at line {told}"
        if told and told[:1].isdigit()
        else f" at {told}"
        if told
        else f" at pc {exception.at:#x}"
    )
    off = (
        ran_off(outcome, exception.at)
        if exception.fetch
        else pushed(outcome, exception.address, told or "") or _no_end(outcome, exception.at, told)
    )
    return exception.text(where if exception.at is not None else "") + (
        f". {off[0].upper()}{off[1:]}" if off else ""
    )


def _no_end(outcome: Outcome, at: int | None, told: str | None) -> str | None:
    """The guest has run on behind its last instruction, or was to end by arm64's hlt, which is for
    a debugger.
    """
    if at is None:
        return None
    if told is not None:
        word = told.partition(":")[2].split(":")[-1].split()[:1]
        return (
            f"arm64's hlt is for a debugger: {_ENDS['arm64']}"
            if word == ["hlt"] and outcome.job.arch == "arm64"
            else None
        )
    before = outcome.legend.source(at - 1, False)
    return (
        f"it ran on behind line {before}: {_ENDS[outcome.job.arch]}"
        if before is not None and before[:1].isdigit()
        else None
    )
