"""What was probably meant by a statement that does not assemble: said first, with the assembler's
own words behind it.
"""

from __future__ import annotations

import re

from kvmscen.asm.source import Statement
from kvmscen.asm.values import clip

_COMMENTS = {"arm64": "//", "x86_64": "#", "riscv64": "#"}
# Signs that begin a comment elsewhere.
_FOREIGN = {
    "arm64": (" # ", "\t# ", " @", "\t@"),
    "x86_64": (" //", "\t//"),
    "riscv64": (" //", "\t//"),
}
_ENDS = {
    "arm64": "an arm64 guest ends by PSCI SYSTEM_OFF: write `ldr w0, =0x84000008` and `hvc #0`, "
    "and expect `system_event`",
    "riscv64": "a riscv64 guest ends by SBI's system reset: write `li a7, 0x53525354`, `li a6, 0`, "
    "`li a0, 0` and `ecall`",
}


# What other assemblers write, and what GNU as has for it.
_TEXT = """
db .byte|dw .2byte|dd .long|dq .quad|do .octa|dcb .byte|dcw .2byte|dcd .long|dcq .quad|resb .skip
resw .skip 2 *|resd .skip 4 *
resq .skip 8 *|space .skip|section .section|segment .section|global .globl|org .org|align .balign
bits .code|use16 .code16
use32 .code32|use64 .code64
"""
_ELSEWHERE = dict(pair.split(" ", 1) for pair in _TEXT.strip().replace("\n", "|").split("|"))
_DATA = frozenset("db dw dd dq do dcb dcw dcd dcq resb resw resd resq space".split())
_NAMED = re.compile(r"([a-z]\w*)\b\s*(.*)", re.ASCII | re.IGNORECASE | re.DOTALL)
_REGISTERS = {
    "arm64": r"(?:[xw](?:\d+|zr)|w?sp|lr|fp|[vqdshb]\d+(?:\.\w+)?)",
    "x86_64": (
        r"(?:[er]?(?:ax|bx|cx|dx|sp|bp|si|di)|[abcd][lh]|r\d+[bwd]?|[c-gs]s|cr\d+|[xyz]?mm\d+)"
    ),
    "riscv64": r"(?:[xatsf]\d+|zero|ra|sp|gp|tp|f[ats]\d+)",
}
_OPERAND = r"[\[$%#=]|\w"


def _comma(text: str, arch: str) -> str | None:
    """What is wrong where two operands follow each other without a comma."""
    match = re.search(
        rf"(?:(?<![\w.%])({_REGISTERS.get(arch, 'x^')})|(\]))(?:\s+|(?=\[))((?:{_OPERAND})[^\s,]*)",
        text,
        re.IGNORECASE,
    )
    if not match:
        return None
    return (
        f"a comma is missing between {match.group(1) or match.group(2)} and {clip(match.group(3))}"
    )


def _elsewhere(statement: Statement) -> str | None:
    """What another assembler's directive is called here."""
    word, rest, label = statement.word, statement.rest, ""
    named = _NAMED.match(rest)
    if (
        word not in _ELSEWHERE
        and named
        and (named.group(1).lower() in _DATA or named.group(1).lower() == "equ")
    ):
        label, (word, rest) = statement.text.split(None, 1)[0], named.groups()
        word = word.lower()
    if word == "equ":
        return f"write `.set {label}, {clip(rest)}`" if label else None
    if word == "times" and (parts := rest.split(None, 1))[1:]:
        return (
            f"write `.rept {clip(parts[0])}`, `{clip(parts[1])}` and `.endr`, each in a line "
            f"of its own"
        )
    if word not in _ELSEWHERE:
        return None
    if word in ("db", "dcb") and '"' in rest:
        # A string and the zero behind it.
        return (
            f"`{word}` is another assembler's: write `.asciz` or `.ascii` and the string, "
            f"numbers behind it as `.byte`"
        )
    here = _ELSEWHERE[word] + " " * (bool(rest) and word != "bits") + clip(rest)
    return f"`{word}` is another assembler's: write `{label + ': ' if label else ''}{here}`"


def _prose(text: str) -> bool:
    """Whether a statement reads like words: an instruction has commas between its operands, and
    these are not sentences.
    """
    return "," not in text or any(
        len(re.findall(r"\b[A-Za-z]{2,}\b", part)) > 2 for part in text.split(",")
    )


def advise(message: str, statement: Statement, arch: str) -> str:
    """The message for a statement, behind the advice where there is one."""
    if statement.label or statement.word.startswith("."):
        return message
    comment = _COMMENTS.get(arch, "#")
    if statement.separated and _prose(statement.text):
        say = (
            f"`;` begins no comment, it separates statements: write `{comment} "
            f"{clip(statement.text)}` if a comment is meant"
        )
        return f"{say} ({message})"
    if arch in _ENDS and statement.word == "hlt" and not statement.rest:
        return f"{_ENDS[arch]} ({message})"
    for mark in _FOREIGN.get(arch, ()):
        if mark in statement.text:
            return (
                f"a comment begins with `{comment}` on {arch}, not with `{mark.strip()}` "
                f"({message})"
            )
    if other := _elsewhere(statement) or _comma(statement.rest, arch):
        return f"{other} ({message})"
    if arch == "x86_64" and "%" in statement.text:
        return (
            f"{message} (Intel syntax writes registers without %; .att_syntax begins AT&T syntax)"
        )
    return message
