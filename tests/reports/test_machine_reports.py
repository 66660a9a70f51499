"""json, junit and ktap, read back as their readers read them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import pytest
from jsonschema import Draft7Validator
from report_samples import MACHINE, RUNS, enosys, post_index, run, skipped, x86, xfailed

from kvmscen.reports import FORMATS, json_report
from kvmscen.results.result import StoryRow
from kvmscen.sent.header import exits
from kvmscen.sent.observation import Event

SCHEMA = json.loads((Path(__file__).parents[2] / "schema" / "report.schema.json").read_text())


@pytest.mark.parametrize("name", RUNS)
def test_json_fits_its_schema(name: str) -> None:
    Draft7Validator.check_schema(SCHEMA)
    Draft7Validator(SCHEMA).validate(json.loads(FORMATS["json"](RUNS[name])))


def test_schema_lets_keys_be_added_and_describes_each() -> None:
    report = json.loads(FORMATS["json"](RUNS["founding"]))
    for part in (report, report["run"], report["results"][0], report["results"][0]["final"]):
        part["later"] = 1
    Draft7Validator(SCHEMA).validate(report)
    del report["results"][0]["events"]
    assert not Draft7Validator(SCHEMA).is_valid(report)

    def bare(node: Mapping[str, Any], path: str = "#") -> Iterator[str]:
        for key, value in node.get("properties", {}).items():
            if "$ref" not in value and "description" not in value:
                yield f"{path}/{key}"
            yield from bare(value, f"{path}/{key}")
        for key, value in node.get("definitions", {}).items():
            yield from bare(value, f"{path}/{key}")

    assert list(bare(SCHEMA)) == []


def test_json_has_the_agreed_shape() -> None:
    report = json.loads(FORMATS["json"](run(post_index(memory={20480: {"u32": [1, 100]}}))))
    assert report["format"] == "kvmscen-report"
    assert report["version"] == 1
    assert report["run"]["started"] == "2026-11-23T08:30:00Z"
    assert "interrupted" not in report
    (result,) = report["results"]
    assert result["events"] == [
        {
            "vcpu": 0,
            "exit": "mmio",
            "phys_addr": 20480,
            "is_write": True,
            "len": 8,
            "data": 0,
            "pc": 4,
        },
        {
            "vcpu": 0,
            "exit": "mmio",
            "phys_addr": 20488,
            "is_write": True,
            "len": 8,
            "data": 0,
            "pc": 8,
        },
        {"vcpu": 0, "error": "ENOSYS", "ioctl": "KVM_RUN", "pc": 12},
    ]
    assert result["final"] == {
        "regs": {"x2": 20480, "pc": 12},
        "memory": {"20480": {"u32": [1, 100]}},
    }
    assert (result["kernel"], result["predicted"], result["stopped"], result["machine"]) == (
        None,
        True,
        "error",
        MACHINE,
    )
    assert report["summary"] == {
        "PASS": 1,
        "FAIL": 0,
        "ERROR": 0,
        "SKIP": 0,
        "XFAIL": 0,
        "XPASS": 0,
    }
    (failed,) = json.loads(FORMATS["json"](run(enosys())))["results"]
    (mismatch,) = failed["mismatches"]
    assert (mismatch["step"], mismatch["file"], mismatch["line"]) == (
        3,
        "scenarios/arm64-post-index.yaml",
        26,
    )


DEFAULTS = {"ignored": False, "done": 0, "reply": None, "regs": None}


def read(told: Mapping[str, Any]) -> Event:
    """The event that a reader of the report sees in one of its events."""
    rest = dict(told)
    more = {"times": rest.pop("count_of_equal", 1), "op": rest.pop("op", None)}
    more |= {
        name: rest.pop(name, default)
        for name, default in (("ignored", False), ("done", 0), ("reply", None), ("regs", None))
    }
    vcpu, pc, at, memory = (
        rest.pop("vcpu"),
        rest.pop("pc"),
        rest.pop("step", None),
        rest.pop("memory", None),
    )
    more["at"] = None if at is None else tuple(map(tuple, at))
    more["memory"] = (
        None if memory is None else {int(gpa): bytes.fromhex(raw) for gpa, raw in memory.items()}
    )
    kind = next((kind for kind in ("exit", "error", "succeeded") if kind in rest), "timeout")
    name = "" if kind == "timeout" else rest.pop(kind)
    if kind == "exit":
        rest = {
            {"arch_pc": "pc", "msr_error": "error"}.get(key, key): value
            for key, value in rest.items()
        }
    return Event(vcpu, kind, name, rest, pc, **more)


def test_json_events_are_whole() -> None:
    sample = RUNS["mixed"]
    for result, told in zip(
        sample.results, json.loads(FORMATS["json"](sample))["results"], strict=True
    ):
        seen = result.observation.events if result.observation else ()
        assert tuple(map(read, told["events"])) == seen


@pytest.mark.parametrize("name", sorted(exits.BY_NAME))
@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_json_events_hold_each_member_of_each_exit(name: str, arch: str) -> None:
    # The names that stand beside the members must not clash with theirs.
    members = {field.name: number for number, field in enumerate(exits.fields_of(name, arch))}
    event = Event(
        1,
        "exit",
        name,
        members,
        4,
        {"rax": 1},
        {8: b"x"},
        {"data": 1},
        3,
        None,
        ((1, 2), (0, 0)),
        True,
        2,
    )
    assert read(json.loads(json.dumps(json_report.event_json(event)))) == event


def test_the_shape_of_events_in_reports() -> None:
    mmio = {"phys_addr": 20480, "is_write": True, "len": 8, "data": 0}
    assert json_report.event_json(Event(0, "exit", "mmio", mmio, 4)) == {
        "vcpu": 0,
        "exit": "mmio",
        **mmio,
        "pc": 4,
    }
    error = json_report.event_json(Event(0, "error", "ENOSYS", {"ioctl": "KVM_RUN"}, 12))
    assert error == {"vcpu": 0, "error": "ENOSYS", "ioctl": "KVM_RUN", "pc": 12}
    assert json_report.event_json(Event(0, "timeout", "", {"timeout": 0.05}, 3)) == {
        "vcpu": 0,
        "timeout": 0.05,
        "pc": 3,
    }


@pytest.mark.parametrize("name", RUNS)
def test_junit_counts_are_those_of_its_testcases(name: str) -> None:
    root = ET.fromstring(FORMATS["junit"](RUNS[name]))
    assert root.tag == "testsuites"
    for element in [root, *root]:
        cases = list(element.iter("testcase"))
        assert int(element.attrib["tests"]) == len(cases)
        for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(element.attrib[count]) == sum(case.find(tag) is not None for case in cases)
    sample = RUNS[name].summary
    assert int(root.attrib["failures"]) == sample["FAIL"] + sample["XPASS"]
    assert int(root.attrib["skipped"]) == sample["SKIP"] + sample["XFAIL"]
    assert (
        int(root.attrib["errors"])
        == sample["ERROR"] + len({p.file for p in RUNS[name].problems}) + RUNS[name].interrupted
    )


def test_junit_is_read_by_junitparser() -> None:
    junitparser = pytest.importorskip("junitparser")
    xml = junitparser.JUnitXml.fromstring(FORMATS["junit"](RUNS["mixed"]).encode())
    assert (xml.tests, xml.failures, xml.errors, xml.skipped) == (10, 3, 3, 2)
    cases = {f"{case.classname}.{case.name}": case for suite in xml for case in suite}
    assert cases["scenarios.arm64-post-index.default@model"].is_passed
    assert cases["scenarios.arm64-post-index.sign-extend@model"].is_skipped
    assert cases["scenarios.arm64-post-index.ldrsb@qemu:arm64@7.2"].is_failure
    assert cases["scenarios.x86-io.letters@kvm"].is_failure
    assert cases["scenarios.x86-io.crash@kvm"].is_error
    assert cases["scenarios.wrong.load"].is_error


@pytest.mark.parametrize(
    ("file", "classname"),
    [
        ("scenarios/x86-io.yaml", "scenarios.x86-io"),
        ("/home/me/v6.1/./a.yml", "home.me.v6_1.a"),
        ("../a.b.yaml", "a_b"),
        ("a.yaml", "a"),
    ],
)
def test_junit_classname(file: str, classname: str) -> None:
    (case,) = ET.fromstring(FORMATS["junit"](run(x86(file=file)))).iter("testcase")
    assert case.get("classname") == classname


def test_junit_holds_what_xml_cannot() -> None:
    nasty = "\x00\x08\x1b\ud800\ufffe<&>\"']]>"
    row = StoryRow("+", 0, "", nasty, (), nasty)
    report = FORMATS["junit"](
        run(x86(nasty, "FAIL", file=nasty, reason=nasty, rows=(row,)), skipped(reason=nasty))
    )
    root = ET.fromstring(report.encode())
    assert (
        next(case.get("name") for case in root.iter("testcase"))
        == "\\x00\\x08\\x1b\\ud800\\ufffe<&>\"']]>@kvm"
    )


RESULT = re.compile(
    r"^(ok|not ok) ([0-9]+) ?(- )?([^#]*)( # .*)?$"
)  # as the kernel's kunit_parser.py has it


class Line(NamedTuple):
    """One result of KTAP, with those of the level below it."""

    ok: bool
    description: str
    directive: str
    children: list[Line]


def read_ktap(lines: list[str], indent: str = "") -> list[Line]:
    """A level of KTAP; fails where numbers, plan or indentation are wrong."""
    assert lines.pop(0) == indent + "KTAP version 1"
    if lines[0].startswith(indent + "# Subtest: "):
        lines.pop(0)
    planned = re.fullmatch(indent + r"1\.\.([0-9]+)", lines.pop(0))
    assert planned
    plan = int(planned[1])
    tests: list[Line] = []
    children: list[Line] = []
    while len(tests) < plan:
        line = lines[0]
        if line == indent + "  KTAP version 1":
            children = read_ktap(lines, indent + "  ")
            continue
        lines.pop(0)
        assert line.startswith(indent)
        line = line[len(indent) :]
        if line.startswith("#"):
            continue
        result = RESULT.fullmatch(line)
        assert result
        ok, number, _, name, directive = result.groups()
        assert int(number) == len(tests) + 1
        tests.append(Line(ok == "ok", name, (directive or "").removeprefix(" # "), children))
        children = []
    return tests


@pytest.mark.parametrize("name", RUNS)
def test_ktap_reads_back(name: str) -> None:
    lines = FORMATS["ktap"](RUNS[name]).splitlines()
    files = read_ktap([line for line in lines if not line.startswith("# interrupted")])
    for ok, _, directive, children in files:
        assert ok == (all(child[0] for child in children) and not directive.startswith("ERROR"))
    assert sum(len(file[3]) for file in files) == len(RUNS[name].results)
    assert all(file[0] for file in files) == (RUNS[name].exit_status in (0, 4))


def test_ktap_subtest_is_named_as_its_result_line() -> None:
    report = FORMATS["ktap"](run(x86(file="a # b.yaml")))
    assert "  # Subtest: a _ b.yaml\n" in report
    assert "\nok 1 a _ b.yaml\n" in report


def test_ktap_directives() -> None:
    tests = {
        name: directive
        for file in read_ktap(FORMATS["ktap"](RUNS["mixed"]).splitlines())
        for _, name, directive, _ in file[3]
    }
    assert tests["default@kvm"] == ""
    assert tests["msr@kvm"] == "SKIP the host lacks KVM_CAP_X86_USER_SPACE_MSR"
    assert tests["sign-extend@model"].startswith("XFAIL ")
    assert tests["ldrsb@qemu:arm64@7.2"].startswith("XPASS ")
    assert tests["crash@kvm"] == "ERROR the agent ended by SIGSEGV"
    assert tests["spin@kvm"] == "TIMEOUT"


def test_ktap_names_the_host_only_among_several() -> None:
    assert "  ok 1 default\n" in FORMATS["ktap"](run(x86()))
    assert "  ok 1 default@kvm\n" in FORMATS["ktap"](run(x86(), xfailed()))


@pytest.mark.parametrize("format", FORMATS)
def test_an_enosys_is_never_called_unknown(format: str) -> None:
    assert "unknown" not in FORMATS[format](RUNS["enosys"]).lower()


def test_reports_are_imported_at_first_use() -> None:
    code = (
        "import sys, kvmscen.reports; print([m for m in ('tabulate', 'xml', "
        "'kvmscen.reports.text') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "[]\n"
