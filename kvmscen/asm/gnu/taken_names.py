"""Names and words that GNU as takes for others than a program means, and says nothing: most of them
in x86's Intel syntax.

`far: jmp far` jumps elsewhere; `mov eax, dword [rbx]` loads from rbx + 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kvmscen.asm.gnu import messages, objects, text
from kvmscen.asm.source import Statement
from kvmscen.asm.taken_names import taken, unfinished
from kvmscen.asm.values import clip

_NAMING = (".set", ".equ", ".equiv", ".eqv", ".comm", ".common", ".lcomm")
_ASSIGN = re.compile(r"([A-Za-z_.$][\w.$]*)\s*==?(?!=)", re.ASCII)


def check(arch: str, report: messages.Report) -> None:
    """Refuse what stands in the program itself."""
    macros = {
        re.split(r"[\s,]", s.rest, maxsplit=1)[0].lower()
        for s in report.statements
        if s.word == ".macro"
    }
    for index, statement in _intel(report):
        if reason := taken(defined(statement), arch):
            report.add(index, reason)
            continue
        has_operands = statement.word in text.DATA or statement.word[:1] not in ("", ".", "\\")
        if (
            has_operands
            and arch == "x86_64"
            and statement.word not in macros
            and (reason := unfinished(statement.rest))
        ):
            report.add(index, f"{clip(statement.text)}: {reason}")
    report.stop()


def check_made(object_file: objects.Object, report: messages.Report) -> None:
    """Refuse the names of symbols that macros have put together; those of AT&T syntax are
    allowed.
    """
    names = [name for name in object_file.symbols if taken(name)]
    if not names:
        return
    known = {defined(statement) for statement in report.statements}
    intel = next(_intel(report), None)
    for name in names:
        if name not in known and intel is not None:
            index = next((n for n, s in enumerate(report.statements) if name in s.text), None)
            report.add(index, taken(name) or "")
    report.stop()


def defined(statement: Statement) -> str:
    """The name that a statement defines, empty where it defines none."""
    if statement.label:
        return statement.label
    if statement.word in _NAMING:
        return statement.rest.partition(",")[0].strip().strip('"')
    assigned = _ASSIGN.match(statement.text)
    return assigned.group(1) if assigned else ""


def _intel(report: messages.Report) -> Iterator[tuple[int, Statement]]:
    """The statements in Intel syntax that are not about the syntax itself."""
    intel = True
    for index, statement in enumerate(report.statements):
        if statement.word in (".intel_syntax", ".att_syntax"):
            intel = statement.word == ".intel_syntax"
        elif intel:
            yield index, statement
