"""JUnit XML as Jenkins reads it: a testsuite a file, a testcase a case and host.

XFAIL is skipped and XPASS a failure, since JUnit has neither; a wrong file is an error. What a
testcase ran on stands in its system-out, where every reader shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from kvmscen.errors import Problem
from kvmscen.reports import harmless
from kvmscen.reports.counts import accesses, notes
from kvmscen.reports.explained import explanation
from kvmscen.reports.story import headline, one_line, painter, plural, ran_on
from kvmscen.results.result import Result, Run, wrong_cases


def render(run: Run) -> str:
    """The whole report as an XML document."""
    files = run.by_file
    root = ET.Element("testsuites", name="kvmscen")
    # Jenkins' schema has no place for a time zone here; it is UTC.
    stamp = datetime.fromtimestamp(run.started, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    for file, (problems, results) in files.items():
        suite = ET.SubElement(root, "testsuite", name=_xml(file), timestamp=stamp)
        whole, cases = wrong_cases(problems)
        for name, wrong in [("load", whole)] * bool(whole) + list(cases.items()):
            _wrong(suite, file, name, wrong)
        for result in results:
            _case(suite, result)
        _count(suite, [suite], sum(r.elapsed for r in results))
    if run.interrupted:
        # Else a run of which half is missing would be green.
        suite = ET.SubElement(root, "testsuite", name="kvmscen", timestamp=stamp)
        case = ET.SubElement(suite, "testcase", classname="kvmscen", name="run", time="0.000000")
        ET.SubElement(
            case, "error", message="interrupted: the rest did not run", type="Interrupted"
        )
        _count(suite, [suite], 0.0)
    _count(root, list(root), run.elapsed)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _count(element: ET.Element, suites: Iterable[ET.Element], seconds: float) -> None:
    cases = [case for suite in suites for case in suite.iter("testcase")]
    element.set("tests", str(len(cases)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(name, str(sum(case.find(tag) is not None for case in cases)))
    element.set("time", f"{seconds:.6f}")


def _wrong(suite: ET.Element, file: str, name: str, problems: list[Problem]) -> None:
    first = problems[0]
    case = _testcase(suite, file, name, first.line, 0.0)
    more = f" (and {plural(len(problems) - 1, 'more problem')})" if len(problems) > 1 else ""
    error = ET.SubElement(
        case, "error", message=_xml(one_line(str(first)) + more), type="ScenarioError"
    )
    error.text = _xml("\n".join(map(str, problems)))


def _case(suite: ET.Element, result: Result) -> None:
    case = _testcase(
        suite, result.file, f"{result.case}@{result.host}", result.line, result.elapsed
    )
    reason = one_line(result.reason or "")
    if result.status in ("SKIP", "XFAIL"):
        ET.SubElement(
            case,
            "skipped",
            message=_xml(f"XFAIL: {reason}" if result.status == "XFAIL" else reason),
        )
    elif result.status != "PASS":
        tag = "error" if result.status == "ERROR" else "failure"
        element = ET.SubElement(case, tag, message=_xml(headline(result)), type=result.status)
        element.text = _xml("\n".join(explanation(result, None, painter(False))))
    text = "\n".join(["host: " + ran_on(result), *notes(result), *accesses(result)])
    ET.SubElement(case, "system-out").text = _xml(text)


def _testcase(suite: ET.Element, file: str, name: str, line: int, seconds: float) -> ET.Element:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=_xml(_dotted(file)),
        name=_xml(name),
        time=f"{seconds:.6f}",
        file=_xml(file),
    )
    if line:
        case.set("line", str(line))
    return case


def _dotted(file: str) -> str:
    """`scenarios/x86-hlt.yaml` as `scenarios.x86-hlt`: Jenkins takes what is before the last dot as
    the package.
    """
    stem = re.sub(r"\.ya?ml$", "", file.replace("\\", "/"))
    return (
        ".".join(part.replace(".", "_") for part in stem.split("/") if part not in ("", ".", ".."))
        or "kvmscen"
    )


def _xml(text: str) -> str:
    # Besides, XML 1.0 has no way to write control characters (its section 2.2), not even as a
    # reference.
    return harmless.shown(text)
