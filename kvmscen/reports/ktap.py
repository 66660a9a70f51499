"""KTAP version 1 (the kernel's Documentation/dev-tools/ktap.rst): a file is a subtest, a case of it
a nested test.

Diagnostics stand before the result line that they explain. A subtest's `# Subtest:` line names it
exactly as its result line does, since `kunit.py parse` pairs the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvmscen.errors import Problem
from kvmscen.reports.explained import explanation
from kvmscen.reports.story import BAD, brief, one_line, painter, plural, ran_on
from kvmscen.results.result import Result, Run, wrong_cases


def render(run: Run) -> str:
    """The whole report."""
    files = run.by_file
    many = len({result.host for result in run.results}) > 1
    out = ["KTAP version 1", f"1..{len(files)}"]
    if run.interrupted:
        out.append("# interrupted: the rest did not run")
    for number, (file, (problems, results)) in enumerate(files.items(), 1):
        whole, wrong = wrong_cases(problems)
        if results or wrong:
            out += ["  " + line for line in _subtest(file, results, wrong, many)]
        out += [f"# {one_line(str(problem))}" for problem in whole]
        bad = bool(problems) or any(result.status in BAD for result in results)
        out.append(_line(number, not bad, file, _file_directive(problems, results)))
    return "\n".join(out) + "\n"


def _subtest(
    file: str, results: Sequence[Result], wrong: Mapping[str, Sequence[Problem]], many: bool
) -> list[str]:
    out = ["KTAP version 1", f"# Subtest: {_description(file)}", f"1..{len(results) + len(wrong)}"]
    for number, result in enumerate(results, 1):
        if result.status in BAD:
            out += [f"# {line}" for line in explanation(result, None, painter(False))]
        if result.status not in BAD or not result.predicted:
            out.append(f"# host: {ran_on(result)}")
        name = f"{result.case}@{result.host}" if many else result.case
        out.append(_line(number, result.status not in BAD, name, _directive(result)))
    for number, (name, problems) in enumerate(wrong.items(), len(results) + 1):
        out += [f"# {one_line(str(problem))}" for problem in problems]
        out.append(
            _line(
                number, False, name, "ERROR " + plural(len(problems), "problem") + " in this case"
            )
        )
    return out


def _file_directive(problems: Sequence[Problem], results: Sequence[Result]) -> str:
    if problems:
        return "ERROR " + plural(len(problems), "problem") + " in this file"
    if all(result.status == "SKIP" for result in results):
        return "SKIP every case was skipped"
    return ""


def _directive(result: Result) -> str:
    if result.status in ("SKIP", "XFAIL", "XPASS", "ERROR"):
        return f"{result.status} {brief(result)}".rstrip()
    if result.status == "FAIL" and result.observation and result.observation.stopped == "timeout":
        return "TIMEOUT"
    return ""


def _line(number: int, ok: bool, name: str, directive: str) -> str:
    line = f"{'ok' if ok else 'not ok'} {number} {_description(name)}"
    return f"{line} # {directive}" if directive else line


def _description(text: str) -> str:
    """What may stand as a description: one line, without the sign that begins a directive."""
    return one_line(text).replace("#", "_")
