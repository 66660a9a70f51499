"""ld: the script that puts every section where the layout says, and what is read of the result."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from elftools.common.exceptions import ELFError

from kvmscen.asm.gnu import messages, objects, targets, text, tools
from kvmscen.asm.layout import Placed, align_up
from kvmscen.asm.sections import MARKS, NAMING, OPERANDS, no_name, not_there
from kvmscen.asm.values import Line, clip

# JUMP26 and CALL26 of arm64, to which ld adds veneers where they do not reach.
_BRANCHES = (282, 283)
_REACH = 128 << 20

# What ld shall not do: relax, complain of what layout has checked, or stop at the first thing that
# is wrong.
_OPTIONS = (
    "--no-relax",
    "--no-check-sections",
    "--noinhibit-exec",
    "--unresolved-symbols=ignore-all",
    "-N",
)


def check_names(object_file: objects.Object, report: messages.Report) -> None:
    """Refuse names that would be more than a name in a linker script: a quote in one ends the name
    there.
    """
    for name in (*(shape.name for shape in object_file.shapes), *object_file.undefined):
        kind = "symbol" if name in object_file.undefined else "section"
        if (why := no_name(name, kind)) is None:
            continue
        index = next((n for n, s in enumerate(report.statements) if name in s.text), None)
        if index is None and kind == "section":
            index = next(
                (
                    n
                    for n, s in enumerate(report.statements)
                    if s.word in NAMING and not OPERANDS.match(s.rest)
                ),
                None,
            )
        report.add(index, why)
    report.stop()


def script(
    object_file: objects.Object, places: Mapping[str, Placed], symbols: Mapping[str, int]
) -> str:
    """The linker script: one output section a section, each at its address, and the symbols of
    sections.
    """
    parts = ["SECTIONS {"]
    for name, at in places.items():
        kind = " (NOLOAD)" if name in object_file.nobits else ""
        parts.append(f'  "{name}" {at.gpa:#x}{kind} : {{ *("{name}") }}')
    parts.append(f"  {MARKS} 0 (INFO) : {{ *({MARKS}) }}")
    parts.append("  /DISCARD/ : { *(*) }")
    parts.append("}")
    # as leaves undefined what the layout alone can say.
    parts += [
        f"{name} = {symbols[name]:#x};" for name in sorted(object_file.undefined) if name in symbols
    ]
    return "\n".join(parts) + "\n"


def link(
    toolchain: targets.Tools,
    where: Path,
    object_file: objects.Object,
    places: Mapping[str, Placed],
    symbols: Mapping[str, int],
    report: messages.Report,
) -> tuple[dict[str, bytes], tuple[Line, ...]]:
    """The bytes of each section, and the source lines by address. Problems go to `report`, which
    raises them.
    """
    (where / messages.OBJECT).write_bytes(object_file.raw)
    (where / "program.ld").write_text(script(object_file, places, symbols))
    files = ("-T", "program.ld", "-o", "program.elf", messages.OBJECT)
    ran = tools.run([toolchain.linker, "-m", toolchain.target.emulation, *_OPTIONS, *files], where)
    if ran.why:
        report.only(report.large(), f"linking this {ran.why} (GNU ld)")
        report.stop()
    try:
        contents = objects.contents((where / "program.elf").read_bytes())
    except (ELFError, OSError):
        report.only(None, f"linking failed: {messages.shorten(ran.messages)} (GNU ld)")
        report.stop()
        raise
    lines = _lines(contents.get(MARKS, (0, b""))[1], toolchain.target.align, report)
    for section, offset, say in messages.of_linker(ran.messages):
        at = places.get(section)
        index = None if at is None else _statement(lines, at.gpa + offset)
        report.add(index, _unlinked(index, say, report))
    _undefined(object_file, places, symbols, lines, report)
    images: dict[str, bytes] = {}
    for shape in object_file.shapes:
        size, data = contents.get(shape.name, (0, b""))
        if shape.name in places and size != shape.size:
            _out_of_reach(shape.name, object_file, places, symbols, lines, report)
        images[shape.name] = b"" if shape.name in object_file.nobits else data
    report.stop()
    return images, tuple(line for _, line in lines)


def _lines(data: bytes, align: int, report: messages.Report) -> list[tuple[int, Line]]:
    """Lines by address, each with the index of its statement; as pads up to `align` before an
    instruction.
    """
    lines_at = []
    for index, start, end, outer in text.ranges(data):
        if max(index, outer) < len(report.statements):
            statement = report.statements[index]
            padding = align_up(start, align) - start
            length = end - start - padding
            if padding and statement.word[:1] != "." and length >= align and length % align == 0:
                start += padding
            lines_at.append(
                (index, Line(start, end - start, report.statements[outer].line, statement.text))
            )
    return sorted(lines_at, key=lambda item: item[1].gpa)


def _statement(lines: list[tuple[int, Line]], gpa: int) -> int | None:
    return next((index for index, line in lines if line.gpa <= gpa < line.gpa + line.size), None)


def _unlinked(index: int | None, say: str, report: messages.Report) -> str:
    symbol = messages.unfit(say)
    if index is None:
        return f"{messages.quoted(say)} (GNU ld)"
    statement = clip(report.statements[index].text)
    if symbol is not None:
        return (
            f"{statement}: {clip(symbol)} is out of reach, or does not fit here (GNU ld: "
            f"{messages.quoted(say)})"
        )
    return f"{statement}: {messages.quoted(say)} (GNU ld)"


def _undefined(
    object_file: objects.Object,
    places: Mapping[str, Placed],
    symbols: Mapping[str, int],
    lines: list[tuple[int, Line]],
    report: messages.Report,
) -> None:
    missing = object_file.undefined - symbols.keys()
    if not missing and not object_file.absent:
        return
    for use in objects.uses(object_file.raw):
        at = places.get(use.section)
        absent = object_file.absent.get(use.symbol)
        if (use.symbol not in missing and absent is None) or at is None:
            continue
        # A literal stands in a pool, away from the statement that asks for it.
        index = _statement(lines, at.gpa + use.offset)
        if index is None:
            index = next((n for n, s in enumerate(report.statements) if use.symbol in s.rest), None)
        report.add(index, _unknown(use.symbol, symbols) if absent is None else not_there(absent))


def _unknown(name: str, symbols: Mapping[str, int]) -> str:
    close = difflib.get_close_matches(name[:100], list(symbols)[:5000], 1)
    return f"undefined symbol {clip(name)}" + (f"; did you mean {close[0]}?" if close else "")


def _out_of_reach(
    section: str,
    object_file: objects.Object,
    places: Mapping[str, Placed],
    symbols: Mapping[str, int],
    lines: list[tuple[int, Line]],
    report: messages.Report,
) -> None:
    """Report branches that do not reach: ld put veneers behind the section for them, and nobody
    wrote those.
    """
    reported = False
    for use in objects.uses(object_file.raw):
        if use.section != section or use.kind not in _BRANCHES:
            continue
        at = places[section].gpa + use.offset
        home = places.get(use.symbol)
        target = use.addend + (home.gpa if home is not None else symbols.get(use.symbol, 0))
        if not -_REACH <= target - at < _REACH:
            reported = True
            index = _statement(lines, at)
            statement = "" if index is None else clip(report.statements[index].text) + ": "
            report.add(
                index,
                f"{statement}the target {target:#x} is {abs(target - at):#x} bytes away from "
                f"{at:#x}; it reaches 128 MiB",
            )
    if not reported:
        report.add(None, f"the size of section {section} changed while it was linked (GNU ld)")
