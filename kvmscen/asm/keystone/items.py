"""What statements become: items with a size and bytes, some of which depend on where everything
else is.
"""

from __future__ import annotations

from collections.abc import Callable

from kvmscen.asm.keystone.expressions import Expression, Unknown
from kvmscen.asm.layout import align_up
from kvmscen.asm.source import Statement
from kvmscen.asm.values import Wrong

MAX_SIZE = 16 << 20


class Chunk:
    """A section as it grows: `base` is its address, `size` its size in the last pass.

    One that is not `loaded`, as a comment for the linker, has no place in the guest. `written` are
    its flags and type in the program, None where it is one that as itself knows.
    """

    def __init__(
        self, name: str, code: bool = False, nobits: bool = False, loaded: bool = True
    ) -> None:
        self.name = name
        self.code = code
        self.nobits = nobits
        self.base = 0
        self.size = 0
        self.align = 1
        self.loaded = loaded
        self.written: tuple[str | None, str] | None = None


class Scope:
    """What expressions see: values of symbols; their weights (1 is an address); the sections of
    labels.

    `widen` makes every branch that may grow do so: set where the passes take too long.
    """

    def __init__(self) -> None:
        self.symbols: dict[str, int] = {}
        self.weights: dict[str, int] = {}
        self.homes: dict[str, Chunk] = {}
        self.widen = False


class Item:
    """Something in a section. `offset` is in bytes from the section's start, `shown` whether it is
    a source line.

    `rigid`: its size is known at once. `subsection`: items of one section stand in the order of
    these numbers.
    """

    shown = True
    rigid = False
    subsection = 0

    def __init__(self, statement: Statement, chunk: Chunk) -> None:
        self.statement = statement
        self.chunk = chunk
        self.offset = 0
        self.size = 0

    @property
    def address(self) -> int:
        """The guest physical address in the current pass."""
        return self.chunk.base + self.offset

    def measure(self, scope: Scope) -> int:
        """The size now, which `self.size` keeps. Raises nothing: what is wrong comes up in
        `encode`.
        """
        return self.size

    def encode(self, scope: Scope) -> bytes | None:
        """The bytes, or None for zeros. Raises Wrong or Unknown."""
        raise NotImplementedError


class Label(Item):
    """A label: gives its name the address."""

    shown = False

    def __init__(self, statement: Statement, chunk: Chunk, name: str) -> None:
        super().__init__(statement, chunk)
        self.name = name

    def measure(self, scope: Scope) -> int:
        scope.symbols[self.name] = self.chunk.base + self.offset
        return 0

    def encode(self, scope: Scope) -> bytes | None:
        return None


class Assign(Item):
    """`.set`: gives its name the value of an expression. `changed` is whether the last pass changed
    it.
    """

    shown = False

    def __init__(self, statement: Statement, chunk: Chunk, name: str, value: Expression) -> None:
        super().__init__(statement, chunk)
        self.name = name
        self.value = value
        self.changed = False
        self._last: int | None = None

    def measure(self, scope: Scope) -> int:
        try:
            scope.symbols[self.name] = self.value.value(scope.symbols, self.address)
            scope.weights[self.name] = min(1, abs(self.value.weight(scope.weights)))
        except (Unknown, Wrong):
            scope.symbols.pop(self.name, None)
        now = scope.symbols.get(self.name)
        self.changed = now != self._last
        self._last = now
        return 0

    def encode(self, scope: Scope) -> bytes | None:
        value = self.value.value(scope.symbols, self.address)
        scope.symbols[self.name] = (
            value  # Again in order, since `.set` may give a name several values.
        )
        return None


class Fixed(Item):
    """Bytes that are known."""

    rigid = True

    def __init__(self, statement: Statement, chunk: Chunk, data: bytes) -> None:
        super().__init__(statement, chunk)
        self.data = data
        self.size = len(data)

    def encode(self, scope: Scope) -> bytes | None:
        return self.data


class Numbers(Item):
    """Numbers of one width, little-endian."""

    rigid = True

    def __init__(
        self, statement: Statement, chunk: Chunk, width: int, values: list[Expression]
    ) -> None:
        super().__init__(statement, chunk)
        self.width = width
        self.values = values
        self.size = width * len(values)

    def encode(self, scope: Scope) -> bytes | None:
        dot = self.address
        parts = []
        for index, expression in enumerate(self.values):
            value = expression.value(scope.symbols, dot + index * self.width)
            parts.append(to_bytes(value, self.width, expression.text))
        return b"".join(parts)


