"""A program by as and ld: assembled once (on arm64 maybe twice), placed by the layout, linked
there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from elftools.common.exceptions import ELFError

from kvmscen.asm.advice import advise
from kvmscen.asm.gnu import (
    bare_names,
    immediates,
    link,
    messages,
    objects,
    taken_names,
    targets,
    text,
    tools,
)
from kvmscen.asm.keystone.items import MAX_SIZE
from kvmscen.asm.layout import STANDARD, Placed, Shape, place, section_symbols
from kvmscen.asm.values import GNU, Placement, Program, Section, Source, Wrong, clip
from kvmscen.disk import scratch
from kvmscen.errors import HostError, Problem, ScenarioError

MAX_STATEMENTS = 65536
MAX_TOTAL = 4 * MAX_SIZE
_ALWAYS = (".text", ".data", ".bss")
_MASK = (1 << 64) - 1


def assemble(
    arch: str, bits: int, source: Source, placements: Sequence[Placement], origin: int
) -> Program:
    """Assemble and link a program, as kvmscen.asm.assemble does. Raises ScenarioError with all
    problems.
    """
    toolchain = targets.find(arch)
    if toolchain is None:
        raise ScenarioError(
            [Problem(source.file, source.line, source.column, targets.absent(arch))]
        )
    statements = text.statements(source, arch)
    report = messages.Report(source, statements)
    _check(report)
    taken_names.check(arch, report)
    for room in scratch.rooms():
        try:
            with scratch.folder(room) as folder:
                return _program(
                    AsRun(arch, toolchain, bits, folder, report), arch, placements, origin
                )
        except scratch.Full:
            # Most programs need little, so memory is tried first, however small it is.
            continue
    raise HostError(
        f"there is no room for the files of GNU as in {' or '.join(scratch.places())}: free some, "
        f"or set TMPDIR"
    )


def _program(as_run: AsRun, arch: str, placements: Sequence[Placement], origin: int) -> Program:
    report = as_run.report
    object_file = as_run.object(
        immediates.provisional(report.statements) if arch == "arm64" else {}
    )
    link.check_names(object_file, report)
    shapes, places = _place(object_file, placements, origin, report)
    symbols = _symbols(object_file, shapes, places)
    if arch == "arm64" and (changed := immediates.changed(object_file, symbols, report)):
        object_file = as_run.object(changed)
        shapes, places = _place(object_file, placements, origin, report)
    if arch == "x86_64":
        taken_names.check_made(object_file, report)
        bare_names.check(object_file, symbols.keys() - object_file.symbols.keys(), report)
    images, lines = link.link(as_run.toolchain, as_run.where, object_file, places, symbols, report)
    sections = [
        Section(
            s.name,
            places[s.name].gpa,
            places[s.name].load,
            images.get(s.name, b""),
            s.size,
            s.name in object_file.nobits,
        )
        for s in shapes
    ]
    return Program(
        tuple(sorted(sections, key=lambda section: (section.gpa, section.name))),
        symbols,
        lines,
        GNU,
    )


def _check(report: messages.Report) -> None:
    if len(report.statements) > MAX_STATEMENTS:
        report.add(MAX_STATEMENTS, f"the program has more than {MAX_STATEMENTS} statements")
    for index, statement in enumerate(report.statements[:MAX_STATEMENTS]):
        try:
            text.check(statement)
        except Wrong as wrong:
            report.add(index, str(wrong))
    report.stop()


class AsRun:
    """One program and the folder that it is assembled in."""

    def __init__(
        self, arch: str, toolchain: targets.Tools, bits: int, where: Path, report: messages.Report
    ) -> None:
        self.toolchain, self.where, self.report = toolchain, where, report
        self._arch, self._bits = arch, bits

    def run(self, changed: Mapping[int, str]) -> tuple[tools.Ran, text.Text]:
        """Assemble the statements with as, some of them replaced by `changed`. Returns how as
        ended, and the text that it read.
        """
        report, where, target = self.report, self.where, self.toolchain.target
        rendered = text.render(target.prologue.get(self._bits, ""), report.statements, changed)
        body = "\n".join(rendered.lines) + "\n"
        (where / messages.SOURCE).write_bytes(body.encode("utf-8", "surrogatepass"))
        files = ("-o", messages.OBJECT, "--MD", "read.d", messages.SOURCE)
        return tools.run(
            [self.toolchain.assembler, *target.options[self._bits], "-L", *files], where
        ), rendered

    def object(self, changed: Mapping[int, str]) -> objects.Object:
        """What as makes of the statements, some of them `changed`."""
        report, where = self.report, self.where
        ran, rendered = self.run(changed)
        if ran.why:
            self._unsure()
            report.only(report.large(), f"assembling this {ran.why} (GNU as)")
            report.stop()
        self._complain(ran.messages, rendered)
        if ran.status:
            self._unsure()
            report.add(
                None,
                f"assembling ended with status {ran.status}: "
                f"{messages.shorten(ran.messages) or 'nothing was said'} (GNU as)",
            )
            report.stop()
        # A macro may have put `.incbin` together where nobody saw it.
        read = (
            (where / "read.d")
            .read_text("utf-8", "replace")
            .replace("\\\n", " ")
            .partition(":")[2]
            .split()
        )
        if read != [messages.SOURCE]:
            self._unsure()
            report.add(None, messages.FOREIGN)
            report.stop()
        try:
            return objects.read(
                (where / messages.OBJECT).read_bytes(), text.entered(report.statements)
            )
        except (ELFError, OSError) as error:
            report.add(None, f"what GNU as made cannot be used: {messages.shorten(str(error))}")
            report.stop()
            raise

    def _complain(self, said: str, rendered: text.Text) -> None:
        complaints = list(messages.of_assembler(said))
        if complaints:
            self._unsure()
        for complaint in complaints:
            # Of such a program nothing else is told: it might tell of what is in the file.
            if complaint.foreign:
                at = rendered.statement(complaint.used)
                self.report.add(
                    rendered.statement(complaint.line) if at is None else at, messages.FOREIGN
                )
        self.report.stop()
        for complaint in complaints:
            index = rendered.statement(complaint.line)
            index = self.report.large() if index is None else index
            if text.is_mark(complaint.text):
                # What stands there has eaten a mark, or the line before has.
                self.report.add(index, "this does not assemble" + self._what(index))
                continue
            about = "" if "`" in complaint.text else self._what(index)
            say = f"{messages.quoted(complaint.text)}{about} (GNU as)"
            used = rendered.statement(complaint.used)
            if used is not None and index is not None:
                # As the other assembler tells it: at the use, unless the macro stands beside the
                # program.
                inside, use = self.report.statements[index], self.report.statements[used]
                beside = inside.spot is not None
                say += (
                    f" (in a macro, used in line {use.line})"
                    if beside
                    else f" (line {inside.line} in a macro)"
                )
                index = index if beside else used
            if index is not None and used is None:
                say = advise(say, self.report.statements[index], self._arch)
            self.report.add(index, say)
        self.report.stop()

    def _unsure(self) -> None:
        """Say the same of a program that may have read a file, whatever came of that."""
        if not tools.confined_from_files(self.toolchain.assembler):
            for index in text.composed(self.report.statements):
                self.report.add(index, messages.UNSURE)
            self.report.stop()

    def _what(self, index: int | None) -> str:
        return "" if index is None else f": {clip(self.report.statements[index].text)}"


def _place(
    object_file: objects.Object,
    placements: Sequence[Placement],
    origin: int,
    report: messages.Report,
) -> tuple[list[Shape], dict[str, Placed]]:
    """The sections that count, and where they go."""
    placed = {placement.name for placement in placements}
    named = {symbol.section for symbol in object_file.symbols.values()} | text.entered(
        report.statements
    ).keys()
    shapes = []
    for shape in object_file.shapes:
        # as makes .text, .data and .bss also where nobody asks for them.
        own = section_symbols([shape], {shape.name: Placed(0, 0)})
        asked = shape.name not in _ALWAYS or shape.name in placed or shape.name in named
        if shape.size or asked or object_file.undefined & own.keys():
            shapes.append(shape)
    # Cases share `sections`, and not each of their programs fills them all.
    there = {shape.name for shape in object_file.shapes}
    shapes += [Shape(name, 0, 1) for name in STANDARD if name in placed and name not in there]
    total = sum(shape.size for shape in shapes)
    for shape in shapes:
        if shape.size > MAX_SIZE or total > MAX_TOTAL:
            say = (
                f"section {shape.name} has {shape.size:#x} bytes; it may have 16 MiB, all "
                f"together 64 MiB"
            )
            report.add(report.large(), say)
    report.stop()
    places, misplaced = place(shapes, placements, origin)
    for wrong in misplaced:
        report.misplaced(wrong)
    report.stop()
    return shapes, places


def _symbols(
    object_file: objects.Object, shapes: Sequence[Shape], places: Mapping[str, Placed]
) -> dict[str, int]:
    symbols = section_symbols(shapes, dict(places))
    for name, symbol in object_file.symbols.items():
        base = 0 if symbol.section is None else places[symbol.section].gpa
        symbols[name] = (base + symbol.value) & _MASK
    return symbols
