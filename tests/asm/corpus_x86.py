# ruff: noqa: E501 (lists as text)
"""x86 statements for the corpus, in Intel and in AT&T syntax, for 16, 32 and 64 bits."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

LABELS = ("cell", "array", "far_away")
_ALU = "add or adc sbb and sub xor cmp".split(" ")
_JCC = "jo jno jb jae je jne jbe ja js jns jp jnp jl jge jle jg jc jnc jz jnz".split(" ")
_REGISTER = re.compile(
    r"([re]?(ax|[bcd]x|[sb]p|[sd]i)|[abcd][lh]|[sd]il|r\d+[bwd]?|[cd]r\d|[c-gs]s|xmm\d+)\Z"
)
_BYTES = ["al", "cl", "dl", "bl", "ah", "ch", "dh", "bh"]
_NAMES = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"]
_SUFFIX = {8: "b", 16: "w", 32: "l", 64: "q"}
_SIZE = {8: "byte", 16: "word", 32: "dword", 64: "qword"}


@dataclass(frozen=True)
class Memory:
    """A memory operand, without its size."""

    base: str = ""
    index: str = ""
    scale: int = 1
    displacement: str = ""
    segment: str = ""


@dataclass
class Writer:
    """Draws statements for one mode and writes them in one syntax."""

    r: random.Random
    bits: int
    att: bool

    def register(self, size: int) -> str:
        r = self.r
        if size == 8:
            return r.choice(
                [*_BYTES[:4], "sil", "dil", "r8b", "r13b"] if self.bits == 64 else _BYTES
            )
        number = r.randrange(16 if self.bits == 64 else 8)
        if number >= 8:
            return f"r{number}" + {16: "w", 32: "d", 64: ""}[size]
        return {16: "", 32: "e", 64: "r"}[size] + _NAMES[number]

    def size(self, least: int = 8) -> int:
        return self.r.choice(
            [size for size in (8, 16, 32, 64) if least <= size <= max(self.bits, 32)]
        )

    def number(self, size: int) -> int:
        r = self.r
        most = 1 << min(size, 32) - 1
        return r.choice(
            [
                0,
                1,
                -1,
                127,
                -128,
                3,
                r.randrange(-128, 128),
                r.randrange(-most, most),
                most - 1,
                -most,
            ]
        )

    def place(self) -> Memory:
        """A memory operand of every mode of addressing."""
        r = self.r
        width = r.choice(
            [16, 32] if self.bits == 16 else [32] if self.bits == 32 else [64, 64, 64, 32]
        )
        segment = (
            r.choice(["fs", "gs", "es", "cs", "ss", "ds"] if self.bits < 64 else ["fs", "gs"])
            if r.random() < 0.1
            else ""
        )
        small = r.choice(["8", "-4", "0x7f", "-0x80", "0x80", "0x1000", "-129", "N"])
        label = r.choice([*LABELS, "cell + 8", "array - 4", "cell + N"])
        displacement = r.choice(["", small, small, label])
        if width == 16:
            base, index = r.choice(
                [
                    ("bx", "si"),
                    ("bx", "di"),
                    ("bp", "si"),
                    ("bp", "di"),
                    ("si", ""),
                    ("di", ""),
                    ("bp", ""),
                    ("bx", ""),
                ]
            )
            return Memory(base, index, 1, displacement, segment)
        kind = r.randrange(6)
        if kind == 0 and self.bits != 16:
            return Memory(
                displacement=r.choice([label, "0x5000", "0x12345", label]), segment=segment
            )
        if kind == 1 and self.bits == 64:
            return Memory("rip", displacement=label, segment=segment)
        base = self.register(width)
        index = self.register(width)
        if index in ("esp", "rsp"):
            index = "eax" if width == 32 else "r12"
        if kind == 2:
            return Memory("", index, r.choice([2, 4, 8]), displacement or "5", segment)
        if kind == 3:
            return Memory(base, "", 1, displacement, segment)
        return Memory(base, index, r.choice([1, 2, 4, 8]), displacement, segment)

    def memory(self, place: Memory, size: int = 0) -> str:
        r = self.r
        if self.att:
            segment = f"%{place.segment}:" if place.segment else ""
            if not place.base and not place.index:
                return segment + place.displacement
            index = f",%{place.index},{place.scale}" if place.index else ""
            return f"{segment}{place.displacement}({'%' + place.base if place.base else ''}{index})"
        terms = [place.base] if place.base else []
        if place.index:
            terms.append(
                place.index if place.scale == 1 and place.base else f"{place.index}*{place.scale}"
            )
        inside = " + ".join(terms)
        if place.displacement:
            negative = place.displacement.startswith("-")
            inside = (
                f"{inside} - {place.displacement[1:]}"
                if negative and inside
                else " + ".join(filter(None, [inside, place.displacement]))
            )
        prefix = f"{_SIZE[size]} ptr " if size else ""
        return (
            f"{prefix}{place.segment + ':' if place.segment else ''}[{inside}]"
            if r.random() < 0.97
            else f"{prefix}{place.segment + ':' if place.segment else ''}[ {inside} ]"
        )

    def line(self, name: str, *operands: str, size: int = 0) -> str:
        """An instruction; operands in Intel's order, registers plain, numbers as `#5`."""
        written = []
        for operand in operands:
            if operand.startswith("#"):
                written.append(("$" if self.att else "") + operand[1:])
            elif operand.startswith("="):
                written.append(("$" if self.att else "offset ") + operand[1:])
            elif self.att and _REGISTER.match(operand):
                written.append("%" + operand)
            else:
                written.append(operand)
        if self.att:
            written.reverse()
            name += _SUFFIX[size] if size else ""
        return f"{name} {', '.join(written)}" if written else name


