"""What a program's statements come to: conditions, macros and repetitions carried out, one
statement after the other.

Everything is bounded: how deep it nests, how many statements are looked at, how long the text
grows.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvmscen.asm.keystone import conditions, macros
from kvmscen.asm.keystone.conditions import Conditions, Known
from kvmscen.asm.keystone.macros import Macro
from kvmscen.asm.source import Reader, Statement
from kvmscen.asm.values import Source, Unencoded, Wrong, clip

MAX_STATEMENTS = 65536
# GNU as's own limit.
MAX_DEPTH = 100
_MAX_LOOKED_AT = 10 * MAX_STATEMENTS
_MAX_TEXT = 4 << 20
_BLOCKS = frozenset(
    ".macro .rept .irp .irpc .purgem .exitm .mexit .endm .endr .altmacro .end".split()
)
_REPEATS = frozenset([".rept", ".irp", ".irpc"])


class _Frame:
    """Statements that are being read, `left` more times behind this one."""

    def __init__(
        self, statements: list[Statement], statement: Statement | None = None, left: int = 0
    ) -> None:
        self.statements = statements
        self.statement = statement
        self.left = left
        self.at = 0


class Wronged(Exception):
    """An error in `statement`, reported at its line."""

    def __init__(self, statement: Statement, wrong: Wrong | str) -> None:
        super().__init__(str(wrong))
        self.statement = statement
        self.wrong = wrong


class Expander:
    """Reads a Source. `next` gives the statements that are left when all that is expanded is."""

    def __init__(self, source: Source, arch: str, known: Known) -> None:
        self._arch = arch
        self._file = source.file
        self._known = known
        self._conditions = Conditions(known, arch)
        self._frames = [_Frame(Reader(source.text, arch, source.line, source.column).statements)]
        self._macros: dict[str, Macro] = {}
        self._uses = 0
        self._left = MAX_STATEMENTS
        self._looked_at = 0
        self._text = 0
        for macro in source.macros:
            body = Reader(macro.text, arch, macro.line, macro.column).statements
            self._macros[macro.name.lower()] = Macro(
                macro.name, (), tuple(body), macro.line, macro.file
            )

    def statements(self) -> Iterator[Statement | Wronged]:
        """Every statement that counts, in order; what is wrong stands in its place."""
        while self._frames:
            frame = self._frames[-1]
            if frame.at >= len(frame.statements):
                wrong = self._leave(frame)
                if wrong:
                    yield wrong
                continue
            statement = frame.statements[frame.at]
            frame.at += 1
            word = statement.word
            try:
                self._look(statement, 1)
                if word in conditions.WORDS:
                    self._conditions.take(statement, len(self._frames))
                elif self._conditions.off:
                    continue
                elif word in _BLOCKS:
                    self._block(frame, statement)
                elif self._macros and not statement.label and (macro := self._macro(statement)):
                    self._use(macro, statement)
                else:
                    self._left -= 1
                    if self._left < 0:
                        self._stop(statement)
                    yield statement
            except Wrong as wrong:
                yield Wronged(statement, wrong)
            except Wronged as wronged:
                yield wronged

    def _leave(self, frame: _Frame, early: bool = False) -> Wronged | None:
        if frame.left > 0 and not early:
            frame.left -= 1
            frame.at = 0
            return None
        depth = len(self._frames)
        self._frames.pop()
        opened = self._conditions.leave(depth, early)
        return None if opened is None else Wronged(opened, f"{opened.word} without its .endif")

    def _look(self, statement: Statement, count: int) -> None:
        self._looked_at += count
        if self._looked_at > _MAX_LOOKED_AT:
            self._stop(statement)

    def _stop(self, statement: Statement) -> None:
        self._frames.clear()
        self._conditions.leave(0, True)
        raise Wronged(statement, f"the program has more than {MAX_STATEMENTS} statements")

    def _block(self, frame: _Frame, statement: Statement) -> None:
        word = statement.word
        if word == ".macro":
            self._define(frame, statement)
        elif word in _REPEATS:
            self._repeat(frame, statement)
        elif word == ".purgem":
            if self._macros.pop(statement.rest.strip().lower(), None) is None:
                raise Wrong(f"there is no macro {clip(statement.rest)} to purge")
        elif word == ".end":
            self._frames.clear()
            self._conditions.leave(0, True)
        elif word in (".exitm", ".mexit"):
            if len(self._frames) == 1:
                raise Wrong(f"{word} stands in no macro: it ends the expansion of one")
            self._leave(frame, early=True)
        elif word == ".altmacro":
            raise Unencoded(".altmacro is not supported: write the parameters as \\name")
        else:
            raise Wrong(f"{word} without its {'.macro' if word == '.endm' else '.rept'}")

    def _body(
        self, frame: _Frame, statement: Statement, opens: frozenset[str], closes: str
    ) -> list[Statement]:
        """The statements up to the one that `closes`, which is passed over."""
        statements, level = frame.statements, 1
        for end in range(frame.at, len(statements)):
            word = statements[end].word
            level += (word in opens) - (word == closes)
            if not level:
                break
        else:
            end = len(statements)
        body = statements[frame.at : end]
        frame.at = end + 1
        self._look(statement, len(body))
        if level:
            raise Wrong(f"{statement.word} without its {closes}")
        return body

    def _define(self, frame: _Frame, statement: Statement) -> None:
        body = self._body(frame, statement, frozenset([".macro"]), ".endm")
        name, parameters = macros.parse(statement.rest, self._arch)
        key = name.lower()
        if key in self._macros:
            old = self._macros[key]
            where = (
                f"{old.foreign}:{old.line}"
                if old.foreign not in ("", self._file)
                else f"line {old.line}"
            )
            raise Wrong(
                f"the macro {clip(name)} is already defined in {where}; .purgem {clip(name)} "
                f"forgets it"
            )
        self._macros[key] = Macro(name, parameters, tuple(body), statement.line)

    def _macro(self, statement: Statement) -> Macro | None:
        word = statement.word
        macro = self._macros.get(word)
        if macro is None and not word.replace("_", "a").isalnum():
            # The name may touch its arguments: m(1).
            match = macros.NAME.match(word)
            macro = self._macros.get(match.group()) if match else None
        return macro

    def _use(self, macro: Macro, statement: Statement) -> None:
        rest = statement.text[len(macro.name) :]
        given = macros.arguments(macro, rest.strip(), self._arch)
        self._deeper(statement, f"the macro {clip(macro.name)}")
        number = self._uses
        self._uses += 1
        self._look(statement, len(macro.body))
        inside = f"in macro {clip(macro.name)}"
        within = statement.within
        if macro.foreign:
            place = statement.spot or ("", statement.line, 0)
            note = f"{inside}, used in line {place[1]}"
        lines: list[Statement] = []
        for line in macro.body:
            if not macro.foreign:
                note = f"line {line.line} {inside}" + (f", from {within}" if within else "")
                spot = statement.spot
            else:
                spot = (macro.foreign, line.line, line.column)
            at = statement._replace(
                within=note if len(note) < 200 else note[:197] + "...", spot=spot
            )
            lines += self._expanded(line, given, number, at)
        self._frames.append(_Frame(lines, statement))

    def _expanded(
        self, line: Statement, given: dict[str, str], number: int | None, at: Statement
    ) -> list[Statement]:
        """The statements that a line of a body comes to, standing where `at` does."""
        text = line.text
        if "\\" in text or "&" in text:
            try:
                text = macros.substitute(text, given, number)
            except Wrong as wrong:
                raise Wronged(at, wrong) from None
            self._text += len(text)
            if len(text) > MAX_STATEMENTS or self._text > _MAX_TEXT:
                self._frames.clear()
                raise Wronged(at, "the text of this program's macros grows without end")
            statements = Reader(text, self._arch).statements
        else:
            statements = [line]
        return [
            expanded._replace(line=at.line, column=at.column, within=at.within, spot=at.spot)
            for expanded in statements
        ]

    def _deeper(self, statement: Statement, what: str) -> None:
        if len(self._frames) > MAX_DEPTH:
            del self._frames[1:]
            self._conditions.leave(2, True)
            say = f"{what} is nested more than {MAX_DEPTH} deep: does it use itself without end?"
            raise Wronged(statement._replace(within=""), say)

    def _repeat(self, frame: _Frame, statement: Statement) -> None:
        body = self._body(frame, statement, _REPEATS, ".endr")
        self._deeper(statement, statement.word)
        if statement.word == ".rept":
            count = self._known.absolute(statement.rest, "the count of .rept")
            if count < 0:
                raise Wrong(f"the count of .rept is negative ({count})")
            if count * len(body) > max(self._left, 1):
                self._stop(statement)
            if count and body:
                self._frames.append(_Frame(body, statement, count - 1))
            return
        symbol, values = macros.values(statement.rest, statement.word == ".irpc", self._arch)
        self._look(statement, len(values) * len(body))
        lines: list[Statement] = []
        for value in values:
            for line in body:
                lines += self._expanded(line, {symbol: value}, None, line)
        self._frames.append(_Frame(lines, statement))
