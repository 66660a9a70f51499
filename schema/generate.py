"""Write what the tables know into scenario.schema.json: exits, registers, capabilities, flags,
errno names.

    python schema/generate.py            rewrite the file
    python schema/generate.py --check    exit with 1 when the file is not what would be written

What is not generated is written by hand in the file itself and kept as it is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kvmscen.load import names
from kvmscen.sent.arch import ARCHES
from kvmscen.sent.arch.registers import Register
from kvmscen.sent.header import exits
from kvmscen.sent.header.actions import ACTIONS, Action, Member
from kvmscen.sent.header.caps import CAPABILITIES

FILE = Path(__file__).resolve().parent / "scenario.schema.json"
WIDTH = 140
Json = dict[str, Any]


def ref(name: str) -> Json:
    return {"$ref": "#/definitions/" + name}


def enum(title: str, description: str, values: Any) -> Json:
    return {"title": title, "description": description, "enum": list(values)}


def member(row: exits.Exit, field: exits.Field) -> Json:
    """The schema of one member of an exit."""
    numbers = names.numbers_of(row.name, field.name)
    text = (
        field.text[:1].upper() + field.text[1:] + "."
        if field.text
        else f"A member of {row.constant}."
    )
    if numbers:
        title = f"a name for `{field.name}`"
        return {
            "description": text,
            "anyOf": [{"title": title, "enum": list(numbers)}, ref("number_or_matcher")],
        }
    if field.name == "accesses":
        return ref("accesses")
    if field.name in names.FLAGS:
        return ref("flag")
    if row.name == "io" and field.name == "data":
        return ref("values")
    return ref("array") if field.length > 1 else ref("value")


def exit_schema(row: exits.Exit) -> Json:
    """The schema of an exit's map: the members that it has on any architecture."""
    fields: dict[str, exits.Field] = {}
    for arch in row.archs or ARCHES:
        if arch in ARCHES:
            fields.update((f.name, f) for f in exits.fields_of(row.name, arch))
    text = f"{row.constant}: {row.text}." if row.text else f"{row.constant}."
    return {
        "type": "object",
        "title": "a map of members",
        "$comment": f"exit {row.name}",
        "description": text,
        "additionalProperties": False,
        "properties": {name: member(row, field) for name, field in fields.items()},
    }


def action_member(row: Action, members: tuple[Member, ...]) -> Json:
    """The schema of a member of an action's struct, as the architectures have it."""
    first = members[0]
    text = (
        first.text[:1].upper() + first.text[1:] + "."
        if first.text
        else f"A member of struct {row.struct}."
    )
    words = list(dict.fromkeys(word for member in members for word in member.words))
    name = first.name if first.name != "flags" else row.name
    if first.flags:
        flag = {"title": f"a flag of `{name}`", "enum": words}
        return {"description": text, "anyOf": [flag, {"type": "array", "items": flag}]}
    if words:
        most = max((1 << member.bits) - 1 for member in members)
        number = {"type": "integer", "minimum": 0, "maximum": most}
        return {
            "description": text,
            "anyOf": [{"title": f"a name for `{name}`", "enum": words}, number],
        }
    if first.length > 1:
        most = max(member.length for member in members)
        return {
            "title": "a list of numbers",
            "type": "array",
            "maxItems": most,
            "description": text,
            "items": ref("address"),
        }
    if first.yes_no:
        return {"type": "boolean", "description": text}
    if first.least is not None:
        return {
            "type": "integer",
            "minimum": first.least,
            "maximum": first.most,
            "description": text,
        }
    return ref("address")


def action_schema(row: Action) -> Json:
    """The schema of an action that fills a struct: the members that it has on any architecture."""
    known = row.anywhere
    text = f"{row.ioctl}: {row.text}."
    if row.alone:
        return {**action_member(row, known[row.alone]), "description": text}
    properties: Json = {}
    for name, members in known.items():
        outer, _, inner = name.partition(".")
        if inner:
            whole = {
                "description": f"The struct `{outer}` in struct {row.struct}.",
                "additionalProperties": False,
                "properties": {},
            }
            properties.setdefault(outer, {"type": "object", "title": "a map of members", **whole})[
                "properties"
            ][inner] = action_member(row, members)
        else:
            properties[name] = action_member(row, members)
    needed = [name for name, members in known.items() if members[0].needed]
    return {
        "type": "object",
        "title": f"a map of {' and '.join(f'`{name}`' for name in needed) or 'members'}",
        "description": text,
        "additionalProperties": False,
        **({"required": needed} if needed else {}),
        "properties": properties,
    }


def registers(check: bool) -> Json:
    """Every register of every architecture; x86 segments and tables also as maps of their
    members.
    """
    kind = "value" if check else "address"
    table: dict[str, Register] = {}
    nested: dict[str, dict[str, Any]] = {}
    for module in ARCHES.values():
        table.update(module.REGISTERS)
    for name in table:
        if "." in name:
            whole, part = name.split(".")
            nested.setdefault(whole, {})[part] = ref(kind)
    properties: Json = {name: ref(kind) for name in table if name not in nested}
    for whole, parts in nested.items():
        text = "A segment register: its selector, or a map of its members."
        if whole not in table:
            text = "A descriptor table register, as a map of its members."
        types = (["integer", "string"] if whole in table else []) + ["object"]
        properties[whole] = {
            "type": types,
            "title": "a number or a map of members" if whole in table else "a map of members",
            "description": text,
            "additionalProperties": False,
            "properties": {**parts, **(match_properties() if check and whole in table else {})},
        }
    text = (
        "Registers, as KVM gives them at the exit."
        if check
        else "Registers and what they are set to."
    )
    return {
        "$comment": "registers",
        "title": "a map of registers",
        "type": "object",
        "description": text,
        "additionalProperties": False,
        "properties": properties,
    }


