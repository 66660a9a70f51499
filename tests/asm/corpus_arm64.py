# ruff: noqa: E501 (lists as text)
"""arm64 statements for the corpus: each function draws one, with all addressing modes of loads and
stores.
"""

from __future__ import annotations

import random
from collections.abc import Callable

LABELS = ("here", "there", "cell", "array", "far_away")
_EXTENDS = ("uxtb", "uxth", "uxtw", "uxtx", "sxtb", "sxth", "sxtw", "sxtx")
_CONDITIONS = "eq ne cs hs cc lo mi pl vs vc hi ls ge lt gt le".split(" ")


def _x(r: random.Random) -> str:
    return (
        r.choice(["x", "X"] if r.random() < 0.02 else ["x"]) + str(r.randrange(31))
        if r.random() < 0.93
        else "xzr"
    )


def _w(r: random.Random) -> str:
    return f"w{r.randrange(31)}" if r.random() < 0.93 else "wzr"


def _base(r: random.Random) -> str:
    return (
        r.choice(["sp", f"x{r.randrange(31)}", "fp", "lr"])
        if r.random() < 0.3
        else f"x{r.randrange(31)}"
    )


def _number(r: random.Random, value: int) -> str:
    """A value as people write it."""
    hashed = "#" if r.random() < 0.85 else ""
    form = r.random()
    if form < 0.4:
        return f"{hashed}{value}"
    if form < 0.7:
        return f"{hashed}{value:#x}"
    if form < 0.8 and value >= 0:
        return f"#({value}+0)"
    if form < 0.9:
        return f"#({value - 3} + N)"  # N is 3.
    return f"#{value}"


def _shifted(r: random.Random, names: str) -> str:
    return r.choice(["", f", {r.choice(names.split(' '))} #{r.randrange(32)}"])


# name, registers, log2 of the size that scales an offset
_SINGLE = [
    ("ldr", _x, 3), ("str", _x, 3), ("ldr", _w, 2), ("str", _w, 2), ("ldrb", _w, 0), ("strb", _w, 0), ("ldrh", _w, 1),
    ("strh", _w, 1), ("ldrsb", _x, 0), ("ldrsb", _w, 0), ("ldrsh", _x, 1), ("ldrsh", _w, 1), ("ldrsw", _x, 2),
]  # fmt: skip
_VECTOR = [(letter, size) for size, letter in enumerate("bhsdq")]


def _memory(r: random.Random, shift: int, index: bool = True) -> str:
    """A memory operand of every mode."""
    base = _base(r)
    mode = r.randrange(9 if index else 6)
    scaled = r.choice([0, 1, 2, 63, 4095, r.randrange(4096)]) << shift
    near = r.choice([-256, -255, -1, 0, 1, 255, r.randrange(-256, 256)])
    if mode == 0:
        return f"[{base}]"
    if mode == 1:
        return f"[{base}, {_number(r, scaled)}]"
    if mode == 2:
        return f"[{base}, {_number(r, near)}]"
    if mode == 3:
        return f"[{base}, {_number(r, near)}]!"
    if mode == 4:
        return f"[{base}], {_number(r, near)}"
    if mode == 5:
        return f"[{base}, #0]"
    if mode == 6:
        return f"[{base}, x{r.randrange(31)}]"
    if mode == 7:
        return (
            f"[{base}, x{r.randrange(31)}, {r.choice(['lsl', 'sxtx'])} "
            f"#{r.choice([0, shift]) if shift else 0}]"
        )
    return (
        f"[{base}, w{r.randrange(31)}, {r.choice(['uxtw', 'sxtw'])}{r.choice(['', f' #{shift}'])}]"
    )


def single(r: random.Random) -> str:
    name, register, shift = r.choice(_SINGLE)
    return f"{name} {register(r)}, {_memory(r, shift)}"


def vector_single(r: random.Random) -> str:
    letter, shift = r.choice(_VECTOR)
    return f"{r.choice(['ldr', 'str'])} {letter}{r.randrange(32)}, {_memory(r, shift)}"