def alu(w: Writer) -> str:
    size = w.size()
    name = w.r.choice([*_ALU, "mov", "test"])
    kind = w.r.randrange(5)
    if kind == 0:
        return w.line(name, w.register(size), w.register(size), size=size)
    if kind == 1:
        return w.line(name, w.register(size), f"#{w.number(size)}", size=size)
    if kind == 2 and name != "test":
        return w.line(name, w.register(size), w.memory(w.place()), size=size)
    if kind == 3:
        return w.line(name, w.memory(w.place()), w.register(size), size=size)
    return w.line(name, w.memory(w.place(), size), f"#{w.number(size)}", size=size)


def unary(w: Writer) -> str:
    size = w.size()
    name = w.r.choice(["inc", "dec", "neg", "not", "mul", "div", "idiv", "imul"])
    operand = w.register(size) if w.r.random() < 0.4 else w.memory(w.place(), size)
    return w.line(name, operand, size=size)


def shift(w: Writer) -> str:
    size = w.size()
    name = w.r.choice("shl shr sar rol ror rcl rcr".split(" "))
    operand = w.register(size) if w.r.random() < 0.5 else w.memory(w.place(), size)
    return w.line(name, operand, w.r.choice(["#1", "cl", f"#{w.r.randrange(2, 31)}"]), size=size)


def wide(w: Writer) -> str:
    size = w.size(16)
    first, second = w.register(size), w.register(size)
    kind = w.r.randrange(8)
    if kind == 0:
        return w.line("lea", first, w.memory(w.place()), size=size)
    if kind == 1:
        return w.line("imul", first, second, f"#{w.number(size)}", size=size)
    if kind == 2:
        return w.line(
            w.r.choice(["bt", "bts", "btr", "btc"]),
            second,
            w.r.choice([first, f"#{w.r.randrange(16)}"]),
            size=size,
        )
    if kind == 3:
        return w.line(
            w.r.choice(["bsf", "bsr", "popcnt"]),
            first,
            w.r.choice([second, w.memory(w.place())]),
            size=size,
        )
    if kind == 4:
        return w.line(
            "cmov" + w.r.choice(_JCC)[1:],
            first,
            w.r.choice([second, w.memory(w.place())]),
            size=size,
        )
    if kind == 5:
        return w.line(
            w.r.choice(["shld", "shrd"]),
            first,
            second,
            w.r.choice(["cl", f"#{w.r.randrange(1, 31)}"]),
            size=size,
        )
    if kind == 6:
        return w.line(
            w.r.choice(["xchg", "xadd", "cmpxchg"]), w.memory(w.place()), second, size=size
        )
    return (
        w.line("mov", first, "=" + w.r.choice([*LABELS, "cell + 4"]), size=size)
        if size >= 32
        else w.line("bswap", w.register(32))
    )


def extend(w: Writer) -> str:
    size = w.size(16)
    small = 8 if size == 16 else w.r.choice([8, 16])
    operand = w.register(small) if w.r.random() < 0.5 else w.memory(w.place(), small)
    if w.att:
        return w.line(
            w.r.choice(["movz", "movs"]) + _SUFFIX[small] + _SUFFIX[size], w.register(size), operand
        )
    return w.line(w.r.choice(["movzx", "movsx"]), w.register(size), operand)


