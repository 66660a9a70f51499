"""What `kvmscen show` shows of a file: the memory map, the symbols and the listing of each case, as
data.

kvmscen.cli.listing writes it as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvmscen.compile import Plan
from kvmscen.compile.cases import laid_out
from kvmscen.errors import Problem
from kvmscen.job.legend import Legend, offset
from kvmscen.load import read
from kvmscen.scenario import Case
from kvmscen.sent.machine import Memslot

Json = dict[str, Any]


def show(file: str, only: str | None, assembler: str | None = None) -> Json:
    """`{"cases": [...], "problems": (Problem, ...)}` of a file, or of its case `only`: the plans of
    the cases that are right, and the problems of the others.
    """
    loaded = read(file)
    scenario = loaded.scenario.assembled_by(assembler)
    if only is not None and loaded.names and only not in loaded.names:
        names = ", ".join(loaded.names)
        return {
            "cases": [],
            "problems": (Problem(file, 0, 0, f"there is no case {only!r}; the cases are {names}"),),
        }
    cases = [case for case in scenario.cases if only is None or case.name == only]
    planned, problems = laid_out(scenario, cases)
    problems += [p for p in loaded.problems if only is None or not p.cases or only in p.cases]
    return {"cases": [_case(case, plan) for case, plan in planned], "problems": tuple(problems)}


def _case(case: Case, planned: Plan) -> Json:
    return {
        "case": case.name,
        "arch": case.arch,
        "assembler": planned.assembler,
        "sections": [
            {
                "name": section.name,
                "gpa": section.gpa,
                "load": section.load,
                "size": section.size,
                "bytes": section.data.hex(),
            }
            for section in planned.sections
        ],
        "symbols": planned.symbols,
        "memslots": [_slot(slot) for slot in planned.memslots],
        "tables": None
        if planned.tables is None
        else {"gpa": planned.tables[0], "size": planned.tables[1]},
        "entry": planned.entry,
        "listing": _listing(planned),
    }


def _slot(slot: Memslot) -> Json:
    shown: Json = {"slot": slot.slot, "gpa": slot.gpa, "size": slot.size, "flags": slot.flags}
    return shown if slot.errno is None else {**shown, "errno": slot.errno}


def _listing(planned: Plan) -> list[Json]:
    out: list[Json] = []
    for at, size, line, file, text in _rows(planned.legend):
        section = next((s for s in planned.sections if s.gpa <= at < s.gpa + s.size), None)
        data = b"" if section is None else section.data[at - section.gpa : at - section.gpa + size]
        row: Json = {"gpa": at, "size": size, "bytes": data.hex(), "line": line, "text": text}
        out.append({**row, "file": file} if file else row)
    return out


def _rows(legend: Legend) -> Iterator[tuple[int, int, int | None, str, str]]:
    """(gpa, size, line, file, text): statements, or of a linked program its source lines, and
    symbols that have none.
    """
    for start, size, line, text in legend.lines:
        if line:
            yield start, size, line, legend.file, text
            continue
        at = start
        for gpa, extent, number, file in legend.within(start, size):
            if gpa > at:
                yield at, gpa - at, None, "", offset(text, at - start)
            at = min(gpa + extent, start + size)
            yield gpa, at - gpa, number, file, offset(text, gpa - start)
        if at < start + size:
            yield at, start + size - at, None, "", offset(text, at - start)
