"""Names that are no symbols for GNU as: in x86's Intel syntax found by trying 23,000 words with as
2.40.

A label may have any of them, and as says nothing: `jmp far` then goes elsewhere, and `[word]` is
the address 2.
"""

from __future__ import annotations

import re
from functools import lru_cache

_KEYWORDS = """
byte word dword fword qword mmword tbyte oword xmmword ymmword zmmword near far short offset flat
ptr
and or xor not mod shl shr eq ne lt le gt ge $ .sizeof. .startof. .gasversion.
"""
KEYWORDS = frozenset(_KEYWORDS.split())
# Widths in bytes: what as takes them for where no `ptr` follows.
TYPES = tuple(
    "byte word dword fword qword mmword tbyte oword xmmword ymmword zmmword near far".split()
)
_REGISTER = re.compile(
    r"(?:[er]?(?:ax|bx|cx|dx|sp|bp|si|di)|[abcd][lh]|[abcd]xl|[sb]pl|[sd]il|r(?:8|9|1[0-5])[bwd]?|[cd]r(?:\d|1[0-5])|"
    r"db(?:\d|1[0-5])|tr[0-7]|[c-gs]s|[er]i[pz]|st|mm[0-7]|[xyz]mm(?:\d|[12]\d|3[01])|tmm[0-7]|k[0-7]|bnd[0-3])\Z",
    re.ASCII | re.IGNORECASE,
)
_TYPE = re.compile(
    r"(?<![\w.$%\\@])(" + "|".join(TYPES) + r")(?![\w.$@])(?!\s+ptr\b)\s*(\S?)",
    re.ASCII | re.IGNORECASE,
)
_ALONE = re.compile(
    r"(?<![\w.$%\\@])(offset|short)(?![\w.$@])\s*(?:\Z|[,+\]])", re.ASCII | re.IGNORECASE
)
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:\\.|[^\\])'?")


# What one of the two assemblers takes for a register, and the other for a symbol.
_ARM64 = re.compile(r"(?:ip[01]|[xw]31)\Z", re.IGNORECASE)


@lru_cache(maxsize=4096)
def taken(name: str, arch: str = "x86_64") -> str | None:
    """Why a symbol cannot have this name, and what it could be called; None where it can."""
    if arch != "x86_64":
        is_register = arch == "arm64" and _ARM64.match(name)
        return (
            f"{name} is a register of arm64: give the symbol another name, such as {name}_1"
            if is_register
            else None
        )
    if name == "$":
        return (
            "$ is the current place in GNU as's Intel syntax: write . for it, and give a "
            "symbol another name"
        )
    other = f"give the symbol another name, such as {name.strip('.')}_1"
    if name.lower() in KEYWORDS:
        return (
            f"{name} is a keyword of Intel syntax, which GNU as takes for a number, not for "
            f"the symbol: {other}"
        )
    if _REGISTER.match(name):
        return f"{name} is a register of x86_64: {other}"
    return None


def unfinished(operands: str) -> str | None:
    """What is wrong where a keyword stands alone among `operands` in Intel syntax: as would take it
    for a number.
    """
    clean = _QUOTED.sub(lambda quoted: "_" * len(quoted.group()), operands)
    if match := _TYPE.search(clean):
        word, next_sign = match.groups()
        if next_sign in ("[", "") or not (next_sign.isalnum() or next_sign in "_.$"):
            return f"write {word} ptr before an operand: GNU as takes {word} alone for a number"
    if alone := _ALONE.search(clean):
        return f"{alone.group(1)} stands before an operand: GNU as takes it alone for 0"
    return None
