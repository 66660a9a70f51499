"""The emulator of single loads and stores against Unicorn: random instructions on random registers
and memory.

    python tests/sent/arch/emulate_against_unicorn.py 20000 [SEED]

prints how many states were compared, by instruction, and the first that differ.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from typing import Any

from unicorn import arm64_const as const
from unicorn import unicorn_const as uc_const
from unicorn.unicorn import Uc, UcError

from kvmscen.sent.undecoded.decode import decode
from kvmscen.sent.undecoded.emulate import MASK, Monitors, emulate
from kvmscen.sent.undecoded.forms import Form, Unemulated

CODE, CODE_SIZE = 0x1000000, 0x200000
DATA, DATA_SIZE = 0x2000000, 0x40000
CLREX = 0x10000
X = [getattr(const, f"UC_ARM64_REG_X{n}") for n in range(31)] + [
    const.UC_ARM64_REG_SP,
    const.UC_ARM64_REG_PC,
]
V = [getattr(const, f"UC_ARM64_REG_Q{n}") for n in range(32)]
NAMES = [f"x{n}" for n in range(31)] + ["sp", "pc"]

# Fixed bits of each group of encodings, and how often it is drawn; the rest of the word is random.
GROUPS: tuple[tuple[int, int, int], ...] = (
    (0x3F000000, 0x08000000, 4),  # exclusives, ordered, cas
    (0x3FA07C00, 0x08A07C00, 2),  # cas
    (0xBFA17C01, 0x08207C00, 2),  # casp
    (0x3FFFFC00, 0x38BFC000, 1),  # ldapr
    (0xBF200000, 0x0C000000, 5),  # multiple structures
    (0xBF000000, 0x0D000000, 5),  # single structures
    (0x3F200C00, 0x19000000, 2),  # ldapur
    (0x3B000000, 0x18000000, 2),  # literals
    (0x3A000000, 0x28000000, 6),  # pairs
    (0x3B200C00, 0x38000400, 3),  # post-indexed
    (0x3B200C00, 0x38000C00, 3),  # pre-indexed
    (0x3B200C00, 0x38000000, 2),  # unscaled
    (0x3F200C00, 0x38000800, 1),  # unprivileged
    (0x3B200C00, 0x38200800, 3),  # register offset
    (0x3F200C00, 0x38200000, 5),  # atomics
    (0x3B000000, 0x39000000, 2),  # unsigned offset
    (0xFFFFFFE0, 0xD50B7420, 1),  # dc zva
)


class Flat:
    """Memory as `emulate` wants it: addresses are physical ones."""

    def __init__(self) -> None:
        self.data = bytearray(DATA_SIZE)
        self.code = bytes(CODE_SIZE)
        self.monitors = Monitors()

    def resolve(self, address: int, size: int, write: bool) -> list[tuple[int, int]]:
        assert DATA <= address <= DATA + DATA_SIZE - size or (
            not write and CODE <= address <= CODE + CODE_SIZE - size
        )
        return [(address, size)]

    def load(self, address: int, size: int) -> bytes:
        held, start = (self.data, DATA) if address >= DATA else (self.code, CODE)
        return bytes(held[address - start : address - start + size])

    def store(self, address: int, data: bytes) -> None:
        self.data[address - DATA : address - DATA + len(data)] = data

    def mark(self, ranges: list[tuple[int, int]]) -> None:
        self.monitors.mark(0, ranges)

    def take(self, ranges: list[tuple[int, int]]) -> bool:
        return self.monitors.take(0, ranges)


class Comparison:
    """One Unicorn, and what was found."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.engine: Any = Uc(uc_const.UC_ARCH_ARM64, uc_const.UC_MODE_ARM)
        self.engine.ctl_set_cpu_model(const.UC_CPU_ARM64_MAX)  # the default has no LSE
        self.flat = Flat()
        self.flat.code = self.random.randbytes(CODE_SIZE)
        self.flat.data[:] = self.random.randbytes(DATA_SIZE)
        self.engine.mem_map(CODE, CODE_SIZE)
        self.engine.mem_write(CODE, self.flat.code)
        self.engine.mem_map(CLREX, 0x1000)
        self.engine.mem_write(CLREX, (0xD503305F).to_bytes(4, "little"))
        self.engine.mem_map(DATA, DATA_SIZE)
        self.engine.mem_write(DATA, bytes(self.flat.data))
        self.engine.reg_write(const.UC_ARM64_REG_CPACR_EL1, 3 << 20)
        self.engine.hook_add(uc_const.UC_HOOK_INTR, self._interrupt)
        self.engine.hook_add(uc_const.UC_HOOK_MEM_WRITE, self._written)
        self.taken = False
        self.touched: list[tuple[int, int]] = []
        self.seen: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.faults: list[str] = []
        self.groups = [group for group in GROUPS for _ in range(group[2])]

    def _interrupt(self, engine: Any, number: int, data: Any) -> None:
        self.taken = True
        engine.emu_stop()

    def _written(
        self, engine: Any, access: int, address: int, size: int, value: int, data: Any
    ) -> None:
        self.touched.append((address, size))

    @property
    def compared(self) -> int:
        """States that both have run."""
        return self.seen.total()

    def run(self, states: int) -> None:
        """Compare so many."""
        while self.compared < states:
            mask, bits, _ = self.random.choice(self.groups)
            word = (self.random.getrandbits(32) & ~mask) | bits
            try:
                form = decode(word)
            except Unemulated as reason:
                self.refused[re.sub(r"^\w+ (.*:) CONST.*|0x\w+ ", r"\1", str(reason))] += 1
                if "encoding" in str(reason):
                    self.nothing(word)
                continue
            self.one(word, form)

    def one(self, word: int, form: Form) -> None:
        """Run one instruction on both, a load-exclusive of the same bytes before every other
        store-exclusive.
        """
        words = [word]
        twice = form.indexed is not None and form.indexed.reg == form.base
        if form.op in ("smax", "smin") and form.base == form.sources[0]:
            return  # see `state`: the operand could not be chosen
        if twice or form.base == "xzr" or (form.base == "pc" and abs(form.offset) < 32):
            # twice the base is nowhere; the instruction's own place holds other bytes here than
            # there
            return
        if form.status and self.random.random() < 0.6:
            marker = self.marker(word, form)
            if marker is None:
                return
            words.insert(0, marker)
        state = self.state(words, form)
        read = (
            dict(zip(NAMES, state, strict=True))
            | {f"v{n}": value for n, value in enumerate(self.vectors)}
            | {"pstate": 0}
        )
        if form.status:
            self.flat.monitors.take(0, ())
            self.engine.emu_start(CLREX, CLREX + 4, count=1)
            self.engine.reg_write(X[-1], state[-1])
        for each in words:
            read.update(emulate(each, read.__getitem__, self.flat).regs)
        self.taken, self.touched = False, []
        failed = ""
        try:
            self.engine.emu_start(state[-1], state[-1] + 4 * len(words), count=len(words))
        except UcError as error:
            failed = str(error)
        self.compare([f"{w:#010x}" for w in words], form, read, failed)
        for n in range(len(words)):
            at = state[-1] + 4 * n - CODE
            self.engine.mem_write(at + CODE, self.flat.code[at : at + 4])

    def nothing(self, word: int) -> None:
        """An encoding that is none here is none for Unicorn either."""
        at, self.taken, failed = CODE + 0x1000, False, False
        self.engine.reg_write_batch([(reg, DATA + 0x10000) for reg in X[:-1]])
        self.engine.mem_write(at, word.to_bytes(4, "little"))
        try:
            self.engine.emu_start(at, at + 4, count=1)
        except UcError:
            failed = True
        if not (failed or self.taken):
            self.faults.append(f"{word:#010x}: Unicorn runs it")
            self.flat.data[:] = self.engine.mem_read(DATA, DATA_SIZE)
        self.engine.mem_write(at, self.flat.code[at - CODE : at - CODE + 4])

    def marker(self, word: int, form: Form) -> int | None:
        """The load-exclusive of a store-exclusive, into registers that this does not use."""
        used = {form.base, form.status, *(part.reg for part in form.parts)}
        first, second = [n for n in range(31) if f"x{n}" not in used][:2]
        return (
            (word & 0xFFE083E0)
            | 1 << 22
            | 31 << 16
            | (second if len(form.parts) == 2 else 31) << 10
            | first
        )

    def state(self, words: list[int], form: Form) -> list[int]:
        """Random registers with which the access stays in what is mapped; they are in the engine
        then.
        """
        draw = self.random
        regs = [
            draw.choice((draw.getrandbits(64), draw.getrandbits(32), draw.getrandbits(8)))
            for _ in range(33)
        ]
        regs[-1] = CODE + 4 * draw.randrange(8, CODE_SIZE // 4 - 8)
        whole = sum(part.size for part in form.parts) or 1
        ordered = form.name.startswith(("ldar", "ldlar", "stlr", "stllr", "ldapr"))
        if form.kind in ("atomic", "cas") or form.status or form.monitor or ordered:
            at = DATA + whole * draw.randrange(0x4000 // whole) + 0x10000
        else:
            at = DATA + 0x10000 + draw.randrange(0x4000)
        if form.base == "pc":
            low, high = CODE - form.offset, CODE + CODE_SIZE - 32 - form.offset
            regs[-1] = draw.randrange(max(low, CODE + 32), min(high, CODE + CODE_SIZE - 32)) & ~3
        elif form.base != "xzr":
            regs[NAMES.index(form.base)] = at
        index = form.indexed
        if index is not None and index.reg != "xzr":
            value = draw.randrange(-0x800 if index.signed else 0, 0x800)
            if index.bits == 32:
                value = (value & 0xFFFFFFFF) | draw.getrandbits(32) << 32
            regs[NAMES.index(index.reg)] = value & MASK
        self.vectors = [draw.getrandbits(128) for _ in V]
        if form.op in ("smax", "smin") and whole < 8:
            # Unicorn 2.1.4 has QEMU's old fault: it does not extend the signs (QEMU's "tcg: Fix
            # do_nonatomic_op_* vs signed operations"), so that only numbers that are not negative
            # can be held against it.
            if form.sources[0] != "xzr":
                regs[NAMES.index(form.sources[0])] &= (1 << 8 * whole - 1) - 1
            held = self.flat.load(at, whole)
            self.flat.store(at, held[:-1] + bytes([held[-1] & 0x7F]))
            self.engine.mem_write(at, self.flat.load(at, whole))
        if form.kind == "cas" and draw.random() < 0.5:
            self.expect(form, at, regs)
        self.engine.reg_write_batch(
            list(zip(X, regs, strict=True)) + list(zip(V, self.vectors, strict=True))
        )
        self.engine.reg_write(const.UC_ARM64_REG_PSTATE, 0x3C5)
        code = b"".join(w.to_bytes(4, "little") for w in words)
        self.engine.mem_write(regs[-1], code)
        return regs

    def expect(self, form: Form, at: int, regs: list[int]) -> None:
        """Give a cas the values that it compares with, so that it also succeeds; the upper bits
        stay random.
        """
        for part in form.parts:
            if part.reg not in ("xzr", form.base):
                held = int.from_bytes(self.flat.load(at + part.offset, part.size), "little")
                n = NAMES.index(part.reg)
                regs[n] = (regs[n] >> 8 * part.size << 8 * part.size) | held

    def compare(self, words: list[str], form: Form, mine: dict[str, int], failed: str) -> None:
        """Hold registers and the bytes that either has written against each other."""
        what = f"{form.name} ({' '.join(words)})"
        self.seen[form.name] += 1
        if failed or self.taken:
            self.faults.append(f"{what}: Unicorn does not run it {failed}")
            return
        theirs = [int(v) for v in self.engine.reg_read_batch([*X, *V])]
        names = [*NAMES, *(f"v{n}" for n in range(32))]
        for name, value in zip(names, theirs, strict=True):
            if mine[name] != value:
                self.faults.append(f"{what}: {name} is {mine[name]:#x} here, {value:#x} in Unicorn")
                return
        held = bytes(self.engine.mem_read(DATA, DATA_SIZE))
        if held != self.flat.data:
            at = next(
                n for n, (a, b) in enumerate(zip(held, self.flat.data, strict=True)) if a != b
            )
            self.faults.append(f"{what}: memory differs at {DATA + at:#x}")
            self.flat.data[:] = held


def main() -> int:
    """Compare as many states as asked for."""
    states, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    comparison = Comparison(seed)
    comparison.run(states)
    for name, count in sorted(comparison.seen.items()):
        print(f"{count:6} {name}")
    for reason, count in comparison.refused.most_common():
        print(f"{count:6} words refused: {reason}")
    for fault in comparison.faults[:20]:
        print(fault)
    print(f"seed {seed}: {comparison.compared} states compared, {len(comparison.faults)} differ")
    return 1 if comparison.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
