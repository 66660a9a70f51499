"""arm64: the instructions that Unicorn would carry out silently, and which of them every CPU under
KVM does so.

It is a list of what is known. What is not on it is not predicted, since it depends on the CPU, the
kernel or the host's clock (timers, `at`, registers of debug, of the PMU and of the GIC), or changes
what the model relies on (Arm ARM, C5).
"""

from __future__ import annotations

from functools import lru_cache

from kvmscen.sent.arch import arm64

WFE, WFI = 0xD503205F, 0xD503207F
ERET, SELF = 0xD69F03E0, 0x14000000


def _row(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    return op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


MPIDR = _row(3, 0, 0, 0, 5)
_CURRENTEL = _row(3, 0, 4, 2, 2)
# Registers that hold what the guest or the scenario put there, by bits 20:5 of MRS and MSR.
HELD = {
    **{_row(*at): name for name, at in arm64.SYSTEM.items()},
    _row(3, 0, 4, 1, 0): "sp_el0",
    _row(3, 0, 4, 2, 0): "spsel",
    _row(3, 3, 4, 2, 0): "nzcv",
    _row(3, 3, 4, 2, 1): "daif",
    _row(3, 3, 4, 4, 0): "fpcr",
    _row(3, 3, 4, 4, 1): "fpsr",
}
# cntp_ctl_el0 and cntv_ctl_el0; then what does nothing until one of them enables its timer:
# cntkctl_el1, tval and cval.
TIMER_CONTROLS = frozenset((_row(3, 3, 14, 2, 1), _row(3, 3, 14, 3, 1)))
TIMER_VALUES = frozenset(
    _row(3, *at)
    for at in ((0, 14, 1, 0), (3, 14, 2, 0), (3, 14, 2, 2), (3, 14, 3, 0), (3, 14, 3, 2))
)
# Hints that change nothing the model shows, whether or not the CPU has their extension: nop, yield,
# sev, sevl, dgh, esb, psb, tsb, csdb, bti, and pointer authentication with its keys off. Not
# xpaclri, which needs no key.
_HINTS = frozenset(
    (0, 1, 3, 4, 5, 6, 8, 10, 12, 14, 16, 17, 18, 20, *range(24, 32), 32, 34, 36, 38)
)
# clrex, dsb, dmb, isb by op2. 1 and 7 are dsb nXS and sb, of extensions.
_BARRIERS = frozenset((2, 4, 5, 6))
# op1, CRn, CRm, op2: ic ialluis and iallu; dc isw, csw and cisw, which KVM traps; with an address
# ic ivau, dc ivac, cvac, cvau, civac.
_CACHES = frozenset(((0, 7, 1, 0), (0, 7, 5, 0)))
CACHES_BY_SET = frozenset(((0, 7, 6, 2), (0, 7, 10, 2), (0, 7, 14, 2)))
CACHES_BY_ADDRESS = frozenset(
    ((3, 7, 5, 1), (0, 7, 6, 1), (3, 7, 10, 1), (3, 7, 11, 1), (3, 7, 14, 1))
)
# Mask and value of instructions that Unicorn's CPU has and the smallest one with KVM, a Cortex-A53,
# need not have.
_EXTENSIONS = (
    (0xFE1F0800, 0xD61F0800),  # braa, blraa, retaa, eretaa
    (0xFFFF0000, 0xDAC10000),  # pacia and its like
    (0xFFE0FC00, 0x9AC03000),  # pacga
    (0xFF200400, 0xF8200400),  # ldraa, ldrab
    (0x3F200C00, 0x19000000),  # ldapur, stlur
    (0xFFE07C10, 0xBA000400),  # rmif
    (0xFFFFBC1F, 0x3A00080D),  # setf8, setf16
    (0xDFE0FC00, 0x9AC00000),  # subp, subps
    (0xFFE0F800, 0x9AC01000),  # irg, gmi
    (0xBFC00000, 0x91800000),  # addg, subg
    (0xFF200000, 0xD9200000),  # stg and its like
    (0x1E000000, 0x04000000),  # SVE
    (0xFF000000, 0xCE000000),  # SHA-3, SHA-512, SM3, SM4
    (0xFF3E0C00, 0x4E280800),  # AES
    (0xFF208C00, 0x5E000000),  # SHA-1, SHA-256 of three registers
    (0xFF3E0C00, 0x5E280800),  # and of two
    (0xBFE0FC00, 0x0EE0E000),  # pmull of 64 bits
    (0xFFFFFC00, 0x1E7E0000),  # fjcvtzs
    (0xFF3E7C00, 0x1E284000),  # frint32z and its like
    (0xBF20F400, 0x2E00E400),  # fcadd
    (0xBF20E400, 0x2E00C400),  # fcmla
    (0xBF20F400, 0x2E008400),  # sqrdmlah, sqrdmlsh: vectors,
    (0xFF20F400, 0x7E008400),  # one register,
    (0xAF00D400, 0x2F00D000),  # and by element
    (0x9F20FC00, 0x0E009400),  # udot, sdot,
    (0x9F00F400, 0x0F00E000),  # and by element
    (0xBFE0FC00, 0x0E809C00),  # usdot
    (0x9FE0F400, 0x0E80A400),  # smmla and its like
    (0xBFA0FC00, 0x0E20EC00),  # fmlal, fmlsl
    (0xBFA0FC00, 0x2E20CC00),
    (0xBFE0FC00, 0x2E40FC00),  # bfdot
    (0xBFE0FC00, 0x2EC0FC00),  # bfmlal
    (0xBFE0FC00, 0x2E40EC00),  # bfmmla
    (0xDF60C400, 0x5E400400),  # half precision: three registers,
    (0x9F60C400, 0x0E400400),  # three vectors,
    (0xDF7E0C00, 0x5E780800),  # two registers,
    (0x9F7E0C00, 0x0E780800),  # two vectors,
    (0x9FC00400, 0x0F000000),  # by element,
    (0xDFC00400, 0x5F000000),
    (0xFF7E0C00, 0x5E300800),  # pairs of one vector,
    (0x5FC00000, 0x1FC00000),  # fmadd and its like
)
_HALF, _HALF_CONVERT = (
    (0x5FE00000, 0x1EE00000),
    ((0xFFFFFC00, 0x1EE24000), (0xFFFFFC00, 0x1EE2C000)),
)


def fields(word: int) -> tuple[int, int, int, int, int]:
    """op0, op1, CRn, CRm, op2."""
    return word >> 19 & 3, word >> 16 & 7, word >> 12 & 15, word >> 8 & 15, word >> 5 & 7


@lru_cache(maxsize=4096)
def stops(word: int) -> bool:
    """Whether the guest must stop before a system instruction: its effect depends on its operands,
    or is not known.
    """
    if word & 0xFFC00000 == 0xD5000000:
        return not _plain(word)
    return word in (ERET, SELF) or of_extension(word)


def _plain(word: int) -> bool:
    op0, op1, crn, crm, op2 = fields(word)
    read, row = word >> 21 & 1, word >> 5 & 0xFFFF
    if op0 & 2:
        return bool(read and (row in HELD or row == _CURRENTEL))
    if read:
        return False
    if op0 == 1:
        # All of tlbi but for ranges and the outer shareable domain.
        return (op1, crn, crm, op2) in _CACHES or (op1 == 0 and crn == 8 and crm in (3, 7))
    if op1 == 3 and crn == 2:
        return word & 31 == 31 and (crm << 3 | op2) in _HINTS
    if op1 == 3 and crn == 3:
        return op2 in _BARRIERS
    # msr spsel, daifset and daifclr with an immediate.
    return crn == 4 and (op1, op2) in ((0, 5), (3, 6), (3, 7))


def of_extension(word: int) -> bool:
    """Whether it is an instruction that not every CPU has."""
    half = word & _HALF[0] == _HALF[1] and not any(
        word & mask == value for mask, value in _HALF_CONVERT
    )
    return half or any(word & mask == value for mask, value in _EXTENSIONS)


def reason(word: int) -> str:
    """Why an instruction that `stops` is not predicted."""
    op0, op1, crn, crm, op2 = fields(word)
    if word & 0xFFC00000 != 0xD5000000:
        return f"{word:#010x} is an instruction that not every CPU has"
    if op0 & 2:
        what = _what(op0, crn, crm)
        verb = "reads" if word >> 21 & 1 else "writes"
        return (
            f"the guest {verb} {what} (s{op0}_{op1}_c{crn}_c{crm}_{op2}): what is in it "
            f"depends on the host"
        )
    if op0 == 1 and crn == 7 and crm in (8, 9):
        return "what `at` leaves in par_el1 depends on the CPU"
    return f"what the system instruction {word:#010x} does depends on the CPU"


def _what(op0: int, crn: int, crm: int) -> str:
    if op0 == 2:
        return "a debug register"
    if crn == 0:
        return "an identification register"
    if crn == 9 or (crn == 14 and crm >= 8):
        return "a register of the PMU"
    if crn == 14:
        return "a register of the timer"
    if (crn == 12 and crm >= 8) or (crn == 4 and crm == 6):
        return "a register of the GIC"
    return "a system register"