def match_properties() -> Json:
    schema: Json = json.loads(FILE.read_text())["definitions"]["value"]["properties"]
    return schema


def fill(schema: Json) -> Json:
    """The schema with its generated parts made anew."""
    defs = schema["definitions"]
    rows = names.offered()
    for name in [
        n
        for n in defs
        if n.startswith("exit_") or n in ("number_or_matcher", "capability", "mem_flag")
    ]:
        del defs[name]
    for row in rows:
        defs["exit_" + row.name] = exit_schema(row)
    keys = {row.name: ref("exit_" + row.name) for row in rows}
    for name in ("step", "ignored", "measured"):
        mine = defs[name]["properties"]
        kept = {
            k: v for k, v in mine.items() if not v.get("$ref", "").startswith("#/definitions/exit_")
        }
        defs[name]["properties"] = {**keys, **kept}
        if name != "measured":
            defs[name]["then"] = {"title": "an exit", "enum": list(keys)}
    fault = exits.BY_NAME["memory_fault"]
    defs["step"]["properties"]["error"]["properties"]["memory_fault"]["properties"] = {
        f.name: member(fault, f) for f in fault.fields
    }
    reply: Json = {}
    for row in rows:
        for name in row.reply:
            field = names.members(row.name, (row.archs or tuple(ARCHES))[0])[name]
            if field.length > 1 or "type" in reply.get(name, {}) or name == "data":
                text = (
                    f"`{name}` as user space writes it back: a number, or a list where it has "
                    f"several elements."
                )
                types = ["integer", "string", "array"]
                reply[name] = {
                    "type": types,
                    "title": "a number",
                    "description": text,
                    "items": ref("address"),
                }
            else:
                reply.setdefault(name, ref("address"))
    defs["reply"]["properties"] = reply
    defs["check_regs"], defs["start_regs"] = registers(True), registers(False)
    matchers = match_properties()
    defs["number_or_matcher"] = {
        "type": ["integer", "object"],
        "title": "a name, a number or a matcher",
        "description": "A number or a matcher.",
        "additionalProperties": False,
        "properties": matchers,
    }
    modes = [mode for module in ARCHES.values() for mode in module.MODES]
    features = [feature for module in ARCHES.values() for feature in module.FEATURES]
    enums = {
        "arch": ARCHES,
        "mode": modes,
        "feature": features,
        "errno": names.ERRNOS,
        "expected_errno": names.ERRNOS,
        "ioctl": names.IOCTLS,
        "flavour": names.FLAVOURS,
        "host": names.HOSTS,
    }
    for name, values in enums.items():
        defs[name]["enum"] = list(values)
    defs["capability"] = enum(
        "a capability", "A capability by its name in <linux/kvm.h>.", CAPABILITIES
    )
    defs["mem_flag"] = enum(
        "a flag of a memslot", "A flag of struct kvm_userspace_memory_region.", names.MEM_FLAGS
    )
    mine = defs["action"]["properties"]
    made = {row.name: action_schema(row) if row.members else mine[row.name] for row in ACTIONS}
    defs["action"]["properties"] = {**made, **{name: mine[name] for name in ("vcpu", "errno")}}
    return schema


def layout(node: Any, indent: int = 0, used: int = 0) -> str:
    """JSON with each value on one line where it fits."""
    flat = json.dumps(node, ensure_ascii=False)
    if len(flat) + indent + used <= WIDTH or not isinstance(node, (dict, list)) or not node:
        return flat
    inner = " " * (indent + 2)
    if isinstance(node, list):
        if all(isinstance(item, str) for item in node):
            return wrapped(node, indent)
        body = ",\n".join(inner + layout(item, indent + 2) for item in node)
        return f"[\n{body}\n{' ' * indent}]"
    lines = []
    for key, value in node.items():
        head = json.dumps(key) + ": "
        lines.append(inner + head + layout(value, indent + 2, len(head)))
    return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"


def wrapped(words: list[str], indent: int) -> str:
    lines, line = [], ""
    for word in words:
        piece = json.dumps(word) + ", "
        if line and len(line) + len(piece) + indent > WIDTH:
            lines.append(line.rstrip())
            line = ""
        line += piece
    lines.append(line.rstrip(", "))
    inner = "\n" + " " * (indent + 2)
    return "[" + inner + inner.join(lines) + "\n" + " " * indent + "]"


def main(arguments: list[str]) -> int:
    before = FILE.read_text()
    after = layout(fill(json.loads(before))) + "\n"
    if "--check" in arguments:
        if before != after:
            print(
                f"{FILE} is not what the tables say: run python schema/generate.py", file=sys.stderr
            )
        return int(before != after)
    FILE.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
