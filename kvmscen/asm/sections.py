"""What the name and the flags of a section mean, for both assemblers alike."""

from __future__ import annotations

import re

from kvmscen.asm.values import clip

# The place of each byte, for GNU as alone: the section is not in the guest.
MARKS = ".kvm.lines"
# .section NAME, NUMBER, "FLAGS", @TYPE: the number is a subsection's.
OPERANDS = re.compile(
    r'\s*"?([A-Za-z_.$][\w.$-]*)"?(?=[\s,]|\Z)\s*(?:,\s*(\d+)\s*)?(?:,\s*"([^"]*)")?\s*(?:,\s*[@%"](\w+)"?)?[^"]*\Z',
    re.ASCII,
)
NAMING = (".section", ".pushsection")
_PLAIN = re.compile(r"[A-Za-z_.$][\w.$-]*\Z", re.ASCII)
_NAMED = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|\Z)')
_USUAL = ".text .rodata .data .bss .init .fini .init_array .fini_array .preinit_array .tdata .tbss"
_LOADED = tuple(f"{name}." for name in _USUAL.split())
_NUMBERED = (".data1", ".rodata1")
_DROPPED = (".note.gnu.property", ".note.GNU-stack", ".comment", ".eh_frame", MARKS)


def no_name(name: str, kind: str = "section") -> str | None:
    """Why a name is none; None where it is one."""
    if kind == "section" and name == MARKS:
        return f"`{MARKS}` is a section of kvmscen's own: write another name"
    if _PLAIN.match(name):
        return None
    return (
        f"`{clip(name)}` is no name of a {kind}: write letters, digits, `_`, `.`, `$` and `-`, "
        f"no digit or `-` first"
    )


def named(operands: str) -> str | None:
    """The name in the operands of `.section`, without its quotes; None where nothing stands there
    that is one word.
    """
    match = _NAMED.match(operands)
    return None if match is None else match.group(2) if match.group(1) is None else match.group(1)


def is_loaded(name: str, flags: str | None) -> bool:
    """Whether the guest has a section, or only linkers and debuggers read it; `flags` are None
    where none are written.
    """
    if name in _DROPPED or name.startswith((".debug_", ".stab")):
        return False
    # People leave flags out. Of the usual names as itself knows that they are loaded.
    return flags is None or "a" in flags or name in _NUMBERED or f"{name}.".startswith(_LOADED)
