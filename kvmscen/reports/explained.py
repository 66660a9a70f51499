"""Everything about one result, in lines: what was expected beside what was seen, why, and the
command that repeats it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby

from kvmscen.reports.story import (
    Paint,
    clean,
    command,
    headline,
    names,
    one_line,
    plural,
    ran_on,
    rows,
)
from kvmscen.results.result import Result, StoryRow

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
            put(" ", 0, "    differs: " + names(row), "yellow")
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
            [(part, "yellow") for part in _wrap("  differs: " + names(row), right)]
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
    """The command that repeats the case; not wrapped, since it is there to be copied."""
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
