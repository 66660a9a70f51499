"""Operands of x86 instructions, in Intel and in AT&T syntax, to one form; and that form to text for
the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy
from typing import Any

from kvmscen.asm.keystone.expressions import Expression
from kvmscen.asm.source import split_operands
from kvmscen.asm.values import Wrong, clip

SIZES = {
    "byte": 8,
    "word": 16,
    "dword": 32,
    "fword": 48,
    "qword": 64,
    "tbyte": 80,
    "oword": 128,
    "xmmword": 128,
}
SIZES.update({"ymmword": 256, "zmmword": 512, "mmword": 64})
# Of the words that mean one size, those that Keystone knows.
_WORDS = {bits: name for name, bits in SIZES.items() if name not in ("oword", "mmword")}
_REGISTERS: dict[str, int] = {}
for _index, _name in enumerate(["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"]):
    _REGISTERS.update({_name: 16, "e" + _name: 32, "r" + _name: 64})
for _name in ["al", "cl", "dl", "bl", "ah", "ch", "dh", "bh", "spl", "bpl", "sil", "dil"]:
    _REGISTERS[_name] = 8
for _index in range(8, 16):
    _REGISTERS.update({f"r{_index}": 64, f"r{_index}d": 32, f"r{_index}w": 16, f"r{_index}b": 8})
for _index in range(32):
    _REGISTERS.update({f"xmm{_index}": 128, f"ymm{_index}": 256, f"zmm{_index}": 512})
for _index in range(16):
    _REGISTERS.update({f"cr{_index}": 0, f"dr{_index}": 0, f"db{_index}": 0, f"k{_index % 8}": 0})
for _index in range(8):
    _REGISTERS.update({f"mm{_index}": 0, f"st({_index})": 0})
_REGISTERS.update(dict.fromkeys(("st", "rip", "eip", "riz", "eiz"), 0))
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
_REGISTERS.update(dict.fromkeys(SEGMENTS, 0))
_SIZE = re.compile(
    r"(byte|word|dword|fword|qword|tbyte|oword|[xyz]?mmword)\s+ptr\b\s*", re.IGNORECASE
)
_BARE_SIZE = re.compile(
    r"(byte|word|dword|fword|qword|tbyte|oword|[xyz]?mmword)\s*\[", re.IGNORECASE
)
_SEGMENT = re.compile(r"%?([c-gs]s)\s*:\s*(?!:)", re.IGNORECASE)
_OFFSET = re.compile(r"offset\s+(?:flat\s*:\s*)?", re.IGNORECASE)
_DISTANCE = re.compile(r"(far|near)\s+ptr\s+|(short)\s+(?=[\w.$])", re.IGNORECASE)
_SCALED = re.compile(r"(?:(\w+)\s*\*\s*(\d+)|(\d+)\s*\*\s*(\w+))\Z", re.ASCII)
_ATT_MEMORY = re.compile(r"(.*?)\(\s*(%\w+)?\s*(?:,\s*(%\w+)?\s*(?:,\s*(\d+))?)?\s*\)\Z", re.DOTALL)

DISP_MARK, IMM_MARK = 0x71625344, 0x7A6B5C4D
WIDE_MARK = 0x7A6B5C4D3E2F1A0B


class Operand:
    """One operand: a register, a memory operand or an immediate.

    `size` in bits, 0 where it does not say. `value` is the immediate or the displacement; `number`
    its value where it is a plain number, None where it stays open until the layout is known.
    """

    def __init__(  # noqa: PLR0913 by name
        self,
        kind: str,
        size: int = 0,
        register: str = "",
        *,
        segment: str = "",
        value: Expression | None = None,
        number: int | None = None,
        distance: str = "",
        indirect: bool = False,
        text: str = "",
    ) -> None:
        self.kind = kind
        self.size = size
        self.register = register
        self.segment = segment
        self.base = ""
        self.index = ""
        self.scale = 1
        self.value = value
        self.number = number
        self.bare = False
        self.distance = distance
        self.indirect = indirect
        self.text = text
        self.extra: tuple[str, ...] = ()

    def but(self, **changed: Any) -> Operand:
        """A copy with some members replaced."""
        other = copy(self)
        vars(other).update(changed)
        return other

    def address_bits(self, mode: int) -> int:
        """16, 32 or 64: the width of the address."""
        register = self.base or self.index
        if register in ("rip", "riz"):
            return 64
        return _REGISTERS.get(register, 0) or (32 if register in ("eip", "eiz") else mode)


def register_size(name: str) -> int | None:
    """The size of a register in bits, 0 for special ones, None where there is no such register."""
    return _REGISTERS.get(name)


class Operands:
    """Parses operands. `resolve` compiles an expression and gives its number where that is
    known.
    """

    def __init__(self, resolve: Callable[[str], tuple[Expression, int | None]]) -> None:
        self._resolve = resolve

    def intel(self, text: str) -> Operand:
        """One operand in Intel syntax. Raises Wrong."""
        whole = text
        lower = text.lower()
        size = _REGISTERS.get(lower)
        if size is not None:
            return Operand("reg", size, lower, text=whole)
        bits, distance = 0, ""
        if match := _DISTANCE.match(text):
            distance = (match.group(1) or match.group(2)).lower()
            text = text[match.end() :]
        if match := _SIZE.match(text):
            bits = SIZES[match.group(1).lower()]
            text = text[match.end() :]
        elif match := _BARE_SIZE.match(text):
            name = match.group(1).lower()
            raise Wrong(
                f"write {name} ptr {clip(text[match.end() - 1 :])}: the size needs the word ptr"
            )
        segment = ""
        if (match := _SEGMENT.match(text)) and match.group(1).lower() in SEGMENTS:
            segment = match.group(1).lower()
            text = text[match.end() :]
        if match := _OFFSET.match(text):
            return self._immediate(text[match.end() :], bits, whole, distance)
        if "[" in text:
            return self._memory(text, bits, segment, whole, distance)
        if segment:
            operand = Operand("mem", bits, segment=segment, text=whole)
            operand.value, operand.number = self._resolve(text)
            return operand
        operand = self._immediate(text, bits, whole, distance)
        operand.bare = True
        return operand

    def att(self, text: str, branch: bool = False) -> Operand:
        """One operand in AT&T syntax; a bare expression is memory, or the target of a `branch`.
        Raises Wrong.
        """
        whole = text
        indirect = text.startswith("*")
        text = text[1:].strip() if indirect else text
        if text.startswith("$"):
            return self._immediate(text[1:].strip(), 0, whole, "")
        lower = text.lower().replace(" ", "")
        if lower.startswith("%") and lower[1:] in _REGISTERS:
            return Operand("reg", _REGISTERS[lower[1:]], lower[1:], text=whole, indirect=indirect)
        if branch and not indirect:
            operand = self._immediate(text, 0, whole, "")
            operand.bare = True
            return operand
        operand = Operand("mem", text=whole, indirect=indirect)
        if (match := _SEGMENT.match(text)) and text.startswith("%"):
            operand.segment = match.group(1).lower()
            text = text[match.end() :]
        shape = _ATT_MEMORY.match(text)
        if shape and (shape.group(2) or shape.group(3)):
            text = shape.group(1).strip()
            operand.base = (shape.group(2) or "%")[1:].lower()
            operand.index = (shape.group(3) or "%")[1:].lower()
            operand.scale = _scale(shape.group(4) or "1")
            if operand.index in ("rsp", "esp", "rip", "eip"):
                raise Wrong(f"%{operand.index} cannot be an index: {clip(whole)}")
            for register in (operand.base, operand.index):
                if register and register not in _REGISTERS:
                    raise Wrong(f"there is no register %{clip(register)}")
        if text:
            operand.value, operand.number = self._resolve(text)
        elif not (operand.base or operand.index):
            raise Wrong("an operand is missing")
        return operand

    def _immediate(self, text: str, bits: int, whole: str, distance: str) -> Operand:
        value, number = self._resolve(text)
        return Operand("imm", bits, value=value, number=number, distance=distance, text=whole)

    def _memory(self, text: str, bits: int, segment: str, whole: str, distance: str) -> Operand:
        start, end = text.index("["), text.rfind("]")
        if end < start or text[end + 1 :].strip() or "[" in text[start + 1 :]:
            raise Wrong(f"{clip(whole)} is not an operand")
        inside = text[start + 1 : end].strip()
        if (match := _SEGMENT.match(inside)) and match.group(1).lower() in SEGMENTS:
            segment = match.group(1).lower()
            inside = inside[match.end() :]
        operand = Operand("mem", bits, segment=segment, text=whole, distance=distance)
        rest = [f"({text[:start]})"] if text[:start].strip() else []
        for sign, term in _terms(inside):
            if not self._register_term(operand, sign, term):
                rest.append(sign + term)
        if operand.index in ("rsp", "esp") and operand.scale == 1:
            operand.base, operand.index = operand.index, operand.base
        if operand.index in ("rsp", "esp", "rip", "eip"):
            raise Wrong(f"{operand.index} cannot be an index: {clip(whole)}")
        if rest:
            operand.value, operand.number = self._resolve("".join(rest).removeprefix("+"))
        elif not (operand.base or operand.index):
            raise Wrong("there is nothing between the brackets")
        return operand

    def _register_term(self, operand: Operand, sign: str, term: str) -> bool:
        lower = term.lower()
        scaled = _SCALED.match(lower)
        name, scale = lower, 0
        if scaled:
            name = scaled.group(1) or scaled.group(4)
            if name not in _REGISTERS:
                return False
            scale = _scale(scaled.group(2) or scaled.group(3))
        if name not in _REGISTERS:
            return False
        if sign == "-":
            raise Wrong(f"a register cannot be subtracted: {clip(operand.text)}")
        if not scale and not operand.base:
            operand.base = name
        elif not operand.index:
            operand.index, operand.scale = name, scale or 1
        elif not operand.base and scale == 1:
            operand.base = name
        else:
            raise Wrong(f"too many registers in {clip(operand.text)}")
        return True


def _scale(text: str) -> int:
    if text not in ("1", "2", "4", "8"):
        raise Wrong(f"the scale is 1, 2, 4 or 8, not {clip(text)}")
    return int(text)


def _terms(text: str) -> list[tuple[str, str]]:
    """The terms of a sum, with their signs: cut at the + and - outside brackets that follow a
    term.
    """
    terms: list[tuple[str, str]] = []
    depth = start = 0
    sign = "+"
    for at, char in enumerate(text):
        if char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif (
            char in "+-"
            and not depth
            and text[start:at].strip()
            and text[start:at].rstrip()[-1] not in "*/%&|^~!<>+-'"
        ):
            terms.append((sign, text[start:at].strip()))
            sign, start = char, at + 1
    if not text[start:].strip():
        raise Wrong(f"an operand is missing in [{clip(text)}]")
    terms.append((sign, text[start:].strip()))
    return terms


def show_number(value: int) -> str:
    """A number as both of Keystone's syntaxes read it."""
    return str(value) if abs(value) < 10 else f"{value:#x}"


