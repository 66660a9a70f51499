"""The text report: what holds at any width, and what a terminal must never be told."""

from __future__ import annotations

import re
import shlex

import pytest
from report_samples import (
    RUNS,
    broken,
    data_and_regs,
    enosys,
    io,
    post_index,
    repeated,
    run,
    same,
    skipped,
    x86,
    xfailed,
)

from kvmscen.errors import Problem
from kvmscen.reports import explained, harmless, story, text
from kvmscen.results.result import Mismatch, Result, StoryRow

ANSI = re.compile(r"\x1b\[[0-9;]*m")
FAILURES = [enosys(), data_and_regs(), repeated(), broken()]
WIDTHS = [40, 60, 99, 100, 120, 250]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("result", FAILURES, ids=lambda result: result.name)
def test_only_title_place_and_command_may_be_wider_than_the_terminal(
    result: Result, width: int
) -> None:
    title, place, *body, again = text.failure(result, False, width).split("\n")
    assert title.startswith(result.status)
    assert re.match(r"scenarios/[a-z0-9-]+\.yaml:\d+: ", place)
    assert again.startswith("  again: kvmscen run ")
    assert max(map(len, body), default=0) <= width


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("width", WIDTHS)
def test_colour_changes_nothing_but_colour(name: str, width: int) -> None:
    for result in RUNS[name].results:
        assert ANSI.sub("", harmless.text(text.line(result, True))) == text.line(result, False)
        assert ANSI.sub("", harmless.text(text.failure(result, True, width))) == text.failure(
            result, False, width
        )


@pytest.mark.parametrize("name", RUNS)
def test_the_whole_report_is_ascii_without_control_characters(name: str) -> None:
    report = text.render(RUNS[name])
    assert report.isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", report)
    assert report.endswith("\n")


def test_a_guest_cannot_steer_the_terminal() -> None:
    row = StoryRow("+", 0, "", "hlt: {}", (), "9: \x1b[2J\x9b31m # \u202e")
    result = x86(
        status="FAIL", rows=(row,), reason="\x1b]0;title\x07", hint="\x1b[1m", kernel="6\x1b[1m"
    )
    whole = text.render(
        run(result, problems=(Problem("a.yaml", 1, 2, "no \x1b[2J here\nor there"),))
    ) + text.line(result, False)
    assert "\x1b" not in whole
    assert "\x9b" not in whole
    assert "\x07" not in whole
    assert "\u202e" not in whole
    assert "a.yaml:1:2: no \\x1b[2J here or there\n" in whole


def test_an_enosys_is_never_called_unknown() -> None:
    result = enosys(hint=None)
    for width in WIDTHS:
        shown = text.failure(result, False, width) + text.line(result, False)
        assert "ENOSYS" in shown
        assert "unknown" not in shown.lower()


def test_side_by_side_from_100_columns_on() -> None:
    assert (
        "expected" not in text.failure(enosys(), False, 99).split("differs:")[0].split("\n", 2)[2]
    )
    assert re.search(r"line +expected +observed\n", text.failure(enosys(), False, 100))


def test_equal_stretches_are_folded() -> None:
    rows = [same(9, "hlt: {}") for _ in range(1000)] + [StoryRow("-", 10, "shutdown: {}", "")]
    shown = text.failure(x86(status="FAIL", rows=tuple(rows)), False, 80)
    assert "... 997 equal steps ..." in shown
    assert shown.count("hlt: {}") == 3


def test_a_fold_of_one_row_is_not_made() -> None:
    rows = [same(9, "hlt: {}") for _ in range(4)] + [StoryRow("-", 10, "shutdown: {}", "")]
    assert explained.fold(rows) == rows


def test_ignored_exits_are_counted_apart() -> None:
    rows = [
        same(9, "hlt: {}"),
        *[StoryRow("~", 0, "", "io: {}") for _ in range(8)],
        same(9, "hlt: {}"),
        StoryRow("-", 10, "x: {}", ""),
    ]
    assert explained.fold(rows)[0] == "... 1 equal step, 6 ignored exits ..."


@pytest.mark.parametrize("file", ["scenarios/a b.yaml", "it's.yaml", "-k.yaml", "$(reboot).yaml"])
def test_the_command_survives_the_shell(file: str) -> None:
    result = x86("a case", "FAIL", file=file, host="replay:my file.json")
    words = shlex.split(story.command(result))
    path = words[2].removeprefix("./")
    assert (path, words[3:]) == (file, ["--case", "a case", "--on", "replay:my file.json"])
    assert not words[2].startswith("-")


def test_the_place_of_what_was_not_expected_is_the_step_before() -> None:
    rows = (
        same(7, "hlt: {}"),
        StoryRow("+", 0, "", "shutdown: {}"),
        StoryRow("-", 9, "hlt: {}", ""),
    )
    assert story.headline(x86(status="FAIL", rows=rows)).startswith("scenarios/x86-io.yaml:7: ")
    assert story.headline(x86(status="FAIL", rows=rows[1:2])).startswith(
        "scenarios/x86-io.yaml:3: "
    )


@pytest.mark.parametrize("status", ["PASS", "SKIP", "XFAIL"])
def test_no_failure_to_show(status: str) -> None:
    assert text.failure(x86(status=status), True, 80) == ""


