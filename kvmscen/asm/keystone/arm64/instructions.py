"""arm64: operands to numbers for the encoder; PC-relative instructions and literal pools are done
here.

GNU as never turns `ldr x0, =5` into a `mov`: every such value stands in the literal pool, and so it
is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from kvmscen.asm.keystone import encoder
from kvmscen.asm.keystone.arm64.aliases import Aliases
from kvmscen.asm.keystone.arm64.extra import extra
from kvmscen.asm.keystone.arm64.relative import Pool, Relative
from kvmscen.asm.keystone.expressions import Expression
from kvmscen.asm.keystone.items import Align, Chunk, Fixed, Item, Numbers, Scope
from kvmscen.asm.keystone.state import Front
from kvmscen.asm.source import Statement, split_operands
from kvmscen.asm.taken_names import taken
from kvmscen.asm.values import Unencoded, Unexplained, Wrong, clip

_CONDITION_NAMES = "eq ne cs cc mi pl vs vc hi ls ge lt gt le al nv hs lo"
_CONDITIONS = dict(zip(_CONDITION_NAMES.split(), [*range(16), 2, 3], strict=True))
_REGISTER = re.compile(r"([wx])(\d{1,2}|zr)\Z|(lr|fp)\Z")
_ANY_REGISTER = re.compile(
    r"(?:[wxbhsdqvzp]\d{1,2}|[wx]zr|w?sp|lr|fp)(?:\.\w+)?\Z|v\d+\.\w+\[\d+\]\Z", re.IGNORECASE
)
_FLOAT = re.compile(r"#?\s*[-+]?\d+\.\d+(?:[eE][-+]?\d+)?\Z|#?\s*[-+]?\d+[eE][-+]?\d+\Z", re.ASCII)
_NUMBER = re.compile(r"#?-?(?:0|[1-9]\d*|0x[0-9a-f]+)\Z", re.ASCII)
_EXTEND = re.compile(
    r"(lsl|lsr|asr|ror|msl|[us]xt[bhwx])\s+(#?)\s*(.+)\Z", re.IGNORECASE | re.DOTALL
)
_PLAIN = re.compile(r"[\w.]+\Z", re.ASCII)
_LITERAL = {"w": (0x18, 4), "x": (0x58, 8), "s": (0x1C, 4), "d": (0x5C, 8), "q": (0x9C, 16)}
_PREFETCH = {"pld": 0, "pli": 8, "pst": 16, "l1": 0, "l2": 2, "l3": 4, "keep": 0, "strm": 1}
_NOP = bytes.fromhex("1f2003d5")
_LO12_SHIFT = {"b": 0, "h": 1, "w": 2, "x": 3, "s": 2, "d": 3, "q": 4}


class Arm64:
    """The arm64 half of the front end."""

    align_is_power = True
    widths = {".word": 4, ".xword": 8, ".dword": 8}

    def __init__(self) -> None:
        # By section, subsection and width.
        self._pools: dict[tuple[str, int, int], Pool] = {}
        self._aliases = Aliases()

    def taken(self, name: str) -> str | None:
        """Why no symbol can have this name: for GNU as it is a register, for Keystone it is none,
        or the other way round.
        """
        return taken(name, "arm64")

    def instruction(self, front: Front, statement: Statement) -> Item:
        """One instruction as an item; in a code section, behind data, it is aligned first as GNU as
        does.
        """
        chunk = front.chunk
        if self._aliases.define(statement.text):
            return Fixed(statement, chunk, b"")
        if chunk.code and front.items and not isinstance(front.items[-1], Instruction | Relative):
            front.add(Align(statement, chunk, 4, None))
        chunk.align = max(chunk.align, 4)
        word = statement.word
        operands = split_operands(self._aliases.resolve(statement.rest))
        if (
            word.startswith("b.")
            or word in _BRANCHES
            or (word[0] == "b" and word[1:] in _CONDITIONS and word != "bal")
        ):
            return _branch(front, statement, word, operands)
        if word in ("adr", "adrp"):
            return _address(front, statement, word, operands)
        if (
            word in ("ldr", "ldrsw", "prfm")
            and len(operands) == 2
            and operands[1][:1] not in ("[", "=")
        ):
            return _literal(front, statement, word, operands)
        if word in ("ldr", "ldrsw") and len(operands) == 2 and operands[1][:1] == "=":
            return self._pool_load(front, statement, word, operands)
        if word == "mov" and operands and operands[0][:1] in ("w", "W"):
            # Keystone cuts what is too wide for wN without a word.
            return Instruction(
                statement, chunk, word, [operands[0].lower(), *map(_keep(front), operands[1:])]
            )
        return Instruction(statement, chunk, word, _operands(front, operands))

    def directive(self, front: Front, statement: Statement) -> bool:
        """`.ltorg`, `.pool`, `.inst`, `.unreq`, and what chooses instructions, of which all are
        known here.
        """
        if statement.word in (".ltorg", ".pool"):
            if statement.rest:
                raise Wrong(f"{statement.word} takes no operand")
            self._flush(front, front.chunk.name, front.subsection)
        elif statement.word == ".unreq":
            self._aliases.forget(statement.rest)
        elif statement.word == ".inst":
            values = [front.expression(part) for part in split_operands(statement.rest)]
            front.add(Align(statement, front.chunk, 4, None))
            front.add(Numbers(statement, front.chunk, 4, values))
        elif statement.word == ".even":
            front.add(Align(statement, front.chunk, 2, None))
        else:
            return statement.word in (
                ".arch",
                ".cpu",
                ".arch_extension",
                ".variant_pcs",
                ".tlsdescadd",
                ".tlsdesccall",
            )
        return True

    def padding(self) -> Callable[[int], bytes]:
        """`nop`, behind zeros up to a multiple of four."""
        return lambda count: bytes(count % 4) + _NOP * (count // 4)

    def finish(self, front: Front) -> None:
        """Place the pools that are left at the end of their sections."""
        for section, subsection in dict.fromkeys(key[:2] for key in self._pools):
            front.enter(section, subsection)
            self._flush(front, section, subsection)

    def _flush(self, front: Front, section: str, subsection: int) -> None:
        for width in (4, 8, 16):
            pool = self._pools.pop((section, subsection, width), None)
            if pool:
                chunk = pool.chunk
                front.add(Align(pool.statement, chunk, width, None))
                front.add(pool)

    def _pool_load(
        self, front: Front, statement: Statement, word: str, operands: list[str]
    ) -> Item:
        kind = "x" if word == "ldrsw" else _register(operands[0], "wxsdq")[0]
        width = 4 if word == "ldrsw" else _LITERAL[kind][1]
        expression = front.expression(operands[1][1:].strip())
        place = (front.chunk.name, front.subsection, width)
        pool = self._pools.get(place)
        if not pool:
            pool = self._pools[place] = Pool(statement, front.chunk, width)
        entry = pool.enter(expression, statement)
        opcode = 0x98 if word == "ldrsw" else _LITERAL[kind][0]
        base = opcode << 24 | _register(operands[0], "wxsdq")[1]
        return Relative(statement, front.chunk, base, None, 19, pool=pool, entry=entry)


# Each operand is text that stays, or a prefix, an expression and a kind: "#" a number, "lo12" the
# low 12 bits.
_Operand = str | tuple[str, Expression, str, str]


class Instruction(Item):
    """An instruction that the encoder encodes, its expressions replaced by numbers."""

    rigid = True

    def __init__(
        self, statement: Statement, chunk: Chunk, word: str, operands: list[_Operand]
    ) -> None:
        super().__init__(statement, chunk)
        self.size = 4
        self.word, self.operands = word, operands

    def encode(self, scope: Scope) -> bytes | None:
        """The bytes. Raises Wrong or Unknown."""
        parts = []
        names: list[str] = []
        for operand in self.operands:
            if isinstance(operand, str):
                parts.append(operand)
                continue
            before, expression, kind, after = operand
            value = expression.value(scope.symbols, self.address)
            names += expression.names
            if kind == "lo12":
                value &= 0xFFF
            elif (
                self.word == "mov"
                and parts
                and parts[0][0] == "w"
                and not -(1 << 31) <= value < 1 << 32
            ):
                raise Wrong(f"the value {value:#x} does not fit in {parts[0]}")
            parts.append(
                f"{before}#{value}{after}" if abs(value) < 10 else f"{before}#{value:#x}{after}"
            )
        text = self.word + " " + ", ".join(parts) if parts else self.word
        data = extra(self.word, parts) or encoder.encode("arm64", text)
        if data is None:
            raise self._complaint(names, scope)
        return data

    def _complaint(self, names: list[str], scope: Scope) -> Wrong:
        message = f"this does not assemble: {clip(self.statement.text)}"
        for name in names:
            if scope.weights.get(name):
                value = scope.symbols.get(name, 0)
                return Wrong(
                    f"{message}; {clip(name)} is {value:#x}, which may not fit: write ldr xN, "
                    f"={clip(name)}"
                )
        return Unexplained(message)


_BRANCHES = {"b": 26, "bl": 26, "cbz": 19, "cbnz": 19, "tbz": 14, "tbnz": 14}


def _branch(front: Front, statement: Statement, word: str, operands: list[str]) -> Item:
    bits = _BRANCHES.get(word, 19)
    wanted = {19: 2 if word in _BRANCHES else 1, 26: 1, 14: 3}[bits]
    if len(operands) != wanted:
        raise Wrong(f"{word} takes {wanted} operand{'s' * (wanted > 1)}: {clip(statement.text)}")
    base = {"b": 0x14000000, "bl": 0x94000000}.get(word, 0)
    if bits == 14:
        kind, number = _register(operands[0], "wx")
        bit = front.absolute(operands[1].lstrip("#"), "the bit")
        if not 0 <= bit < (64 if kind == "x" else 32):
            raise Wrong(f"{word}: there is no bit {bit} in {operands[0]}")
        base = 0x36000000 | (word == "tbnz") << 24 | (bit >> 5) << 31 | (bit & 31) << 19 | number
    elif word in ("cbz", "cbnz"):
        kind, number = _register(operands[0], "wx")
        base = 0x34000000 | (word == "cbnz") << 24 | (kind == "x") << 31 | number
    elif bits == 19:
        condition = _CONDITIONS.get(word.removeprefix("b.") if word[1] == "." else word[1:])
        if condition is None:
            raise Wrong(f"{word}: there is no such condition")
        base = 0x54000000 | condition
    return Relative(statement, front.chunk, base, front.expression(_target(operands[-1])), bits)


def _target(text: str) -> str:
    return text[1:].strip() if text.startswith("#") else text


def _address(front: Front, statement: Statement, word: str, operands: list[str]) -> Item:
    if len(operands) != 2:
        raise Wrong(f"{word} takes a register and a label: {clip(statement.text)}")
    base = 0x10000000 | (word == "adrp") << 31 | _register(operands[0], "x")[1]
    target = _target(operands[1]).removeprefix(":pg_hi21:")
    return Relative(statement, front.chunk, base, front.expression(target), 21)


def _literal(front: Front, statement: Statement, word: str, operands: list[str]) -> Item:
    if word == "prfm":
        base = 0xD8000000 | _prefetch(front, operands[0])
    else:
        kind, number = _register(operands[0], "x" if word == "ldrsw" else "wxsdq")
        base = (0x98 if word == "ldrsw" else _LITERAL[kind][0]) << 24 | number
    return Relative(statement, front.chunk, base, front.expression(_target(operands[1])), 19)


def _prefetch(front: Front, text: str) -> int:
    name = re.fullmatch(r"(pld|pli|pst)(l[123])(keep|strm)", text.lower())
    if name:
        return sum(_PREFETCH[part] for part in name.groups())
    value = front.absolute(_target(text), "the prefetch operation")
    if not 0 <= value < 32:
        raise Wrong(f"the prefetch operation is 0 to 31, not {value}")
    return value


def _register(text: str, kinds: str) -> tuple[str, int]:
    found = re.fullmatch(r"([wxsdq])(\d{1,2}|zr)|(lr|fp)", text.lower(), re.ASCII)
    if found:
        kind, number = found.group(1) or "x", found.group(2) or found.group(3)
        value = {"zr": 31, "lr": 30, "fp": 29}.get(number)
        if value is not None and (kind in "wx"):
            pass
        elif number.isdigit():
            value = int(number)
        if (
            value is not None
            and kind in kinds
            and (value < 31 or not number.isdigit() or (kind in "sdq" and value < 32))
        ):
            return kind, value
    raise Wrong(
        f"a register {' or '.join(kind + 'N' for kind in kinds)} is needed here, not {clip(text)}"
    )


def _keep(front: Front) -> Callable[[str], _Operand]:
    """A reader of operands that keeps an immediate open until its value is checked."""

    def keep(text: str) -> _Operand:
        if text.startswith(("#", "-")) or text[:1].isdigit():
            return ("", front.expression(_target(text)), "#", "")
        return _operand(front, text)

    return keep


def _operands(front: Front, operands: list[str]) -> list[_Operand]:
    return [_operand(front, operand) for operand in operands]


def _operand(front: Front, text: str) -> _Operand:
    if _ANY_REGISTER.match(text) or _NUMBER.match(text):
        return text.lower()
    if not text:
        raise Wrong("an operand is missing")
    first = text[0]
    if first == "#" or (first == ":" and text.lower().startswith(":lo12:")):
        return text if _FLOAT.match(text) else _immediate(front, "", text, "")
    if first == "[":
        return _memory(front, text)
    if first == "{":
        return text.lower()
    extend = _EXTEND.match(text)
    if extend:
        return _immediate(front, extend.group(1).lower() + " ", extend.group(3), "")
    if _PLAIN.match(text) and not text[0].isdigit() and not front.is_set(text):
        return text.lower()
    return text if _FLOAT.match(text) else _immediate(front, "", text, "")


def _immediate(front: Front, before: str, text: str, after: str) -> _Operand:
    body = _target(text)
    kind = "#"
    if body.lower().startswith(":lo12:"):
        body, kind = body[6:], "lo12"
    elif body.startswith(":"):
        raise Unencoded(f"{clip(body)}: of the relocation operators only :lo12: is known")
    expression = front.expression(body)
    if expression.constant is not None and kind == "#":
        value = expression.constant
        return f"{before}#{value}{after}" if abs(value) < 10 else f"{before}#{value:#x}{after}"
    return (before, expression, kind, after)


def _memory(front: Front, text: str) -> _Operand:
    end = text.rfind("]")
    if end < 0:
        raise Wrong(f"a ] is missing: {clip(text)}")
    after = text[end + 1 :].strip()
    if after not in ("", "!"):
        raise Wrong(f"unexpected {clip(after)} behind ]")
    parts = split_operands(text[1:end])
    if not parts:
        raise Wrong("there is nothing between the brackets")
    if len(parts) == 1 or (len(parts) == 2 and _ANY_REGISTER.match(parts[1])):
        return f"[{', '.join(parts).lower()}]{after}"
    last = _operand(front, parts[-1])
    before = "[" + ", ".join(parts[:-1]).lower() + ", "
    if isinstance(last, str):
        return f"{before}{last}]{after}"
    return (before + last[0], last[1], last[2], f"{last[3]}]{after}")