def unscaled(r: random.Random) -> str:
    name, register = r.choice(
        [
            (f"{verb}{kind}", x)
            for verb in ("ld", "st")
            for kind, x in (("ur", _x), ("ur", _w), ("urb", _w), ("urh", _w), ("tr", _x))
        ]
        + [
            ("ldursb", _x),
            ("ldursh", _w),
            ("ldursw", _x),
            ("ldtrsw", _x),
            ("sttrb", _w),
            ("ldtrh", _w),
        ]
    )
    return (
        f"{name} {register(r)}, "
        f"[{_base(r)}{r.choice(['', ', ' + _number(r, r.randrange(-256, 256))])}]"
    )


def pair(r: random.Random) -> str:
    name, register, shift = r.choice(
        [
            ("ldp", _x, 3),
            ("stp", _x, 3),
            ("ldp", _w, 2),
            ("stp", _w, 2),
            ("ldpsw", _x, 2),
            ("ldnp", _x, 3),
            ("stnp", _w, 2),
        ]
    )
    base, offset = _base(r), r.choice([-64, -1, 0, 1, 63, r.randrange(-64, 64)]) << shift
    first, second = r.sample(range(29), 2)
    kind = "x" if register is _x else "w"
    zero = r.random() < 0.1 and name.startswith("st")
    regs = f"{kind}zr, {kind}zr" if zero else f"{kind}{first}, {kind}{second}"
    modes = [f"[{base}]", f"[{base}, {_number(r, offset)}]"]
    if name[2] != "n":
        base = "x30" if base not in ("sp", "fp", "lr") else base
        modes += [f"[{base}, {_number(r, offset)}]!", f"[{base}], {_number(r, offset)}"]
    return f"{name} {regs}, {r.choice(modes)}"


def vector_pair(r: random.Random) -> str:
    letter, shift = r.choice(_VECTOR[2:])
    first, second = r.sample(range(32), 2)
    offset = r.randrange(-64, 64) << shift
    base = _base(r)
    mode = r.choice(
        [f"[{base}]", f"[{base}, #{offset}]", f"[{base}, #{offset}]!", f"[{base}], #{offset}"]
    )
    return f"{r.choice(['ldp', 'stp'])} {letter}{first}, {letter}{second}, {mode}"


def exclusive(r: random.Random) -> str:
    base, size = _base(r), r.choice(["", "b", "h"])
    register = _w if size else r.choice([_x, _w])
    status, rest = f"w{r.randrange(10)}", f"{'w' if register is _w else 'x'}{r.randrange(11, 30)}"
    if base[0] == "x" and base[1:].isdigit() and int(base[1:]) < 11:
        base = "sp"
    kind = r.randrange(5)
    if kind == 0:
        return f"{r.choice(['ldxr', 'ldaxr', 'ldar', 'stlr'])}{size} {rest}, [{base}]"
    if kind == 1:
        return f"{r.choice(['stxr', 'stlxr'])}{size} {status}, {rest}, [{base}]"
    if kind == 2:
        return f"{r.choice(['ldxp', 'ldaxp'])} x11, x12, [{base}]"
    if kind == 3:
        return f"{r.choice(['stxp', 'stlxp'])} {status}, x11, x12, [{base}]"
    order = r.choice(["", "a", "l", "al"])
    return (
        f"{r.choice(['ldadd', 'ldset', 'ldclr', 'ldeor', 'swp', 'ldsmax', 'ldumin', 'cas'])}{order}{size} "
        f"{rest}, {rest}, [{base}]"
    )


def structure(r: random.Random) -> str:
    count = r.randrange(1, 5)
    first = r.randrange(28)
    shape = r.choice(["8b", "16b", "4h", "8h", "2s", "4s", "2d"])
    regs = ", ".join(f"v{first + n}.{shape}" for n in range(count))
    size = count * (8 if shape in ("8b", "4h", "2s") else 16)
    after = r.choice(["", f", #{size}", f", x{r.randrange(31)}"])
    return f"{r.choice(['ld', 'st'])}{r.choice([1, count])} {{{regs}}}, [{_base(r)}]{after}"


