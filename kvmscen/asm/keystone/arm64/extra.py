"""arm64 instructions that Keystone does not know and that guests of KVM like to use."""

from __future__ import annotations

import re

_HINTS = {
    "nop": 0, "yield": 1, "wfe": 2, "wfi": 3, "sev": 4, "sevl": 5, "dgh": 6, "xpaclri": 7,
    "pacia1716": 8, "pacib1716": 10,
    "autia1716": 12, "autib1716": 14, "esb": 16, "csdb": 20, "paciaz": 24, "paciasp": 25,
    "pacibz": 26, "pacibsp": 27,
    "autiaz": 28, "autiasp": 29, "autibz": 30, "autibsp": 31, "bti": 32,
}  # fmt: skip
_WORDS = {
    "sb": 0xD50330FF,
    "retaa": 0xD65F0BFF,
    "retab": 0xD65F0FFF,
    "eretaa": 0xD69F0BFF,
    "eretab": 0xD69F0FFF,
}
_BTI = {"c": 34, "j": 36, "jc": 38}
_ATOMIC = re.compile(r"(ld|st)(add|clr|eor|set|smax|smin|umax|umin)(a|l|al|)(b|h|)\Z")
_SWAP = re.compile(r"(swp)(a|l|al|)(b|h|)\Z")
_CAS = re.compile(r"(cas|casp)(a|l|al|)(b|h|)\Z")
_LOAD = re.compile(r"ldapr(b|h|)\Z")
_OPERATION = {
    name: code
    for code, name in enumerate(["add", "clr", "eor", "set", "smax", "smin", "umax", "umin"])
}
_BASE = re.compile(r"\[\s*(x\d{1,2}|sp|fp|lr)\s*(?:,\s*#0\s*)?\]\Z", re.ASCII)
_REGISTER = re.compile(r"([wx])(\d{1,2}|zr)\Z", re.ASCII)


def extra(word: str, operands: list[str]) -> bytes | None:
    """The bytes of one instruction in lower case, None where it is none of these."""
    if not operands:
        code = _WORDS.get(word)
        if word in _HINTS:
            code = 0xD503201F | _HINTS[word] << 5
    elif word == "bti":
        code = (
            0xD503201F | _BTI[operands[0]] << 5
            if operands[0] in _BTI and len(operands) == 1
            else None
        )
    elif word == "udf":
        code = _undefined(operands)
    elif word[:2] in ("ld", "st", "sw", "ca"):
        code = _atomic(word, operands)
    else:
        return None
    return None if code is None else code.to_bytes(4, "little")


def _undefined(operands: list[str]) -> int | None:
    try:
        value = int(operands[0].lstrip("#"), 0)
    except ValueError:
        return None
    return value if 0 <= value < 65536 and len(operands) == 1 else None


def _atomic(word: str, operands: list[str]) -> int | None:
    base = _BASE.match(operands[-1])
    if not base:
        return None
    rn = {"sp": 31, "fp": 29, "lr": 30}.get(base.group(1), -1)
    rn = int(base.group(1)[1:]) if rn < 0 else rn
    registers = [_REGISTER.match(operand) for operand in operands[:-1]]
    if rn > 31 or not registers or not all(registers):
        return None
    kinds = {match.group(1) for match in registers if match}
    numbers = [
        31 if match.group(2) == "zr" else int(match.group(2)) for match in registers if match
    ]
    if len(kinds) != 1 or any(number > 31 for number in numbers):
        return None
    wide = "x" in kinds
    if match := _LOAD.match(word):
        size = _size(match.group(1), wide)
        return (
            None
            if size is None or len(numbers) != 1
            else size << 30 | 0x38BFC000 | rn << 5 | numbers[0]
        )
    if match := _ATOMIC.match(word):
        return _read_modify_write(match, wide, numbers, rn)
    if match := _SWAP.match(word):
        size = _size(match.group(3), wide)
        if size is None or len(numbers) != 2:
            return None
        order = match.group(2)
        return (
            size << 30 | 0x38208000 | _order(order) << 22 | numbers[0] << 16 | rn << 5 | numbers[1]
        )
    if match := _CAS.match(word):
        return _compare(match, wide, numbers, rn)
    return None


def _size(suffix: str, wide: bool) -> int | None:
    if suffix:
        return None if wide else "bh".index(suffix)
    return 3 if wide else 2


def _order(order: str) -> int:
    return ("a" in order) << 1 | ("l" in order)


def _read_modify_write(match: re.Match[str], wide: bool, numbers: list[int], rn: int) -> int | None:
    direction, operation, order, suffix = match.groups()
    size = _size(suffix, wide)
    if (
        size is None
        or (direction == "st" and "a" in order)
        or len(numbers) != (1 if direction == "st" else 2)
    ):
        return None
    rt = 31 if direction == "st" else numbers[1]
    return (
        size << 30
        | 0x38200000
        | _order(order) << 22
        | numbers[0] << 16
        | _OPERATION[operation] << 12
        | rn << 5
        | rt
    )


def _compare(match: re.Match[str], wide: bool, numbers: list[int], rn: int) -> int | None:
    name, order, suffix = match.groups()
    acquire, release = "a" in order, "l" in order
    if name == "casp":
        if suffix or len(numbers) != 4 or numbers[0] % 2 or numbers[2] % 2:
            return None
        if numbers[1] != numbers[0] + 1 or numbers[3] != numbers[2] + 1:
            return None
        base = wide << 30 | 0x08207C00
        return base | acquire << 22 | numbers[0] << 16 | release << 15 | rn << 5 | numbers[2]
    size = _size(suffix, wide)
    if size is None or len(numbers) != 2:
        return None
    return (
        size << 30
        | 0x08A07C00
        | acquire << 22
        | numbers[0] << 16
        | release << 15
        | rn << 5
        | numbers[1]
    )
