"""What was probably meant by a statement that does not assemble: said first, with the assembler's own words behind it."""

from __future__ import annotations

import re

from kvmscen.asm.source import Statement
from kvmscen.asm.values import clip

_COMMENTS = {"arm64": "//", "x86_64": "#", "riscv64": "#"}
# Signs that begin a comment elsewhere.
_FOREIGN = {"arm64": (" # ", "\t# ", " @", "\t@"), "x86_64": (" //", "\t//"), "riscv64": (" //", "\t//")}
_ENDS = {
    "arm64": "an arm64 guest ends by PSCI SYSTEM_OFF: write `ldr w0, =0x84000008` and `hvc #0`, and expect `system_event`",
    "riscv64": "a riscv64 guest ends by SBI's system reset: write `li a7, 0x53525354`, `li a6, 0`, `li a0, 0` and `ecall`",
}


def _prose(text: str) -> bool:
    """Whether a statement reads like words: an instruction has commas between its operands, and these are not sentences."""
    return "," not in text or any(len(re.findall(r"\b[A-Za-z]{2,}\b", part)) > 2 for part in text.split(","))


def advise(message: str, statement: Statement, arch: str) -> str:
    """The message for a statement, behind the advice where there is one."""
    comment = _COMMENTS.get(arch, "#")
    if statement.separated and _prose(statement.text):
        say = f"`;` begins no comment, it separates statements: write `{comment} {clip(statement.text)}` if a comment is meant"
        return f"{say} ({message})"
    if arch in _ENDS and statement.word == "hlt" and not statement.rest:
        return f"{_ENDS[arch]} ({message})"
    for mark in _FOREIGN.get(arch, ()):
        if mark in statement.text:
            return f"a comment begins with `{comment}` on {arch}, not with `{mark.strip()}` ({message})"
    if arch == "x86_64" and "%" in statement.text:
        return f"{message} (Intel syntax writes registers without %; .att_syntax begins AT&T syntax)"
    return message
