"""The text report while it grows."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

from kvmscen.cli.streams import again
from kvmscen.engine.work import Progress
from kvmscen.errors import Problem
from kvmscen.reports import text
from kvmscen.reports.story import BAD, plural
from kvmscen.results.result import Result, Run

# A progress bar is for runs longer than a screen.
_BAR_FROM = 20


class Screen:
    """The text report while it grows: a line a case, failures, a bar on a terminal, a table at the
    end.
    """

    def __init__(
        self, out: TextIO, asked: bool = False, quiet: bool = False, verbose: bool = False
    ) -> None:
        self.out = out
        self.asked = asked  # whether every case shows what it accessed
        self.quiet = quiet  # only what is not as it should be
        self.verbose = verbose  # every case with its whole story
        self.told: dict[
            tuple[str, str], Result
        ] = {}  # the failures so far, since hosts often fail alike
        self.color = _color(out)
        self.width = shutil.get_terminal_size((120, 24)).columns
        self.bar = ""
        self.cases = self.failed = 0

    def say(self, line: str) -> None:
        """Print one line or several above the progress bar."""
        self.clear()
        print(line, file=self.out)

    def problem(self, problem: Problem) -> None:
        """Print a problem of a file."""
        self.say(text.problem(problem))

    def result(self, result: Result, progress: Progress) -> None:
        """Print the result of a case, and redraw the progress bar."""
        self.cases += 1
        self.failed += result.status in BAD
        if not self.quiet or result.status in BAD:
            self.say(self._shown(result))
            for line in text.beneath(result, self.asked):
                self.say(line)
        self.out.flush()
        self.progress(progress, self.cases >= _BAR_FROM or progress.of >= _BAR_FROM)

    def waiting(self, progress: Progress) -> None:
        """Redraw the progress bar while no case ends."""
        self.progress(progress)

    def _shown(self, result: Result) -> str:
        if result.status not in BAD:
            whole = self.verbose and result.rows
            return (
                text.passed(result, self.color, self.width)
                if whole
                else text.line(result, self.color)
            )
        before = self.told.setdefault((result.file, result.case), result)
        return text.failure(result, self.color, self.width, None if before is result else before)

    def end(self, run: Run) -> None:
        """The hosts side by side, where there are several, and the summary."""
        self.clear()
        if run.results and not self.quiet:
            self.say("")
        self.say(text.summary(run, self.width) if self.quiet else text.end(run, self.width))
        if os.environ.get("GITHUB_ACTIONS") and (notes := text.annotations(run)):
            self.say(notes)
        self.out.flush()

    def progress(self, progress: Progress, wanted: bool = True) -> None:
        """The bar, on a terminal: how much is done, what of it was not as it should be, and what
        runs.
        """
        if not wanted or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return
        state = (
            f"{progress.files}/{progress.of} files" if progress.of > 1 else f"{progress.share:.0%}"
        )
        state += f", {plural(self.cases, 'case')}" if self.cases else ""
        state += f", {self.failed} failed" if self.failed else ""
        state += f": {progress.running}" if progress.running else ""
        width = max(10, min(40, self.width // 3))
        full = int(width * progress.share)
        bar = f"[{'#' * full}{' ' * (width - full)}] {state}"
        # One column is left free: a terminal may go on to the next line when the last one is taken.
        bar = bar if len(bar) < self.width else bar[: max(self.width - 4, 0)] + "..."
        self.overwrite(bar)

    def overwrite(self, text: str) -> None:
        """A line that the next thing which is said takes the place of; for a terminal only."""
        again(sys.stderr, text.ljust(len(self.bar)))
        self.bar = text
        sys.stderr.flush()

    def clear(self) -> None:
        """Take away what `progress` or `overwrite` has left in the last line of the terminal."""
        if self.bar:
            again(sys.stderr, " " * len(self.bar))
            again(sys.stderr, "")
            sys.stderr.flush()
            self.bar = ""


def _color(out: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return out.isatty() and os.environ.get("TERM") != "dumb"