def literal(r: random.Random) -> str:
    register = r.choice([_x, _w])(r)
    label = r.choice(LABELS)
    if register[0] in "wW" or r.random() < 0.5:
        value = r.choice(
            [
                "0",
                "5",
                "0x12345678",
                "-1",
                "0xffffffff",
                "here - _start",
                "'a'",
                "1 << 20",
                "~7",
                "N * 4",
            ]
        )
    else:
        value = r.choice(
            [label, f"{label} + 8", f"{label} - 4", "0x1122334455667788", "-2", "_start", "end"]
        )
    return f"ldr {register}, ={value}"


def literal_vector(r: random.Random) -> str:
    return f"ldr {r.choice('sd')}{r.randrange(32)}, ={r.choice(['0x3f800000', '1', '0'])}"


def near_label(r: random.Random) -> str:
    label = r.choice(("here", "there", "end"))
    name = r.choice(
        [
            "b",
            "bl",
            "b." + r.choice(_CONDITIONS),
            "b" + r.choice(_CONDITIONS),
            "cbz",
            "cbnz",
            "tbz",
            "tbnz",
            "adr",
        ]
    )
    if name in ("cbz", "cbnz"):
        return f"{name} {r.choice([_x, _w])(r)}, {label}"
    if name in ("tbz", "tbnz"):
        return (
            f"{name} {r.choice([f'x{r.randrange(31)}, #{r.randrange(64)}', f'w{r.randrange(31)}, #{r.randrange(32)}'])}, "
            f"{label}"
        )
    if name == "adr":
        return f"adr x{r.randrange(31)}, {label}{r.choice(['', ' + 1', ' - 3'])}"
    return f"{name} {label}{r.choice(['', '', ' + 4', ' - 8'])}"


def page(r: random.Random) -> str:
    label = r.choice(LABELS[2:])
    n, size = r.randrange(31), r.choice(["", "8", "0x10"])
    sum_ = f"{label} + {size}" if size else label
    return f"adrp x{n}, {sum_}; " + r.choice(
        [
            f"add x{n}, x{n}, :lo12:{sum_}",
            f"add x{n}, x{n}, #:lo12:{sum_}",
            f"ldrb w{n}, [x{n}, #:lo12:{sum_}]",
        ]
    )


def arithmetic(r: random.Random) -> str:
    name = r.choice(["add", "sub", "adds", "subs"])
    register = r.choice([_x, _w])
    kind = r.randrange(4)
    letter = "x" if register is _x else "w"
    first, second = f"{letter}{r.randrange(31)}", f"{letter}{r.randrange(31)}"
    if kind == 0:
        return (
            f"{name} {first}, {second}, "
            f"{_number(r, r.choice([0, 1, 4095, r.randrange(4096), r.randrange(4096) << 12]))}"
        )
    if kind == 1:
        return f"{name} {first}, {second}, {register(r)}{_shifted(r, 'lsl lsr asr')}"
    if kind == 2 and letter == "x":
        extend = r.choice(_EXTENDS)
        return (
            f"{name} {first}, {r.choice([second, 'sp'])}, "
            f"{'x' if extend[3] == 'x' else 'w'}{r.randrange(31)}, {extend} #{r.randrange(5)}"
        )
    if kind == 3:
        return f"{r.choice(['cmp', 'cmn'])} {first}, {_number(r, r.randrange(4096))}"
    return f"{name} {first}, {second}, {letter}{r.randrange(31)}"


def logical(r: random.Random) -> str:
    letter, bits = r.choice([("x", 64), ("w", 32)])
    size = r.choice([2, 4, 8, 16, 32, 64][: 6 if bits == 64 else 5])
    ones = r.randrange(1, size)
    turn = r.randrange(size)
    run = (1 << ones) - 1
    piece = (run >> turn | run << (size - turn)) & ((1 << size) - 1)
    value = 0
    for at in range(0, bits, size):
        value |= piece << at
    first, second = f"{letter}{r.randrange(31)}", f"{letter}{r.randrange(31)}"
    if r.random() < 0.5:
        return f"{r.choice(['and', 'orr', 'eor', 'ands'])} {first}, {second}, #{value:#x}"
    name = r.choice(["and", "orr", "eor", "bic", "orn", "eon", "ands", "bics"])
    return f"{name} {first}, {second}, {letter}{r.randrange(31)}{_shifted(r, 'lsl lsr asr ror')}"


