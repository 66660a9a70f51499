"""What went wrong with one result, as lines of text: the part that text, junit and ktap share.

Everything is ASCII but for what the user wrote, and control characters of any origin are shown
escaped.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from kvmscen.reports import harmless
from kvmscen.results.result import Result, StoryRow

BAD = ("FAIL", "ERROR", "XPASS")
PREDICTED = "predicted by the model, not run on KVM"

# Equal steps shown on either side of a difference, and how many rows of one other kind are shown
# before they are folded.
CONTEXT = 3
LONGEST = 12
# Equal steps shown at either end of a story that is told though nothing differs.
WHOLE = 20
# Differences shown of a story that has more, beside the last CONTEXT of them.
MOST = 9
# Below this a terminal has no room for two columns of steps.
SIDE_BY_SIDE = 100

Paint = Callable[[str, str], str]
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}


def painter(color: bool) -> Paint:
    """A function of text and colour's name: with `color` it puts round the text what becomes ANSI
    codes where it is printed.
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
    """All of it in one line."""
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
    """As `where`, and in plain words when no KVM ran."""
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
    told = {(row.line, row.expected, row.observed) for row in result.rows if row.mark in "!-+"}
    out = list(result.rows)
    for m in result.mismatches:
        if (m.line, m.expected or "", m.observed or "") not in told:
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


def what(result: Result, full: bool = True) -> str:
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
        return f"{at}{_names(first)} {'differs' if len(first.differs) == 1 else 'differ'}"
    return f"{at}expected {one_line(first.expected)}, observed {one_line(first.observed)}"


def headline(result: Result, full: bool = True) -> str:
    """`file:line: what is wrong`, one line, never wrapped."""
    file, line = place(result)
    return f"{clean(file)}:{line}: {what(result, full)}"


def _names(row: StoryRow) -> str:
    return one_line(", ".join(row.differs))


def differences(
    result: Result, width: int | None, paint: Paint, context: int = CONTEXT
) -> list[str]:
    """Expected against observed, side by side where `width` columns have room, else (or with None)
    one above the other.
    """
    story = rows(result)
    if not any(row.expected or row.observed for row in story):
        return []
    folded = fold(story, context)
    return (
        _side_by_side(folded, width, paint)
        if width and width >= SIDE_BY_SIDE
        else _unified(folded, width, paint)
    )


def fold(story: Sequence[StoryRow], context: int = CONTEXT) -> list[StoryRow | str]:
    """The rows, with long stretches of one kind replaced by a note that says how many are left
    out.
    """
    out: list[StoryRow | str] = []
    groups = [
        (kind, list(group))
        for kind, group in groupby(story, lambda row: "=" if row.mark in " ~" else row.mark)
    ]
    for number, (kind, group) in enumerate(groups):
        if kind == "=":
            head = context if number else 0
            tail = context if number + 1 < len(groups) else 0
            if len(groups) == 1:
                head = tail = context
        else:
            head, tail = LONGEST - CONTEXT, CONTEXT
        # A note in place of one row saves nothing.
        if len(group) <= head + tail + 1:
            out.extend(group)
            continue
        out.extend(group[:head])
        out.append(_folded(kind, group[head : len(group) - tail]))
        out.extend(group[len(group) - tail :])
    return _capped(out)


def _capped(rows: list[StoryRow | str]) -> list[StoryRow | str]:
    """The rows up to so many differences, and the last of them: what lies between is counted."""
    wrong = [n for n, row in enumerate(rows) if isinstance(row, StoryRow) and row.mark in "!-+"]
    if len(wrong) <= MOST + CONTEXT + 1:
        return rows
    start, end = wrong[MOST - 1] + 1, wrong[-CONTEXT]
    # A row that is the same belongs to the difference behind it.
    while end > start and isinstance(rows[end - 1], StoryRow) and rows[end - 1].mark in " ~":  # type: ignore[union-attr]
        end -= 1
    left_out = rows[start:end]
    differ = sum(isinstance(row, StoryRow) and row.mark in "!-+" for row in left_out)
    note = f"... {differ:,} more that differ, in {len(left_out):,} lines that are left out ..."
    return [*rows[:start], note, *rows[end:]]


def _folded(kind: str, folded: Sequence[StoryRow]) -> str:
    ignored = sum(row.mark == "~" for row in folded)
    equal = len(folded) - ignored
    if kind == "=":
        counts = [plural(equal, "equal step")] * bool(equal) + [
            plural(ignored, "ignored exit")
        ] * bool(ignored)
        return f"... {', '.join(counts)} ..."
    kinds = {"!": "that differ", "-": "that are missing", "+": "that were not expected"}
    return f"... {len(folded):,} more {kinds.get(kind, '')} ..."


def _unified(folded: Iterable[StoryRow | str], width: int | None, paint: Paint) -> list[str]:
    folded = list(folded)
    digits = _digits(folded)
    room = max(width - digits - 5, 20) if width else None
    blank = " " * (digits + 5)
    out: list[str] = []

    def put(mark: str, line: int, text: str, colour: str) -> None:
        for number, part in enumerate(_wrap(text, room)):
            first = f"  {mark} {line or '':>{digits}} " if number == 0 else blank
            out.append(
                paint((first + part).rstrip(), colour) if colour else (first + part).rstrip()
            )

    for row in folded:
        if isinstance(row, str):
            out.append(paint(blank + row, "dim"))
            continue
        if row.mark in "!-":
            put("-", row.line, row.expected, "red")
        if row.mark in "!+":
            put("+", row.line if row.mark == "+" else 0, row.observed, "green")
        if row.mark in " ~":
            put(row.mark, row.line, row.observed or row.expected, "")
        if row.source:
            put(" ", 0, "    at " + row.source, "dim")
        if row.differs and row.differs != ("exit",):
            put(" ", 0, "    differs: " + _names(row), "yellow")
        if row.note:
            put(" ", 0, "    " + row.note, "yellow")
    return out


