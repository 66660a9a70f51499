"""arm64 programs for tests/truth.py: x0 to x12 hold anything, x13 an index, x19 counts, x20 is the
memory that is tried, x21 the device, x22 a moving pointer, x27 and x28 what is told at the end.
"""

from __future__ import annotations

from functools import partial
from random import Random

from truth_kinds import DATA, DEVICE, WIDTHS, WORDS, Kind, Lines, value

# The names of loads and stores as far as the register's number.
LOADS = {
    1: ("ldrb w", "ldrsb w", "ldrsb x"),
    2: ("ldrh w", "ldrsh w", "ldrsh x"),
    4: ("ldr w", "ldrsw x"),
    8: ("ldr x",),
}
STORES = {1: "strb w", 2: "strh w", 4: "str w", 8: "str x"}
CONDITIONS = ("eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le")


def _arithmetic(random: Random) -> Lines:
    r = random.choice("xw")
    bits = 64 if r == "x" else 32
    d, n, m, a = (f"{r}{random.randrange(13)}" for _ in range(4))
    low = random.randrange(bits)
    two = [
        "add",
        "adds",
        "sub",
        "subs",
        "and",
        "ands",
        "orr",
        "orn",
        "eor",
        "eon",
        "bic",
        "bics",
        "mul",
        "mneg",
        "udiv",
        "sdiv",
        "lsl",
        "lsr",
        "asr",
        "ror",
    ]
    condition = random.choice(CONDITIONS)
    return [
        random.choice(
            (
                f"{random.choice(two)} {d}, {n}, {m}",
                f"{random.choice(two)} {d}, {n}, {m}",
                f"{random.choice(('add', 'subs', 'eor', 'bic'))} {d}, {n}, {m}, "
                f"{random.choice(('lsl', 'lsr', 'asr'))} #{low}",
                f"{random.choice(('add', 'adds', 'sub', 'subs'))} {d}, {n}, "
                f"#{random.randrange(4096)}",
                f"{random.choice(('madd', 'msub'))} {d}, {n}, {m}, {a}",
                f"{random.choice(('adc', 'adcs', 'sbc', 'sbcs'))} {d}, {n}, {m}",
                f"{random.choice(('clz', 'cls', 'rbit', 'rev', 'rev16'))} {d}, {n}",
                f"{random.choice(('ubfx', 'sbfx'))} {d}, {n}, #{low}, "
                f"#{random.randint(1, bits - low)}",
                f"extr {d}, {n}, {m}, #{low}",
                f"{random.choice(('csel', 'csinc', 'csinv', 'csneg'))} {d}, {n}, {m}, {condition}",
                f"{random.choice(('ccmp', 'ccmn'))} {n}, {m}, #{random.randrange(16)}, {condition}",
                f"movk {d}, #{random.getrandbits(16)}, lsl #{random.choice((0, 16))}",
                f"{random.choice(('smulh', 'umulh'))} x{d[1:]}, x{n[1:]}, x{m[1:]}",
                f"{random.choice(('sxtb', 'sxth', 'sxtw'))} x{d[1:]}, w{n[1:]}",
            )
        )
    ]