def move(r: random.Random) -> str:
    letter, bits = r.choice([("x", 64), ("w", 32)])
    register = f"{letter}{r.randrange(31)}"
    kind = r.randrange(4)
    if kind == 0:
        value = r.randrange(65536) << r.choice([0, 16] if bits == 32 else [0, 16, 32, 48])
        return f"mov {register}, {r.choice([f'#{value:#x}', f'#{value}', f'#{value:#x}'])}"
    if kind == 1:
        return f"mov {register}, #-{r.randrange(1, 65536)}"
    if kind == 2:
        shift = r.choice([0, 16] if bits == 32 else [0, 16, 32, 48])
        return (
            f"{r.choice(['movz', 'movk', 'movn'])} {register}, #{r.randrange(65536):#x}, lsl "
            f"#{shift}"
        )
    return f"mov {register}, {letter}{r.randrange(31)}"


def field(r: random.Random) -> str:
    letter, bits = r.choice([("x", 64), ("w", 32)])
    first, second, third = (f"{letter}{r.randrange(31)}" for _ in range(3))
    low = r.randrange(bits)
    width = r.randrange(1, bits - low + 1)
    return r.choice(
        [
            f"{r.choice(['ubfx', 'sbfx', 'bfi', 'bfxil', 'ubfiz', 'sbfiz'])} {first}, {second}, #{low}, "
            f"#{width}",
            f"{r.choice(['lsl', 'lsr', 'asr', 'ror'])} {first}, {second}, #{low}",
            f"{r.choice(['lsl', 'lsr', 'asr', 'ror', 'udiv', 'sdiv', 'mul', 'mneg'])} {first}, "
            f"{second}, {third}",
            f"{r.choice(['clz', 'cls', 'rbit', 'rev', 'rev16', 'mvn', 'neg', 'negs'])} {first}, "
            f"{second}",
            f"{r.choice(['csel', 'csinc', 'csinv', 'csneg'])} {first}, {second}, {third}, "
            f"{r.choice(_CONDITIONS)}",
            f"{r.choice(['ccmp', 'ccmn'])} {first}, {r.choice([second, f'#{r.randrange(32)}'])}, "
            f"#{r.randrange(16)}, {r.choice(_CONDITIONS)}",
            f"{r.choice(['madd', 'msub'])} {first}, {second}, {third}, {first}",
            f"extr {first}, {second}, {third}, #{low}",
            f"{r.choice(['cset', 'csetm'])} {first}, {r.choice(_CONDITIONS)}",
        ]
    )


def system(r: random.Random) -> str:
    return r.choice(
        "nop|wfi|wfe|sev|yield|isb|dsb sy|dsb ishst|dmb ish|dmb oshld|svc #0|hvc #3|smc "
        "#0xffff|brk #1|eret|ret|ret x5|br x9|blr x17|"
        "mrs x0, sctlr_el1|msr vbar_el1, x3|msr daifset, #15|mrs x4, mpidr_el1|dc civac, x0|tlbi "
        "vmalle1|ic iallu|at s1e1w, x2|clrex|"
        "hint #6|mrs x1, cntvct_el0|msr spsel, #0|msr tpidr_el0, xzr|mrs x3, s3_3_c13_c0_2|dc zva, "
        "x9|hlt #7".split("|")
    )


def data(r: random.Random) -> str:
    """A data directive."""
    label = r.choice(LABELS)
    return r.choice(
        [
            f".byte {r.randrange(256)}, {-r.randrange(129)}, 'a', '\\n', (end - there) & 0x7f",
            f".hword {r.randrange(65536)}, -1; .short 3; .2byte here - _start",
            f".word {r.randrange(1 << 32):#x}, end - _start, . - 4 + 8 - .",
            f".4byte {label}; .int 1; .long -2",
            f".quad {label}, {label} + {r.randrange(64)}, {r.randrange(1 << 64):#x}",
            f".xword {label} - {r.randrange(64)}; .dword 7; .8byte ~{r.randrange(99)}",
            f'.ascii "a{r.randrange(10)};#b//c", "\\x41\\101\\t"',
            '.asciz "x", "y z"; .string "end"',
            f".space {r.randrange(40)}",
            f".zero {r.randrange(9)}",
            f".skip {r.randrange(9)}, {r.randrange(256)}",
            f".fill {r.randrange(5)}, {r.choice([1, 2, 4, 8])}, {r.randrange(1 << 31):#x}",
            f".quad ({r.randrange(99)} << {r.randrange(60)}) | 1, {r.randrange(99)} * 3 % 7 - 2, 1 "
            f"+ 2 | 4 ^ 1",
            ".rept 3\n.byte 1, 2\n.endr",
            f".equ K{r.randrange(9)}, {r.randrange(99)}",
            ".byte N, N == 3, N < 2, !N, N && 2",
        ]
    )


