"""What is said of one result in one line: the part that text, junit and ktap share.

Everything is ASCII but for what the user wrote, and control characters of any origin are shown
escaped.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from kvmscen.reports import harmless
from kvmscen.results.result import Result, StoryRow

BAD = ("FAIL", "ERROR", "XPASS")
PREDICTED = "predicted by the model, not run on KVM"

Paint = Callable[[str, str], str]
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}


def painter(color: bool) -> Paint:
    """A function of a text and a colour's name: with `color` it marks the text, and the marks
    become ANSI codes when it is printed.
    """
    return (
        (lambda text, name: harmless.colour(text, _COLOURS[name]) if text else text)
        if color
        else (lambda text, name: text)
    )


def clean(text: str) -> str:
    """One line of it, as wide as it will be shown (kvmscen.reports.harmless): what is laid out in
    columns has to know.
    """
    return harmless.shown(text.replace("\t", "    ")).replace("\n", "\\n")


def one_line(text: str) -> str:
    """`text` in one line, with single blanks."""
    return clean(" ".join(text.split()))


def brief(result: Result) -> str:
    """The reason in one line; of an ERROR's, which may hold the end of a console, the first
    line.
    """
    lines = (result.reason or "").strip().splitlines()
    return one_line(lines[0] if result.status == "ERROR" and lines else " ".join(lines))


def plural(count: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def where(result: Result) -> str:
    """The host and what it is: `kvm, kernel 6.1.0, svm`, `model, predicted`."""
    if result.predicted:
        return f"{clean(result.host)}, predicted" + (
            f" for kernel {clean(result.kernel)}" if result.kernel else ""
        )
    kernel = f", kernel {clean(result.kernel)}" if result.kernel else ""
    return clean(result.host) + kernel + (f", {clean(result.flavour)}" if result.flavour else "")


def ran_on(result: Result) -> str:
    """As `where`; says so when no KVM ran."""
    if not result.predicted:
        return where(result)
    return f"{clean(result.host)}, {PREDICTED}" + (
        f" (for kernel {clean(result.kernel)})" if result.kernel else ""
    )


def command(result: Result) -> str:
    """The shell command that repeats this case alone, on the same host."""
    # A path may look like an option.
    file = f"./{result.file}" if result.file.startswith("-") else result.file
    words = (
        "kvmscen",
        result.verb,
        file,
        "--case",
        result.case,
        "--on",
        result.host,
        *result.options,
    )
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if clean(word) == word:
        return shlex.quote(word)
    # What cannot be shown is written as the bytes that it is, as bash and zsh read them.
    named = not re.search("[\ud800-\udc7f\udd00-\udfff]", word)
    raw = word.encode("utf-8", "surrogateescape" if named else "backslashreplace")
    return (
        "$'"
        + "".join(chr(b) if 0x20 <= b < 0x7F and b not in b"'\\" else f"\\x{b:02x}" for b in raw)
        + "'"
    )


def rows(result: Result) -> list[StoryRow]:
    """The result's rows, and one for each mismatch that is not of a step: the final state, a limit
    that was reached.
    """
    differing = {(row.line, row.expected, row.observed) for row in result.rows if row.mark in "!-+"}
    out = list(result.rows)
    for m in result.mismatches:
        if (m.line, m.expected or "", m.observed or "") not in differing:
            mark = "-" if m.observed is None else "+" if m.expected is None else "!"
            out.append(StoryRow(mark, m.line, m.expected or "", m.observed or ""))
    return out


def place(result: Result) -> tuple[str, int]:
    """File and line to look at first: those of the first difference, else the case's own.

    What was observed and not expected has no line: it is looked for behind the step before it, else
    before the step behind it.
    """
    story = rows(result)
    first = next((number for number, row in enumerate(story) if row.mark in "!-+"), None)
    lines = [row.line for row in (*story[first::-1], *story[first:])] if first is not None else []
    return result.file, next((line for line in lines if line), result.line)


def what_is_wrong(result: Result, full: bool = True) -> str:
    """What is wrong, in one line: the first difference, or the reason. `full`: what was expected
    and observed too.
    """
    reason = brief(result)
    if result.status == "ERROR":
        return "error: " + (reason or "no reason was given")
    if result.status == "XPASS":
        return reason or "the known wrong outcome is gone"
    first = next((row for row in rows(result) if row.mark in "!-+"), None)
    step = result.mismatches[0].step if result.mismatches else 0
    at = f"step {step}: " if step else ""
    if first is None:
        return at + (reason or "not as expected")
    if first.mark == "-":
        return f"{at}expected, not observed: {one_line(first.expected)}"
    if first.mark == "+":
        return f"{at}observed, not expected: {one_line(first.observed)}"
    if first.differs == ("exit",) and not full:
        kinds = (one_line(text).partition(":")[0] for text in (first.expected, first.observed))
        return at + "expected {}, observed {}".format(*kinds)
    if first.differs and not full:
        return f"{at}{names(first)} {'differs' if len(first.differs) == 1 else 'differ'}"
    return f"{at}expected {one_line(first.expected)}, observed {one_line(first.observed)}"


def headline(result: Result, full: bool = True) -> str:
    """`file:line: what is wrong`, one line, never wrapped."""
    file, line = place(result)
    return f"{clean(file)}:{line}: {what_is_wrong(result, full)}"


def names(row: StoryRow) -> str:
    """The members in which a row differs."""
    return one_line(", ".join(row.differs))