def test_lines_name_the_reason() -> None:
    assert text.line(skipped(), False).endswith(": the host lacks KVM_CAP_X86_USER_SPACE_MSR")
    assert text.line(xfailed(), False).startswith(
        "XFAIL arm64-post-index:sign-extend on model, predicted ("
    )
    assert text.line(broken(), False).endswith(": the agent ended by SIGSEGV")
    assert "\n" not in text.line(broken(), False)


def test_summary() -> None:
    assert (
        text.summary(run(x86(), x86("a", "FAIL"), skipped()))
        == "1 passed, 1 failed, 1 skipped in 0.8 s"
    )
    assert text.summary(run(skipped())) == "1 skipped in 0.8 s: nothing ran"
    assert text.summary(run(x86(), post_index())).endswith(
        " (1 of the 2 that ran was predicted by the model, not run on KVM)"
    )
    # What a model skipped was not predicted.
    assert "predicted" not in text.summary(
        run(x86(), post_index(status="SKIP", reason="no model of it"))
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_the_last_line_counts(width: int) -> None:
    for name, sample in RUNS.items():
        assert re.search(r" in \d+\.\d s", text.table(sample, width).split("\n")[-1]), name


def test_the_table_of_many_names_only_what_failed() -> None:
    table = text.table(RUNS["thousand"], 100)
    assert len(table.split("\n")) < 12
    for case in ("form-0017", "form-0503", "x86-io:crash"):
        assert case in table
    assert "x86-io:form-0300, x86-io:form-0301, x86-io:form-0302 and 37 more on kvm" in table


def test_no_table_is_spoken_of_where_none_is() -> None:
    assert "table" not in text.table(run(*(x86(f"c{n}") for n in range(50))), 100)
    assert text.end(run(*(x86(f"c{n}") for n in range(50))), 100) == "50 passed in 0.8 s"


def test_a_failure_is_told_in_full_once() -> None:
    first = x86(
        "a",
        "FAIL",
        rows=(StoryRow("!", 5, io(1), io(2), ("data",)),),
        mismatches=(Mismatch(1, 5, io(1), io(2)),),
    )
    second = first._replace(host="qemu:x86_64@6.1", kernel="6.1.0", flavour="svm")
    shown = text.failure(second, False, 100, first)
    assert "the same as on kvm, kernel 6.1.0-18-amd64" in shown
    assert "on qemu:x86_64@6.1, kernel 6.1.0, svm" in shown
    assert "--on qemu:x86_64@6.1" in shown
    assert len(shown.split("\n")) == 4
    # One that differs otherwise is told in full.
    other = second._replace(mismatches=(Mismatch(1, 5, io(1), io(3)),))
    assert "expected" in text.failure(other, False, 100, first).split("\n", 2)[2]
    assert text.render(run(first, second)).count("differs: data") == 1


def test_a_pass_with_its_whole_story() -> None:
    result = x86(
        rows=tuple(StoryRow(" ", n, io(n), io(n), (), f"{n}: out dx, al") for n in range(1, 60))
    )
    shown = text.passed(result, False, 120)
    assert shown.startswith(
        "PASS x86-io on kvm, kernel 6.1.0-18-amd64\nscenarios/x86-io.yaml:3: as expected\n"
    )
    assert "at 1: out dx, al" in shown
    assert "19 equal steps" in shown


def test_many_cases_on_several_hosts_end_with_counts_by_host() -> None:
    results = [
        x86(f"c{n}", "FAIL" if n == 7 and host == "model" else "PASS", host=host)
        for host in ("kvm", "model")
        for n in range(50)
    ]
    table = text.table(run(*results), 80)
    assert re.search(r"x86-io:c7 +PASS +FAIL\n", table)
    assert re.search(r"PASS +50 +49\n", table)


def test_files_of_one_stem_are_told_apart() -> None:
    table = text.table(run(x86(), x86(file="old/x86-io.yaml")), 100)
    assert "scenarios/x86-io.yaml:default" in table
    assert "old/x86-io.yaml:default" in table


def test_annotations_are_escaped() -> None:
    result = x86(
        "a", "FAIL", file="a,b:c%.yaml", rows=(StoryRow("!", 5, io(1), "100%\r\n", ("data",)),)
    )
    assert harmless.text(text.annotations(run(result))) == (
        "::error file=a%2Cb%3Ac%25.yaml,line=5::FAIL x86-io:a on kvm, kernel 6.1.0-18-amd64: "
        "expected io: {direction: out, port: 0x3f8, size: 1, data: 0x1}, observed 100%25"
    )
    assert text.annotations(run(x86())) == ""


def test_what_differs_in_the_end_is_shown_though_it_has_no_row() -> None:
    wrong = Mismatch(0, 41, "final rbx: 2", "final rbx: 1")
    result = x86(status="FAIL", rows=(same(7, "hlt: {}"),), mismatches=(wrong,))
    for width in WIDTHS:
        shown = text.failure(result, False, width)
        assert (
            shown.split("\n")[1]
            == "scenarios/x86-io.yaml:41: expected final rbx: 2, observed final rbx: 1"
        )
        assert shown.count("final rbx: 2") == 2
        assert shown.count("final rbx: 1") == 2
