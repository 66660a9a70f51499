"""A file with wrong cases as a user meets it: the others run, the status is 2, every report names
what did not run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from test_status import ROOT, kvmscen

MIXED = """\
arch: x86_64
memslots: [{slot: 0, gpa: 0x0, size: 0x1000}]
asm: |
  _start: hlt
expect: [hlt]
cases:
  read: {summary: fine}
  typo: {expct: [hlt]}
  later: {setup: [create_irqchip]}
  words: {asm: hltt}
  name: {expect: [{mmio: {phys_addr: nowhere}}]}
  far: {sections: {.text: 0x8000}}
"""
WRONG = ["typo", "later", "words", "name", "far"]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    (tmp_path / "mixed.yaml").write_text(MIXED)
    (tmp_path / "good.yaml").write_text(MIXED.partition("cases:")[0])
    return tmp_path


def test_the_others_run(mixed: Path) -> None:
    done = kvmscen("run", mixed, "--on", "model", "--report", "json")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    jsonschema.validate(told, json.loads((ROOT / "schema" / "report.schema.json").read_text()))
    assert [(r["scenario"], r["case"], r["status"]) for r in told["results"]] == [
        ("good", "default", "PASS"),
        ("mixed", "default", "PASS"),
        ("mixed", "read", "PASS"),
    ]
    assert sorted(name for problem in told["errors"] for name in problem["cases"]) == sorted(WRONG)
    assert "3 passed, 5 wrong cases in" in done.stderr


def test_junit_and_ktap_name_them(mixed: Path) -> None:
    tree = ET.fromstring(kvmscen("run", mixed, "--on", "model", "--report", "junit").stdout)
    wrong = [
        case.attrib["name"] for case in tree.iter("testcase") if case.find("error") is not None
    ]
    assert sorted(wrong) == sorted(WRONG)
    assert (tree.get("tests"), tree.get("errors")) == ("8", "5")
    ktap = kvmscen("run", mixed, "--on", "model", "--report", "ktap").stdout
    assert re.findall(r"not ok \d+ (\w+) # ERROR", ktap) == [
        *WRONG,
        *re.findall(r"not ok 2 (\w+)", ktap),
    ]
    assert "  1..7\n" in ktap


def test_check_counts_every_case(mixed: Path) -> None:
    done = kvmscen("check", mixed)
    assert (done.returncode, done.stderr) == (2, "2 files, 8 cases: 1 wrong\n")
    assert len(done.stdout.splitlines()) == 5


def test_a_good_case_that_is_asked_for_is_green(mixed: Path) -> None:
    done = kvmscen("run", mixed, "--on", "model", "--case", "read")
    assert (done.returncode, "1 passed in" in done.stdout, "mixed.yaml:" in done.stdout) == (
        0,
        True,
        False,
    )
    done = kvmscen("run", mixed, "--on", "model", "--case", "read", "--case", "typo")
    assert (done.returncode, "1 passed, 1 wrong case in" in done.stdout) == (2, True)
    done = kvmscen("show", mixed / "mixed.yaml", "--case", "read")
    assert (done.returncode, done.stderr) == (0, "")
    done = kvmscen("show", mixed / "mixed.yaml")
    assert (done.returncode, len(done.stderr.splitlines()), "case read" in done.stdout) == (
        2,
        5,
        True,
    )


@pytest.mark.parametrize("verb", [("run", "--on", "model"), ("measure", "--on", "kvm")])
def test_a_case_that_is_nowhere_is_told(verb: tuple[str, ...], mixed: Path) -> None:
    name, *options = verb
    done = kvmscen(name, mixed, "--case", "raed", "--case", "read", *options)
    assert done.returncode in (2, 3)
    if done.returncode == 2:
        assert (
            "kvmscen: no file here has a case raed: did you mean read?" in done.stdout + done.stderr
        )
    done = kvmscen(name, mixed, "--case", "quux", *options)
    assert done.returncode in (2, 3)


def test_a_selection_of_nothing_is_4(mixed: Path) -> None:
    assert (
        kvmscen("run", mixed / "good.yaml", "--on", "model", "-k", "no such text").returncode == 4
    )
