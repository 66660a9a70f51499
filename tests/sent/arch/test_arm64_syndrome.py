"""The rule on valid syndromes, against a hand list assembled by GNU as and against capstone over
random words.
"""

from __future__ import annotations

import random
from pathlib import Path

import capstone
import pytest
from arm64_forms import DECODED_ONLY, INVALID, MISSING, NO_ACCESS, VALID, assemble
from capstone import arm64 as cs

from kvmscen.sent.undecoded.syndrome import decode, esr_iss

needs_as = pytest.mark.skipif(MISSING, reason="no aarch64-linux-gnu-as")
# Memory copy and set name their operands as registers; SVE and SME are off in the guest.
_COPIES = ("cpy", "set")


@needs_as
def test_each_single_register_form_has_a_valid_syndrome(tmp_path: Path) -> None:
    words = assemble(list(VALID), tmp_path)
    assert len(words) == len(VALID)
    for (text, (size, write, signed, wide, reg)), word in zip(VALID.items(), words, strict=True):
        found = decode(word)
        assert found is not None, text
        assert (found.isv, found.size, found.write, found.signed, found.reg) == (
            True,
            size,
            write,
            signed,
            reg,
        ), text
        if not write:
            assert found.wide == wide, text


@needs_as
def test_every_other_form_has_none(tmp_path: Path) -> None:
    for (text, iss), word in zip(INVALID.items(), assemble(list(INVALID), tmp_path), strict=True):
        found = decode(word)
        assert found is not None, text
        assert not found.isv, text
        assert esr_iss(found, False, 3) == iss, text


@needs_as
def test_forms_that_the_model_does_not_run(tmp_path: Path) -> None:
    for (text, wanted), word in zip(
        DECODED_ONLY.items(), assemble(list(DECODED_ONLY), tmp_path), strict=True
    ):
        found = decode(word)
        assert found is not None, text
        assert (found.isv, found.write) == wanted, text


@needs_as
def test_what_never_aborts(tmp_path: Path) -> None:
    for text, word in zip(NO_ACCESS, assemble(list(NO_ACCESS), tmp_path), strict=True):
        assert decode(word) is None, text


def test_the_founding_words() -> None:
    # str xzr, [x2]; str xzr, [x2, #8]; str xzr, [x2], #8; ldr w1, [x2], #4
    words = (0xF900005F, 0xF900045F, 0xF800845F, 0xB8404441)
    accesses = [access for access in map(decode, words) if access]
    assert [access.isv for access in accesses] == [True, True, False, False]


def test_permission_faults_of_read_only_slots() -> None:
    store, swap = decode(0xF800845F), decode(0xF8238044)  # str xzr, [x2], #8; swp x3, x4, [x2]
    assert store is not None
    assert swap is not None
    assert esr_iss(store, True, 3) == 0x4F
    assert esr_iss(store, False, 2) == 0x46
    # An atomic that may read but not write aborts as a write, one that may do neither as a read.
    assert esr_iss(swap, True, 3) == 0x4F
    assert esr_iss(swap, False, 3) == 0x07


def test_capstone_agrees_on_what_is_an_access_and_on_write_back() -> None:
    disassembler = capstone.Cs(capstone.CS_ARCH_ARM64, 0)
    disassembler.detail = True
    draw, seen, names = random.Random(20), 0, set()
    for _ in range(60000):
        word = draw.getrandbits(32) & ~0x0A000000 | 0x08000000
        insn = next(iter(disassembler.disasm(word.to_bytes(4, "little"), 0)), None)
        if insn is None or insn.mnemonic.startswith(_COPIES):
            continue
        found, operands = decode(word), insn.operands
        literal = insn.mnemonic in ("ldr", "ldrsw")
        memory = any(o.type == cs.ARM64_OP_MEM for o in operands) or literal
        context = f"{word:#010x} {insn.mnemonic} {insn.op_str}"
        assert (found is not None) == (memory and not insn.mnemonic.startswith(("prf", "rprf"))), (
            context
        )
        if found is None:
            continue
        seen += 1
        names.add(insn.mnemonic)
        target = insn.op_str.split(",")[0].strip()
        general = target[0] in "xw" or target in ("lr", "fp", "sp")
        name = insn.mnemonic
        plain = name.startswith(
            (
                "ldr",
                "str",
                "ldur",
                "stur",
                "ldtr",
                "sttr",
                "ldar",
                "stlr",
                "ldlar",
                "stllr",
                "ldapr",
                "ldapur",
                "stlur",
            )
        )
        post = not literal and not insn.op_str.rstrip().endswith("]")
        assert found.isv == (general and plain and not insn.writeback and not post), context
        if found.isv:
            assert found.write == name.startswith("st"), context
            assert found.signed == name.endswith(("sb", "sh", "sw")), context
            assert found.size == {"b": 1, "h": 2}.get(
                name[-1] if name != "ldrab" else "",
                4 if name.endswith("sw") or target[0] == "w" else 8,
            ), context
    assert seen > 15000
    assert {"ldr", "str", "ldp", "ldadd", "cas", "ldraa", "ldtr", "st1"} <= names