def _side_by_side(folded: Iterable[StoryRow | str], width: int, paint: Paint) -> list[str]:
    folded = list(folded)
    digits = max(_digits(folded), len("line"))
    blank = " " * (digits + 6)
    real = [row for row in folded if isinstance(row, StoryRow)]
    left = max(len("expected"), *(len(clean(row.expected)) for row in real))
    right = max(
        len("observed"),
        *(max(len(clean(row.observed)), len(clean(row.source)) + 5) for row in real),
    )
    room = width - len(blank) - 3
    if left + right > room:
        left = min(left, max(room // 2, room - right))
        right = room - left
    out = [paint(f"    {'line':>{digits}}  {'expected':{left}}   observed", "dim")]
    for row in folded:
        if isinstance(row, str):
            out.append(paint(blank + row, "dim"))
            continue
        expected, observed = _wrap(row.expected, left), _wrap(row.observed, right)
        notes = [(part, "dim") for part in _wrap("  at " + row.source, right)] if row.source else []
        notes += (
            [(part, "yellow") for part in _wrap("  differs: " + _names(row), right)]
            if row.differs not in ((), ("exit",))
            else []
        )
        notes += [(part, "yellow") for part in _wrap("  " + row.note, right)] if row.note else []
        changed = row.mark in "!-+"
        cells = [
            (part, "green" if changed else "") for part in observed if part or row.observed
        ] + notes
        for number in range(max(len(expected), len(cells))):
            first = f"  {row.mark} {row.line or '':>{digits}}  " if number == 0 else blank
            a = expected[number] if number < len(expected) else ""
            b, colour = cells[number] if number < len(cells) else ("", "")
            a = paint(a, "red") + " " * (left - len(a)) if changed else f"{a:{left}}"
            out.append(f"{first}{a}   {paint(b, colour) if colour else b}".rstrip())
    return out


def _digits(folded: Iterable[StoryRow | str]) -> int:
    return max([len(str(row.line)) for row in folded if isinstance(row, StoryRow)], default=1)


def _wrap(text: str, width: int | None) -> list[str]:
    text = clean(text)
    if width is None or len(text) <= width:
        return [text]
    indent = len(text) - len(text.lstrip()) + 2
    # `key: value` stays together; NUL cannot be in a cleaned text.
    bound = text.replace(": ", ":\0")
    parts = textwrap.wrap(bound, width, subsequent_indent=" " * indent, break_on_hyphens=False)
    return [part.replace("\0", " ") for part in parts]


def paragraphs(label: str, text: str, width: int | None) -> list[str]:
    """`label: text`, wrapped under itself; the text's own line ends stay."""
    out: list[str] = []
    for number, line in enumerate(text.splitlines() or [""]):
        later = " " * (len(label) + 4)
        first = f"  {label}: " if number == 0 else later
        # Long words stay whole: one may be a path with its line.
        room = max(width or 0, 40) - len(later)
        parts = (
            textwrap.wrap(clean(line), room, break_long_words=False, break_on_hyphens=False)
            if width
            else [clean(line)]
        )
        out.append((first + (parts[0] if parts else "")).rstrip())
        out += [later + part for part in parts[1:]]
    return out


def explanation(result: Result, width: int | None, paint: Paint) -> list[str]:
    """Everything about a result that is not as it should be: headline, rows, hint, and the command
    that repeats it.
    """
    lines = [paint(headline(result, full=False), "bold")]
    if result.summary.strip():
        lines += paragraphs("summary", one_line(result.summary), width)
    lines += differences(result, width, paint)
    reason = (result.reason or "").strip()
    if result.status == "ERROR":
        lines += (
            paragraphs("more", "\n".join(reason.splitlines()[1:]), width) if "\n" in reason else []
        )
    elif reason and result.status != "XPASS" and one_line(reason) not in lines[0]:
        lines += paragraphs("reason", reason, width)
    detail = result.observation.detail if result.observation else None
    if detail and detail != result.reason:
        lines += paragraphs("stopped", detail, width)
    if result.predicted:
        lines += paragraphs("host", ran_on(result), width)
    if result.hint:
        lines += [paint(line, "cyan") for line in paragraphs("hint", result.hint, width)]
    if result.status == "XPASS":
        lines += paragraphs(
            "hint", "take the entry with `xfail` out of `when`, or narrow its conditions", width
        )
    return [*lines, again(result)]


def again(result: Result) -> str:
    """The command that repeats it; not wrapped, since it is there to be copied."""
    return f"  again: {clean(command(result))}"


def whole(result: Result, width: int | None, paint: Paint) -> list[str]:
    """A result that is as it should be: its place, every step beside what was seen, and the command
    that repeats it.
    """
    lines = [paint(f"{clean(result.file)}:{result.line}: as expected", "bold")]
    if result.summary.strip():
        lines += paragraphs("summary", one_line(result.summary), width)
    if result.reason:
        lines += paragraphs("reason", result.reason, width)
    lines += differences(result, width, paint, WHOLE)
    return [*lines, again(result)]