def _access(random: Random, bases: tuple[str, ...], aligned: bool) -> Lines:
    """One that KVM can decode, in a slot or outside."""
    size, base, reg = random.choice(WIDTHS), random.choice(bases), random.randrange(13)
    at = random.randrange(8 * WORDS // size)
    name = random.choice((STORES[size], random.choice(LOADS[size])))
    acquire = {1: "b w", 2: "h w", 4: " w", 8: " x"}[size]
    shift = size.bit_length() - 1
    unscaled = name.replace("ldr", "ldur").replace("str", "stur")
    forms = [
        [f"{name}{reg}, [{base}, #{at * size}]"],
        [f"{name}{reg}, [{base}, #{at * size}]"],
        [f"{unscaled}{reg}, [{base}, #{at * size}]"],
        [
            f"mov x13, #{at}",
            f"{name}{reg}, [{base}, x13, lsl #{shift}]" if shift else f"{name}{reg}, [{base}, x13]",
        ],
        [
            f"mov x13, #{-at}",
            f"add x22, {base}, #{at * size}",
            f"{name}{reg}, [x22, w13, sxtw #{shift}]",
        ],
        [
            f"add x22, {base}, #{at * size}",
            f"{random.choice(('ldar', 'stlr'))}{acquire}{reg}, [x22]",
        ],
    ]
    if not aligned:
        odd = random.randrange(8 * WORDS - size)
        forms += 4 * [[f"{unscaled}{reg}, [{base}, #{odd}]"]] + 2 * [
            [f"mov x13, #{odd}", f"{name}{reg}, [{base}, x13]"]
        ]
    return random.choice(forms)


def _between(random: Random, reg: int) -> Lines:
    """What comes between a load-exclusive and its store."""
    loop = [f"tbnz w{reg}, #{random.randrange(32)}, .+8", f"eor x{reg}, x{reg}, #1"]
    return random.choice(
        (
            [f"add x{reg}, x{reg}, #1"],
            [f"str w{reg}, [x21]"],
            [f"ldrb w{reg}, [x20]"],
            ["clrex"],
            ["isb"],
            loop,
        )
    )


def _undecoded(random: Random, base: str, aligned: bool) -> Lines:
    """One that KVM cannot decode: outside the slots it ends the guest."""
    at, a, b, c = 16 * random.randrange(WORDS // 2), *random.sample(range(13), 3)
    r = random.choice("xw")
    size = 8 if r == "x" else 4
    atomic = random.choice(
        ("ldadd", "ldclr", "ldeor", "ldset", "ldsmax", "ldsmin", "ldumax", "ldumin", "swp", "cas")
    )
    plain = [
        [f"{random.choice(('ldr', 'str'))} {r}{a}, [x22], #{size}"],
        [f"{random.choice(('ldr', 'str'))} {r}{a}, [x22, #{-size if at else 0}]!"],
        [f"{random.choice(('ldp', 'stp'))} {r}{a}, {r}{b}, [x22]"],
        [f"{random.choice(('ldp', 'stp'))} {r}{a}, {r}{b}, [x22], #16"],
    ]
    if not aligned and random.random() < 0.5:
        return [f"add x22, {base}, #{at + random.randrange(16)}", *random.choice(plain)]
    exclusives = [
        [f"ldxr {r}{a}, [x22]", f"stxr w{b}, {r}{c}, [x22]"],
        [f"ldaxr {r}{a}, [x22]", *_between(random, a), f"stlxr w{b}, {r}{c}, [x22]"],
        [f"{atomic} {r}{a}, {r}{b}, [x22]"],
        [f"{atomic}{random.choice('bh')} w{a}, w{b}, [x22]"],
    ]
    return [f"add x22, {base}, #{at}", *random.choice(plain + exclusives)]


def _one(random: Random, bases: tuple[str, ...] = ("x20", "x21"), aligned: bool = True) -> Lines:
    kind = random.random()
    if kind < 0.45:
        return _arithmetic(random)
    if kind < 0.86:
        return _access(random, bases, aligned)
    return _undecoded(random, "x21" if kind > 0.985 else "x20", aligned)


# --- SIMD and floating point ----------------------------------------------------------------------

_INTEGER = (
    "add",
    "sub",
    "mul",
    "cmeq",
    "cmgt",
    "cmhi",
    "smax",
    "umin",
    "uqadd",
    "sqsub",
    "addp",
    "sshl",
    "zip1",
    "uzp2",
    "trn1",
)
_BITS = ("and", "orr", "eor", "bic", "bsl", "bit", "orn")
_FLOAT = ("fadd", "fsub", "fmul", "fdiv", "fmax", "fminnm", "fmla", "fcmgt", "fabd", "frecps")
_ARRANGED = ("8b", "16b", "4h", "8h", "2s", "4s", "2d")


def _vectors(random: Random) -> Lines:
    d, n, m = (random.randrange(8) for _ in range(3))
    shape = random.choice(_ARRANGED)
    integer = random.choice(
        tuple(name for name in _INTEGER if shape != "2d" or name not in ("mul", "smax", "umin"))
    )
    real, size = random.choice(("2s", "4s", "2d")), random.choice("sd")
    w = random.choice("wx")
    convert = random.choice(("scvtf", "ucvtf", "fcvtzs", "fcvtzu"))
    return [
        random.choice(
            (
                f"{integer} v{d}.{shape}, v{n}.{shape}, v{m}.{shape}",
                f"{integer} v{d}.{shape}, v{n}.{shape}, v{m}.{shape}",
                f"{random.choice(_BITS)} v{d}.16b, v{n}.16b, v{m}.16b",
                f"{random.choice(_FLOAT)} v{d}.{real}, v{n}.{real}, v{m}.{real}",
                f"{random.choice(('fadd', 'fsub', 'fmul', 'fdiv', 'fmax'))} {size}{d}, {size}{n}, "
                f"{size}{m}",
                f"{random.choice(('fmadd', 'fnmsub'))} {size}{d}, {size}{n}, {size}{m}, "
                f"{size}{random.randrange(8)}",
                f"{random.choice(('fsqrt', 'fabs', 'fneg', 'frintn', 'frintz', 'fmov'))} "
                f"{size}{d}, {size}{n}",
                f"{convert} {size}{d}, {w}{n}"
                if "cvtf" in convert
                else f"{convert} {w}{d}, {size}{n}",
                f"fcmp {size}{n}, {size}{m}",
                f"fcsel {size}{d}, {size}{n}, {size}{m}, {random.choice(CONDITIONS)}",
                f"ext v{d}.16b, v{n}.16b, v{m}.16b, #{random.randrange(16)}",
                f"dup v{d}.4s, w{n}",
                f"mov v{d}.d[{random.randrange(2)}], x{n}",
                f"umov w{d}, v{n}.h[{random.randrange(8)}]",
                f"shl v{d}.4s, v{n}.4s, #{random.randrange(32)}",
                f"sshr v{d}.8h, v{n}.8h, #{random.randint(1, 16)}",
                f"{random.choice(('cnt', 'rev64', 'not'))} v{d}.16b, v{n}.16b",
                f"{random.choice(('addv', 'umaxv'))} h{d}, v{n}.8h",
                f"tbl v{d}.16b, {{v{n}.16b}}, v{m}.16b",
            )
        )
    ]


def _vector_access(random: Random, base: str) -> Lines:
    d, name = random.randrange(7), random.choice(("ldr", "str"))
    size, letter = random.choice(((1, "b"), (2, "h"), (4, "s"), (8, "d"), (16, "q")))
    at = size * random.randrange(8 * WORDS // size)
    pair = random.choice(("ldp", "stp"))
    many, shape = (
        random.choice(("ld1", "st1", "ld2", "st2")),
        random.choice(("16b", "8h", "4s", "2d")),
    )
    shown = f"{{v{d}.{shape}, v{d + 1}.{shape}}}" if many[-1] == "2" else f"{{v{d}.{shape}}}"
    return random.choice(
        (
            [f"{name} {letter}{d}, [{base}, #{at}]"],
            [f"{name} {letter}{d}, [{base}, #{at}]"],
            [f"add x22, {base}, #{at}", f"{name} {letter}{d}, [x22], #{size}"],
            [f"{pair} q{d}, q{d + 1}, [{base}, #{16 * random.randrange(3)}]"],
            [f"{pair} d{d}, d{d + 1}, [{base}, #{8 * random.randrange(7)}]"],
            [f"add x22, {base}, #{16 * random.randrange(3)}", f"{many} {shown}, [x22]"],
            [
                f"add x22, {base}, #{4 * random.randrange(16)}",
                f"{many[:2]}1 {{v{d}.s}}[{random.randrange(4)}], [x22]",
            ],
            [f"add x22, {base}, #{4 * random.randrange(16)}", f"ld1r {{v{d}.4s}}, [x22]"],
        )
    )


def _simd(random: Random) -> Lines:
    kind = random.random()
    if kind < 0.5:
        return _vectors(random)
    if kind < 0.85:
        return _vector_access(random, "x21" if kind > 0.84 else "x20")
    return _one(random)


# --- system instructions --------------------------------------------------------------------------

_HELD = (
    "tpidr_el0",
    "tpidr_el1",
    "tpidrro_el0",
    "elr_el1",
    "par_el1",
    "far_el1",
    "ttbr0_el1",
    "mair_el1",
    "contextidr_el1",
)
_UNKNOWN = (
    "msr pmcr_el0, x1",
    "mrs x1, cntvct_el0",
    "at s1e1r, x20",
    "mrs x1, midr_el1",
    "mrs x1, ctr_el0",
)


_SYSTEM = ("sctlr_el1", "cpacr_el1", "currentel", "daif", "nzcv", "spsel", "mpidr_el1")


def _system(random: Random) -> Lines:
    reg, name = random.randrange(13), random.choice(_HELD)
    flags = random.randrange(16)
    known = (
        [f"msr {name}, x{reg}", f"mrs x{random.randrange(13)}, {name}"]
        if name != "contextidr_el1"
        else [f"msr {name}, xzr"],
        [f"mrs x{reg}, {random.choice((*_HELD, *_SYSTEM))}"],
        [
            random.choice(
                (
                    "nop",
                    "yield",
                    "sev",
                    "sevl",
                    "wfe",
                    "isb",
                    "dsb sy",
                    "dmb ishst",
                    "clrex",
                    "csdb",
                    "esb",
                    "paciasp",
                )
            )
        ],
        [f"msr daifset, #{flags}", f"mrs x{reg}, daif", f"msr daifclr, #{flags}"],
        [
            f"add x22, x20, #{random.randrange(64)}",
            f"{random.choice(('dc cvac', 'dc civac', 'ic ivau', 'dc ivac'))}, x22",
        ],
        [random.choice(("ic iallu", "tlbi vmalle1", "ic ialluis", "tlbi vmalle1is"))],
        [
            "msr spsel, #0",
            f"mov x22, #{8 * random.randrange(512)}",
            "mov sp, x22",
            "msr spsel, #1",
            f"mrs x{reg}, sp_el0",
        ],
        [
            f"mov x22, #{8 * random.randrange(512)}",
            "mov sp, x22",
            "msr spsel, #0",
            f"mov x{reg}, sp",
            "msr spsel, #1",
        ],
        ["msr cntv_ctl_el0, xzr", f"msr cntv_tval_el0, x{reg}"],
        ["mrs x22, sctlr_el1", "eor x22, x22, #0x2000000", "msr sctlr_el1, x22", "isb"],
        [f"mov x22, #{random.choice((0, 1, 2, 3)) << 22}", "msr fpcr, x22", f"mrs x{reg}, fpcr"],
    )
    kind = random.random()
    if kind < 0.5:
        return random.choice(known)
    if kind < 0.505:
        return [random.choice(_UNKNOWN)]
    return _one(random)


def _branch(random: Random, label: str, body: Lines) -> Lines:
    reg, r = random.randrange(13), random.choice("xw")
    if random.random() < 0.3:
        return [
            f"mov x19, #{random.randint(2, 4)}",
            f"{label}:",
            *body,
            "subs x19, x19, #1",
            f"b.ne {label}",
        ]
    jump = random.choice(
        (
            f"b.{random.choice(CONDITIONS)} {label}",
            f"{random.choice(('cbz', 'cbnz'))} {r}{reg}, {label}",
            f"{random.choice(('tbz', 'tbnz'))} {r}{reg}, #{random.randrange(32)}, {label}",
        )
    )
    return [jump, *body, f"{label}:"]


def _end(vectors: bool = False) -> Lines:
    tell = [
        line
        for n in range(WORDS)
        for line in (f"ldr x28, [x20, #{8 * n}]", f"str x28, [x21, #{8 * n}]")
    ]
    if vectors:
        halves = ((n, half) for n in range(8) for half in (0, 1))
        tell += [
            line
            for n, half in halves
            for line in (f"umov x28, v{n}.d[{half}]", f"str x28, [x21, #{8 * half}]")
        ]
        tell += ["mrs x28, fpsr", "str x28, [x21]"]
    return [
        *tell,
        "mov x23, x0",
        "mov x24, x1",
        "mov x25, x2",
        "mov x26, x3",
        "movz w0, #0x8400, lsl #16",
        "movk w0, #8",
        "hvc #0",
    ]


def _regs(random: Random, **more: int) -> dict[str, int]:
    return {**{f"x{n}": value(random) for n in range(13)}, "x20": DATA, "x21": DEVICE, **more}


def _simd_regs(random: Random) -> dict[str, int]:
    vectors = {f"v{n}": value(random) << 64 | value(random) for n in range(8)}
    return {**_regs(random), **vectors, "cpacr_el1": 3 << 20}


def _kind(name: str, least: float = 0.95, **more: object) -> Kind:
    made = {
        "one": _one,
        "branch": _branch,
        "end": _end,
        "regs": _regs,
        "enable": True,
        "least": least,
        **more,
    }
    return Kind(name, "arm64", **made)  # type: ignore[arg-type]


IDENTITY = {"mmu": "identity"}
KINDS = (
    _kind("plain"),
    _kind("mmu", one=partial(_one, aligned=False), top=IDENTITY),
    _kind("big-endian", regs=partial(_regs, sctlr_el1=0xC50078 | 1 << 25)),
    # What lies partly in the slot, which ends at 0x4000, is refused; the device is looked at over a
    # page's end too.
    _kind(
        "crossing",
        0.3,
        one=partial(_one, aligned=False),
        top=IDENTITY,
        regs=partial(_regs, x20=0x3FE0, x21=0x10FE0),
    ),
    _kind(
        "readonly",
        0.6,
        regs=partial(_regs, x20=0x8000),
        slots=(
            "{slot: 0, gpa: 0, size: 0x4000}",
            "{slot: 1, gpa: 0x8000, size: 0x1000, flags: [KVM_MEM_READONLY]}",
        ),
        sections={".readonly": 0x8000},
        text='.section .readonly, "a"\n.quad 1, -2, 0x123456789abcdef, 4, 5, 6, '
        "0x8000000000000000, -1",
    ),
    _kind("simd", one=_simd, end=partial(_end, True), regs=_simd_regs),
    _kind("system", 0.85, one=_system, regs=partial(_regs, cpacr_el1=3 << 20)),
)
