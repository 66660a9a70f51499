"""Small ELF files made by hand, where every field can be wrong."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

EM = {"x86_64": 62, "arm64": 183, "i386": 3, "riscv64": 243}


@dataclass(frozen=True)
class Part:
    """A section, in a segment of its own where it is allocated: flags 2 are SHF_ALLOC, kind 8 is
    SHT_NOBITS.
    """

    name: str
    at: int = 0
    data: bytes = b""
    load: int | None = None
    kind: int = 1
    flags: int = 2
    size: int | None = None


@dataclass(frozen=True)
class File:
    """A whole file of class 64, or 32 where it is not `wide`.

    `symbols` are (name, value, info, section index), `segments` the types of more program headers.
    """

    parts: tuple[Part, ...]
    symbols: tuple[tuple[str, int, int, int], ...] = ()
    machine: int = EM["arm64"]
    kind: int = 2
    entry: int = 0x1000
    wide: bool = True
    order: int = 1
    segments: tuple[int, ...] = ()
    sections: bool = True
    loaded: bool = True
    header: dict[int, bytes] = field(default_factory=dict)

    def build(self) -> bytes:
        """The bytes; `header` replaces some of them."""
        names, strings = b"\0", b"\0"
        parts = list(self.parts)
        table = b"" if not self.symbols else bytes(24 if self.wide else 16)
        for name, value, info, index in self.symbols:
            if self.wide:
                table += struct.pack("<IBBHQQ", len(strings), info, 0, index, value, 0)
            else:
                table += struct.pack("<IIIBBH", len(strings), value, 0, info, 0, index)
            strings += name.encode() + b"\0"
        if self.symbols:
            parts += [
                Part(".symtab", data=table, kind=2, flags=0),
                Part(".strtab", data=strings, kind=3, flags=0),
            ]
        parts.append(Part(".shstrtab", kind=3, flags=0))
        loads = [part for part in self.parts if part.flags & 2 and self.loaded]
        offset = (64 if self.wide else 52) + (56 if self.wide else 32) * (
            len(loads) + len(self.segments)
        )
        body, headers, programs = b"", bytes(64 if self.wide else 40), b""
        for part in parts:
            start, label = offset + len(body), len(names)
            names += part.name.encode() + b"\0"
            data = names if part.name == ".shstrtab" else part.data
            body += data
            size = len(data) if part.size is None else part.size
            link = len(parts) - 1 if part.kind == 2 else 0
            entry = (24 if self.wide else 16) if part.kind == 2 else 0
            form = "<IIQQQQIIQQ" if self.wide else "<IIIIIIIIII"
            headers += struct.pack(
                form, label, part.kind, part.flags, part.at, start, size, link, 0, 1, entry
            )
            if part in loads:
                load = part.at if part.load is None else part.load
                programs += self._segment(
                    1, start, part.at, load, len(data) if part.kind != 8 else 0, size
                )
        programs += b"".join(self._segment(kind, 0, 0, 0, 0, 1) for kind in self.segments)
        head = b"\x7fELF" + bytes([2 if self.wide else 1, self.order, 1]) + bytes(9)
        count = len(parts) + 1 if self.sections else 0
        tables = (offset + len(body) if count else 0, 0)
        segments = len(loads) + len(self.segments)
        sizes = (
            (64, 56, segments, 64, count, len(parts))
            if self.wide
            else (52, 32, segments, 40, count, len(parts))
        )
        form = "<HHIQQQIHHHHHH" if self.wide else "<HHIIIIIHHHHHH"
        head += struct.pack(
            form,
            self.kind,
            self.machine,
            1,
            self.entry,
            sizes[0],
            *tables,
            *sizes[:5],
            sizes[5] if count else 0,
        )
        raw = bytearray(head + programs + body + (headers if count else b""))
        for at, data in self.header.items():
            raw[at : at + len(data)] = data
        return bytes(raw)

    def _segment(self, kind: int, offset: int, at: int, load: int, filled: int, size: int) -> bytes:
        if self.wide:
            return struct.pack("<IIQQQQQQ", kind, 7, offset, at, load, filled, size, 1)
        return struct.pack("<IIIIIIII", kind, offset, at, load, filled, size, 7, 1)


TEXT = Part(".text", 0x1000, bytes.fromhex("1f2003d5") * 4)
DATA = Part(".data", 0x5000, b"\1\2\3\4")
BSS = Part(".bss", 0x5004, kind=8, size=16)
SYMBOLS = (
    ("main", 0x1000, 0x12, 1),
    ("twice", 0x5000, 0, 2),
    ("twice", 0x5002, 0, 2),
    ("counter", 0x5000, 0x11, 2),
)
GOOD = File((TEXT, DATA, BSS), SYMBOLS)