def stack(w: Writer) -> str:
    size = w.bits if w.r.random() < 0.8 else 16
    kind = w.r.randrange(4)
    if kind == 0:
        return w.line(w.r.choice(["push", "pop"]), w.register(size))
    if kind == 1:
        return w.line(w.r.choice(["push", "pop"]), w.memory(w.place(), size), size=size)
    if kind == 2:
        return w.line("push", f"#{w.number(16)}")
    return w.line("push", "=" + w.r.choice(LABELS))


def port(w: Writer) -> str:
    register = w.r.choice(["al", "ax", "eax"])
    other = w.r.choice(["dx", f"#{w.r.randrange(256):#x}"])
    other = "(%dx)" if w.att and other == "dx" and w.r.random() < 0.5 else other
    return w.line("in", register, other) if w.r.random() < 0.5 else w.line("out", other, register)


def string(w: Writer) -> str:
    name = w.r.choice(["movs", "stos", "lods", "cmps", "scas", "ins", "outs"]) + w.r.choice(
        ["b", "w", "l"] if w.att else ["b", "w", "d"]
    )
    return w.r.choice(["", "rep ", "repne ", "repe "]) + name


def branch(w: Writer) -> str:
    label = w.r.choice(["here", "there", "end", "_start"])
    name = w.r.choice([*_JCC, "jmp", "jmp", "call", "call"])
    if w.r.random() < 0.15:
        return f"{name if name == 'call' else 'jmp'} {'*' if w.att else ''}" + (
            ("%" if w.att else "") + w.register(w.bits)
            if w.r.random() < 0.5
            else w.memory(w.place(), 0 if w.att else w.bits)
        )
    return f"{name} {label}{w.r.choice(['', '', '', ' + 2', ' - 1'])}"


def vector(w: Writer) -> str:
    first, second = f"xmm{w.r.randrange(8)}", f"xmm{w.r.randrange(8)}"
    name = w.r.choice(
        [
            "movups",
            "movaps",
            "movdqu",
            "addps",
            "xorps",
            "paddd",
            "pxor",
            "mulsd",
            "addsd",
            "cvtdq2ps",
            "unpcklps",
        ]
    )
    if w.r.random() < 0.5:
        return w.line(name, first, second)
    if name.startswith("mov") and w.r.random() < 0.5:
        return w.line(name, w.memory(w.place()), second)
    return w.line(name, first, w.memory(w.place()))


def system(w: Writer) -> str:
    plain = "nop|hlt|cli|sti|cld|std|cpuid|rdmsr|wrmsr|rdtsc|pause|mfence|lfence|sfence|ud2|clc|stc|cmc|leave|ret|sahf|lahf|xlatb|wbinvd|invd|clts|int3"
    name = w.r.choice(plain.split("|"))
    wide_name = {16: "ax", 32: "eax", 64: "rax"}[max(32, w.bits)]
    return w.r.choice(
        [
            name,
            name,
            w.line("mov", wide_name, w.r.choice(["cr0", "cr2", "cr3", "cr4", "dr7"])),
            w.line("mov", w.r.choice(["cr0", "cr3", "cr4", "dr6"]), wide_name),
            w.line("mov", w.r.choice(["ds", "es", "ss", "fs", "gs"]), "ax"),
            w.line("int", f"#{w.r.randrange(256):#x}"),
            w.line(
                "set" + w.r.choice(_JCC)[1:],
                w.r.choice(["al", w.memory(w.place(), 0 if w.att else 8)]),
            ),
            w.line(w.r.choice(["lgdt", "lidt", "sgdt", "sidt", "invlpg"]), w.memory(w.place())),
            "lock " + w.line("inc", w.memory(w.place(), 32), size=32),
        ]
    )


def move_wide(w: Writer) -> str:
    if w.bits < 64:
        return w.line("mov", w.register(32), f"#{w.r.randrange(1 << 32):#x}", size=32)
    value = w.r.choice(
        [
            w.r.randrange(1 << 64),
            w.r.randrange(1 << 32),
            0x7FFFFFFF,
            0x80000000,
            0xFFFFFFFF80000000,
            -5,
        ]
    )
    name = "movabs" if w.r.random() < 0.3 else "mov"
    return w.line(name, w.register(64), f"#{value:#x}")


