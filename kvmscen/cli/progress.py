"""How far a measurement is: a line that is written over on a terminal, else one now and then. All
of it on standard error.
"""

from __future__ import annotations

import os
import sys
import time

from kvmscen.cli.screen import Screen
from kvmscen.measure.rounds import RoundDone
from kvmscen.results.measured import median, time_text

# Seconds between two lines where no terminal is.
_PAUSE = 10.0
_BAR = 20


class Progress:
    """Called before each execution, and behind the last one."""

    def __init__(self, screen: Screen, quiet: bool) -> None:
        self.screen = screen
        self.quiet = quiet
        self.terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.began = self.told = time.monotonic()

    def __call__(self, step: RoundDone) -> None:
        """Print a step, unless the last one was printed a moment ago."""
        now = time.monotonic()
        if self.quiet or step.of == 0:
            return
        if self.terminal:
            if step.done < step.of:
                self.screen.overwrite(_bar(step, self.screen.width - 1))
            else:
                self.screen.clear()
        elif now - self.told >= _PAUSE and step.done < step.of:
            self.told = now
            print(
                f"kvmscen: {_words(step)}; {now - self.began:.0f} s so far",
                file=sys.stderr,
                flush=True,
            )


def _words(step: RoundDone) -> str:
    """`round 3 of 10: x86_64-cost on kvm (24 of 80 runs); ram 0.24 ns, mmio 14.1 us`."""
    figures = ", ".join(
        f"{name} {time_text(median(medians))}" for name, medians in step.figures.items()
    )
    place = (
        f"{step.name} on {step.host} ({step.done} of {step.of} runs)"
        if step.of > step.rounds
        else f"{step.name} on {step.host}"
    )
    return f"round {step.round} of {step.rounds}: {place}" + (
        f"; so far {figures}" if figures else ""
    )


def _bar(step: RoundDone, width: int) -> str:
    full = _BAR * step.done // step.of
    text = f"[{'#' * full}{' ' * (_BAR - full)}] {_words(step)}"
    return text if len(text) <= width else text[: max(width - 3, 0)] + "..."
