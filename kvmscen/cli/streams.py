"""Standard output and standard error as the program writes to them: through the border of
kvmscen.reports.harmless.
"""

from __future__ import annotations

import io
import sys
from typing import Any, TextIO, cast

from kvmscen.reports import harmless

# So much of a line's beginning shows whether it is a command, and so much of its end whether one
# begins there.
_HEAD, _END = 256, 64


class Harmless:
    """A stream on which a stranger's text is shown and never obeyed. Anything but `write` is the
    stream's own.

    A line may come in pieces: what has come of it is looked at again together with what comes.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._begun = ""  # what has come of the last line
        self._written = 0  # how many characters of it have been written

    def write(self, text: str) -> int:
        """Write `text` with control characters and workflow commands made harmless."""
        whole = self._begun + text
        # What is changed is always the last character of what makes a command, so that what was
        # written stays right.
        self.stream.write(harmless.text(whole)[self._written :])
        begun = whole[whole.rfind("\n") + 1 :]
        if len(begun) > _HEAD:
            begun = begun[-_HEAD:] if begun.isspace() else "x" + begun[-_END:]
        self._begun, self._written = begun, len(harmless.text(begun))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several lines, as `write` does."""
        for line in lines:
            self.write(line)

    def again(self, text: str) -> None:
        """Write one line of `text` over the last one of a terminal, and stay in it."""
        self.stream.write("\r" + harmless.text(text.replace("\n", " ")))
        self._begun, self._written = "", 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def install() -> None:
    """Put the border before standard output and standard error; what their encoding lacks is shown
    as an escape.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, Harmless):
            continue
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, cast(TextIO, Harmless(stream)))


def again(stream: TextIO, text: str) -> None:
    """As `Harmless.again`, for a stream of which it is not known whether the border stands before
    it.
    """
    (stream if isinstance(stream, Harmless) else Harmless(stream)).again(text)
