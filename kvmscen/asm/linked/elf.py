"""A linked executable as a Program: its sections at their own addresses, its symbols, and where its
code comes from.

Everything in the file is taken for hostile: counts and sizes are held against limits before
anything is read by them.
"""

from __future__ import annotations

import io
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from kvmscen.asm.keystone.items import MAX_SIZE
from kvmscen.asm.layout import STANDARD, Misplaced, Placed, Shape, section_symbols, span
from kvmscen.asm.linked.lines import debug_lines
from kvmscen.asm.values import ELF, Line, Placement, Program, Section, Wrong, clip

MAX_TOTAL = 4 * MAX_SIZE
MAX_SYMBOLS = 65536
_MAX_SECTIONS = 4096
_MAX_PLACED = 256
_MAX_NAME = 1024
_MAX_SEGMENTS = 256
_ALLOC = 2  # SHF_ALLOC
_TLS = 0x400  # SHF_TLS
_MACHINES = {
    "EM_X86_64": "x86_64",
    "EM_386": "i386",
    "EM_AARCH64": "arm64",
    "EM_RISCV": "riscv64",
    "EM_ARM": "32-bit Arm",
}
_TYPES = {
    "ET_REL": "is not linked yet: link it, as with ld -Ttext 0x1000 -Tdata 0x5000",
    "ET_DYN": "is a shared object or a position-independent executable: link it with -static and "
    "-no-pie",
    "ET_CORE": "is a core dump: an executable is meant",
}


# Virtual address, physical address, size in memory, offset, size in the file.
Segment = tuple[int, int, int, int, int]


def check_placements(program: Program, placements: Sequence[Placement]) -> Iterator[Misplaced]:
    """What is wrong with places that a scenario gives the sections: they have their own, and those
    must be the same.
    """
    places = {section.name: section for section in program.sections}
    for placement in placements:
        section = places.get(placement.name)
        if section is None:
            if placement.name not in STANDARD:
                yield Misplaced(
                    f"section {placement.name} is not there: the executable has "
                    f"{', '.join(places)}",
                    placement,
                )
            continue
        load = section.gpa if placement.load is None else placement.load
        behind = places.get(placement.after or "")
        if placement.after is not None and (
            behind is None or section.gpa < behind.gpa + behind.size
        ):
            say = f"it is not behind {placement.after}"
        elif placement.at not in (None, section.gpa):
            say = f"it is not at {placement.at:#x}"
        elif placement.align is not None and section.gpa % placement.align:
            say = f"it is not aligned to {placement.align:#x}"
        elif load != section.load:
            say = f"it is loaded at {section.load:#x}, not at {load:#x}"
        else:
            continue
        remedy = "link it there, or leave the key out"
        yield Misplaced(
            f"section {placement.name} of the executable is at {section.gpa:#x}, {say}: {remedy}",
            placement,
        )


def read(raw: bytes, arch: str, bits: int) -> Program:
    """The program in the bytes of an ELF file. Raises Wrong, whatever the bytes are."""
    if raw[:4] != b"\x7fELF":
        raise Wrong(
            "is no ELF file: a linked executable is meant"
            + (", asm takes sources" if _is_text(raw) else "")
        )
    try:
        elf = ELFFile(io.BytesIO(raw))
        _check_kind(elf, arch, bits)
        if elf.num_sections() > _MAX_SECTIONS or elf.num_segments() > _MAX_SEGMENTS:
            raise Wrong(f"has more than {_MAX_SECTIONS} sections or {_MAX_SEGMENTS} segments")
        _check_names(elf, raw)
        return _program(elf, raw)
    except Wrong:
        raise
    except RecursionError:
        raise Wrong("is damaged: its parts refer to each other without end") from None
    except Exception as error:  # noqa: BLE001
        # What pyelftools stumbles over in a damaged file is of many kinds.
        what = str(error) if isinstance(error, ELFError) else f"{type(error).__name__} {error}"
        raise Wrong(f"is damaged, or cut off: {clip(what) or type(error).__name__}") from None


def _is_text(raw: bytes) -> bool:
    return b"\0" not in raw[:1000]


