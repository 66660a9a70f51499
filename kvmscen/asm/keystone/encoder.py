"""Keystone as an encoder of one instruction, and nothing else: the only module that imports it.

Keystone may kill or hang the process on text that is not a plain instruction, and encodes some
numbers wrongly where a symbol resolver is set; so it sees no labels, no directives, and only text
of a form that was fuzzed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from kvmscen.asm.values import Wrong

_SAFE = re.compile(r"[a-z][\w.]*(\s+[\w\s,#\[\]{}!+\-*():.]*)?", re.ASCII)
_SAFE_WORDS = re.compile(r"[a-z][\w.]*(?: [a-z]\w*)?", re.ASCII)
_SAFE_ATT = re.compile(
    r"\*?(?:\$-?\w+|%\w+(?:\([0-7]\))?|(?:%\w\w:)?(?:-?\w+)?(?:\((?:%\w+)?(?:,%\w+(?:,[1248])?)?\))?)",
    re.ASCII,
)
_MAX_TEXT = 200
_local = threading.local()
# One instruction with ten in it, by which an engine is tried; and how many are.
_TEN = {"arm64": ("mov x0, #10", bytes.fromhex("400180d2")), "x86": ("mov al, 10", b"\xb0\x0a")}
_ENGINES = 1000


MISSING = "keystone-engine is not installed here: install it, or use --assembler gnu"


def is_installed() -> bool:
    """Whether there is a Keystone here."""
    try:
        import keystone  # noqa: F401 to see whether it can be
    except (ImportError, OSError):
        return False
    return True


def _decimal(opened: Callable[[], Any], mode: str) -> Any:
    """An engine that reads 10 as ten.

    Keystone 0.9.2 does not initialise the base in which an engine reads numbers without a prefix.
    Where its memory happens to hold 16 it reads them as hexadecimal, and says nothing. Such an
    engine is kept until another is found, so that its memory is not given again.
    """
    ten, wanted = _TEN["arm64" if mode == "arm64" else "x86"]
    wrong = []
    for _ in range(_ENGINES):
        engine = opened()
        data, _ = engine.asm(ten, 0, as_bytes=True)
        if data == wanted:
            return engine
        wrong.append(engine)
    raise Wrong("Keystone reads 10 as sixteen in this process: use --assembler gnu")


def engine(mode: str) -> Any:
    """The engine of this thread: a shared one ends the process. Raises Wrong where there is
    none.
    """
    engines: dict[str, Any] | None = getattr(_local, "engines", None)
    if engines is None:
        engines = _local.engines = {}
    if mode not in engines:
        try:
            import keystone as ks
        except (ImportError, OSError) as error:
            raise Wrong(MISSING) from error
        modes = {
            "arm64": (ks.KS_ARCH_ARM64, ks.KS_MODE_LITTLE_ENDIAN),
            "x64": (ks.KS_ARCH_X86, ks.KS_MODE_64),
            "x32": (ks.KS_ARCH_X86, ks.KS_MODE_32),
            "x16": (ks.KS_ARCH_X86, ks.KS_MODE_16),
        }
        engine = _decimal(lambda: ks.Ks(*modes[mode.removesuffix("-att")]), mode)
        if mode.endswith("-att"):
            engine.syntax = ks.KS_OPT_SYNTAX_ATT
        engines[mode] = engine
    return engines[mode]


def _is_safe(mode: str, text: str) -> bool:
    if not mode.endswith("-att"):
        return bool(_SAFE.fullmatch(text))
    words, _, operands = text.partition("\t")
    return bool(_SAFE_WORDS.fullmatch(words)) and (
        not operands or all(_SAFE_ATT.fullmatch(operand) for operand in operands.split(", "))
    )


@lru_cache(maxsize=16384)
def encode(mode: str, text: str) -> bytes | None:
    """The bytes of one instruction, None where it does not assemble. `mode`: arm64, x64, x32, x16,
    x64-att, ...
    """
    if len(text) > _MAX_TEXT or not _is_safe(mode, text):
        return None
    opened = engine(mode)
    import keystone as ks

    try:
        data, count = opened.asm(text, 0, as_bytes=True)
    except ks.KsError:
        return None
    if not data or count != 1 or (mode == "arm64" and len(data) != 4):
        return None
    return bytes(data)
