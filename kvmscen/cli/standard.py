"""Standard input, output and error as everything else here may rely on them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TextIO, TypeVar

from kvmscen.errors import KvmscenError

T = TypeVar("T")


class OutputError(KvmscenError):
    """Standard output or error cannot be written: a full disk, say. Whoever reads it gone is
    BrokenPipeError instead.
    """


class _Output(io.TextIOWrapper):
    """A stream whose errors are known from those of other files, and that no character breaks."""

    def write(self, text: str) -> int:
        return _told(lambda: super(_Output, self).write(text))

    def flush(self) -> None:
        _told(super().flush)


def _told(doing: Callable[[], T]) -> T:
    try:
        return doing()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"the output could not be written: {error.strerror}") from None


def standard() -> None:
    """Set up sys.stdin, stdout and stderr. Those that are closed get /dev/null: the exit status
    still counts.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest that is free, which is this one; else the next file that we open would be
            # it.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = _output(sys.stdout, 1), _output(sys.stderr, 2)


def _output(stream: TextIO | None, number: int) -> _Output:
    encoding = None if stream is None else stream.encoding
    raw = (
        stream.detach()
        if isinstance(stream, io.TextIOWrapper)
        else os.fdopen(number, "wb", closefd=False)
    )
    # A terminal that has ASCII only, or a file name that is no UTF-8, breaks no report.
    return _Output(raw, encoding, "backslashreplace", line_buffering=number == 2 or raw.isatty())
