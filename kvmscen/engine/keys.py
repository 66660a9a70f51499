"""The keys of the cache of prepared files, as the workers and the main process make them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

# A scenario file has at most so many bytes.
_MOST = 1 << 20
# The members of a request that say what comes of it.
_ASKED = ("run", "check", "text", "cases", "assembler", "first", "most")


class Keys:
    """Makes the keys of one run. `base` is a digest of what prepares, `told` what all workers were
    told first.
    """

    def __init__(self, base: str, told: dict[str, Any]) -> None:
        text = json.dumps([base, told], sort_keys=True)
        self._base = hashlib.blake2b(text.encode(), digest_size=32)

    def key(self, request: dict[str, Any], raw: bytes) -> bytes:
        """The key of a request for a file of these bytes."""
        held = self._base.copy()
        asked = json.dumps([request.get(member) for member in _ASKED]).encode()
        held.update(len(asked).to_bytes(8, "little") + asked + raw)
        return held.digest()


def told_of(orders: dict[str, Any]) -> dict[str, Any]:
    """What of the first request of a worker says what comes of files."""
    return {member: orders.get(member) for member in ("targets", "each", "assembler")}


def digest(raw: bytes | None) -> str:
    """Names the bytes of a file; empty where there are none."""
    return "" if raw is None else hashlib.blake2b(raw, digest_size=16).hexdigest()


def raw(file: str) -> bytes | None:
    """The bytes of a scenario, None where they are none that can be kept."""
    try:
        with Path(file).open("rb", 0) as stream:
            found = stream.read(_MOST + 1)
    except (OSError, ValueError):
        return None
    return found if found is not None and len(found) <= _MOST else None
