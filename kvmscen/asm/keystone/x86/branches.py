"""x86 branches, encoded here: as short as they can be, growing from pass to pass and never
shrinking, as in GNU as.
"""

from __future__ import annotations

from kvmscen.asm.keystone.expressions import Expression, Unknown
from kvmscen.asm.keystone.items import Chunk, Item, Scope
from kvmscen.asm.source import Statement
from kvmscen.asm.values import Wrong, clip

_CONDITIONS = """o:0 no:1 b:2 c:2 nae:2 ae:3 nb:3 nc:3 e:4 z:4 ne:5 nz:5 be:6 na:6 a:7 nbe:7 s:8
ns:9 p:10 pe:10 np:11
po:11 l:12 nge:12 ge:13 nl:13 le:14 ng:14 g:15 nle:15"""
_JCC = {"j" + name: int(code) for name, code in (pair.split(":") for pair in _CONDITIONS.split())}
_SHORT = {"loopne": 0xE0, "loopnz": 0xE0, "loope": 0xE1, "loopz": 0xE1, "loop": 0xE2}
_COUNTER = {"jcxz": 16, "jecxz": 32, "jrcxz": 64}


def is_branch(word: str) -> bool:
    """Whether the operand of `word` may be a branch target."""
    return word in _JCC or word in _SHORT or word in _COUNTER or word in ("jmp", "call", "xbegin")


class Branch(Item):
    """`jmp`, `jcc`, `call`, `loop`, `jcxz`, `xbegin` to a target."""

    def __init__(
        self,
        statement: Statement,
        chunk: Chunk,
        word: str,
        target: Expression,
        mode: int,
        short: bool,
    ) -> None:
        super().__init__(statement, chunk)
        self.word, self.target, self.mode = word, target, mode
        self._prefix = b""
        if word in _COUNTER:
            bits = _COUNTER[word]
            if bits != mode:
                self._prefix = b"\x67"
            if (bits == 64) > (mode == 64) or (bits == 16 and mode == 64):
                raise Wrong(f"{word} does not exist in {mode}-bit code")
        self._only_short = short or word in _SHORT or word in _COUNTER
        if short and word in ("call", "xbegin"):
            raise Wrong(f"{word} has no short form")
        self._wide = word in ("call", "xbegin")
        self.size = self._length()
        self.rigid = self._wide or self._only_short

    def _length(self) -> int:
        if not self._wide:
            return len(self._prefix) + 2
        opcode = 2 if self.word in _JCC or self.word == "xbegin" else 1
        return opcode + (2 if self.mode == 16 else 4)

    def measure(self, scope: Scope) -> int:
        """The size, two bytes until the target is known to be too far away."""
        if not self._wide and not self._only_short:
            self._wide = scope.widen or not self._is_near(scope)
        return self._length()

    def _is_near(self, scope: Scope) -> bool:
        try:
            target = self.target.value(scope.symbols, self.address)
        except (Unknown, Wrong):
            return True
        for name in self.target.names:
            home = scope.homes.get(name)
            if home is not None and home is not self.chunk:
                return False  # GNU as leaves what is in another section to ld, at full width.
        if not self.target.weight(scope.weights):
            return False
        return -128 <= target - (self.address + self._length()) < 128

    def encode(self, scope: Scope) -> bytes | None:
        """The bytes. Raises Unknown, or Wrong where the target is too far away."""
        target = self.target.value(scope.symbols, self.address)
        distance = target - (self.address + self.size)
        if not self._wide:
            if not -128 <= distance < 128:
                message = (
                    f"{clip(self.statement.text)}: the target {target:#x} is {distance:#x} "
                    f"bytes away; it reaches 127"
                )
                raise Wrong(message)
            return (
                self._prefix
                + bytes([self._short_opcode()])
                + (distance & 0xFF).to_bytes(1, "little")
            )
        opcode = {"jmp": b"\xe9", "call": b"\xe8", "xbegin": b"\xc7\xf8"}.get(self.word)
        if opcode is None:
            opcode = bytes([0x0F, 0x80 | _JCC[self.word]])
        width = 2 if self.mode == 16 else 4
        bits = 8 * width
        if self.mode == 64 and not -(1 << 31) <= distance < 1 << 31:
            raise Wrong(
                f"{clip(self.statement.text)}: the target {target:#x} is more than 2 GiB away"
            )
        if (
            self.mode != 64
            and not 0 <= target < 1 << bits
            and not -(1 << (bits - 1)) <= distance < 1 << (bits - 1)
        ):
            raise Wrong(
                f"{clip(self.statement.text)}: the target {target:#x} is out of reach in "
                f"{self.mode}-bit code"
            )
        return opcode + (distance & ((1 << bits) - 1)).to_bytes(width, "little")

    def _short_opcode(self) -> int:
        if self.word in _JCC:
            return 0x70 | _JCC[self.word]
        return 0xE3 if self.word in _COUNTER else _SHORT.get(self.word, 0xEB)


class FarJump(Item):
    """`ljmp 8, target`, which exists in 16- and 32-bit code."""

    def __init__(
        self,
        statement: Statement,
        chunk: Chunk,
        word: str,
        selector: Expression,
        offset: Expression,
        mode: int,
    ) -> None:
        super().__init__(statement, chunk)
        if mode == 64:
            raise Wrong(f"{clip(statement.text)}: there is no direct far {word} in 64-bit code")
        self._opcode = b"\x9a" if word.endswith("call") else b"\xea"
        self._selector, self._offset = selector, offset
        self._width = 2 if mode == 16 else 4
        self.size = 3 + self._width

    def encode(self, scope: Scope) -> bytes | None:
        """The bytes. Raises Unknown, or Wrong where a value does not fit."""
        selector = self._selector.value(scope.symbols, self.address)
        offset = self._offset.value(scope.symbols, self.address)
        if not 0 <= selector < 65536 or not 0 <= offset < 1 << (8 * self._width):
            raise Wrong(
                f"{selector:#x}:{offset:#x} does not fit in a far pointer of 16 and "
                f"{8 * self._width} bits"
            )
        return (
            self._opcode + offset.to_bytes(self._width, "little") + selector.to_bytes(2, "little")
        )