INSTRUCTIONS: list[Callable[[random.Random], str]] = [
    single, single, single, vector_single, unscaled, pair, vector_pair, exclusive, structure, literal, literal_vector, near_label,
    near_label, page, arithmetic, arithmetic, logical, move, move, field, system,
]  # fmt: skip


def _section(r: random.Random) -> str:
    name, flag = r.choice(["mine", ".text.more", ".x_1"]), r.choice(["", "x", "w"])
    return f'.section {name}, "a{flag}"'


def program(r: random.Random) -> str:
    """A whole program: code with labels, pools and local labels, data in three sections."""
    lines = [".global _start", ".equ N, 3", "_start:"]
    count = r.randrange(10, 22)
    for index in range(count):
        if index == count // 3:
            lines.append("here:")
        if index == 2 * count // 3:
            lines += r.choice(
                [["there: nop"], ["there:"], ["    b 1f", "    .ltorg", "1:", "there:"]]
            )
        if r.random() < 0.12:
            lines += [
                "1: " + r.choice(INSTRUCTIONS)(r),
                f"    {r.choice(['b', 'cbz x1,', 'b.ne', 'tbz w2, #3,'])} 1b",
            ]
        elif r.random() < 0.06:
            lines += [
                f"    {r.choice(['b', 'cbnz w1,', 'b.lt'])} 2f",
                "    " + r.choice(INSTRUCTIONS)(r),
                "2:",
            ]
        elif r.random() < 0.05:
            lines += [
                "    b 3f",
                "    " + data(r),
                r.choice(["    .align 2", "    .balign 8", "    .p2align 4", "    .align 3"]),
                "3:",
            ]
        else:
            comment = r.choice(["", "", "", "  // a comment", "  /* here */"])
            lines.append("    " + r.choice(INSTRUCTIONS)(r) + comment)
    lines += ["end: ret"]
    if r.random() < 0.3:
        lines.append("    .ltorg")
    lines += [".data", "cell: .quad 1", "array:"] + [
        "    " + data(r) for _ in range(r.randrange(1, 5))
    ]
    lines += [r.choice([".bss", '.section .bss, "aw", %nobits']), "far_away: .skip 24"]
    if r.random() < 0.4:
        lines += [".section .rodata", f".balign {r.choice([1, 4, 16, 64])}"] + [
            data(r) for _ in range(r.randrange(1, 4))
        ]
    if r.random() < 0.2:
        lines += [_section(r), data(r), "more: .byte 1", ".text", "    nop"]
    return "\n".join(lines) + "\n"


def limits() -> list[tuple[str, str]]:
    """Branches and literals at the last distance that they reach, and behind it."""
    out = []
    for name, reach in (
        ("tbz x1, #3,", 1 << 15),
        ("tbnz w1, #3,", 1 << 15),
        ("cbz w1,", 1 << 20),
        ("b.eq", 1 << 20),
        ("ldr x1,", 1 << 20),
    ):
        for distance in (reach - 4, reach):
            out.append(
                (
                    f"{name} forward {distance:#x}",
                    f"_start: {name} x\n.skip {distance - 4}\nx: nop\n",
                )
            )
        for distance in (reach, reach + 4):
            out.append(
                (
                    f"{name} back {distance:#x}",
                    f"_start: nop\n.skip {distance - 4}\n{name} _start\n",
                )
            )
    for distance in ((1 << 20) - 1, 1 << 20):
        out.append((f"adr {distance:#x}", f"_start: adr x0, x\n.skip {distance - 4}\nx: .byte 0\n"))
    return out
