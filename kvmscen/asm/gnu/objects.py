"""What is read of the ELF files that as and ld make."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import NamedTuple

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from kvmscen.asm.layout import Shape
from kvmscen.asm.sections import MARKS, is_loaded

_KEPT = (
    "SHT_PROGBITS",
    "SHT_NOBITS",
    "SHT_NOTE",
    "SHT_INIT_ARRAY",
    "SHT_FINI_ARRAY",
    "SHT_PREINIT_ARRAY",
)
_ALLOC = 0x2  # SHF_ALLOC
_MERGED = 0x30  # SHF_MERGE | SHF_STRINGS


class Symbol(NamedTuple):
    """A symbol of an object: its section's name, None for a plain number; `value` is the offset, or
    the number.
    """

    section: str | None
    value: int


class Object(NamedTuple):
    """What as made: sections before they are placed. `nobits` names those without bytes.

    `undefined` are symbols that the program uses and does not have. `absent` gives the section of
    each name, its own too, that lies in a section that is not in the guest. `raw` is the file, for
    ld.
    """

    shapes: tuple[Shape, ...]
    nobits: frozenset[str]
    symbols: Mapping[str, Symbol]
    undefined: frozenset[str]
    absent: Mapping[str, str]
    raw: bytes


class Use(NamedTuple):
    """A relocation: where a symbol (or a section, by its name) is used, and the relocation's
    type.
    """

    symbol: str
    section: str
    offset: int
    kind: int
    addend: int


def read(raw: bytes, written: Mapping[str, str | None]) -> Object:
    """Read an object file; `written` are the flags of sections as the program has them. Raises
    ELFError.
    """
    elf = ELFFile(io.BytesIO(raw))
    shapes: dict[str, Shape] = {}
    nobits: set[str] = set()
    names: dict[int, str] = {}
    merged: dict[int, int] = {}
    others: dict[int, str] = {}
    table: SymbolTableSection | None = None
    # Each pass over the sections costs as much as starting ld: there is one.
    for index, section in enumerate(elf.iter_sections()):
        name = section.name
        if isinstance(section, SymbolTableSection):
            table = section
        elif section["sh_type"] in _KEPT and is_loaded(
            name, "a" if section["sh_flags"] & _ALLOC else written.get(name)
        ):
            if name in shapes:
                raise ELFError(f"there are two sections {name} of different kinds")
            shapes[name] = Shape(name, section["sh_size"], max(1, section["sh_addralign"]))
            names[index] = name
            if section["sh_type"] == "SHT_NOBITS":
                nobits.add(name)
            if section["sh_flags"] & _MERGED:
                merged[index] = section["sh_flags"]
        elif name and name != MARKS:
            others[index] = name
    symbols, undefined = _symbols(table, names)
    absent = {name: name for name in others.values()} | _within(table, others)
    unmerged = _unmerged(raw, elf, merged)
    return Object(tuple(shapes.values()), frozenset(nobits), symbols, undefined, absent, unmerged)


def _symbols(
    table: SymbolTableSection | None, names: Mapping[int, str]
) -> tuple[dict[str, Symbol], frozenset[str]]:
    """The symbols of sections that count and plain numbers, and those that are used and not
    there.
    """
    symbols: dict[str, Symbol] = {}
    undefined: set[str] = set()
    for symbol in () if table is None else table.iter_symbols():
        name, at = symbol.name, symbol["st_shndx"]
        if not name or symbol["st_info"]["type"] in ("STT_SECTION", "STT_FILE"):
            continue
        if at == "SHN_UNDEF":
            if symbol["st_info"]["bind"] != "STB_WEAK":
                undefined.add(name)
        elif _is_of_as(name):
            continue
        elif at == "SHN_ABS":
            symbols[name] = Symbol(None, symbol["st_value"])
        elif at in names:
            symbols[name] = Symbol(names[at], symbol["st_value"])
    return symbols, frozenset(undefined)


def _within(table: SymbolTableSection | None, sections: Mapping[int, str]) -> dict[str, str]:
    """The symbols of some sections, each with its section."""
    symbols = () if table is None or not sections else table.iter_symbols()
    return {
        symbol.name: sections[symbol["st_shndx"]]
        for symbol in symbols
        if symbol.name and symbol["st_shndx"] in sections
    }


def _is_of_as(name: str) -> bool:
    # $x and $d tell code from data on arm64 and riscv64. riscv64 also keeps numbered labels, and
    # `.L0 ` for its own use.
    if name.isprintable() and " " not in name:
        return (
            name[0] == "$"
            and name[1:2] in ("x", "d")
            and (len(name) == 2 or name[2] == "." or name.startswith("$xrv"))
        )
    return True


def _unmerged(raw: bytes, elf: ELFFile, merged: Mapping[int, int]) -> bytes:
    """The object with no section whose equal strings ld would merge: a program has its bytes as
    they are written.
    """
    out = bytearray(raw)
    for index, flags in merged.items():
        at = elf["e_shoff"] + index * elf["e_shentsize"] + 8
        out[at : at + 8] = struct.pack("<Q", flags & ~_MERGED)
    return bytes(out)


def uses(raw: bytes) -> list[Use]:
    """All relocations of an object, but those of the marks."""
    elf = ELFFile(io.BytesIO(raw))
    uses: list[Use] = []
    for section in elf.iter_sections():
        if not isinstance(section, RelocationSection):
            continue
        where = elf.get_section(section["sh_info"]).name
        table = elf.get_section(section["sh_link"])
        if where == MARKS or not isinstance(table, SymbolTableSection):
            continue
        for entry in section.iter_relocations():
            symbol = table.get_symbol(entry["r_info_sym"])
            # A relocation to a plain number is against symbol 0, which has no name and no section.
            at = symbol["st_shndx"]
            name = symbol.name or (elf.get_section(at).name if isinstance(at, int) else "")
            uses.append(
                Use(name, where, entry["r_offset"], entry["r_info_type"], entry["r_addend"])
            )
    return uses


def contents(raw: bytes) -> dict[str, tuple[int, bytes]]:
    """Name to size and bytes of every section of a linked file; of those without bytes none."""
    elf = ELFFile(io.BytesIO(raw))
    return {
        section.name: (
            section["sh_size"],
            b"" if section["sh_type"] == "SHT_NOBITS" else section.data(),
        )
        for section in elf.iter_sections()
        if section["sh_type"] in _KEPT
    }
