"""x86 in Intel syntax: names that stand alone, which GNU as takes for something in memory, the
other assembler for a number.

So is the size of a section, and a constant that is set further down. The program is refused: it
would mean two things.
"""

from __future__ import annotations

import re

from kvmscen.asm.gnu import messages, objects
from kvmscen.asm.keystone.x86.branches import is_branch
from kvmscen.asm.source import split_operands
from kvmscen.asm.values import Wrong, clip

_SET = (".set", ".equ", ".equiv", ".eqv")
_ASSIGN = re.compile(r"([A-Za-z_.$][\w.$]*)\s*==?(?!=)", re.ASCII)
_NAME = re.compile(r"[A-Za-z_.$][\w.$]*", re.ASCII)
# No brackets, no `offset`, no segment: a name, maybe with numbers added.
_BARE = re.compile(r"[\w.$]+(?:\s*[-+*]\s*[\w.$]+)*\Z", re.ASCII)


def check(object_file: objects.Object, sections: set[str], report: messages.Report) -> None:
    """Refuse what the two assemblers would take for different things. `sections` are the symbols of
    sections.
    """
    constants = {name for name, symbol in object_file.symbols.items() if symbol.section is None}
    known: set[str] = set()
    intel = True
    for index, statement in enumerate(report.statements):
        word = statement.word
        if word in (".intel_syntax", ".att_syntax"):
            intel = word == ".intel_syntax"
        elif word in _SET:
            known.add(statement.rest.partition(",")[0].strip())
        elif assigned := _ASSIGN.match(statement.text):
            known.add(assigned.group(1))
        elif (
            intel
            and word[:1] not in ("", ".")
            and not is_branch(word)
            and (constants or "__" in statement.rest)
        ):
            try:
                operands = split_operands(statement.rest)
            except Wrong:
                continue
            for name in (
                name
                for operand in operands
                if _BARE.match(operand)
                for name in _NAME.findall(operand)
            ):
                if name in sections and name not in object_file.symbols:
                    report.add(
                        index,
                        f"{clip(statement.text)}: GNU as would load from {name}: write offset "
                        f"{name}",
                    )
                elif name in constants - known:
                    say = f"GNU as would load from {name}, which is set further down: set it before"
                    report.add(index, f"{clip(statement.text)}: {say}")
    report.stop()
