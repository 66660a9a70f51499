"""Statements to items: labels, assignments and directives; instructions go to the architecture."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from kvmscen.asm.expressions import Expression, Parser
from kvmscen.asm.items import Align, Assign, Broken, Chunk, Fixed, Item, Label, Numbers, Scope, Space
from kvmscen.asm.source import Reader, Statement, split_operands, string_bytes
from kvmscen.asm.values import Source, Unencoded, Wrong, clip

MAX_STATEMENTS = 65536
MAX_ALIGN = 1 << 24
_ASSIGN = re.compile(r"([A-Za-z_.$][\w.$]*)\s*==?(?!=)\s*(.*)", re.ASCII | re.DOTALL)
_NAME = re.compile(r"[A-Za-z_.$][\w.$]*\Z", re.ASCII)
_SECTION = re.compile(r'\s*"?([A-Za-z_.$][\w.$-]*)"?\s*(?:,\s*"([^"]*)")?\s*(?:,\s*[@%"](\w+)"?)?[^"]*\Z', re.ASCII)
_NOTHING = frozenset(
    [
        ".global",
        ".globl",
        ".type",
        ".size",
        ".weak",
        ".local",
        ".hidden",
        ".protected",
        ".internal",
        ".file",
        ".loc",
        ".ident",
        ".arch",
        ".cpu",
        ".arch_extension",
        ".extern",
        ".title",
        ".end",
        ".cfi_startproc",
        ".cfi_endproc",
        ".cfi_def_cfa_offset",
        ".cfi_offset",
        ".cfi_def_cfa",
        ".cfi_def_cfa_register",
        ".cfi_restore",
        ".cfi_sections",
        ".func",
        ".endfunc",
        ".variant_pcs",
    ]
)
_REFUSED = {
    ".incbin": "is not allowed: a scenario may not read files of the host",
    ".include": "is not allowed: a scenario may not read files of the host",
}
_DATA = {".byte": 1, ".2byte": 2, ".4byte": 4, ".8byte": 8, ".hword": 2, ".short": 2, ".int": 4, ".long": 4, ".quad": 8}


class Architecture(Protocol):
    """What differs between architectures."""

    widths: dict[str, int]
    align_is_power: bool

    def instruction(self, front: Front, statement: Statement) -> Item:
        """One instruction as an item. Raises Wrong."""

    def directive(self, front: Front, statement: Statement) -> bool:
        """Handle a directive of this architecture; whether it was one."""

    def padding(self) -> Callable[[int], bytes]:
        """What makes so many bytes of padding in code here."""

    def finish(self, front: Front) -> None:
        """Called at the end of the program."""


class Front:
    """Reads a program. `items` are in the order of the source; `constants` are symbols set to plain numbers."""

    def __init__(self, source: Source, arch: str, machine: Architecture) -> None:
        self.scope = Scope()
        self.items: list[Item] = []
        self.chunks: dict[str, Chunk] = {}
        self.labels: dict[str, Label] = {}
        self.parser = Parser(self._local)
        self.machine = machine
        self._source = source
        self._arch = arch
        self.constants: set[str] = set()
        self._counts: dict[str, int] = {}
        self._name = ".text"
        self._previous = ".text"
        self._defined: dict[str, int] = {}
        self._set: set[str] = set()
        self._left = MAX_STATEMENTS

    def read(self) -> None:
        """Read all of the source. What is wrong becomes a Broken item."""
        self._statements(Reader(self._source, self._arch).statements, 0)
        self.machine.finish(self)

    @property
    def chunk(self) -> Chunk:
        """The current section, made where it is new."""
        chunk = self.chunks.get(self._name)
        return chunk or self._open(self._name, "", "")

    def add(self, item: Item) -> None:
        """Append an item to the program."""
        self.items.append(item)

    def expression(self, text: str) -> Expression:
        """Compile an expression that stands at the current place. Raises Wrong."""
        return self.parser.parse(text)

    def absolute(self, text: str, what: str) -> int:
        """A value that must be known at once: of numbers and symbols set before. Raises Wrong."""
        expression = self.expression(text)
        for name in expression.names:
            if name not in self.constants:
                raise Wrong(f"{what} must be a number that is known here, not {clip(text)}")
        return expression.value(self.scope.symbols, 0)

    def is_set(self, name: str) -> bool:
        """Whether `name` was given a value by `.set`, `.equ` or `=` before this place."""
        return name in self._set

    def is_defined(self, name: str) -> bool:
        """Whether the program itself defines `name`, at any place."""
        return name in self._defined

    def _statements(self, statements: list[Statement], depth: int) -> None:
        at = 0
        while at < len(statements):
            statement = statements[at]
            at += 1
            self._left -= 1
            if self._left < 0:
                if self._left == -1:
                    message = f"the program has more than {MAX_STATEMENTS} statements"
                    self.add(Broken(statement, self.chunk, message))
                return
            try:
                if statement.word == ".macro":
                    self.add(Broken(statement, self.chunk, ".macro: not yet; write the instructions out, or use .rept"))
                    words = [later.word for later in statements[at:]]
                    at += words.index(".endm") + 1 if ".endm" in words else 0
                elif statement.word == ".rept":
                    at = self._repeat(statements, at, depth)
                else:
                    self._statement(statement)
            except Wrong as wrong:
                self.add(Broken(statement, self.chunk, wrong))

    def _repeat(self, statements: list[Statement], at: int, depth: int) -> int:
        statement = statements[at - 1]
        end, level = at, 1
        while end < len(statements):
            level += {".rept": 1, ".irp": 1, ".endr": -1}.get(statements[end].word, 0)
            if not level:
                break
            end += 1
        if level or depth > 20:
            self.add(Broken(statement, self.chunk, ".rept without its .endr"))
            return end
        try:
            count = self.absolute(statement.rest, "the count of .rept")
        except Wrong as wrong:
            self.add(Broken(statement, self.chunk, str(wrong)))
            return end + 1
        body = statements[at:end]
        if count > 0 and count * len(body) > self._left:
            message = f"the program has more than {MAX_STATEMENTS} statements"
            self.add(Broken(statement, self.chunk, message))
            return end + 1
        for _ in range(count if body else 0):
            self._statements(body, depth + 1)
        return end + 1

    def _statement(self, statement: Statement) -> None:
        if statement.label:
            self._label(statement)
            return
        word = statement.word
        if "=" in statement.text and (assign := _ASSIGN.match(statement.text)):
            name, value = assign.groups()
            if name == ".":
                self.add(Space(statement, self.chunk, self.expression(value), org=True))
            else:
                self._assign(statement, name, value)
        elif word[0] != ".":
            self.add(self.machine.instruction(self, statement))
        elif word in _NOTHING:
            pass
        elif not self._directive(statement, word) and not self.machine.directive(self, statement):
            if word in _REFUSED:
                raise Wrong(f"{word} {_REFUSED[word]}")
            raise Unencoded(f"unknown directive {clip(word)}")

    def _label(self, statement: Statement) -> None:
        name = statement.label
        if name.isdigit():
            key = str(int(name)) if len(name) < 20 else name
            count = self._counts[key] = self._counts.get(key, 0) + 1
            name = f"{key}\x02{count}"
        else:
            self._define(statement, name)
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
        first = self._defined.setdefault(name, statement.line)
        if (first != statement.line or name in self.labels or name in self._set) and not (again and name in self._set):
            raise Wrong(f"symbol {clip(name)} is already defined in line {first}")

    def _assign(self, statement: Statement, name: str, text: str, again: bool = True) -> None:
        value = self.expression(text)
        if name in value.names and name not in self._set:
            raise Wrong(f"symbol {clip(name)} is defined by itself")
        self._define(statement, name, again)
        self._set.add(name)
        item = Assign(statement, self.chunk, name, value)
        # Known at once where it can be, so that later statements see a number rather than a symbol.
        self.scope.weights[name] = min(1, abs(value.weight(self.scope.weights)))
        if value.constant is not None or (value.names and all(n in self.constants for n in value.names)):
            item.measure(self.scope)
            self.constants.add(name)
        self.add(item)

    def _directive(self, statement: Statement, word: str) -> bool:
        width = _DATA.get(word) or self.machine.widths.get(word)
        if width:
            self._numbers(statement, width)
        elif word in (".text", ".data", ".bss", ".rodata"):
            if statement.rest and statement.rest != "0":
                raise Wrong(f"{word} takes no operand; subsections are not supported")
            self._enter(word)
        elif word in (".ascii", ".asciz", ".string"):
            end = b"" if word == ".ascii" else b"\0"
            parts = [string_bytes(part) + end for part in split_operands(statement.rest)]
            self.add(Fixed(statement, self.chunk, b"".join(parts)))
        elif word in (".space", ".zero", ".skip"):
            count, value = self._operands(statement, 1, 2)
            assert count is not None
            self.add(Space(statement, self.chunk, count, value))
        elif word == ".fill":
            self._fill(statement)
        elif word == ".org":
            end_at, value = self._operands(statement, 1, 2)
            assert end_at is not None
            self.add(Space(statement, self.chunk, end_at, value, org=True))
        elif word in (".align", ".balign", ".p2align"):
            self._align(statement, word)
        elif word in (".set", ".equ", ".equiv"):
            name, comma, text = statement.rest.partition(",")
            if not comma or not _NAME.match(name.strip()):
                raise Wrong(f"{word} takes a name and a value: {word} NAME, 5")
            self._assign(statement, name.strip(), text.strip(), word != ".equiv")
        elif word in (".section", ".pushsection"):
            self._section(statement)
        elif word == ".previous":
            self._enter(self._previous)
        else:
            return False
        return True

    def _operands(self, statement: Statement, least: int, most: int) -> list[Expression | None]:
        parts = split_operands(statement.rest)
        if not least <= len(parts) <= most or not parts[0]:
            raise Wrong(f"{statement.word} takes {least} to {most} operands" if least < most else f"{statement.word}")
        found = [self.expression(part) if part else None for part in parts]
        return found + [None] * (most - len(found))

    def _numbers(self, statement: Statement, width: int) -> None:
        values = [self.expression(part) for part in split_operands(statement.rest)]
        self.add(Numbers(statement, self.chunk, width, values))

    def _fill(self, statement: Statement) -> None:
        count, unit, value = self._operands(statement, 1, 3)
        size = 1 if unit is None else self.absolute(unit.text, "the size of .fill")
        if not 0 <= size <= 8:
            raise Wrong(f"the size of .fill is 0 to 8, not {size}")
        assert count is not None
        self.add(Space(statement, self.chunk, count, value, unit=size))

    def _align(self, statement: Statement, word: str) -> None:
        self._operands(statement, 1, 3)
        parts = [*split_operands(statement.rest), "", ""]
        align = self.absolute(parts[0], f"the operand of {word}")
        if word == ".p2align" or (word == ".align" and self.machine.align_is_power):
            if not 0 <= align <= 24:
                raise Wrong(f"{word} takes a power of two from 0 to 24 here, not {align}: {word} 3 aligns to 8 bytes")
            align = 1 << align
        if align == 0:
            align = 1
        if align < 1 or align & (align - 1) or align > MAX_ALIGN:
            raise Wrong(f"{word} takes a power of two in bytes, up to 16 MiB, not {align}")
        most = self.absolute(parts[2], f"the third operand of {word}") if parts[2] else 0
        pad: Callable[[int], bytes] | None = None
        if parts[1]:
            byte = bytes([self.absolute(parts[1], f"the fill of {word}") & 0xFF])
            pad = _repeated(byte)
        elif self.chunk.code:
            pad = self.machine.padding()
        self.add(Align(statement, self.chunk, align, pad, max(0, most)))

    def _section(self, statement: Statement) -> None:
        found = _SECTION.match(statement.rest)
        if not found:
            raise Wrong(f'.section takes a name and flags: .section .name, "aw", not {clip(statement.rest)}')
        name, flags, kind = found.groups()
        self._previous = self._name
        if name not in self.chunks:
            self._open(name, flags or "", kind or "")
        self._name = name

    def _enter(self, name: str) -> None:
        self._previous, self._name = self._name, name
        if name not in self.chunks:
            self._open(name, "", "")

    def _open(self, name: str, flags: str, kind: str) -> Chunk:
        code = name == ".text" or name.startswith((".text.", ".init", ".fini")) or "x" in flags
        nobits = kind == "nobits" or (not kind and (name == ".bss" or name.startswith(".bss.")))
        chunk = self.chunks[name] = Chunk(name, code, nobits)
        return chunk


def _repeated(byte: bytes) -> Callable[[int], bytes]:
    return lambda count: byte * count
