"""The passes: items to addresses until nothing moves, then to bytes, with all that is wrong on the
way.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

from kvmscen.asm import sections
from kvmscen.asm.advice import advise
from kvmscen.asm.keystone.arm64.instructions import Arm64
from kvmscen.asm.keystone.encoder import MISSING
from kvmscen.asm.keystone.expressions import Unknown
from kvmscen.asm.keystone.front import read
from kvmscen.asm.keystone.items import MAX_SIZE, Assign, Chunk, Item
from kvmscen.asm.keystone.state import Architecture, Front
from kvmscen.asm.keystone.x86.instructions import X86
from kvmscen.asm.layout import STANDARD, Misplaced, Shape, place, section_symbols
from kvmscen.asm.source import Statement
from kvmscen.asm.values import (
    Line,
    Placement,
    Program,
    Section,
    Source,
    Unencoded,
    Unexplained,
    Wrong,
    clip,
)
from kvmscen.errors import Problem, ScenarioError

MAX_PASSES = 60
MAX_TOTAL = 4 * MAX_SIZE
_MASK = (1 << 64) - 1
# What Keystone encodes for; other architectures are GNU as's.
FRONTS: dict[str, Callable[[int], Architecture]] = {"arm64": lambda bits: Arm64(), "x86_64": X86}


class Assembly:
    """One program on its way from text to bytes."""

    def __init__(
        self, arch: str, bits: int, source: Source, placements: Sequence[Placement], origin: int
    ) -> None:
        self._arch = arch
        self._source = source
        self._placements = placements
        self._origin = origin
        self._front = Front(FRONTS[arch](bits))
        self._problems: list[Problem] = []
        self._unencoded: set[Problem] = set()
        self._unexplained: dict[Problem, tuple[Statement, str]] = {}
        self._guesses = 0
        self._loads: dict[str, int] = {}
        self._section_symbols: dict[str, int] = {}
        self._absent: dict[str, str] = {}
        self._present: dict[str, int] = {}  # the symbols without those, for what is in the guest

    def run(self) -> Program:
        """The program. Raises ScenarioError with all problems."""
        read(self._front, self._source, self._arch)
        for placement in self._placements:
            # Cases share `sections`, and not each of their programs fills them all.
            if placement.name in STANDARD:
                self._front.chunks.setdefault(
                    placement.name, Chunk(placement.name, nobits=placement.name == ".bss")
                )
        misplaced = self._settle()
        sizes = self._too_large()
        if sizes:
            raise ScenarioError(sizes)
        self._absent = self._front.absent()
        if self._absent:
            everything = self._front.scope.symbols.items()
            self._present = {name: at for name, at in everything if name not in self._absent}
        images = {
            name: bytearray(0 if chunk.nobits else chunk.size)
            for name, chunk in self._front.chunks.items()
        }
        lines: list[Line] = []
        for item in self._front.items:
            self._encode(item, images[item.chunk.name], lines)
        for wrong in misplaced:
            spot = wrong.placement
            file = (spot and spot.file) or self._source.file
            where = (spot.line, spot.column) if spot else (self._source.line, self._source.column)
            self._problems.append(Problem(file, *where, wrong.message))
        if self._problems:
            raise ScenarioError(dict.fromkeys(self._problems))
        return self._program(images, lines)

    @property
    def only_unencoded(self) -> bool:
        """Whether nothing is wrong but that Keystone or the front end does not know what stands
        there.
        """
        return bool(self._problems) and self._unencoded.issuperset(self._problems)

    @property
    def unexplained(self) -> bool:
        """Whether Keystone refused something without saying why."""
        return bool(self._unexplained)

    def explained(
        self, problems: Sequence[Problem], reasons: Mapping[tuple[str, int, int], str], instead: str
    ) -> list[Problem]:
        """The problems, with GNU as's reasons by place for those that have none; `instead`, where
        it refuses nothing at all.
        """
        out = []
        for problem in problems:
            reason = reasons.get((problem.file, problem.line, problem.column))
            if problem not in self._unexplained:
                out.append(problem)
                continue
            statement, message = self._unexplained[problem]
            if reason is not None:
                message += f": {reason} (GNU as)"
            elif not reasons:
                message += f"; {instead}"
            out.append(self._problem(statement, message))
        return out

    def _settle(self) -> list[Misplaced]:
        front = self._front
        for turn in range(MAX_PASSES):
            front.scope.widen = turn > MAX_PASSES // 2
            moved, misplaced = self._pass()
            if turn and not moved:
                return misplaced
        for item in front.items:
            if isinstance(item, Assign) and item.changed:
                self._report(item.statement, f"symbol {clip(item.name)} depends on itself")
        if not self._problems:
            place_at = (
                front.items[0].statement if front.items else Statement(self._source.line, 1, "")
            )
            self._report(place_at, "sizes in this program depend on each other without end")
        return misplaced

    def _pass(self) -> tuple[bool, list[Misplaced]]:
        front = self._front
        scope = front.scope
        moved = False
        for chunk in front.chunks.values():
            chunk.size = 0
        for item in front.items:
            chunk = item.chunk
            if item.offset != chunk.size:
                item.offset = chunk.size
                moved = True
            size = item.measure(scope)
            if size != item.size:
                item.size = size
                moved = True
            chunk.size += size
            if isinstance(item, Assign) and item.changed:
                moved = True
        shapes = [
            Shape(chunk.name, chunk.size, chunk.align)
            for chunk in front.chunks.values()
            if chunk.loaded
        ]
        places, misplaced = place(shapes, self._placements, self._origin)
        rebased = False
        for name, where in places.items():
            chunk = front.chunks[name]
            rebased |= chunk.base != where.gpa
            chunk.base = where.gpa
            self._loads[name] = where.load
        if rebased:
            # Branches forward must see the next pass's addresses, or they grow for nothing.
            moved = True
            for label in front.labels.values():
                label.measure(scope)
        symbols = section_symbols(shapes, places)
        if symbols != self._section_symbols:
            self._section_symbols = symbols
            moved = True
        for name, value in symbols.items():
            if not front.is_defined(name):
                scope.symbols[name] = value
                scope.weights[name] = 0 if name.endswith("_size") else 1
        return moved, misplaced

    def _too_large(self) -> list[Problem]:
        total = sum(chunk.size for chunk in self._front.chunks.values())
        wrong: list[Problem] = []
        for chunk in self._front.chunks.values():
            if chunk.size > MAX_SIZE or total > MAX_TOTAL:
                last = max(
                    (i for i in self._front.items if i.chunk is chunk), key=lambda item: item.size
                )
                message = (
                    f"section {chunk.name} has {chunk.size:#x} bytes; it may have 16 MiB, "
                    f"all together 64 MiB"
                )
                wrong.append(self._problem(last.statement, message))
        return wrong

    def _encode(self, item: Item, image: bytearray, lines: list[Line]) -> None:
        statement = item.statement
        try:
            data = self._bytes(item)
        except Wrong as wrong:
            advice = advise(str(wrong), statement, self._arch)
            problem = self._report(statement, advice, isinstance(wrong, Unencoded))
            if isinstance(wrong, Unexplained) and advice == str(wrong) and problem is not None:
                self._unexplained[problem] = (statement, advice)
            return
        except Unknown as unknown:
            if unknown.name in self._absent:
                self._report(statement, sections.not_there(self._absent[unknown.name]), True)
                return
            self._report(statement, advise(self._undefined(unknown.name), statement, self._arch))
            return
        if data is not None and data:
            if not item.chunk.nobits:
                image[item.offset : item.offset + len(data)] = data
            elif any(data):
                message = (
                    f"section {item.chunk.name} holds zeros only; put this into .data or .text"
                )
                self._report(statement, message)
        if item.shown and item.size and item.chunk.loaded:
            lines.append(Line(item.address, item.size, statement.line, statement.text))

    def _bytes(self, item: Item) -> bytes | None:
        """What an item encodes to; Unknown also for an address that is not in the guest."""
        scope, every = self._front.scope, self._front.scope.symbols
        if not self._absent:
            return item.encode(scope)
        if isinstance(item, Assign):
            item.encode(scope)
            if item.name in self._present:
                self._present[item.name] = every[item.name]
            return None
        try:
            scope.symbols = self._present if item.chunk.loaded else every
            return item.encode(scope)
        finally:
            scope.symbols = every

    def _report(
        self, statement: Statement, message: str, unencoded: bool = False
    ) -> Problem | None:
        if message.startswith(MISSING):
            # Once is enough, whatever else is on that line.
            message = MISSING
            if any(problem.message == MISSING for problem in self._problems):
                return None
        problem = self._problem(statement, message)
        self._problems.append(problem)
        if unencoded:
            self._unencoded.add(problem)
        return problem

    def _problem(self, statement: Statement, message: str) -> Problem:
        spot = statement.spot or (self._source.file, statement.line, statement.column)
        return Problem(*spot, f"{message} ({statement.within})" if statement.within else message)

    def _undefined(self, name: str) -> str:
        if "\x02" in name:
            return f"there is no label {clip(name.partition(chr(2))[0])}: after this line"
        if self._front.is_defined(name):
            return (
                f"the value of {clip(name)} is not known: it depends on itself, or on "
                f"something that is wrong"
            )
        self._guesses += 1
        if self._guesses > 50:
            return f"undefined symbol {clip(name)}"
        known = [symbol for symbol in self._front.scope.symbols if "\x02" not in symbol]
        close = difflib.get_close_matches(name[:100], known[:5000], 1)
        return f"undefined symbol {clip(name)}" + (f"; did you mean {close[0]}?" if close else "")

    def _program(self, images: dict[str, bytearray], lines: list[Line]) -> Program:
        front = self._front
        made = [
            self._section(chunk, images[chunk.name])
            for chunk in front.chunks.values()
            if chunk.loaded
        ]
        symbols = {
            name: value & _MASK
            for name, value in front.scope.symbols.items()
            if "\x02" not in name and name not in self._absent
        }
        lines.sort(key=lambda line: line.gpa)
        return Program(
            tuple(sorted(made, key=lambda section: (section.gpa, section.name))),
            symbols,
            tuple(lines),
        )

    def _section(self, chunk: Chunk, image: bytearray) -> Section:
        return Section(
            chunk.name, chunk.base, self._loads[chunk.name], bytes(image), chunk.size, chunk.nobits
        )