def _check_names(elf: ELFFile, raw: bytes) -> None:
    """Every name of a section ends soon: pyelftools reads a string up to its zero, and thousands
    may begin in one large file.
    """
    count, start, step = elf.num_sections(), elf["e_shoff"], elf["e_shentsize"]
    if not count:
        return
    headers = [raw[start + n * step : start + (n + 1) * step] for n in range(count)]
    index = elf.get_shstrndx()
    wide = elf.elfclass == 64
    if not step >= (64 if wide else 40) or not index < count or len(headers[-1]) < step:
        raise Wrong("is damaged, or cut off: its table of sections is not all there")
    names, extent = struct.unpack_from("<QQ" if wide else "<II", headers[index], 24 if wide else 16)
    for header in headers:
        _check_string(raw, names, extent, int.from_bytes(header[:4], "little"))


def _check_string(raw: bytes, table: int, extent: int, at: int) -> None:
    if at >= max(extent, 1) or raw.find(b"\0", table + at, table + at + _MAX_NAME) < 0:
        raise Wrong(f"is damaged: a name in it has no end, or more than {_MAX_NAME} characters")


def _program(elf: ELFFile, raw: bytes) -> Program:
    segments = _segments(elf)
    sections = tuple(
        sorted(
            _sections(elf, segments, raw) or _from_segments(segments, raw),
            key=lambda s: (s.gpa, s.size),
        )
    )
    if not sections:
        raise Wrong("has nothing that is loaded: no section and no segment with an address")
    _check_places(sections)
    kept, starts = _symbols(elf, raw)
    shapes = [Shape(section.name, section.size) for section in sections]
    own = section_symbols(
        shapes, {section.name: Placed(section.gpa, section.load) for section in sections}
    )
    entry = elf["e_entry"]
    symbols = {"_start": entry, **own, **kept}
    return Program(
        sections,
        symbols,
        tuple(_functions(sections, starts)),
        ELF,
        entry,
        debug_lines(elf, sections),
    )


def _check_kind(elf: ELFFile, arch: str, bits: int) -> None:
    if not elf.little_endian:
        raise Wrong(f"is big-endian, {arch} is little-endian here")
    machine = _MACHINES.get(elf["e_machine"], str(elf["e_machine"]).removeprefix("EM_"))
    # Code of 16 and 32 bits comes in either.
    fitting = ("x86_64", "i386") if arch == "x86_64" and bits != 64 else (arch,)
    if machine not in fitting or (machine == arch and elf.elfclass != 64):
        kind = f"{elf.elfclass}-bit " if machine == arch else ""
        raise Wrong(
            f"is for {kind}{machine}, the scenario for {arch}"
            + (" in long mode" if machine == "i386" else "")
        )
    kind = elf["e_type"]
    if kind != "ET_EXEC":
        raise Wrong(_TYPES.get(kind, f"is of the type {clip(str(kind))}: an executable is meant"))


def _segments(elf: ELFFile) -> list[Segment]:
    """The PT_LOAD segments that take memory."""
    out = []
    for segment in elf.iter_segments():
        kind = segment["p_type"]
        if kind in ("PT_INTERP", "PT_DYNAMIC"):
            raise Wrong(
                "is dynamically linked, and nothing loads libraries in the guest: link it with "
                "-static and -no-pie"
            )
        if kind == "PT_LOAD" and segment["p_memsz"]:
            out.append(
                (
                    segment["p_vaddr"],
                    segment["p_paddr"],
                    segment["p_memsz"],
                    segment["p_offset"],
                    segment["p_filesz"],
                )
            )
    return out


def _sections(elf: ELFFile, segments: Iterable[Segment], raw: bytes) -> list[Section]:
    out: list[Section] = []
    names: set[str] = set()
    for section in elf.iter_sections():
        # Notes are for whoever loads a program; what threads have of their own has no place yet.
        if (
            not section["sh_flags"] & _ALLOC
            or not section["sh_size"]
            or section["sh_type"] == "SHT_NOTE"
        ):
            continue
        nobits = section["sh_type"] == "SHT_NOBITS"
        if nobits and section["sh_flags"] & _TLS:
            continue
        name, at, length = section.name, section["sh_addr"], section["sh_size"]
        load = next(
            (
                p + at - v
                for v, p, extent, _, _ in segments
                if v <= at and at + length <= v + extent
            ),
            at,
        )
        if name in names or not name:
            raise Wrong(
                f"has two sections called {clip(name)}: name them apart"
                if name
                else "has a section without a name"
            )
        names.add(name)
        if len(names) > _MAX_PLACED:
            raise Wrong(
                f"has more than {_MAX_PLACED} sections with an address: let the linker put them "
                f"together"
            )
        _check_size(name, at, load, length)
        start = section["sh_offset"]
        if not nobits and start + length > len(raw):
            raise Wrong(f"is cut off: section {clip(name)} ends behind the end of the file")
        out.append(
            Section(name, at, load, b"" if nobits else raw[start : start + length], length, nobits)
        )
    return out


