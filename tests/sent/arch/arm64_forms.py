"""Every AArch64 load and store form, by what the abort of each leaves KVM: the hand list that the
syndrome rule is held to.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

AS, OBJCOPY = "aarch64-linux-gnu-as", "aarch64-linux-gnu-objcopy"
MISSING = not (shutil.which(AS) and shutil.which(OBJCOPY))

# Base register x2. Size, is_write, signed, wide, register.
VALID: dict[str, tuple[int, bool, bool, bool, int]] = {
    "str x3, [x2]": (8, True, False, False, 3),
    "str xzr, [x2]": (8, True, False, False, 31),
    "str w3, [x2, #4]": (4, True, False, False, 3),
    "strh w3, [x2]": (2, True, False, False, 3),
    "strb w3, [x2]": (1, True, False, False, 3),
    "str x3, [x2, x4]": (8, True, False, False, 3),
    "str w3, [x2, w4, uxtw #2]": (4, True, False, False, 3),
    "strh w3, [x2, w4, sxtw]": (2, True, False, False, 3),
    "strb w3, [x2, x4]": (1, True, False, False, 3),
    "stur x3, [x2, #-8]": (8, True, False, False, 3),
    "stur w3, [x2, #-4]": (4, True, False, False, 3),
    "sturh w3, [x2, #-2]": (2, True, False, False, 3),
    "sturb w3, [x2, #-1]": (1, True, False, False, 3),
    "sttr x3, [x2]": (8, True, False, False, 3),
    "sttr w3, [x2]": (4, True, False, False, 3),
    "sttrh w3, [x2]": (2, True, False, False, 3),
    "sttrb w3, [x2]": (1, True, False, False, 3),
    "stlr x3, [x2]": (8, True, False, False, 3),
    "stlr w3, [x2]": (4, True, False, False, 3),
    "stlrh w3, [x2]": (2, True, False, False, 3),
    "stlrb w3, [x2]": (1, True, False, False, 3),
    "stllr x3, [x2]": (8, True, False, False, 3),
    "stllrb w3, [x2]": (1, True, False, False, 3),
    "stlur x3, [x2, #8]": (8, True, False, False, 3),
    "stlurb w3, [x2, #1]": (1, True, False, False, 3),
    "ldr x3, [x2]": (8, False, False, True, 3),
    "ldr w3, [x2]": (4, False, False, False, 3),
    "ldrh w3, [x2]": (2, False, False, False, 3),
    "ldrb w3, [x2]": (1, False, False, False, 3),
    "ldrsb x3, [x2]": (1, False, True, True, 3),
    "ldrsb w3, [x2]": (1, False, True, False, 3),
    "ldrsh x3, [x2]": (2, False, True, True, 3),
    "ldrsh w3, [x2]": (2, False, True, False, 3),
    "ldrsw x3, [x2]": (4, False, True, True, 3),
    "ldr x3, [x2, x4, lsl #3]": (8, False, False, True, 3),
    "ldrsw x3, [x2, x4]": (4, False, True, True, 3),
    "ldur x3, [x2, #-8]": (8, False, False, True, 3),
    "ldursb w3, [x2, #-1]": (1, False, True, False, 3),
    "ldursw x3, [x2, #-4]": (4, False, True, True, 3),
    "ldtr x3, [x2]": (8, False, False, True, 3),
    "ldtrsw x3, [x2]": (4, False, True, True, 3),
    "ldtrsh w3, [x2]": (2, False, True, False, 3),
    "ldar x3, [x2]": (8, False, False, True, 3),
    "ldar w3, [x2]": (4, False, False, False, 3),
    "ldarb w3, [x2]": (1, False, False, False, 3),
    "ldlar x3, [x2]": (8, False, False, True, 3),
    "ldlarh w3, [x2]": (2, False, False, False, 3),
    "ldapr x3, [x2]": (8, False, False, True, 3),
    "ldaprb w3, [x2]": (1, False, False, False, 3),
    "ldapur x3, [x2, #8]": (8, False, False, True, 3),
    "ldapursw x3, [x2, #4]": (4, False, True, True, 3),
    "ldapursb w3, [x2, #1]": (1, False, True, False, 3),
}
# No valid syndrome: esr_iss outside the slots, at level 3. Exclusive stores are below: they fail
# before they access.
INVALID: dict[str, int] = {
    **dict.fromkeys(
        (
            *(
                "str xzr, [x2], #8",
                "str xzr, [x2, #8]!",
                "str w3, [x2], #4",
                "strh w3, [x2], #2",
                "strb w3, [x2, #1]!",
            ),
            *(
                "stp x3, x4, [x2]",
                "stp w3, w4, [x2], #8",
                "stp x3, x4, [x2, #16]!",
                "stnp x3, x4, [x2]",
                "stp q0, q1, [x2]",
            ),
            *(
                "str q0, [x2]",
                "str d0, [x2]",
                "str s0, [x2]",
                "str h0, [x2]",
                "str b0, [x2]",
                "str q0, [x2], #16",
            ),
            *("stur q0, [x2, #16]", "str d0, [x2, x4]", "stnp d0, d1, [x2]"),
            *(
                "st1 {v0.16b}, [x2]",
                "st1 {v0.16b, v1.16b}, [x2], #32",
                "st1 {v0.b}[3], [x2]",
                "st2 {v0.4s, v1.4s}, [x2]",
            ),
            *("st3 {v0.8b, v1.8b, v2.8b}, [x2]", "st4 {v0.s, v1.s, v2.s, v3.s}[1], [x2]"),
        ),
        0x47,
    ),
    **dict.fromkeys(
        (
            *(
                "ldr w3, [x2], #4",
                "ldr x3, [x2, #8]!",
                "ldrsw x3, [x2], #4",
                "ldrb w3, [x2], #1",
                "ldrsh x3, [x2, #2]!",
            ),
            *(
                "ldp x3, x4, [x2]",
                "ldp w3, w4, [x2], #8",
                "ldpsw x3, x4, [x2]",
                "ldnp x3, x4, [x2]",
                "ldp d0, d1, [x2, #16]!",
            ),
            *(
                "ldr q0, [x2]",
                "ldr d0, [x2]",
                "ldr s0, [x2]",
                "ldr h0, [x2]",
                "ldr b0, [x2]",
                "ldr q0, [x2], #16",
            ),
            *("ldur d0, [x2, #8]", "ldr q0, [x2, x4]"),
            *(
                "ld1 {v0.16b}, [x2]",
                "ld1 {v0.2d}, [x2], x4",
                "ld1 {v0.b}[3], [x2]",
                "ld1r {v0.4s}, [x2]",
                "ld4r {v0.8b-v3.8b}, [x2]",
            ),
            *(
                "ld2 {v0.4s, v1.4s}, [x2]",
                "ld3 {v0.8b, v1.8b, v2.8b}, [x2]",
                "ld4 {v0.4h-v3.4h}, [x2]",
            ),
            *(
                "ldxr x3, [x2]",
                "ldxrb w3, [x2]",
                "ldaxr w3, [x2]",
                "ldxp x3, x4, [x2]",
                "ldaxp w3, w4, [x2]",
            ),
            *(
                "ldadd x3, x4, [x2]",
                "ldaddal w3, w4, [x2]",
                "ldclr x3, x4, [x2]",
                "ldeor x3, x4, [x2]",
                "ldset x3, x4, [x2]",
            ),
            *(
                "ldsmax x3, x4, [x2]",
                "ldsmin w3, w4, [x2]",
                "ldumax x3, x4, [x2]",
                "lduminb w3, w4, [x2]",
                "stadd x3, [x2]",
            ),
            *(
                "swp x3, x4, [x2]",
                "swpab w3, w4, [x2]",
                "cas x3, x4, [x2]",
                "casal w3, w4, [x2]",
                "cash w3, w4, [x2]",
            ),
            "casp x4, x5, x6, x7, [x2]",
        ),
        0x07,
    ),
}
# Without a successful load-exclusive before them these write nothing and report failure.
FAILING_EXCLUSIVE = (
    "stxr w5, x3, [x2]",
    "stlxr w5, w3, [x2]",
    "stxrb w5, w3, [x2]",
    "stxp w5, x3, x4, [x2]",
    "stlxp w5, w3, w4, [x2]",
)
# These decode as accesses, but not on the model's plain guest: tag stores, pointer authentication,
# 64-byte stores.
DECODED_ONLY = {
    "stg x2, [x2]": (False, True),
    "st2g x2, [x2], #16": (False, True),
    "stgp x3, x4, [x2]": (False, True),
    "ldg x3, [x2]": (False, False),
    "ldraa x3, [x2]": (True, False),
    "ldrab x3, [x2, #8]!": (False, False),
    "st64b x4, [x2]": (False, True),
    "ld64b x4, [x2]": (False, False),
    "dc zva, x2": (False, True),
    "ldr x3, .": (True, False),
    "ldrsw x3, .": (True, False),
    "ldr q3, .": (False, False),
    **dict.fromkeys(FAILING_EXCLUSIVE, (False, True)),
}
NO_ACCESS = (
    "prfm pldl1keep, [x2]",
    "prfm pldl1keep, [x2, x4]",
    "prfum pldl1keep, [x2, #1]",
    "prfm pldl1keep, .",
    "dc civac, x2",
    "dc cvac, x2",
    "add x3, x2, #1",
    "b .",
    "ret",
    "nop",
    "hvc #0",
    "fadd d0, d1, d2",
    "mrs x3, cpacr_el1",
    "clrex",
)


def assemble(lines: list[str], folder: Path) -> list[int]:
    """The word of each line, by GNU as."""
    source, obj, raw = folder / "a.s", folder / "a.o", folder / "a.bin"
    source.write_text(".arch armv8.7-a+memtag+ls64+pauth\n" + "\n".join(lines) + "\n")
    subprocess.run([AS, "-o", str(obj), str(source)], check=True, capture_output=True)
    subprocess.run([OBJCOPY, "-O", "binary", "-j", ".text", str(obj), str(raw)], check=True)
    data = raw.read_bytes()
    return [int.from_bytes(data[n : n + 4], "little") for n in range(0, len(data), 4)]
