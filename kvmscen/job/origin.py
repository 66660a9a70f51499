"""Where in the program an event comes from, in words."""

from __future__ import annotations

import re

from kvmscen.job.legend import Legend
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.observation import Event

# Where a reset x86 vCPU begins; SVM resets one at its shutdown (shutdown_interception of
# arch/x86/kvm/svm/svm.c).
_RESET_PC = 0xFFF0
_OUT = re.compile(r"\s*out[bwl]?\b", re.IGNORECASE)


def source(event: Event, legend: Legend, arch: str, flavour: str | None) -> str:
    """`LINE: TEXT` or, of a linked program, `SYMBOL + OFFSET` of the instruction that an event
    comes from; else its pc.
    """
    if event.name == "shutdown" and flavour == "svm" and event.pc == _RESET_PC:
        return "pc 0xfff0 of a vCPU that SVM has reset, not of the fault"
    advanced = None
    if event.kind == "exit":
        advanced = ARCHES[arch].pc_advanced(event.name, event.fields, flavour)
    line = legend.row(event.pc, advanced)
    if event.name == "io" and advanced and (line is None or (line[2] and not _OUT.match(line[3]))):
        # OUTS with a repeat prefix has not advanced where OUT has.
        advanced = False if legend.row(event.pc, False) else advanced
    text = legend.source(event.pc, advanced)
    if text is None:
        # The guest has left its program.
        return "" if event.pc is None else f"pc {event.pc:#x}"
    return text
