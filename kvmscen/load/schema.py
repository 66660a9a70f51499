"""The scenario's JSON Schema, and a quick look whether a document fits it.

`fits` knows just the keywords that the schema uses, and refuses to be made of others. It says yes
or no; why not is for jsonschema (check.py), which is ten times slower and takes longer to import
than all the rest of load. A test holds the two against each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from kvmscen.load.document import List, Map
from kvmscen.load.scalars import Float

Test = Callable[[Any], bool]

_KEPT_OUT = ("description", "definitions", "$id")
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (Map,),
    "array": (List,),
    "string": (str,),
    "integer": (int,),
    "number": (int, Float),
    "boolean": (bool,),
    "null": (type(None),),
}
_SAYS_NOTHING = ("$schema", "$comment", "title", "then")


def schema_file() -> Path:
    """The schema in the installed package, or in the source tree beside it."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "schema" / "scenario.schema.json"
    return inside if inside.exists() else package.parent / "schema" / "scenario.schema.json"


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """The schema with each `$ref` replaced by the definition itself, which jsonschema is twice as
    quick with.
    """
    text = json.loads(schema_file().read_text(encoding="utf-8"))
    schema: dict[str, Any] = _inlined(text, text["definitions"], {})
    return schema


def _inlined(node: Any, defs: dict[str, Any], inlined: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, defs, inlined) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        if name not in inlined:
            inlined[name] = {}
            inlined[name].update(_inlined(defs[name], defs, inlined))
        return inlined[name]
    # A map of properties may well have a key that is called `description`: only schemas lose
    # theirs.
    out = {}
    for key, value in node.items():
        if key in ("properties", "patternProperties"):
            out[key] = {name: _inlined(child, defs, inlined) for name, child in value.items()}
        elif key not in _KEPT_OUT:
            out[key] = _inlined(value, defs, inlined)
    return out


@lru_cache(maxsize=1)
def fits() -> Test:
    """The test whether data fits the schema."""
    return _test(schema(), {})


def _test(node: dict[str, Any], compiled: dict[int, list[Test]]) -> Test:
    # The schema is recursive (steps in steps): a test in the making is reached through its list.
    if id(node) in compiled:
        tests = compiled[id(node)]
        return lambda data: all(test(data) for test in tests)
    tests = compiled[id(node)] = []
    if "properties" in node or "patternProperties" in node:
        tests.append(_object(node, compiled))
    for keyword, value in node.items():
        if keyword not in (
            "properties",
            "patternProperties",
            "additionalProperties",
            *_SAYS_NOTHING,
        ):
            tests.append(_KEYWORDS[keyword](value, node, compiled))
    return tests[0] if len(tests) == 1 else lambda data: all(test(data) for test in tests)


def _object(node: dict[str, Any], compiled: dict[int, list[Test]]) -> Test:
    properties = {key: _test(child, compiled) for key, child in node.get("properties", {}).items()}
    patterns = [
        (re.compile(p), _test(child, compiled))
        for p, child in node.get("patternProperties", {}).items()
    ]
    assert node["additionalProperties"] is False

    def test(data: Any) -> bool:
        if type(data) is not Map:
            return True
        for key, value in data.items():
            child = properties.get(key)
            if child is None:
                child = next((test for pattern, test in patterns if pattern.search(key)), None)
                if child is None:
                    return False
            if not child(value):
                return False
        return True

    return test


def _type(value: Any, node: dict[str, Any], compiled: Any) -> Test:
    names = [value] if isinstance(value, str) else value
    types = frozenset(kind for name in names for kind in _TYPES[name])
    return lambda data: type(data) in types


def _items(value: Any, node: dict[str, Any], compiled: dict[int, list[Test]]) -> Test:
    item = _test(value, compiled)
    return lambda data: type(data) is not List or all(item(entry) for entry in data)


def _enum(value: Any, node: dict[str, Any], compiled: Any) -> Test:
    known = frozenset(value)
    return lambda data: type(data) is str and data in known


def _any(value: Any, node: dict[str, Any], compiled: dict[int, list[Test]]) -> Test:
    branches = [_test(child, compiled) for child in value]
    return lambda data: any(branch(data) for branch in branches)


def _if(value: Any, node: dict[str, Any], compiled: dict[int, list[Test]]) -> Test:
    condition, then = _test(value, compiled), _test(node["then"], compiled)
    return lambda data: not condition(data) or then(data)


def _number(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any, Any], Test]:
    return lambda value, node, compiled: (
        lambda data: type(data) not in (int, Float) or compare(data, value)
    )


def _size(kind: type[Any], compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any, Any], Test]:
    return lambda value, node, compiled: (
        lambda data: type(data) is not kind or compare(len(data), value)
    )


def _pattern(value: Any, node: dict[str, Any], compiled: Any) -> Test:
    search = re.compile(value).search
    return lambda data: type(data) is not str or search(data) is not None


_KEYWORDS: dict[str, Callable[[Any, Any, Any], Test]] = {
    "type": _type,
    "required": lambda value, node, compiled: (
        lambda data: type(data) is not Map or all(key in data for key in value)
    ),
    "items": _items,
    "enum": _enum,
    "anyOf": _any,
    "if": _if,
    "minimum": _number(lambda a, b: bool(a >= b)),
    "maximum": _number(lambda a, b: bool(a <= b)),
    "exclusiveMinimum": _number(lambda a, b: bool(a > b)),
    "minItems": _size(List, lambda a, b: bool(a >= b)),
    "maxItems": _size(List, lambda a, b: bool(a <= b)),
    "minLength": _size(str, lambda a, b: bool(a >= b)),
    "minProperties": _size(Map, lambda a, b: bool(a >= b)),
    "pattern": _pattern,
}
