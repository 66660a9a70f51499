"""arm64: instructions with a PC-relative field, and the literal pools that some load from."""

from __future__ import annotations

from kvmscen.asm.keystone.expressions import Expression
from kvmscen.asm.keystone.items import Chunk, Item, Scope, to_bytes
from kvmscen.asm.source import Statement
from kvmscen.asm.values import Wrong, clip


class Pool(Item):
    """A literal pool: values of one width, each once."""

    shown = False

    def __init__(self, statement: Statement, chunk: Chunk, width: int) -> None:
        super().__init__(statement, chunk)
        self.width = width
        self._keys: dict[object, int] = {}
        self._values: list[tuple[Expression, int]] = []
        self._wrong = ""

    def enter(self, expression: Expression, statement: Statement) -> int:
        """The number of the entry that holds the expression. Raises Wrong where a number is too
        wide.
        """
        if expression.constant is not None and self.width < 8:
            to_bytes(expression.constant, self.width, expression.text)
        # GNU as keeps -1 and 0xffffffffffffffff apart.
        negative = expression.text.lstrip("( ").startswith("-")
        key = (expression.code, expression.constant, negative and expression.constant is not None)
        if key not in self._keys:
            self._keys[key] = len(self._values)
            self._values.append((expression, statement.line))
            self.size += self.width
        return self._keys[key]

    def encode(self, scope: Scope) -> bytes | None:
        """The values. What is wrong with one is reported at its `ldr`."""
        return b"".join(self.value(scope, entry) for entry in range(len(self._values)))

    def value(self, scope: Scope, entry: int) -> bytes:
        """The bytes of one entry. Raises Unknown or Wrong."""
        value = self._values[entry][0].value(scope.symbols, self.address)
        if self.width == 16:
            return (value & ((1 << 128) - 1)).to_bytes(16, "little")
        return to_bytes(value, self.width, self._values[entry][0].text)


class Relative(Item):
    """An instruction with a PC-relative field of `bits`, in units of four bytes (`adr`: one,
    `adrp`: pages).
    """

    rigid = True

    def __init__(
        self,
        statement: Statement,
        chunk: Chunk,
        base: int,
        target: Expression | None,
        bits: int,
        pool: Pool | None = None,
        entry: int = 0,
    ) -> None:
        super().__init__(statement, chunk)
        self.size = 4
        self.base, self.target, self.bits = base, target, bits
        self.pool, self.entry = pool, entry

    def encode(self, scope: Scope) -> bytes | None:
        """The bytes. Raises Wrong where the target is out of range or not aligned."""
        pc = self.address
        if self.pool:
            self.pool.value(scope, self.entry)
            to = self.pool.address + self.entry * self.pool.width
        else:
            assert self.target is not None
            to = self.target.value(scope.symbols, pc)
            if not self.target.weight(scope.weights) and self.base >> 24 & 0x9F != 0x90:
                to += pc  # A number is a distance, as in GNU as.
        if self.base & 0x1F000000 == 0x10000000:
            return self._adr(pc, to)
        distance = to - pc
        if distance % 4:
            raise Wrong(f"the target {to:#x} is not aligned to 4 bytes ({self._what()} at {pc:#x})")
        limit = 2 << self.bits
        if not -limit <= distance < limit:
            raise Wrong(_range(self._what(), to, pc, limit))
        field = (distance >> 2) & ((1 << self.bits) - 1)
        return (self.base | field << (0 if self.bits == 26 else 5)).to_bytes(4, "little")

    def _adr(self, pc: int, to: int) -> bytes:
        pages = self.base >> 31
        distance = (to >> 12) - (pc >> 12) if pages else to - pc
        if not -(1 << 20) <= distance < 1 << 20:
            raise Wrong(_range(self._what(), to, pc, 1 << 32 if pages else 1 << 20))
        return (self.base | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5).to_bytes(
            4, "little"
        )

    def _what(self) -> str:
        return clip(self.statement.text)


def _range(what: str, to: int, pc: int, limit: int) -> str:
    unit = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
    return (
        f"{what}: the target {to:#x} is {abs(to - pc):#x} bytes away from {pc:#x}; it reaches "
        f"{unit}"
    )
