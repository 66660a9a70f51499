"""Values of a document as one line of YAML again, so that what a scenario says can be shown and
pasted.
"""

from __future__ import annotations

import re
from typing import Any

from kvmscen.load.document import List, Map
from kvmscen.load.scalars import Float, resolve

# What needs no quotes in a flow map: words, symbols, `symbol + 8`.
_PLAIN = re.compile(r"[\w.$]+(?: [-+] \w+)?", re.ASCII)
# From here on a number is mostly an address or a mask.
_HEX_FROM = 0x100


def flow(value: Any) -> str:
    """A value in flow style. Reading it gives the same value."""
    if isinstance(value, Map):
        return "{" + _members(value) + "}"
    if isinstance(value, List):
        return "[" + ", ".join(map(flow, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return hex(value) if abs(value) >= _HEX_FROM else str(value)
    if isinstance(value, float):
        return value.text if isinstance(value, Float) else str(value)
    return _text(value, isinstance(resolve(value)[0], str))


def item(value: Map) -> str:
    """A map as an item of a block list: one key needs no braces."""
    return _members(value) if len(value) == 1 else flow(value)


def _members(held: Map) -> str:
    # A key is a text whatever it looks like; addresses are keys.
    return ", ".join(
        f"{_text(key, not isinstance(resolve(key)[0], bool | None))}: {flow(value)}"
        for key, value in held.items()
    )


def _text(text: str, plain: bool) -> str:
    if plain and _PLAIN.fullmatch(text):
        return text
    return '"' + "".join(map(_quoted, text)) + '"'


def _quoted(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    code = ord(char)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
