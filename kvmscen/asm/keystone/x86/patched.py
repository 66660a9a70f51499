"""x86 instructions with numbers that are known only once everything has its place."""

from __future__ import annotations

from kvmscen.asm.keystone.items import Chunk, Item, Scope
from kvmscen.asm.keystone.x86.fixed import put_prefix
from kvmscen.asm.keystone.x86.operands import DISP_MARK, IMM_MARK, WIDE_MARK, Operand
from kvmscen.asm.source import Statement
from kvmscen.asm.values import Wrong, clip


def operand_size(operands: list[Operand]) -> int:
    """The size of the first operand that has one, in bits; 0 where none has."""
    for operand in operands:
        if operand.kind in ("reg", "mem") and operand.size:
            return operand.size
    return 0


def bare(operand: Operand) -> str:
    """What to say of a name that stands alone where it is no branch target."""
    name = clip(operand.text)
    return (
        f"{name} alone is a branch target only: write [{name}] for its contents or offset "
        f"{name} for its address"
    )


class Patched(Item):
    """An encoded instruction in which marks stand where numbers go once the layout is known."""

    rigid = True

    def __init__(
        self,
        statement: Statement,
        chunk: Chunk,
        code: bytes,
        operands: list[Operand],
        word: str,
        mode: int,
    ) -> None:
        super().__init__(statement, chunk)
        self.code = code
        self.size = len(code)
        self.operands, self.word, self.mode = operands, word, mode
        self._bits = operand_size(operands)
        self._fields = [
            (o, *self._find(o)) for o in operands if o.value is not None and o.number is None
        ]

    def add_prefix(self, prefix: int) -> None:
        """Put a prefix before the instruction."""
        self.code = put_prefix(prefix, self.code)
        self.size += 1
        self._fields = [(operand, at + 1, width) for operand, at, width in self._fields]

    def _find(self, operand: Operand) -> tuple[int, int]:
        wide = WIDE_MARK.to_bytes(8, "little")
        if wide in self.code:
            return self.code.index(wide), 8
        mark = (IMM_MARK if operand.kind == "imm" else DISP_MARK).to_bytes(4, "little")
        for width in (4, 2):
            if self.code.count(mark[:width]) == 1:
                return self.code.index(mark[:width]), width
        if operand.kind == "imm" and self.code[-1] == mark[0]:
            return len(self.code) - 1, 1
        raise Wrong(f"a symbol cannot stand here: {clip(self.statement.text)}")

    def encode(self, scope: Scope) -> bytes | None:
        """The bytes. Raises Unknown, or Wrong where a value does not fit."""
        code = bytearray(self.code)
        for operand, at, width in self._fields:
            assert operand.value is not None
            value = operand.value.value(scope.symbols, self.address)
            moves = operand.value.weight(scope.weights)
            if operand.kind == "imm" and operand.bare and moves:
                raise Wrong(bare(operand))
            if operand.base in ("rip", "eip") and moves:
                value -= self.address + self.size
            code[at : at + width] = self._field(operand, value, width)
        return bytes(code)

    def _field(self, operand: Operand, value: int, width: int) -> bytes:
        bits = 8 * width
        is_signed = (
            width == 4 and self.mode == 64 and (operand.kind == "mem" or self._bits in (0, 64))
        )
        most = 1 << (bits - 1 if is_signed else bits)
        if not -(1 << (bits - 1)) <= value < most and width < 8:
            assert operand.value is not None
            what = "distance" if operand.base in ("rip", "eip") else "value"
            raise Wrong(
                f"the {what} {value:#x} of {clip(operand.value.text)} does not fit in {bits} bits: "
                f"{clip(self.statement.text)}"
            )
        return (value & ((1 << bits) - 1)).to_bytes(width, "little")
