"""Frames: one line each way, `0x1e LENGTH CRC32 BODY`, so that a console's noise around them does
no harm.

LENGTH is the body's length in bytes and CRC32 its checksum in hex. The body is JSON text, or, when
that is large, `z` and the base64 of its zlib compression. Whatever is between frames is kept as
console tail.
"""

from __future__ import annotations

import base64
import zlib

VERSION = 2
START = b"\x1e"
_LARGE = 1 << 16
# More than any file's jobs or Observation; little enough that a line which never ends, or one that
# unpacks to a thousand times its size, does not take all memory.
MOST_TEXT = 256 << 20
MOST_LINE = 128 << 20
_TAIL = 4096


class TooLarge(ValueError):
    """A line that is longer than MOST_LINE, or unpacks to more than MOST_TEXT."""


def pack(text: str) -> bytes:
    """One frame that holds `text`."""
    body = text.encode()
    if len(body) > _LARGE:
        body = b"z" + base64.b64encode(zlib.compress(body, 1))
    return b"%s%d %08x %s\n" % (START, len(body), zlib.crc32(body), body)


def unpack(line: bytes) -> str | None:
    """The text of one line that starts with START; None when it is cut or damaged. Raises
    TooLarge.
    """
    parts = line[1:].rstrip(b"\r\n").split(b" ", 2)
    if len(parts) != 3 or not parts[0].isdigit():
        return None
    length, crc, body = parts
    try:
        if int(length) != len(body) or int(crc, 16) != zlib.crc32(body):
            return None
        if body[:1] == b"z":
            body = _decompress(base64.b64decode(body[1:]))
        return body.decode()
    except TooLarge:
        raise
    except (ValueError, zlib.error):
        return None


def _decompress(data: bytes) -> bytes:
    whole = zlib.decompressobj()
    text = whole.decompress(data, MOST_TEXT)
    if whole.unconsumed_tail:
        raise TooLarge
    if not whole.eof:
        raise ValueError("cut")
    return text


class Reader:
    """Frames out of a stream of bytes that may hold anything else too: of that, the end is kept as
    `tail`.

    `damaged`: a line that began as a frame was none; whoever reads sets it back. `noise`: bytes of
    it since the last frame.
    """

    def __init__(self) -> None:
        self.tail = bytearray()
        self.damaged = False
        self.noise = 0
        self._held = bytearray()
        self._searched = 0

    def feed(self, chunk: bytes) -> None:
        """Add bytes that were read from the stream."""
        self._held += chunk

    def next(self) -> str | None:
        """The next frame's text, None when more has to come first. Raises TooLarge."""
        held = self._held
        while (start := held.find(START)) >= 0:
            self._drop(start)
            end = held.find(b"\n", self._searched)
            # A body holds no START, so the last one in a line is where its frame begins, whatever
            # noise stands before it.
            start = held.rfind(START, self._searched, end if end >= 0 else len(held))
            if start > 0:
                self._drop(start)
                end -= start if end >= 0 else 0
            if end < 0:
                self._searched = len(held)
                if self._searched > MOST_LINE:
                    self.end()
                    raise TooLarge
                return None
            line = bytes(held[:end])
            del held[: end + 1]
            self._searched = 0
            if len(line) > MOST_LINE:
                raise TooLarge
            text = unpack(line)
            if text is not None:
                self.noise = 0
                return text
            self.damaged = True
        self.end()
        return None

    def _drop(self, size: int) -> None:
        """The first bytes held cannot become a frame any more."""
        if size > 0:
            self.keep(bytes(self._held[:size]))
            del self._held[:size]
            self._searched = 0

    def keep(self, noise: bytes) -> None:
        """Put noise at the end of `tail`."""
        self.noise += len(noise)
        self.tail += noise[-_TAIL:]
        del self.tail[:-_TAIL]

    def end(self) -> None:
        """Call at the end of the stream: bytes that are left are noise."""
        self.keep(bytes(self._held))
        self._held.clear()
        self._searched = 0