def data(w: Writer) -> str:
    r = w.r
    label = r.choice(LABELS)
    return r.choice(
        [
            f".byte {r.randrange(256)}, {-r.randrange(129)}, 'a', '\\n', (end - there) & 0x7f",
            f".word {r.randrange(65536)}, -1; .short 3; .2byte here - _start",
            f".long {r.randrange(1 << 32):#x}, end - _start, . - 4 + 8 - .",
            f".4byte {label}; .int 1; .value -2",
            f".quad {label}, {label} + {r.randrange(64)}, {r.randrange(1 << 64):#x}",
            f'.ascii "a{r.randrange(10)};#b//c", "\\x41\\101\\t"',
            '.asciz "x", "y z"; .string "end"',
            f".space {r.randrange(40)}",
            f".zero {r.randrange(9)}; .hword 5",
            f".skip {r.randrange(9)}, {r.randrange(256)}",
            f".fill {r.randrange(5)}, {r.choice([1, 2, 4, 8])}, {r.randrange(1 << 31):#x}",
            f".quad ({r.randrange(99)} << {r.randrange(60)}) | 1, {r.randrange(99)} * 3 % 7 - 2, 1 "
            f"+ 2 | 4 ^ 1",
            ".rept 3\n.byte 1, 2\n.endr",
            f".equ C{r.randrange(9)}, {r.randrange(99)}",
            ".byte N, N == 3, N < 2, !N, N && 2",
        ]
    )


INSTRUCTIONS: list[Callable[[Writer], str]] = [
    alu, alu, alu, alu, unary, shift, wide, wide, extend, stack, port, string, branch, branch, branch, vector, system, system,
    move_wide,
]  # fmt: skip


def _section(r: random.Random) -> str:
    name, flag = r.choice(["mine", ".text.more", ".x_1"]), r.choice(["", "x", "w"])
    return f'.section {name}, "a{flag}"'


def program(r: random.Random, bits: int, att: bool) -> str:
    """A whole program: code with labels and branches over a distance near 128 bytes, data in three
    sections.
    """
    w = Writer(r, bits, att)
    lines = [".att_syntax"] if att else []
    lines += [".globl _start", ".equ N, 3", "_start:"]
    count = r.randrange(10, 22)
    for index in range(count):
        if index == count // 3:
            lines.append("here:")
        if index == 2 * count // 3:
            lines += r.choice(
                [["there: nop"], ["there:"], [f"    .balign {r.choice([2, 4, 16, 32])}", "there:"]]
            )
        if r.random() < 0.12:
            lines += [
                "1: " + r.choice(INSTRUCTIONS)(w),
                f"    {r.choice(['jmp', 'jne', 'loop', 'call'])} 1b",
            ]
        elif r.random() < 0.08:
            skip = f"    .skip {r.randrange(110, 132)}, 0x90"
            lines += [
                f"    {r.choice(['jmp', 'jc', 'jg'])} 2f",
                skip,
                "    " + r.choice(INSTRUCTIONS)(w),
                "2:",
            ]
        elif r.random() < 0.05:
            lines += [
                "    jmp 3f",
                "    " + data(w),
                r.choice(["    .align 2", "    .balign 8", "    .p2align 4"]),
                "3:",
            ]
        else:
            lines.append(
                "    "
                + r.choice(INSTRUCTIONS)(w)
                + r.choice(["", "", "", "  # a comment", "  /* here */"])
            )
    lines += ["end: ret"]
    lines += [".data", "cell: .quad 1", "array:"] + [
        "    " + data(w) for _ in range(r.randrange(1, 5))
    ]
    lines += [r.choice([".bss", '.section .bss, "aw", @nobits']), "far_away: .skip 24"]
    if r.random() < 0.4:
        lines += [".section .rodata", f".balign {r.choice([1, 4, 16, 64])}"] + [
            data(w) for _ in range(r.randrange(1, 4))
        ]
    if r.random() < 0.2:
        lines += [_section(r), data(w), "more: .byte 1", ".text", "    nop"]
    return "\n".join(lines) + "\n"


def limits() -> list[tuple[str, str]]:
    """Branches at the last distance that their short form reaches, and behind it."""
    out = []
    for name in ("jmp", "je", "loop", "jmp short"):
        for distance in (126, 127, 128, 129):
            out.append(
                (f"{name} forward {distance}", f"_start: {name} x\n.skip {distance}\nx: nop\n")
            )
            out.append(
                (f"{name} back {distance}", f"_start: nop\n.skip {distance - 3}\n{name} _start\n")
            )
    # A branch that grows pushes another out of reach, and so on.
    out.append(
        (
            "chain",
            "".join(f"a{n}: jmp a{n + 12}\n.skip 9\n" for n in range(30))
            + "".join(f"a{n}: nop\n" for n in range(30, 42)),
        )
    )
    return out
