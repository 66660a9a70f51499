"""GNU as integer expressions, compiled to postfix code once and evaluated in every pass.

Values are 64 bits wide and wrap as in GNU as; so do its ranks: `* / % << >>` bind tighter than `| &
^`, these tighter than `+ -`. There is no recursion but for brackets and prefix operators, whose
depth is limited.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from kvmscen.asm.source import char_value
from kvmscen.asm.values import Wrong, clip

MAX_DEPTH = 40
MAX_TOKENS = 2000
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d\w*)|(?P<char>'(?:\\.|[^\\])'?)|(?P<name>[A-Za-z_.$][\w.$]*)"
    r"|(?P<op><<|>>|<=|>=|==|!=|!!|<>|&&|\|\||[-+*/%&|^~!()<>]))",
    re.ASCII,
)
_SIMPLE = re.compile(r"-?(?:0|[1-9]\d{0,17}|0[xX][0-9a-fA-F]{1,15})\Z", re.ASCII)
_RANK = {
    "*": 9,
    "/": 9,
    "%": 9,
    "<<": 9,
    ">>": 9,
    "|": 7,
    "&": 7,
    "^": 7,
    "!": 7,
    "!!": 7,
    "+": 5,
    "-": 5,
}
_RANK.update({"==": 4, "<>": 4, "!=": 4, "<": 4, "<=": 4, ">=": 4, ">": 4, "&&": 3, "||": 2})
_MASK = (1 << 64) - 1


class Unknown(Exception):
    """A symbol has no value (yet)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Expression(NamedTuple):
    """Postfix `code` of ("n", value), ("s", symbol), (".",), ("-u",) and binary operators.

    `constant` is the value where no symbol is in it. `names` are its symbols, local labels under
    their inner names.
    """

    text: str
    code: tuple[tuple[str, int | str], ...]
    names: tuple[str, ...]
    constant: int | None = None

    def value(self, symbols: Mapping[str, int], dot: int) -> int:
        """The value, signed, with `dot` for `.`. Raises Unknown or Wrong."""
        if self.constant is not None:
            return self.constant
        return _run(self.code, symbols, dot)

    def weight(self, weights: Mapping[str, int]) -> int:
        """0 where the value does not move with the program, 1 for an address. An unknown symbol is
        an address.
        """
        if self.constant is not None:
            return 0
        stack: list[int] = []
        for kind, operand in self.code:
            if kind == "n":
                stack.append(0)
            elif kind == "s":
                stack.append(1 if operand == "." else weights.get(str(operand), 1))
            elif kind.endswith("u"):
                stack[-1] = -stack[-1] if kind == "-u" else 0
            else:
                right = stack.pop()
                left = stack.pop()
                stack.append(left + right if kind == "+" else left - right if kind == "-" else 0)
        return stack[0]