def _from_segments(segments: Iterable[Segment], raw: bytes) -> list[Section]:
    """What stands in for the sections of a file that has none left."""
    out: list[Section] = []
    for number, (at, load, length, start, filled) in enumerate(segments):
        name = f"segment{number}"
        _check_size(name, at, load, length)
        if start + filled > len(raw):
            raise Wrong(f"is cut off: {name} ends behind the end of the file")
        data = raw[start : start + min(filled, length)]
        out.append(
            Section(
                name, at, load, data + bytes(length - len(data)) if data else b"", length, not data
            )
        )
    return out


def _check_size(name: str, at: int, load: int, length: int) -> None:
    if length > MAX_SIZE:
        raise Wrong(
            f"has a section {clip(name)} of {length:#x} bytes; it may have 16 MiB, all together 64 "
            f"MiB"
        )
    for address in (at, load):
        if not 0 <= address <= (1 << 64) - length:
            raise Wrong(f"has a section {clip(name)} that ends behind the last address")


def _check_places(sections: tuple[Section, ...]) -> None:
    total = sum(section.size for section in sections)
    if total > MAX_TOTAL:
        raise Wrong(f"has sections of {total:#x} bytes; all together they may have 64 MiB")
    for what, places in (
        ("", sorted((s.gpa, s.size, s.name) for s in sections)),
        (
            "the load address of ",
            sorted((s.load, s.size, s.name) for s in sections if not s.nobits),
        ),
    ):
        reach = places[0] if places else None
        for at, size, name in places[1:]:
            assert reach is not None
            if at < reach[0] + reach[1]:
                upper, lower = (
                    f"{clip(name)} ({span(at, size)})",
                    f"{clip(reach[2])} ({span(reach[0], reach[1])})",
                )
                raise Wrong(
                    f"has sections that overlap: {what}{upper} and {what}{lower}: link them apart"
                )
            reach = (at, size, name)


def _symbols(elf: ELFFile, raw: bytes) -> tuple[dict[str, int], list[tuple[int, str]]]:
    """Names that expressions may use, and (address, name) of what an address may be told by, the
    best name of each last.
    """
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return {}, []
    if not table["sh_entsize"] or table["sh_size"] // table["sh_entsize"] > MAX_SYMBOLS:
        raise Wrong(
            f"has more than {MAX_SYMBOLS:,} symbols: link less, or strip what is not needed"
        )
    names, step = table.stringtable, table["sh_entsize"]
    for at in range(table["sh_offset"], table["sh_offset"] + table["sh_size"] // step * step, step):
        _check_string(
            raw, names["sh_offset"], names["sh_size"], int.from_bytes(raw[at : at + 4], "little")
        )
    symbols: dict[str, int] = {}
    several: set[str] = set()
    known: set[str] = set()
    starts: list[tuple[int, int, str]] = []
    for symbol in table.iter_symbols():
        name, kind, bind = symbol.name, symbol["st_info"]["type"], symbol["st_info"]["bind"]
        if (
            not name
            or symbol["st_shndx"] == "SHN_UNDEF"
            or kind in ("STT_SECTION", "STT_FILE", "STT_TLS")
            or name[0] == "$"
        ):
            continue
        value = symbol["st_value"]
        if bind != "STB_LOCAL":
            known.add(name)
        elif name in known:
            continue
        elif symbols.get(name, value) != value:
            # Two files have one of their own.
            several.add(name)
        symbols[name] = value
        if symbol["st_shndx"] != "SHN_ABS":
            starts.append(
                (value, 2 * (kind in ("STT_FUNC", "STT_OBJECT")) + (bind != "STB_LOCAL"), name)
            )
    for name in several - known:
        del symbols[name]
    return symbols, [(value, name) for value, _, name in sorted(starts)]


def _functions(sections: tuple[Section, ...], starts: list[tuple[int, str]]) -> Iterator[Line]:
    """A Line for each stretch from one symbol to the next; it has no number, and the symbol's name
    is its text.
    """
    best = dict(starts)
    places = sorted(best)
    for section in sections:
        end = section.gpa + section.size
        inside = places[bisect_left(places, section.gpa) : bisect_left(places, end)]
        if not inside or inside[0] > section.gpa:
            inside.insert(0, section.gpa)
        for at, behind in zip(inside, [*inside[1:], end], strict=True):
            yield Line(at, behind - at, 0, best.get(at, section.name))
