"""The JSON report, version 1: schema/report.schema.json is its reference. Within version 1 keys are
only added.

One result stands on one line: the C encoder does not indent, and a line-by-line diff of two reports
shows which cases differ.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from kvmscen.errors import Problem
from kvmscen.results.measured import Measured, Spread
from kvmscen.results.result import AccessTally, Mismatch, Result, Run
from kvmscen.sent.observation import Event

Json = dict[str, Any]
# Members of exits (of KVM_EXIT_DEBUG and the MSR exits) whose names an event needs for itself.
_RENAMED = {"pc": "arch_pc", "error": "msr_error"}


def render(run: Run) -> str:
    """The whole report as JSON text, ASCII only."""
    head: Json = {
        "format": "kvmscen-report",
        "version": 1,
        "run": {
            "id": run.id,
            "started": iso(run.started),
            "version": run.version,
            "elapsed_s": round(run.elapsed, 6),
        },
    }
    if run.interrupted:
        head["interrupted"] = True
    members = [f"{_dump(key)}: {_dump(value)}" for key, value in head.items()]
    members.append(f'"results": {_lines([_result(r) for r in run.results])}')
    members.append(f'"errors": {_lines([_problem(p) for p in run.problems])}')
    members.append(f'"summary": {_dump(run.summary)}')
    return "{" + ",\n ".join(members) + "}\n"


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the second: `2026-11-23T08:30:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _dump(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _lines(items: list[Json]) -> str:
    return "[\n  " + ",\n  ".join(map(_dump, items)) + "]" if items else "[]"


def _result(result: Result) -> Json:
    seen = result.observation
    out: Json = {
        "file": result.file,
        "line": result.line,
        "scenario": result.scenario,
        "case": result.case,
        "title": result.summary or None,
        "arch": result.arch,
        "host": result.host,
        "kernel": result.kernel,
        "kvm": result.flavour,
        "predicted": result.predicted,
        "machine": result.machine,
        "status": result.status,
        "reason": result.reason,
        "hint": result.hint,
        "elapsed_s": round(result.elapsed, 6),
        "mismatches": [_mismatch(result.file, m) for m in result.mismatches],
        "stopped": seen.stopped if seen else None,
        "detail": seen.detail if seen else None,
        "events": _events(result),
        "final": {
            "regs": dict(seen.regs) if seen else {},
            "memory": {str(gpa): dict(units) for gpa, units in result.memory.items()},
        },
    }
    if result.accesses:
        out["accesses"] = [_access(tally) for tally in result.accesses]
    notes = [*result.notes, *(seen.notes if seen else ())]
    if notes:
        out["notes"] = notes
    if result.measured:
        out["measured"] = [_measured(measured) for measured in result.measured]
    return out


def _events(result: Result) -> list[Json]:
    seen = result.observation
    out = [event_json(event) for event in seen.events] if seen else []
    for event, source in zip(out, result.sources, strict=False):
        if source:
            event["source"] = source
    return out


def event_json(event: Event) -> Json:
    """An event as the report has it: `{"vcpu", "exit": NAME, its members, "pc", ...}`: what is not
    there is left out.
    """
    out: Json = {"vcpu": event.vcpu}
    if event.kind == "timeout":
        out["timeout"] = event.fields["timeout"]
    else:
        out[event.kind] = event.name
        renamed = _RENAMED if event.kind == "exit" else {}
        out.update((renamed.get(key, key), value) for key, value in event.fields.items())
    out["pc"] = event.pc
    if event.regs is not None:
        out["regs"] = dict(event.regs)
    if event.memory is not None:
        out["memory"] = {str(gpa): raw.hex() for gpa, raw in event.memory.items()}
    if event.reply is not None:
        out["reply"] = dict(event.reply)
    if event.times != 1:
        out["count_of_equal"] = event.times
    if event.op is not None:
        out["op"] = event.op
    if event.at is not None:
        out["step"] = [list(level) for level in event.at]
    if event.ignored:
        out["ignored"] = True
    if event.done:
        out["done"] = event.done
    return out


def _measured(measured: Measured) -> Json:
    return {
        "name": measured.name,
        "line": measured.line,
        "count": measured.samples,
        "ns": _figures(measured.ns),
        "ticks": _figures(measured.ticks),
        "with_user_ns": _figures(measured.whole_ns),
        "loop": measured.loop,
        "overhead_ns": round(measured.overhead_ns, 3),
        "user_share": round(measured.user, 6),
        "hz": round(measured.hz),
        "rounds_ns": [round(value, 3) for value in measured.medians_ns],
    }


def _figures(spread: Spread) -> Json:
    return {name: round(value, 3) for name, value in spread._asdict().items()}


def _access(tally: AccessTally) -> Json:
    return {
        "section": tally.section,
        "symbol": tally.symbol,
        "kind": tally.kind,
        "len": tally.len,
        "emulated": tally.emulated,
        "count": tally.times,
    }


def _mismatch(file: str, mismatch: Mismatch) -> Json:
    return {
        "step": mismatch.step,
        "file": file,
        "line": mismatch.line,
        "expected": mismatch.expected,
        "observed": mismatch.observed,
    }


def _problem(problem: Problem) -> Json:
    out: Json = {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
    }
    if problem.cases:
        out["cases"] = list(problem.cases)
    return out