def to_intel(operand: Operand, mode: int, imm_mark: int, sized: bool = True) -> str:
    """The operand as Keystone's Intel syntax wants it, with a mark in place of what is open."""
    if operand.kind == "reg":
        return operand.register
    if operand.kind == "imm":
        return show_number(imm_mark if operand.number is None else operand.number)
    terms = [operand.base] if operand.base else []
    if operand.index:
        terms.append(f"{operand.index}*{operand.scale}")
    displacement = _displacement(operand, mode, imm_mark)
    if not terms and mode == 64 and imm_mark != WIDE_MARK:
        terms.append("riz*1")  # GNU's absolute form; without it Keystone makes it relative to rip.
    if displacement is not None:
        terms.append(show_number(displacement))
    size = _WORDS.get(operand.size, "") if sized else ""
    return (
        f"{size} ptr " * bool(size)
        + f"{operand.segment}:" * bool(operand.segment)
        + f"[{' + '.join(terms)}]"
    )


def to_att(operand: Operand, mode: int, imm_mark: int) -> str:
    """The operand as Keystone's AT&T syntax wants it."""
    star = "*" * operand.indirect
    if operand.kind == "reg":
        return f"{star}%{operand.register}"
    if operand.kind == "imm":
        return "$" + show_number(imm_mark if operand.number is None else operand.number)
    displacement = _displacement(operand, mode, imm_mark)
    text = star + f"%{operand.segment}:" * bool(operand.segment)
    text += "" if displacement is None else show_number(displacement)
    if operand.base or operand.index:
        index = f",%{operand.index},{operand.scale}" if operand.index else ""
        return f"{text}({'%' * bool(operand.base)}{operand.base}{index})"
    return text + "(,%riz,1)" * (mode == 64 and imm_mark != WIDE_MARK)


def _displacement(operand: Operand, mode: int, mark: int) -> int | None:
    if operand.value is None:
        return None
    bits = operand.address_bits(mode)
    if mark == WIDE_MARK and not (operand.base or operand.index):
        return mark if operand.number is None else operand.number
    if operand.number is None:
        return DISP_MARK if bits > 16 else DISP_MARK & 0xFFFF
    value = operand.number
    most = 1 << (31 if bits == 64 else bits)
    if not -(1 << (min(bits, 32) - 1)) <= value < most and not -(1 << 63) <= value < 0 and bits:
        raise Wrong(
            f"the displacement {value:#x} does not fit in {min(bits, 32)} bits: "
            f"{clip(operand.text)}"
        )
    if bits == 32 and value >= 1 << 31:
        value -= 1 << 32
    if value == 0 and (operand.base or operand.index) and operand.base not in ("rip", "eip"):
        return None if operand.base else 0
    return value


def split(text: str) -> list[str]:
    """The operands of an instruction."""
    return split_operands(text)
