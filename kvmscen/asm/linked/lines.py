"""File and line of a program's addresses, as far as its debug information tells; what cannot be
read is left out.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import Any

from elftools.elf.elffile import ELFFile

from kvmscen.asm.values import Line, Section

# Reading them takes about 10 us a byte.
_MAX_LINES, _MAX_INFO = 128 << 10, 1 << 20
_MAX_ROWS = 65536
_CPU_SECONDS = 2.0
_COMPRESSED = 0x800  # SHF_COMPRESSED


def debug_lines(elf: ELFFile, sections: tuple[Section, ...]) -> tuple[Line, ...]:
    """Lines whose text is the name of their source file, by address. Empty where there are none, or
    too many to be worth it.
    """
    try:
        if not _is_small(elf):
            return ()
        rows = _rows(elf)
    except Exception:  # noqa: BLE001
        # Debug information is a convenience; whatever is wrong with it, the program itself runs.
        return ()
    starts = [section.gpa for section in sections]
    line_at: dict[int, tuple[int, int, str]] = {}
    for at, line, file in rows:
        index = bisect_right(starts, at) - 1
        end = sections[index].gpa + sections[index].size if index >= 0 else 0
        if at < end:
            line_at[at] = (end, line, file)
    places = sorted(line_at)
    out = []
    for at, behind in zip(places, [*places[1:], 1 << 64], strict=True):
        end, line, file = line_at[at]
        if line:
            out.append(Line(at, min(behind, end) - at, line, file))
    return tuple(out)


def _is_small(elf: ELFFile) -> bool:
    for section in elf.iter_sections():
        if section.name.startswith((".debug_", ".zdebug_")):
            most = _MAX_LINES if section.name == ".debug_line" else _MAX_INFO
            if (
                section["sh_size"] > most
                or section["sh_flags"] & _COMPRESSED
                or section.name.startswith(".z")
            ):
                return False
    return (
        elf.get_section_by_name(".debug_line") is not None
        and elf.get_section_by_name(".debug_info") is not None
    )


def _rows(elf: ELFFile) -> list[tuple[int, int, str]]:
    """(address, line, file); line 0 ends a sequence."""
    out: list[tuple[int, int, str]] = []
    dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False, follow_links=False)
    until = time.thread_time() + _CPU_SECONDS
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if time.thread_time() > until:
            return []
        if program is None:
            continue
        for entry in program.get_entries():
            state = entry.state
            if state is not None:
                out.append(
                    (
                        state.address,
                        0 if state.end_sequence else state.line,
                        _file(program, state.file),
                    )
                )
        if len(out) > _MAX_ROWS or time.thread_time() > until:
            return []
    # A line that begins where another sequence ends counts.
    return sorted(out, key=lambda row: (row[0], row[1] > 0))


def _file(program: Any, number: int) -> str:
    files = program["file_entry"]
    # Counted from 1 before DWARF 5.
    index = number if program["version"] >= 5 else number - 1
    name = files[index].name if 0 <= index < len(files) else b"?"
    text: str = name.decode("utf-8", "replace")
    return text.rsplit("/", 1)[-1]
