"""The border where text is printed: nothing of a stranger's gets through it as an order."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from typing import TextIO, cast
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import run, x86

from kvmscen.cli.streams import Harmless
from kvmscen.errors import Problem
from kvmscen.reports import FORMATS, harmless

EVIL = (
    "::error file=a::b",
    " \u00a0\t::stop-commands::x",
    "##[group]x",
    "a ##vso[task.complete]",
    "##teamcity[x]",
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\u202e\u2066rtl",
    "\u200b\ufeff",
    "ok 1 - fake # SKIP",
    "not ok 2",
    "KTAP version 1",
    "1..9",
    "Bail out!",
    "]]><failure/>",
    "\r::warning::x",
    "\x85::x",
    "\u2028::x",
    "\udc80",
    "\ufdd0\U000e0041",
    ":",
    "#",
    "[",
    "\n",
    " ",
)
texts = st.lists(st.one_of(st.sampled_from(EVIL), st.text(max_size=4)), max_size=12).map("".join)


def obeyed(printed: str) -> list[str]:
    """What of a text a terminal, a reader of right-to-left signs, or a CI service would obey."""
    signs = [
        c
        for c in printed
        if c not in "\n\t\u200c\u200d"
        and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")
    ]
    # As actions/runner does: blanks before it do not count, and the older form counts anywhere.
    commands = [line for line in printed.split("\n") if line.strip().startswith("::")]
    return signs + commands + re.findall(r"##[A-Za-z]*\[", printed)


@given(texts)
def test_nothing_is_obeyed(text: str) -> None:
    for border in (harmless.text, harmless.xml):
        assert obeyed(border(text)) == []
        assert border(border(text)) == border(text)


@given(
    st.text(st.characters(categories=("L", "M", "N", "P", "S")), max_size=30).filter(
        lambda text: "::" not in text and "##" not in text
    )
)
def test_what_does_no_harm_stays(text: str) -> None:
    assert harmless.text(text) == text


def test_letters_of_any_script_stay() -> None:
    plain = (
        "Größe 測試 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u2192 x::y # [a] \U0001f600"
    )
    assert harmless.text(plain) == plain
    assert harmless.xml(plain) == plain


@given(texts)
def test_json_means_the_same(text: str) -> None:
    written = json.dumps({"a": text, text: 1})
    assert json.loads(harmless.json(written)) == json.loads(written)
    assert obeyed(harmless.json(written)) == []


@given(texts)
def test_xml_means_the_same(text: str) -> None:
    element = ET.Element("a", b=harmless.shown(text))
    element.text = harmless.shown(text)
    again = ET.fromstring(harmless.xml(ET.tostring(element, encoding="unicode")))
    assert (again.text or "", again.get("b")) == (element.text, element.get("b"))


@given(st.lists(texts, max_size=6))
def test_a_line_in_pieces_is_no_way_through(pieces: list[str]) -> None:
    out = io.StringIO()
    stream = Harmless(cast(TextIO, out))
    for piece in pieces:
        stream.write(piece)
    assert obeyed(out.getvalue()) == []
    assert out.getvalue() == harmless.text("".join(pieces))


def test_colour_and_commands_of_ours_get_through() -> None:
    assert harmless.text("a " + harmless.colour("b", "31")) == "a \x1b[31mb\x1b[0m"
    assert harmless.text(harmless.command("::error file=a::b ##[x")) == "::error file=a::b ##[x"
    assert harmless.text("x\n" + harmless.command("::error::b")) == "x\n::error::b"
    # Not behind anything, nor as a colour of a line that is a command of somebody else's.
    assert harmless.text("x" + harmless.command("::error::b")) == "x::error::b"
    assert harmless.text(harmless.colour("::error::\x1b[32mb", "31")) == ":\\x3aerror::\\x1b[32mb"
    assert harmless.text(harmless.colour(" ", "31") + "::x") == " :\\x3ax"


@pytest.mark.parametrize("name", FORMATS)
@given(text=texts)
def test_no_report_lets_anything_through(name: str, text: str) -> None:
    made = run(
        x86(status="ERROR", summary=text, reason=text, hint=text, kernel=text),
        x86(status="SKIP", case=text, reason=text, host=text),
        x86(file=text, scenario=text),
        problems=(Problem(text, 1, 2, text),),
    )
    report = FORMATS[name](made)
    assert obeyed(report) == []
    if name == "json":
        assert json.loads(report)["results"][0]["reason"] == text
    if name == "junit":
        ET.fromstring(report)
    if name == "ktap":
        # Each line is one that the report means: what is the user's stands behind `# `, or as a
        # description.
        shape = r"KTAP version 1|1\.\.\d+|(?:not )?ok \d+ [^#]*(?: # .*)?|# .*|#"
        assert [
            line for line in report.splitlines() if not re.fullmatch(shape, line.removeprefix("  "))
        ] == []
