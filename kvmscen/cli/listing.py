"""What `kvmscen show` prints: the data of kvmscen.compile.show as text."""

from __future__ import annotations

from typing import Any, NamedTuple

from tabulate import tabulate

from kvmscen.reports.story import clean
from kvmscen.sent.header.uapi import MEM_FLAGS

Json = dict[str, Any]


def render(file: str, shown: Json) -> str:
    """Every case of a file that kvmscen.compile.show described."""
    return "\n".join(_render(clean(file), _cleaned(case)) for case in shown["cases"])


def _cleaned(data: Any) -> Any:
    """The data with every text of it in one line, as wide as it will be shown."""
    if isinstance(data, dict):
        return {clean(key): _cleaned(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_cleaned(value) for value in data]
    return clean(data) if isinstance(data, str) else data


def _render(file: str, case: Json) -> str:
    parts = [
        f"{file}, case {case['case']} ({case['arch']}{_by(case)}), entry at "
        f"{case['entry']:#x}{_why(case)}",
        "",
        "memory map:",
    ]
    parts.append(
        tabulate(_map(case), headers=("from", "to", "size", "what"), disable_numparse=True)
    )
    symbols = sorted((at, name) for name, at in case["symbols"].items())
    if symbols:
        parts += [
            "",
            "symbols:",
            tabulate(
                [(f"{at:#x}", name) for at, name in symbols],
                tablefmt="plain",
                disable_numparse=True,
            ),
        ]
    if case["listing"]:
        parts += [
            "",
            "listing:",
            tabulate(_rows(case["listing"]), tablefmt="plain", disable_numparse=True),
        ]
    return "\n".join(parts) + "\n"


def _why(case: Json) -> str:
    """What the entry is, where no label of the program says so."""
    if not case["assembler"] or "_start" in case["symbols"]:
        return ""
    line = next(
        (row["line"] for row in case["listing"] if row["gpa"] == case["entry"] and row["line"]),
        None,
    )
    return " (there is no `_start`" + (f": line {line}, the first of .text)" if line else ")")


def _by(case: Json) -> str:
    return f", assembled by {case['assembler']}" if case["assembler"] else ""


class _Range(NamedTuple):
    gpa: int
    size: int
    level: int
    what: str


def _map(case: Json) -> list[tuple[str, str, str, str]]:
    rows: list[_Range] = []
    for slot in case["memslots"]:
        flags = "".join(f", {name}" for name, bit in MEM_FLAGS.items() if slot["flags"] & bit)
        fails = f", must fail with {slot['errno']}" if slot.get("errno") else ""
        # What is not there leaves the hole that it is.
        rows.append(
            _Range(
                slot["gpa"],
                slot["size"],
                1 if fails else 0,
                f"memslot {slot['slot']}{flags}{fails}",
            )
        )
    slots = [(slot["gpa"], slot["size"]) for slot in case["memslots"] if not slot.get("errno")]
    for section in case["sections"]:
        inside = any(
            at <= section["gpa"] and section["gpa"] + section["size"] <= at + size
            for at, size in slots
        )
        where = "" if inside else ", outside every memslot: each access exits"
        load = f", loaded at {section['load']:#x}" if section["load"] != section["gpa"] else ""
        rows.append(
            _Range(section["gpa"], section["size"], 1, f"  section {section['name']}{load}{where}")
        )
    if case["tables"]:
        what = "page tables" if case["arch"] == "arm64" else "page tables and GDT"
        rows.append(
            _Range(
                case["tables"]["gpa"], case["tables"]["size"], 0, f"engine's own memslot: {what}"
            )
        )
    rows += [
        _Range(at, size, 0, "hole")
        for at, size in _holes([(row.gpa, row.size) for row in rows if row.level == 0])
    ]
    return [
        (f"{at:#x}", f"{at + max(size, 1) - 1:#x}", f"{size:#x}", what)
        for at, size, _, what in sorted(rows, key=lambda row: (row.gpa, row.level))
    ]


def _holes(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Gaps between slots."""
    out: list[tuple[int, int]] = []
    end: int | None = None
    for at, size in sorted(ranges):
        if end is not None and at > end:
            out.append((end, at - end))
        end = max(end or 0, at + size)
    return out


def _rows(listing: list[Json]) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for line in listing:
        data = line["bytes"]
        where = f"{line['file']}:{line['line']}" if "file" in line else str(line["line"] or "")
        rows.append((f"{line['gpa']:#x}", data[:16], where, line["text"]))
        rows += [
            (f"{line['gpa'] + n // 2:#x}", data[n : n + 16], "", "")
            for n in range(16, min(len(data), 128), 16)
        ]
        if len(data) > 128:
            rows.append(("", f"... {len(data) // 2} bytes", "", ""))
    return rows
