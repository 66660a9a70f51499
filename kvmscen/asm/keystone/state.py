"""What is known of a program while it is read: its items, sections, labels and symbols, and the
current place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvmscen.asm import sections
from kvmscen.asm.keystone.expressions import Expression, Parser
from kvmscen.asm.keystone.items import Assign, Chunk, Item, Label, Scope
from kvmscen.asm.keystone.ruler import Ruler
from kvmscen.asm.source import Statement
from kvmscen.asm.values import Wrong, clip

_MAX_STACK = 100
_MAX_SUBSECTION = 8192


class Architecture(Protocol):
    """What the front end needs of each architecture."""

    widths: dict[str, int]
    align_is_power: bool

    def instruction(self, front: Front, statement: Statement) -> Item:
        """One instruction as an item. Raises Wrong."""

    def directive(self, front: Front, statement: Statement) -> bool:
        """Handle a directive of this architecture; whether it was one."""

    def taken(self, name: str) -> str | None:
        """Why no symbol can have this name here, None where one can."""

    def padding(self) -> Callable[[int], bytes]:
        """A function that gives n bytes of padding in code at this place."""

    def finish(self, front: Front) -> None:
        """Called at the end of the program."""


class Front:
    """A program as far as it is read. `items` are in the order of the source; `constants` are
    symbols set to plain numbers.
    """

    # The subsection of .bss that holds what .comm asks for.
    COMMON = _MAX_SUBSECTION + 1

    def __init__(self, machine: Architecture) -> None:
        self.scope = Scope()
        self.items: list[Item] = []
        self.chunks: dict[str, Chunk] = {}
        self.labels: dict[str, Label] = {}
        self.parser = Parser(self._local)
        self.machine = machine
        self.constants: set[str] = set()
        self._counts: dict[str, int] = {}
        self._defined: dict[str, int] = {}
        self._set: set[str] = set()
        # Section and subsection: the current ones, those before, and those that .pushsection put
        # away.
        self._here = self._before = (".text", 0)
        self._stack: list[tuple[tuple[str, int], tuple[str, int]]] = []
        self._subsections = False
        self._ruler = Ruler()

    def finish(self) -> None:
        """The end of the program: what the architecture adds there, and the items in the order of
        their subsections.
        """
        self.machine.finish(self)
        if self._subsections:
            self.items.sort(key=lambda item: item.subsection)

    @property
    def chunk(self) -> Chunk:
        """The current section, made where it is new."""
        name = self._here[0]
        return self.chunks.get(name) or self.open(name, None, "")

    @property
    def subsection(self) -> int:
        """The number of the current subsection."""
        return self._here[1]

    def add(self, item: Item) -> None:
        """Append an item to the program."""
        if self._here[1]:
            item.subsection = self._here[1]
        self.items.append(item)

    def expression(self, text: str) -> Expression:
        """Compile an expression that stands at the current place. Raises Wrong."""
        expression = self.parser.parse(text)
        for name in expression.names:
            self._allow(name)
        return expression

    def _allow(self, name: str) -> None:
        if reason := self.machine.taken(name):
            raise Wrong(reason)

    def absolute(self, text: str, what: str) -> int:
        """A value that must be known at once: of numbers, symbols set before, and distances in one
        section. Raises Wrong.
        """
        expression = self.expression(text)
        value = None
        if (
            all(name in self.constants for name in expression.names)
            and ("s", ".") not in expression.code
        ):
            value = expression.value(self.scope.symbols, 0)
        elif not expression.weight(self.scope.weights):
            value = self._distance(expression)
        if value is None:
            raise Wrong(f"{what} must be a number that is known here, not {clip(text)}")
        return value

    def _distance(self, expression: Expression) -> int | None:
        """The value of an expression in which every address is one of the same stretch, so that it
        falls out.
        """
        self._ruler.read(self.items)
        here, dot = self._ruler.here(*self._here)
        offsets: dict[str, int] = {}
        stretches = {here} if ("s", ".") in expression.code else set()
        for name in expression.names:
            if name in self.constants:
                continue
            if name not in self._ruler.labels:
                return None
            stretch, offsets[name] = self._ruler.labels[name]
            stretches.add(stretch)
        values = set()
        numbers = {
            name: self.scope.symbols[name] for name in expression.names if name in self.constants
        }
        for base in (0, 0x1234567):
            moved = {name: base + offset for name, offset in offsets.items()}
            values.add(expression.value({**numbers, **moved}, base + dot))
        return values.pop() if len(stretches) == 1 and len(values) == 1 else None

    def enter(self, name: str, subsection: int = 0) -> None:
        """Make a section the current one (`.section`, `.text`, ...). Raises Wrong."""
        if not 0 <= subsection <= self.COMMON or (subsection == self.COMMON and name != ".bss"):
            raise Wrong(f"a subsection is a number from 0 to {_MAX_SUBSECTION}, not {subsection}")
        self._before, self._here = self._here, (name, subsection)
        self._subsections |= subsection > 0
        if name not in self.chunks:
            self.open(name, None, "")

    def previous(self) -> None:
        """`.previous`: make the section before the current one current again."""
        self.enter(*self._before)

    def push(self) -> None:
        """Keep the current section for `pop`. Raises Wrong."""
        if len(self._stack) >= _MAX_STACK:
            raise Wrong(f".pushsection is nested more than {_MAX_STACK} deep")
        self._stack.append((self._here, self._before))

    def pop(self) -> None:
        """Go on in the section that `push` kept. Raises Wrong."""
        if not self._stack:
            raise Wrong(".popsection without its .pushsection")
        self._here, self._before = self._stack.pop()

    def open(self, name: str, flags: str | None, kind: str) -> Chunk:
        """Make a section. `flags` are None where none are written."""
        code = (
            name == ".text" or name.startswith((".text.", ".init", ".fini")) or "x" in (flags or "")
        )
        nobits = not sections.has_bytes(name, kind)
        chunk = self.chunks[name] = Chunk(
            name, code, nobits, loaded=sections.is_loaded(name, flags)
        )
        if not sections.is_usual(name):
            chunk.written = flags, kind
        return chunk

    def absent(self) -> dict[str, str]:
        """The labels of sections that are not in the guest, and what is set from them, each with
        that section.
        """
        found = {
            name: label.chunk.name for name, label in self.labels.items() if not label.chunk.loaded
        }
        if all(chunk.loaded for chunk in self.chunks.values()):
            return found
        users: dict[str, list[str]] = {}
        for item in self.items:
            if isinstance(item, Assign):
                for name in item.value.names:
                    users.setdefault(name, []).append(item.name)
                dot = any(step[0] == "." for step in item.value.code)
                if dot and not item.chunk.loaded:
                    found.setdefault(item.name, item.chunk.name)
        todo = list(found)
        while todo:
            name = todo.pop()
            for user in users.get(name, ()):
                if user not in found:
                    found[user] = found[name]
                    todo.append(user)
        return found

    def is_set(self, name: str) -> bool:
        """Whether `name` was given a value by `.set`, `.equ` or `=` before this place."""
        return name in self._set

    def is_defined(self, name: str) -> bool:
        """Whether the program itself defines `name`, at any place."""
        return name in self._defined

    def label(self, statement: Statement) -> None:
        """The label that a statement is, by a name or by a number. Raises Wrong."""
        name = statement.label
        if name.isdigit():
            key = str(int(name)) if len(name) < 20 else name
            count = self._counts[key] = self._counts.get(key, 0) + 1
            name = f"{key}\x02{count}"
            self._place(statement, name)
        else:
            self.define(statement, name)

    def define(self, statement: Statement, name: str) -> None:
        """Make `name` a label of this place. Raises Wrong."""
        self._define(statement, name)
        self._place(statement, name)

    def _place(self, statement: Statement, name: str) -> None:
        label = Label(statement, self.chunk, name)
        self.labels[name] = label
        self.scope.weights[name] = 1
        self.scope.homes[name] = label.chunk
        self.add(label)

    def _local(self, token: str) -> str:
        key = str(int(token[:-1])) if len(token) < 20 else token[:-1]
        count = self._counts.get(key, 0)
        if token[-1] == "f":
            return f"{key}\x02{count + 1}"
        if not count:
            raise Wrong(f"{clip(token)}: there is no label {clip(key)}: before this line")
        return f"{key}\x02{count}"

    def _define(self, statement: Statement, name: str, again: bool = False) -> None:
        if name == ".":
            raise Wrong("the symbol . is the location itself")
        self._allow(name)
        first = self._defined.setdefault(name, statement.line)
        if (first != statement.line or name in self.labels or name in self._set) and not (
            again and name in self._set
        ):
            raise Wrong(f"symbol {clip(name)} is already defined in line {first}")

    def assign(self, statement: Statement, name: str, text: str, again: bool = True) -> None:
        """Give `name` a value, `again` where it may have one. Raises Wrong."""
        value = self.expression(text)
        if name in value.names and name not in self._set:
            raise Wrong(f"symbol {clip(name)} is defined by itself")
        self._define(statement, name, again)
        self._set.add(name)
        item = Assign(statement, self.chunk, name, value)
        # Known at once where it can be, so that later statements see a number rather than a symbol.
        self.scope.weights[name] = min(1, abs(value.weight(self.scope.weights)))
        if value.constant is not None or (
            value.names and all(n in self.constants for n in value.names)
        ):
            item.measure(self.scope)
            self.constants.add(name)
        self.add(item)
