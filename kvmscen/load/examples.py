"""How what is meant is written, where a list stands for a map, or a map or a word for a list."""

from __future__ import annotations

import re
from typing import Any

from kvmscen.load.document import List, Map
from kvmscen.load.names import shorten
from kvmscen.load.slips import dashed
from kvmscen.load.written import flow
from kvmscen.sent.arch import ARCHES

# Lists whose items are maps of several keys: a map in place of such a list is mostly one item of
# it.
_ITEMS_WITH_KEYS = (
    "a list of memslots",
    "a list of conditions",
    "a list of capabilities",
    "a list of accesses",
)
_EXAMPLES = {
    "a map of sections": "{.data: 0x5000}",
    "a map of addresses": "{counter: 5}",
    "a map of cases": "name: {expect: [...]}",
    "a map of `regs` and `memory`": "{regs: {...}, memory: {...}}",
    "a map of conditions": "{capabilities: [...]}",
    "a map of `timeout` and `exits`": "{timeout: 5}",
    "a map of macros": "name: |",
}


def otherwise(value: Any, types: list[str], what: str, arch: str | None) -> str:
    """How a list is written as the map that is meant, or a map or word as the list; with a colon
    before it, or empty.
    """
    if "array" in types and isinstance(value, Map):
        numbered = what == "a list of memslots" and value and all(key.isdigit() for key in value)
        if numbered:
            return (
                ": each slot is an item, as `- {slot: "
                + next(iter(value))
                + ", gpa: ..., size: ...}`"
            )
        item = (
            flow(value)
            if what in _ITEMS_WITH_KEYS
            else "".join(f"{key}: {flow(value[key])}" for key in list(value)[:1])
        )
        return f": each item begins with `- `, as `- {shorten(item)}`" if value else ""
    if "array" in types and isinstance(value, str):
        dash = dashed(value)
        return ": " + (dash or f"write `[{shorten(value)}]`")
    if "object" not in types or "array" in types:
        return ""
    example = _EXAMPLES.get(what) or (
        f"{{{ARCHES[arch or 'x86_64'].GENERAL[0]}: 1}}" if what == "a map of registers" else ""
    )
    if isinstance(value, str) and (pair := re.fullmatch(r"([\w.]+)\s*=\s*(\w+)", value)):
        example = f"{{{pair[1]}: {pair[2]}}}"
    elif (
        isinstance(value, List)
        and value
        and all(isinstance(item, Map) and len(item) == 1 for item in value)
    ):
        inner = ", ".join(f"{key}: {flow(item[key])}" for item in value for key in item)
        example = f"{{{inner}}}" if len(inner) < 60 and _distinct(value) else example
    dashes = "its keys without dashes, as " if isinstance(value, List) else ""
    return f": write {dashes}`{example}`" if example else ""


def _distinct(listed: List) -> bool:
    keys = [key for item in listed for key in item]
    return len(set(keys)) == len(keys)