def to_bytes(value: int, width: int, text: str = "") -> bytes:
    """`value` in `width` bytes, signed or unsigned. Raises Wrong where it does not fit."""
    bits = 8 * width
    if not -(1 << (bits - 1)) <= value < 1 << bits and width < 8:
        shown = f"{value:#x}" if abs(value) > 9 else str(value)
        name = "" if not text or text == shown or text[:1].isdigit() else f" of {text}"
        least, most = -(1 << (bits - 1)), (1 << bits) - 1
        raise Wrong(
            f"the value {shown}{name} does not fit in {width} byte{'s' * (width > 1)} ({least} to "
            f"{most:#x})"
        )
    return (value & ((1 << bits) - 1)).to_bytes(width, "little")


class Leb128(Item):
    """A number of as many bytes as it takes, seven bits in each."""

    def __init__(self, statement: Statement, chunk: Chunk, value: Expression, signed: bool) -> None:
        super().__init__(statement, chunk)
        self.value, self.signed = value, signed
        self.size = 1

    def measure(self, scope: Scope) -> int:
        try:
            return max(self.size, len(self._bytes(scope)))
        except (Unknown, Wrong):
            return self.size

    def encode(self, scope: Scope) -> bytes | None:
        data = self._bytes(scope)
        # It never shrinks, or it might go back and forth: what is too many has no weight.
        for _ in range(self.size - len(data)):
            fill = 0x7F if data[-1] & 0x40 and self.signed else 0
            data = data[:-1] + bytes([data[-1] | 0x80, fill])
        return data

    def _bytes(self, scope: Scope) -> bytes:
        value = self.value.value(scope.symbols, self.address)
        if not self.signed:
            value &= (1 << 64) - 1
        out = bytearray()
        while True:
            byte = value & 0x7F
            value >>= 7
            if value == (-1 if self.signed and byte & 0x40 else 0):
                return bytes([*out, byte])
            out.append(byte | 0x80)


class Space(Item):
    """`count` times `unit` bytes of a value; `.org` gives the end instead of the count."""

    def __init__(
        self,
        statement: Statement,
        chunk: Chunk,
        count: Expression,
        value: Expression | None = None,
        unit: int = 1,
        org: bool = False,
    ) -> None:
        super().__init__(statement, chunk)
        self.count, self.value, self.unit, self.org = count, value, unit, org
        self.wrong = ""

    def measure(self, scope: Scope) -> int:
        self.wrong = ""
        try:
            count = self.count.value(scope.symbols, self.address)
        except (Unknown, Wrong):
            return 0
        if self.org:
            moves = self.count.weight(scope.weights)
            end = count - self.chunk.base if moves else count
            count = end - self.offset
            if count < 0:
                self.wrong = f".org cannot go back: {end:#x} is before {self.offset:#x}"
        elif count < 0:
            self.wrong = f"the size is negative ({count})"
        if count * self.unit > MAX_SIZE:
            self.wrong = f"{count * self.unit:#x} bytes: a section may have 16 MiB"
        return 0 if self.wrong else count * self.unit

    def encode(self, scope: Scope) -> bytes | None:
        self.count.value(scope.symbols, self.address)
        if self.wrong:
            raise Wrong(self.wrong)
        value = self.value.value(scope.symbols, self.address) if self.value else 0
        if not value or not self.size:
            return None
        piece = (value & ((1 << min(32, 8 * self.unit)) - 1)).to_bytes(self.unit, "little")
        return piece * (self.size // self.unit)


class Align(Item):
    """Padding up to a multiple of `align`, with `fill` or what `pad` gives for a count of bytes."""

    shown = False

    def __init__(
        self,
        statement: Statement,
        chunk: Chunk,
        align: int,
        pad: Callable[[int], bytes] | None,
        most: int = 0,
    ) -> None:
        super().__init__(statement, chunk)
        self.align, self.pad, self.most = align, pad, most
        chunk.align = max(chunk.align, align)

    def measure(self, scope: Scope) -> int:
        count = align_up(self.offset, self.align) - self.offset
        return 0 if self.most and count > self.most else count

    def encode(self, scope: Scope) -> bytes | None:
        return self.pad(self.size) if self.pad and self.size else None


class Broken(Item):
    """A statement that is wrong in a way that was seen at once."""

    shown = False

    def __init__(self, statement: Statement, chunk: Chunk, wrong: Wrong | str) -> None:
        super().__init__(statement, chunk)
        self.wrong = Wrong(wrong) if isinstance(wrong, str) else wrong

    def encode(self, scope: Scope) -> bytes | None:
        raise self.wrong