def signed(value: int) -> int:
    """`value` wrapped to 64 bits, signed."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(left: int, right: int) -> int:
    return 0 if not 0 <= right < 64 else left << right


def _divide(left: int, right: int) -> int:
    if right == 0:
        raise Wrong("division by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


_BINARY: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": lambda a, b: a - b * _divide(a, b),
    "<<": _shift,
    ">>": lambda a, b: 0 if not 0 <= b < 64 else (a & _MASK) >> b,
    "|": lambda a, b: a | b,
    "&": lambda a, b: a & b,
    "^": lambda a, b: a ^ b,
    "!!": lambda a, b: a ^ b,
    "!": lambda a, b: a | ~b,
    "==": lambda a, b: -(a == b),
    "<>": lambda a, b: -(a != b),
    "!=": lambda a, b: -(a != b),
    "<": lambda a, b: -(a < b),
    "<=": lambda a, b: -(a <= b),
    ">=": lambda a, b: -(a >= b),
    ">": lambda a, b: -(a > b),
    "&&": lambda a, b: int(bool(a and b)),
    "||": lambda a, b: int(bool(a or b)),
}


def _run(code: tuple[tuple[str, int | str], ...], symbols: Mapping[str, int], dot: int) -> int:
    stack: list[int] = []
    for kind, operand in code:
        if kind == "n":
            stack.append(int(operand))
        elif kind == "s":
            if operand == ".":
                stack.append(signed(dot))
                continue
            value = symbols.get(str(operand))
            if value is None:
                raise Unknown(str(operand))
            stack.append(signed(value))
        elif kind == "-u":
            stack[-1] = signed(-stack[-1])
        elif kind == "~u":
            stack[-1] = ~stack[-1]
        elif kind == "!u":
            stack[-1] = int(not stack[-1])
        else:
            right = stack.pop()
            stack[-1] = signed(_BINARY[kind](stack[-1], right))
    return stack[0]


def number(text: str) -> int:
    """The value of a number as GNU as writes them."""
    lowered = text.lower()
    try:
        if lowered.startswith("0x"):
            value = int(lowered[2:], 16)
        elif lowered.startswith("0b"):
            value = int(lowered[2:], 2)
        elif lowered.startswith("0") and len(lowered) > 1:
            value = int(lowered, 8) if len(lowered) < 40 else 1 << 64
        else:
            value = int(lowered) if len(lowered) < 40 else 1 << 64
    except ValueError:
        hint = f"; write 0x{lowered[:-1]}" if re.fullmatch(r"[0-9a-f]+h", lowered) else ""
        raise Wrong(f"{clip(text)} is not a number{hint}") from None
    if value > _MASK or "_" in text:
        raise Wrong(f"{clip(text)} does not fit in 64 bits")
    return value


class Parser:
    """Compiles expressions. `local` turns `1b` and `1f` into the inner name of the label that is
    meant.
    """

    def __init__(self, local: Callable[[str], str]) -> None:
        self._local = local

    def parse(self, text: str) -> Expression:
        """Compile all of `text`. Raises Wrong."""
        if _SIMPLE.match(text):
            return Expression(text, (), (), int(text, 0))
        tokens = self._tokens(text)
        self._text = text
        self._left = tokens[::-1]
        self._code: list[tuple[str, int | str]] = []
        self._names: list[str] = []
        self._expression(0, 0)
        if self._left:
            raise Wrong(f"unexpected {self._left[-1][1]!r} in the expression {clip(text)}")
        code = tuple(self._code)
        if self._names or ("s", ".") in code:
            return Expression(text, code, tuple(self._names))
        return Expression(text, code, (), _run(code, {}, 0))

    def _tokens(self, text: str) -> list[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if not match:
                raise Wrong(f"{clip(text)} is not an expression")
            if len(tokens) >= MAX_TOKENS:
                raise Wrong("the expression is too long")
            kind = match.lastgroup or ""
            tokens.append((kind, match.group(kind)))
            at = match.end()
        if not tokens:
            raise Wrong("an expression is missing")
        return tokens

    def _expression(self, rank: int, depth: int) -> None:
        self._primary(depth)
        while self._left and self._left[-1][0] == "op":
            op = self._left[-1][1]
            mine = _RANK.get(op, -1)
            if mine <= rank:
                return
            self._left.pop()
            self._expression(mine, depth + 1)
            self._code.append((op, 0))

    def _primary(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Wrong("the expression is nested too deep")
        if not self._left:
            raise Wrong(f"the expression {clip(self._text)} ends too early")
        kind, token = self._left.pop()
        if kind == "number":
            if token[:-1].isdigit() and token[-1] in "bf":
                self._symbol(self._local(token))
            else:
                self._code.append(("n", signed(number(token))))
        elif kind == "char":
            self._code.append(("n", char_value(token)))
        elif kind == "name":
            self._symbol(token)
        elif token == "(":
            self._expression(0, depth + 1)
            if not self._left or self._left.pop()[1] != ")":
                raise Wrong(f"a ) is missing in {clip(self._text)}")
        elif token in ("-", "~", "!", "+", "!!"):
            self._primary(depth + 1)
            if token != "+":
                self._code += [(token[0] + "u", 0)] * len(token)
        else:
            raise Wrong(f"unexpected {token!r} in the expression {clip(self._text)}")

    def _symbol(self, name: str) -> None:
        self._code.append(("s", name))
        if name != ".":
            self._names.append(name)
