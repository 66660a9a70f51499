"""The directives that all architectures share: data, space, alignment, sections, symbols."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from kvmscen.asm import sections
from kvmscen.asm.keystone.expressions import Expression
from kvmscen.asm.keystone.items import Align, Fixed, Leb128, Numbers, Space
from kvmscen.asm.keystone.state import Front
from kvmscen.asm.source import Statement, split_operands, string_bytes
from kvmscen.asm.values import Unencoded, Wrong, clip

MAX_ALIGN = 1 << 24
_NAME = re.compile(r"[A-Za-z_.$][\w.$]*\Z", re.ASCII)
_DATA = {
    ".byte": 1,
    ".2byte": 2,
    ".4byte": 4,
    ".8byte": 8,
    ".hword": 2,
    ".short": 2,
    ".int": 4,
    ".long": 4,
    ".quad": 8,
}
_DATA.update({".dc": 2, ".dc.b": 1, ".dc.w": 2, ".dc.l": 4})
_FLOATS = {
    ".float": "f",
    ".single": "f",
    ".ffloat": "f",
    ".dc.s": "f",
    ".double": "d",
    ".dfloat": "d",
    ".dc.d": "d",
}
_FLOAT = re.compile(
    r"(?:0[a-z])?([-+]?)((?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|inf(?:inity)?)\Z",
    re.ASCII | re.IGNORECASE,
)
_BIG = re.compile(r"([-+~]?)\s*(0[xX][0-9a-fA-F]+|\d+)\Z", re.ASCII)
_UNITS = {"": 2, ".b": 1, ".w": 2, ".l": 4, ".s": 4, ".d": 8}
# What matters to a linker or a debugger only.
_WITHOUT_EFFECT = """
type size weak local hidden protected internal file loc ident extern title sbttl list nolist eject
psize line ln func endfunc
version symver lflags linkonce gnu_attribute noaltmacro print warning stabs stabn stabd
loc_mark_labels noformat vtable_entry
vtable_inherit attach_to_group addrsig addrsig_sym
"""
_NOTHING = frozenset("." + word for word in _WITHOUT_EFFECT.split())
_REFUSED = {
    ".incbin": "is not allowed: a scenario may not read files of the host",
    ".include": "is not allowed: a scenario may not read files of the host",
    ".struct": "is not supported: give each member its offset with .set",
    ".offset": "is not supported: give each member its offset with .set",
    ".reloc": "is not supported: the program is linked at once",
    ".mri": "is not supported",
    ".bundle_align_mode": "is not supported: align with .p2align",
    ".abort": "ends the program here",
    ".err": "is reached",
}
# GNU as can do these.
_LEFT_TO_GNU = (".struct", ".offset", ".bundle_align_mode")


def directive(front: Front, statement: Statement) -> bool:
    """Handle one directive; whether it was one that is known here. Raises Wrong."""
    word = statement.word
    width = _DATA.get(word) or front.machine.widths.get(word)
    if width:
        front.add(
            Numbers(
                statement,
                front.chunk,
                width,
                [front.expression(part) for part in split_operands(statement.rest)],
            )
        )
        return True
    handler = _HANDLERS.get(word)
    if handler:
        handler(front, statement)
        return True
    if word in _REFUSED:
        raise (Unencoded if word in _LEFT_TO_GNU else Wrong)(f"{word} {_REFUSED[word]}")
    return word in _NOTHING or word.startswith(".cfi_")


# --- data -----------------------------------------------------------------------------------------


def _operands(front: Front, statement: Statement, least: int, most: int) -> list[Expression | None]:
    parts = split_operands(statement.rest)
    if not least <= len(parts) <= most or not parts[0]:
        count = (
            f"{least} to {most} operands" if least < most else f"{least} operand{'s' * (least > 1)}"
        )
        raise Wrong(f"{statement.word} takes {count}")
    values = [front.expression(part) if part else None for part in parts]
    return values + [None] * (most - len(values))


def _ascii(front: Front, statement: Statement) -> None:
    width = {".string16": 2, ".string32": 4, ".string64": 8}.get(statement.word, 1)
    end = b"" if statement.word == ".ascii" else bytes(width)
    parts = []
    for part in split_operands(statement.rest):
        text = string_bytes(part)
        parts.append(
            (text if width == 1 else b"".join(bytes([byte]) + bytes(width - 1) for byte in text))
            + end
        )
    front.add(Fixed(statement, front.chunk, b"".join(parts)))


def _floats(front: Front, statement: Statement) -> None:
    kind = _FLOATS[statement.word]
    data = b""
    for part in split_operands(statement.rest):
        match = _FLOAT.match(part)
        if not match:
            say = (
                "; its bits are not the same everywhere: write them with .long or .quad"
                if part.lower().endswith("nan")
                else ""
            )
            raise Wrong(f"{clip(part) or 'nothing'} is no floating-point number{say}")
        sign, digits = match.groups()
        value = float(sign + digits)
        try:
            data += struct.pack("<" + kind, value)
            too_large = value in (float("inf"), float("-inf")) and digits[0].lower() != "i"
        except OverflowError:
            too_large = True
        if too_large:
            raise Wrong(f"{clip(part)} is too large for {statement.word}")
        if struct.unpack("<" + kind, data[-struct.calcsize(kind) :])[
            0
        ] == 0 and digits.lower().partition("e")[0].strip("0."):
            raise Wrong(f"{clip(part)} is too small for {statement.word}")
    front.add(Fixed(statement, front.chunk, data))


def _octa(front: Front, statement: Statement) -> None:
    data = b""
    for part in split_operands(statement.rest):
        match = _BIG.match(part)
        if match and len(part) < 60:
            value = (
                int(match[2], 8 if re.fullmatch("0[0-7]+", match[2]) else 0)
                if not re.match("0[89]", match[2])
                else 1 << 128
            )
            value = -value if match[1] == "-" else ~value if match[1] == "~" else value
        else:
            value = front.absolute(part, f"an operand of {statement.word}")
        if not -(1 << 127) <= value < 1 << 128:
            raise Wrong(f"{clip(part)} does not fit in 16 bytes")
        data += (value & ((1 << 128) - 1)).to_bytes(16, "little")
    front.add(Fixed(statement, front.chunk, data))


def _leb128(front: Front, statement: Statement) -> None:
    signed = statement.word == ".sleb128"
    for part in split_operands(statement.rest):
        value = front.expression(part)
        if (
            signed
            and re.match(r"0x|\d", part)
            and value.constant is not None
            and value.constant < 0
        ):
            # GNU as takes a literal of 64 bits for the positive number that it is.
            value = value._replace(constant=value.constant + (1 << 64))
        front.add(Leb128(statement, front.chunk, value, signed))


# --- space and alignment --------------------------------------------------------------------------


def _space(front: Front, statement: Statement) -> None:
    count, value = _operands(front, statement, 1, 2)
    assert count is not None
    front.add(Space(statement, front.chunk, count, value, org=statement.word == ".org"))


def _fill(front: Front, statement: Statement) -> None:
    count, unit, value = _operands(front, statement, 1, 3)
    size = 1 if unit is None else front.absolute(unit.text, "the size of .fill")
    if not 0 <= size <= 8:
        raise Wrong(f"the size of .fill is 0 to 8, not {size}")
    assert count is not None
    front.add(Space(statement, front.chunk, count, value, unit=size))


def _units(front: Front, statement: Statement) -> None:
    count, value = _operands(front, statement, 1, 2)
    assert count is not None
    unit = _UNITS[statement.word[3:] if statement.word.startswith(".ds") else statement.word[4:]]
    front.add(Space(statement, front.chunk, count, value, unit=unit))


def _align(front: Front, statement: Statement) -> None:
    word = statement.word
    _operands(front, statement, 1, 3)
    parts = [*split_operands(statement.rest), "", ""]
    align = front.absolute(parts[0], f"the operand of {word}")
    if word.startswith(".p2align") or (word == ".align" and front.machine.align_is_power):
        if not 0 <= align <= 24:
            raise Wrong(
                f"{word} takes a power of two from 0 to 24 here, not {align}: {word} 3 aligns to 8 "
                f"bytes"
            )
        align = 1 << align
    if align == 0:
        align = 1
    if align < 1 or align & (align - 1) or align > MAX_ALIGN:
        raise Wrong(f"{word} takes a power of two in bytes, up to 16 MiB, not {align}")
    most = front.absolute(parts[2], f"the third operand of {word}") if parts[2] else 0
    pad: Callable[[int], bytes] | None = None
    if parts[1]:
        width = {"w": 2, "l": 4}.get(word[-1], 1) if word[-2:] in ("nw", "nl") else 1
        fill = front.absolute(parts[1], f"the fill of {word}")
        pad = _repeated((fill & ((1 << 8 * width) - 1)).to_bytes(width, "little"))
    elif front.chunk.code:
        pad = front.machine.padding()
    front.add(Align(statement, front.chunk, align, pad, max(0, most)))


def _repeated(unit: bytes) -> Callable[[int], bytes]:
    def pad(count: int) -> bytes:
        if count % len(unit):
            raise Wrong(f"the {count} bytes to fill are no multiple of {len(unit)}")
        return unit * (count // len(unit))

    return pad


# --- sections -------------------------------------------------------------------------------------


def _standard_section(front: Front, statement: Statement) -> None:
    number = (
        front.absolute(statement.rest, f"the subsection of {statement.word}")
        if statement.rest
        else 0
    )
    front.enter(statement.word, number)


def _subsection(front: Front, statement: Statement) -> None:
    front.enter(
        front.chunk.name,
        front.absolute(statement.rest, "the number of .subsection") if statement.rest else 0,
    )


def _section(front: Front, statement: Statement) -> None:
    match = sections.OPERANDS.match(statement.rest)
    written = sections.named(statement.rest) if match is None else match.group(1)
    if written is not None and (why := sections.no_name(written)) is not None:
        raise Wrong(why)
    if not match:
        raise Wrong(
            f'.section takes a name and flags: .section .name, "aw", not {clip(statement.rest)}'
        )
    name, number, flags, kind, rest = match.groups()
    if number is not None and statement.word == ".section":
        raise Wrong(f".section takes no number: .subsection {number} begins a subsection")
    if statement.word == ".pushsection":
        front.push()
    if why := sections.left_to_gnu(name, flags, kind or "", rest):
        raise Unencoded(f"only GNU as knows {why}: {clip(statement.rest)}")
    if name not in front.chunks:
        front.open(name, flags, kind or "")
    elif flags is not None and front.chunks[name].written not in (None, (flags, kind or "")):
        raise Unencoded(f"section {name} is written with other flags or another type before")
    front.enter(name, int(number or 0) if len(number or "") < 6 else 8193)


# --- symbols --------------------------------------------------------------------------------------


def _set(front: Front, statement: Statement) -> None:
    name, comma, text = statement.rest.partition(",")
    if not comma or not _NAME.match(name.strip()):
        raise Wrong(f"{statement.word} takes a name and a value: {statement.word} NAME, 5")
    front.assign(statement, name.strip(), text.strip(), statement.word in (".set", ".equ"))


def _global(front: Front, statement: Statement) -> None:
    # `.global _start:` is seen in programs; GNU as refuses it, and it can mean one thing only.
    text = statement.rest[:-1] if statement.rest.endswith(":") else statement.rest
    for name in text.split(","):
        name = name.strip().strip('"')
        if not _NAME.match(name):
            raise Wrong(
                f"{statement.word} takes names of symbols: {statement.word} _start, not "
                f"{clip(statement.rest)}"
            )


def _common(front: Front, statement: Statement) -> None:
    """`.comm` and `.lcomm`: room in .bss, where a linker would put it."""
    parts = split_operands(statement.rest)
    if not 2 <= len(parts) <= 3 - (statement.word == ".lcomm") or not _NAME.match(parts[0]):
        raise Wrong(f"{statement.word} takes a name and a size: {statement.word} buffer, 64")
    size = front.absolute(parts[1], f"the size of {statement.word}")
    most = 8 if statement.word == ".lcomm" else 16
    align = front.absolute(parts[2], f"the alignment of {statement.word}") if len(parts) == 3 else 1
    if len(parts) == 2:
        while align * 2 <= min(size, most):
            align *= 2
    if size < 0 or align < 1 or align & (align - 1) or align > MAX_ALIGN:
        raise Wrong(
            f"{statement.word} takes a size, and a power of two as alignment: {statement.word} "
            f"buffer, 64, 16"
        )
    front.push()
    front.enter(".bss", front.COMMON if statement.word != ".lcomm" else 1)
    front.add(Align(statement, front.chunk, align, None))
    front.define(statement, parts[0])
    front.add(Space(statement, front.chunk, front.expression(str(size))))
    front.pop()


def _error(front: Front, statement: Statement) -> None:
    text = (
        string_bytes(statement.rest).decode("utf-8", "replace")
        if statement.rest
        else ".error is reached"
    )
    raise Wrong(clip(text) or ".error is reached")


_HANDLERS: dict[str, Callable[[Front, Statement], None]] = {
    **dict.fromkeys(
        (".ascii", ".asciz", ".string", ".string8", ".string16", ".string32", ".string64"), _ascii
    ),
    **dict.fromkeys(_FLOATS, _floats),
    ".octa": _octa,
    **dict.fromkeys((".sleb128", ".uleb128"), _leb128),
    **dict.fromkeys((".space", ".zero", ".skip", ".org"), _space),
    ".fill": _fill,
    **dict.fromkeys((f"{word}{unit}" for word in (".ds", ".dcb") for unit in _UNITS), _units),
    **dict.fromkeys(
        (".align", ".balign", ".balignw", ".balignl", ".p2align", ".p2alignw", ".p2alignl"), _align
    ),
    **dict.fromkeys((".text", ".data", ".bss", ".rodata"), _standard_section),
    ".subsection": _subsection,
    **dict.fromkeys((".section", ".pushsection"), _section),
    ".popsection": lambda front, _: front.pop(),
    ".previous": lambda front, _: front.previous(),
    **dict.fromkeys((".set", ".equ", ".equiv", ".eqv", ".weakref"), _set),
    **dict.fromkeys((".global", ".globl"), _global),
    **dict.fromkeys((".comm", ".common", ".lcomm", ".largecomm"), _common),
    ".error": _error,
}
