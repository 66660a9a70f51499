"""What the name and the flags of a section mean, for both assemblers alike."""

from __future__ import annotations

import re

from kvmscen.asm.values import clip

# The place of each byte, for GNU as alone: the section is not in the guest.
MARKS = ".kvm.lines"
# .section NAME, NUMBER, "FLAGS", @TYPE: the number is a subsection's.
OPERANDS = re.compile(
    r'\s*"?([A-Za-z_.$][\w.$-]*)"?(?=[\s,]|\Z)\s*(?:,\s*(\d+)\s*)?(?:,\s*"([^"]*)")?\s*(?:,\s*[@%"](\w+)"?)?([^"]*)\Z',
    re.ASCII,
)
NAMING = (".section", ".pushsection")
_PLAIN = re.compile(r"[A-Za-z_.$][\w.$-]*\Z", re.ASCII)
_NAMED = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|\Z)')
_USUAL = (
    *(".text", ".rodata", ".data", ".bss", ".init", ".fini", ".tdata", ".tbss"),
    *(".init_array", ".fini_array", ".preinit_array"),
)
_LOADED = tuple(f"{name}." for name in _USUAL)
_NUMBERED = (".data1", ".rodata1")
# Of these names as itself knows that they have no bytes, and of the usual others that they have.
_NO_BYTES = (".bss", ".tbss")
_BYTES = (
    *(".text", ".rodata", ".data", ".tdata", ".init", ".fini", ".comment", ".note.GNU-stack"),
    *(".data1", ".rodata1"),
)
_TYPED = (".init_array", ".fini_array", ".preinit_array", ".note")
# What as and ld make of these depends on the name, in ways of their own.
_OF_LINKERS = re.compile(
    r"\.(symtab|strtab|shstrtab|dyn\w*|interp|hash|rela?|got|plt|gnu|stab\w*|line|note\.gnu"
    r"|lbss|ldata|lrodata|persistent|noinit)(\.|\Z)",
    re.ASCII,
)
_ENTRY = re.compile(r",\s*\d+\s*\Z")
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


def has_bytes(name: str, kind: str) -> bool:
    """Whether a section has bytes of its own, or only zeros; `kind` is its type as it is written,
    if it is.
    """
    return kind != "nobits" if kind else not f"{name}.".startswith(_dotted(_NO_BYTES))


def left_to_gnu(name: str, flags: str | None, kind: str, rest: str) -> str | None:
    """What only GNU as knows of a section, None where it is plain. `rest` is what stands behind the
    type.
    """
    letters = set(flags or "")
    if letters - set("awxMST") or (rest and not ("M" in letters and _ENTRY.match(rest))):
        return "flags other than a, w and x"
    if name in _USUAL and letters & set("MST"):
        return f"flags of {name} other than its own"
    if kind not in ("", "progbits", "nobits"):
        return f"the type {clip(kind)}"
    if _OF_LINKERS.match(name) and name not in _DROPPED:
        return f"what {name} is"
    odd = _BYTES if kind == "nobits" else _NO_BYTES
    # gcc ends each program with `.section .note.GNU-stack,"",@progbits`, which is in no guest.
    dropped = name in _DROPPED and kind == "progbits"
    if kind and not dropped and f"{name}.".startswith(_dotted((*_TYPED, *odd))):
        return f"{name} of the type {kind}"
    if kind == "nobits" and not is_loaded(name, flags):
        return "the type nobits of what is not in the guest"
    return None


def _dotted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}." for name in names)


def not_there(name: str) -> str:
    """That an address is used that no part of the guest has."""
    return f"this is an address in section {name}, which is not in the guest"


def is_usual(name: str) -> bool:
    """Whether as itself knows its flags."""
    return name in _NUMBERED or f"{name}.".startswith(_LOADED)


def is_loaded(name: str, flags: str | None) -> bool:
    """Whether the guest has a section, or only linkers and debuggers read it; `flags` are None
    where none are written.
    """
    if name in _DROPPED or name.startswith((".debug_", ".stab")):
        return False
    # People leave flags out. Of the usual names as itself knows that they are loaded.
    return flags is None or "a" in flags or is_usual(name)
