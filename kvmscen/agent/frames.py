"""Frames: one line each way, `0x1e LENGTH CRC32 BODY`, so that a console's noise around them does no harm.

LENGTH is the body's length in bytes and CRC32 its checksum in hex. The body is JSON text, or, when that is large, `z` and the
base64 of its zlib compression. Whatever is between frames is kept as console tail.
"""

from __future__ import annotations

import base64
import zlib

VERSION = 1
START = b"\x1e"
_LARGE = 1 << 16


def pack(text: str) -> bytes:
    """One frame that holds `text`."""
    body = text.encode()
    if len(body) > _LARGE:
        body = b"z" + base64.b64encode(zlib.compress(body, 1))
    return b"%s%d %08x %s\n" % (START, len(body), zlib.crc32(body), body)


def unpack(line: bytes) -> str | None:
    """The text of one line that starts with START; None when it is cut or damaged."""
    parts = line[1:].rstrip(b"\r\n").split(b" ", 2)
    if len(parts) != 3 or not parts[0].isdigit():
        return None
    length, crc, body = parts
    try:
        if int(length) != len(body) or int(crc, 16) != zlib.crc32(body):
            return None
        if body[:1] == b"z":
            body = zlib.decompress(base64.b64decode(body[1:]))
        return body.decode()
    except (ValueError, zlib.error):
        return None
