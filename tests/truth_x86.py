"""x86 programs for tests/truth.py: bx is the memory that is tried, bp the device, sp a stack; the
others hold anything.

In long mode r15 counts and r14 is what is told at the end; the smaller modes have no loops, and
tell by eax.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any, NamedTuple

from truth_kinds import DATA, DEVICE, WORDS, Kind, Lines, value

POINTERS = {1: "byte", 2: "word", 4: "dword", 8: "qword"}
TWO = ["add", "sub", "and", "or", "xor", "adc", "sbb", "cmp", "test", "mov"]
JUMPS = ["e", "ne", "b", "ae", "s", "ns", "o", "no", "be", "a", "l", "ge", "le", "g", "p", "np"]


class Mode(NamedTuple):
    """The registers of a mode, by size in bytes, and the letter of those that hold addresses."""

    names: dict[int, list[str]]
    letter: str

    @property
    def wide(self) -> int:
        """The largest operand."""
        return max(self.names)

    def address(self, name: str) -> str:
        """The register of that name that holds an address."""
        return self.letter + name


_LEGACY = {
    4: ["eax", "ecx", "edx", "esi", "edi"],
    2: ["ax", "cx", "dx", "si", "di"],
    1: ["al", "cl", "dl", "ah", "ch", "dh"],
}
LONG = Mode(
    {
        8: ["rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13"],
        4: ["eax", "ecx", "edx", "esi", "edi", "r8d", "r9d", "r10d", "r11d", "r12d", "r13d"],
        2: ["ax", "cx", "dx", "si", "di", "r8w", "r9w", "r10w", "r11w", "r12w", "r13w"],
        1: ["al", "cl", "dl", "sil", "dil", "r8b", "r9b", "r10b", "r11b", "r12b", "r13b"],
    },
    "r",
)
PROTECTED = Mode(_LEGACY, "e")
REAL = Mode(_LEGACY, "")


def _arithmetic(random: Random, mode: Mode) -> Lines:
    size = random.choice(tuple(mode.names))
    wide = random.choice(tuple(n for n in mode.names if n > 1))
    a, b = (random.choice(mode.names[size]) for _ in range(2))
    c, d = (random.choice(mode.names[wide]) for _ in range(2))
    most, smaller = mode.names[mode.wide], random.choice((1, 2))
    # Flags that the manual leaves undefined differ between processors: a comparison behind them
    # defines all.
    undefined = (
        f"{random.choice(('shl', 'shr', 'sar', 'rol', 'ror'))} {a}, {random.choice((1, 1, 3, 7))}",
        f"{random.choice(('shl', 'shr', 'sar'))} {c}, cl",
        f"imul {c}, {d}",
        f"{random.choice(('mul', 'imul'))} {c}",
        f"bt {c}, {random.randrange(8 * wide)}",
    )
    defined = (
        f"{random.choice(TWO)} {a}, {b}",
        f"{random.choice(TWO)} {a}, {b}",
        f"{random.choice(TWO)} {a}, {random.randrange(127)}",
        f"{random.choice(('inc', 'dec', 'neg', 'not'))} {a}",
        f"cmov{random.choice(JUMPS)} {c}, {d}",
        f"set{random.choice(JUMPS)} {random.choice(mode.names[1])}",
        f"xchg {a}, {b}",
        f"xadd {a}, {b}",
        f"bswap {random.choice(most)}",
        f"{random.choice(('movzx', 'movsx'))} {random.choice(most)}, "
        f"{random.choice(mode.names[smaller])}",
        f"lea {random.choice(most)}, [{mode.address('bx')} + 5]",
    )
    text = random.choice((*undefined, *defined))
    return [text, f"cmp {c}, {d}"] if text in undefined else [text]


def _access(random: Random, mode: Mode) -> Lines:
    """In the slot or outside, aligned or not."""
    size, base = random.choice(tuple(mode.names)), mode.address(random.choice(("bx", "bp")))
    at = f"{POINTERS[size]} ptr [{base} + {random.randrange(8 * WORDS - size + 1)}]"
    reg, other = (
        random.choice(mode.names[size]),
        random.choice(("add", "sub", "and", "or", "xor", "adc", "sbb", "cmp", "test")),
    )
    small = random.choice((1, 2))
    narrow = f"{POINTERS[small]} ptr [{base} + {random.randrange(60)}]"
    text, start = random.choice(("movs", "stos", "lods")), random.randrange(32)
    letter = random.choice("bwdq" if mode.wide == 8 else "bwd")
    source, target, count = mode.address("si"), mode.address("di"), mode.address("cx")
    data = mode.address("bx")
    most = mode.names[mode.wide]
    return random.choice(
        (
            [f"mov {at}, {reg}"],
            [f"mov {reg}, {at}"],
            [f"mov {at}, {reg}"],
            [f"mov {reg}, {at}"],
            [f"mov {at}, {random.randrange(127)}"],
            [f"{other} {at}, {reg}"],
            [f"{other.replace('test', 'cmp')} {reg}, {at}"],
            [f"{random.choice(('inc', 'dec', 'neg', 'not'))} {at}"],
            [
                f"lock {random.choice(('add', 'sub', 'xor', 'or', 'and', 'xadd', 'cmpxchg'))} "
                f"{at}, {reg}"
            ],
            [f"{random.choice(('xchg', 'xadd'))} {at}, {reg}"],
            [f"{random.choice(('movzx', 'movsx'))} {random.choice(mode.names[4])}, {narrow}"],
            [
                f"lea {source}, [{base} + {start}]",
                f"lea {target}, [{data} + {start}]",
                f"mov {count}, 3",
                f"rep {text}{letter}",
            ],
            [
                f"lea {source}, [{data} + {start}]",
                f"lea {target}, [{base} + {start}]",
                f"mov {count}, 2",
                f"rep {text}{letter}",
            ],
            [f"push {random.choice(most)}", f"pop {random.choice(most)}"],
        )
    )


def _port(random: Random) -> Lines:
    size = random.choice((1, 2, 4))
    reg = {1: "al", 2: "ax", 4: "eax"}[size]
    port = random.choice((0x3F8, 0x500, 0x1234, 0x61 + 0x100))
    return [f"mov dx, {port}", random.choice((f"out dx, {reg}", f"in {reg}, dx"))]


def _one(random: Random, mode: Mode, ports: bool = True) -> Lines:
    kind = random.random()
    return (
        _arithmetic(random, mode)
        if kind < 0.5
        else _access(random, mode)
        if kind < 0.93 or not ports
        else _port(random)
    )


# --- SIMD -----------------------------------------------------------------------------------------

_MOVES = ("movups", "movaps", "movdqu", "movdqa", "movupd", "movapd")
_PACKED = (
    *(
        "paddb",
        "paddw",
        "paddd",
        "paddq",
        "psubb",
        "psubw",
        "pmullw",
        "pmulhuw",
        "pmuludq",
        "pmaddwd",
        "paddusb",
        "psubsw",
    ),
    *(
        "pand",
        "pandn",
        "por",
        "pxor",
        "pcmpeqb",
        "pcmpgtd",
        "pmaxub",
        "pminsw",
        "pavgb",
        "psadbw",
        "punpcklbw",
        "packssdw",
    ),
    *(
        "addps",
        "subps",
        "mulps",
        "divps",
        "addpd",
        "mulpd",
        "divpd",
        "minps",
        "maxpd",
        "sqrtps",
        "andps",
        "xorpd",
        "unpcklps",
    ),
)
_SCALAR = (
    "addss",
    "mulss",
    "divss",
    "addsd",
    "subsd",
    "mulsd",
    "divsd",
    "sqrtsd",
    "minss",
    "maxsd",
    "cvtss2sd",
    "cvtsd2ss",
)


def _simd(random: Random) -> Lines:
    kind, a, b = random.random(), random.randrange(8), random.randrange(8)
    where = "rbp" if kind > 0.62 else "rbx"
    # Mostly aligned: one that is not ends the guest where it must be.
    at = f"[{where} + {random.choice((0, 16, 32, 48, 0, 16, 32, 48, 5))}]"
    move, packed, general = (
        random.choice(_MOVES),
        random.choice(_PACKED),
        random.choice(LONG.names[8]),
    )
    if kind < 0.4:
        shuffle = f"{random.choice(('shufps', 'pshufd', 'pshufhw', 'cmpps'))} xmm{a}, xmm{b}, "
        return [
            random.choice(
                (
                    f"{packed} xmm{a}, xmm{b}",
                    f"{packed} xmm{a}, xmm{b}",
                    f"{random.choice(_SCALAR)} xmm{a}, xmm{b}",
                    f"{random.choice(('psllw', 'psrlq', 'psrad', 'psllq'))} xmm{a}, "
                    f"{random.randrange(20)}",
                    shuffle + str(random.randrange(8 if "cmp" in shuffle else 256)),
                    f"movq xmm{a}, {general}",
                    f"movq {general}, xmm{a}",
                    f"pmovmskb {random.choice(LONG.names[4])}, xmm{a}",
                    f"{random.choice(('cvtsi2sd', 'cvtsi2ss'))} xmm{a}, {general}",
                    f"{random.choice(('cvttsd2si', 'cvttss2si', 'cvtsd2si'))} {general}, xmm{a}",
                    f"ucomisd xmm{a}, xmm{b}",
                )
            )
        ]
    if kind < 0.75:
        in_slot = (
            f"{packed} xmm{a}, xmmword ptr {at}",
            f"movq xmm{a}, qword ptr {at}",
            f"addsd xmm{a}, qword ptr {at}",
        )
        moves = (f"{move} xmm{a}, xmmword ptr {at}", f"{move} xmmword ptr {at}, xmm{a}")
        return [random.choice(moves * 2 + in_slot if where == "rbx" else moves)]
    return _one(random, LONG, ports=False)


# --- programs -------------------------------------------------------------------------------------


def _branch(random: Random, label: str, body: Lines, mode: Mode) -> Lines:
    if mode.wide == 8 and random.random() < 0.3:
        return [f"mov r15d, {random.randint(2, 4)}", f"{label}:", *body, "dec r15d", f"jnz {label}"]
    return [f"j{random.choice(JUMPS)} {label}", *body, f"{label}:"]


def _tell(mode: Mode) -> Lines:
    by, size = ("r14", 8) if mode.wide == 8 else ("eax", 4)
    data, device = mode.address("bx"), mode.address("bp")
    words = range(0, 8 * WORDS, size)
    return [
        line
        for at in words
        for line in (f"mov {by}, [{data} + {at}]", f"mov [{device} + {at}], {by}")
    ]


def _end(mode: Mode) -> Lines:
    first = [] if mode.wide == 8 else [f"mov [{mode.address('bp')}], eax"]
    return [
        *first,
        *_tell(mode),
        f"cmp {mode.names[mode.wide][0]}, {mode.names[mode.wide][1]}",
        "hlt",
    ]


def _user_end(vectors: bool = False) -> Lines:
    """What is in the registers is told too: of those behind a shutdown nobody knows anything."""
    tell = [f"mov [rbp], {name}" for name in (*LONG.names[8], "rsp")]
    tell += [line for n in range(8) for line in (f"movups [rbp], xmm{n}",) if vectors]
    return [*tell, *_tell(LONG), "ud2"]


def _regs(random: Random, mode: Mode = LONG, **more: int) -> dict[str, int]:
    names = {f"r{name[1:]}" if mode.wide == 4 else name for name in mode.names[mode.wide]}
    mask = (1 << 8 * mode.wide) - 1
    return {
        **{name: value(random) & mask for name in sorted(names)},
        "rbx": DATA,
        "rbp": DEVICE,
        "rsp": 0x3800,
        **more,
    }


USER_REGS = {
    "cr3": 0x5000,
    "cs.selector": 0x33,
    "cs.dpl": 3,
    "ss.selector": 0x2B,
    "ss.dpl": 3,
    "rflags": 0x202,
}
# Page tables for user mode, of the first 2 MiB.
TABLES = (
    '.section .tables, "a"\n.quad 0x6007\n.zero 4088\n.quad 0x7007\n.zero 4088\n.quad '
    "0xe7\n.zero 4088"
)


def _user_regs(random: Random) -> dict[str, int]:
    return _regs(random, LONG, **USER_REGS)


def _simd_regs(random: Random) -> dict[str, int]:
    vectors = {f"xmm{n}": value(random) << 64 | value(random) for n in range(8)}
    return {**_user_regs(random), **vectors}


def _kind(name: str, mode: Mode, least: float = 0.95, **more: Any) -> Kind:
    made: dict[str, Any] = {
        "one": partial(_one, mode=mode),
        "branch": partial(_branch, mode=mode),
        "end": partial(_end, mode),
        "regs": partial(_regs, mode=mode),
        "least": least,
        **more,
    }
    return Kind(name, "x86_64", **made)


_FIRST = "{slot: 0, gpa: 0, size: 0x4000}"
_USER: dict[str, Any] = {
    "slots": (_FIRST, "{slot: 1, gpa: 0x5000, size: 0x3000}"),
    "sections": {".tables": 0x5000},
    "text": TABLES,
}
KINDS = (
    _kind("long", LONG),
    _kind("protected", PROTECTED, top={"mode": "protected"}),
    _kind(
        "real",
        REAL,
        top={"mode": "real"},
        regs=partial(_regs, mode=REAL, rbp=0x5000),
        sections={".device": 0x5000},
    ),
    _kind(
        "user",
        LONG,
        one=partial(_one, mode=LONG, ports=False),
        end=_user_end,
        regs=_user_regs,
        **_USER,
    ),
    _kind("simd", LONG, one=_simd, end=partial(_user_end, True), regs=_simd_regs, **_USER),
    # Over the end of the slot, and over one page's end outside it.
    _kind("crossing", LONG, regs=partial(_regs, rbx=0x3FE0, rbp=0x10FE0)),
    _kind(
        "readonly",
        LONG,
        regs=partial(_regs, rbx=0x8000),
        slots=(_FIRST, "{slot: 1, gpa: 0x8000, size: 0x1000, flags: [KVM_MEM_READONLY]}"),
        sections={".readonly": 0x8000},
        text='.section .readonly, "a"\n.quad 1, -2, 0x123456789abcdef, 4, 5, 6, '
        "0x8000000000000000, -1",
    ),
)
