"""arm64: `#label` is the label's address. GNU as puts the label's offset in its section there,
without a word.

So the addresses are put in as numbers, once they are known, and the program is assembled again: an
instruction has four bytes whatever its immediate is, and nothing moves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from kvmscen.asm.gnu import messages, objects
from kvmscen.asm.source import Statement, split_operands
from kvmscen.asm.values import Wrong, clip

# A label is what these take, or as makes a relocation of it.
_BRANCHES = re.compile(
    r"(?:b|bl|cbn?z|tbn?z|adrp?|b\.?(?:eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|al|nv)|bc\..*)\Z"
)
_LITERALS = ("ldr", "ldrsw", "prfm")
_NAME = re.compile(r"(?<![\w.$:\\])(?:[A-Za-z_.$][\w.$]*|\d+[bf])(?![\w.$])", re.ASCII)
_LOCAL = re.compile(r"(?:\d+[bf]|\.)\Z", re.ASCII)
_OPERATOR = re.compile(r":\w+:")
_SECTION = re.compile(r"__\w+_(?:start|end|size|load)\Z", re.ASCII)
_PARAMETER = re.compile(r"#[^,\]]*\\\w", re.ASCII)


def provisional(statements: Sequence[Statement]) -> dict[int, str]:
    """Statements in which a section's symbol is an immediate, with 0 in its place: as would refuse
    what it does not know.
    """
    out = {}
    for index, statement in enumerate(statements):
        if "__" in statement.rest and (
            text := _replaced(statement, lambda name: "0" if _SECTION.match(name) else None)
        ):
            out[index] = text
    return out


def changed(
    object_file: objects.Object, symbols: Mapping[str, int], report: messages.Report
) -> dict[int, str]:
    """Statements in which a label is an immediate, with the address in its place. Stops where that
    cannot be.
    """
    labels = {
        name: hex(value) for name, value in symbols.items() if name not in object_file.symbols
    }
    labels.update(
        (name, hex(symbols[name]))
        for name, symbol in object_file.symbols.items()
        if symbol.section is not None
    )
    out: dict[int, str] = {}
    taking = _taking(report)
    for index, statement in enumerate(report.statements):
        if statement.word in taking and any(
            name in labels for name in _NAME.findall(statement.rest)
        ):
            report.add(
                index,
                f"{clip(statement.text)}: a label cannot be an immediate of a macro: use ldr xN, "
                f"=label in it",
            )
        elif text := _replaced(
            statement, lambda name: labels.get(name) or ("?" if _LOCAL.match(name) else None)
        ):
            out[index] = text
            if "?" in text:
                report.add(
                    index,
                    f"{clip(statement.text)}: a local label cannot be an immediate: write ldr xN, "
                    f"=label",
                )
    report.stop()
    return out


def _replaced(statement: Statement, number: Callable[[str], str | None]) -> str | None:
    """The statement with its immediates' names replaced by numbers, None where that changes
    nothing.
    """
    word = statement.word
    if statement.label or word[:1] in ("", ".", "\\") or _BRANCHES.match(word):
        return None
    try:
        operands = split_operands(statement.rest)
    except Wrong:
        return None
    if len(operands) < 2 or (word in _LITERALS and operands[1][:1] != "["):
        return None
    last = [
        operand
        if _OPERATOR.search(operand)
        else _NAME.sub(lambda name: number(name.group()) or name.group(), operand)
        for operand in operands[1:]
    ]
    if last == operands[1:]:
        return None
    return f"{statement.text.split(None, 1)[0]} {', '.join([operands[0], *last])}"


def _taking(report: messages.Report) -> set[str]:
    """The macros that have an immediate made of a parameter."""
    names: set[str] = set()
    inside: list[str] = []
    for statement in report.statements:
        if statement.word == ".macro" and statement.rest:
            inside.append(re.split(r"[\s,]", statement.rest, maxsplit=1)[0].lower())
        elif statement.word in (".endm", ".endmacro") and inside:
            inside.pop()
        elif inside and _PARAMETER.search(statement.text):
            names.update(inside)
    return names
