"""One load or store, carried out: against Unicorn at random, by hand where Unicorn is wrong, and
what is refused.
"""

from __future__ import annotations

import random
from pathlib import Path

import arm64_forms as forms
import pytest
from emulate_against_unicorn import DATA, Comparison, Flat

from kvmscen.sent.undecoded import syndrome
from kvmscen.sent.undecoded.decode import decode
from kvmscen.sent.undecoded.emulate import Monitors, emulate, operate
from kvmscen.sent.undecoded.forms import Unemulated


def test_like_unicorn() -> None:
    # A sample; 20,000 states and more by `python tests/sent/arch/emulate_against_unicorn.py 20000
    # SEED`.
    comparison = Comparison(7)
    comparison.run(2500)
    assert comparison.faults == []
    # Every kind of access was drawn.
    wanted = (
        "ldp",
        "stp",
        "ldpsw",
        "ldnp",
        "ldxr",
        "stxr",
        "stxp",
        "casp",
        "cas",
        "swp",
        "ldadd",
        "ldsmin",
        "ld1",
        "st4",
        "ld3r",
    )
    assert [
        name for name in wanted if not any(seen.startswith(name) for seen in comparison.seen)
    ] == []


def run(word: int, regs: dict[str, int], flat: Flat) -> dict[str, int]:
    state = (
        {f"x{n}": 0 for n in range(31)}
        | {f"v{n}": 0 for n in range(32)}
        | {"sp": 0, "pc": 0x40, "pstate": 0x3C5}
    )
    return emulate(word, (state | regs).__getitem__, flat).regs


# Unicorn 2.1.4 does not extend the signs of these.
@pytest.mark.parametrize(
    ("op", "old", "operand", "bits", "new"),
    [
        ("smax", 0xFF, 1, 8, 1),
        ("smax", 0xFF, 0x1FE, 8, 0xFF),
        ("smin", 0x7F, 0x80, 8, 0x80),
        ("smin", 0x8000, 0, 16, 0x8000),
        ("smax", 0x80000000, 0xFFFFFFFF7FFFFFFF, 32, 0x7FFFFFFF),
        ("smin", 1, 0xFFFFFFFF, 32, 0xFFFFFFFF),
        ("umax", 0xFF, 1, 8, 0xFF),
        ("umin", 0x80000000, 1, 32, 1),
        ("smax", 1 << 63, 0, 64, 0),
    ],
)
def test_signed_atomics(op: str, old: int, operand: int, bits: int, new: int) -> None:
    assert operate(op, old, operand, bits) == new


def test_a_store_exclusive_needs_the_mark_of_its_own_bytes() -> None:
    ldxr, stxr = 0xC85F7C43, 0xC8057C43  # ldxr x3, [x2]; stxr w5, x3, [x2]
    flat = Flat()
    regs = {"x2": DATA + 8, "x3": 77}
    assert run(stxr, regs, flat)["x5"] == 1
    assert flat.load(DATA + 8, 8) == bytes(8)
    run(ldxr, regs, flat)
    assert run(stxr, regs, flat)["x5"] == 0
    assert flat.load(DATA + 8, 8) == (77).to_bytes(8, "little")
    # The mark is gone, and it is no mark of other bytes.
    assert run(stxr, regs, flat)["x5"] == 1
    run(ldxr, regs, flat)
    assert run(stxr, {**regs, "x2": DATA + 16}, flat)["x5"] == 1
    assert run(stxr, regs, flat)["x5"] == 1


def test_another_vcpu_takes_the_mark_away() -> None:
    monitors = Monitors()
    monitors.mark(0, [(0x1000, 8)])
    monitors.written(0, 0x1000, 8)
    monitors.written(1, 0x1008, 8)
    assert monitors.take(0, [(0x1000, 8)])
    monitors.mark(0, [(0x1000, 8)])
    monitors.written(1, 0x1007, 1)
    assert not monitors.take(0, [(0x1000, 8)])


def test_completing_an_instruction_clears_btype_and_single_step() -> None:
    regs = run(
        0xF8008443, {"x2": DATA, "pstate": 0x3C5 | 0x400 | 1 << 21}, Flat()
    )  # str x3, [x2], #8
    assert regs == {"x2": DATA + 8, "pc": 0x44, "pstate": 0x3C5}
    assert "pstate" not in run(0xF8008443, {"x2": DATA}, Flat())


def test_nothing_is_touched_before_every_part_is_known() -> None:
    class Half(Flat):
        def resolve(self, address: int, size: int, write: bool) -> list[tuple[int, int]]:
            if address > DATA:
                raise KeyError(address)
            return [(address, size)]

    flat = Half()
    with pytest.raises(KeyError):
        run(0xA9000C43, {"x2": DATA, "x3": 5}, flat)  # stp x3, x3, [x2]
    assert flat.data == bytes(len(flat.data))


@pytest.mark.parametrize(
    ("word", "why"),
    [
        (0xD503201F, "not a memory access"),  # nop
        (0xD5087620, "not a memory access"),  # dc ivac
        (0xD4000002, "not a memory access"),  # hvc #0
        (0xA400A000, "SVE"),  # ld1b
        (0xE1000000, "SME"),  # ldr za
        (0xF8200443, "ldraa"),
        (0xF83FD043, "LS64"),  # ld64b
        (0xD9200843, "MTE"),  # stg
        (0x69000C43, "MTE"),  # stgp
        (0xD50B7462, "MTE"),  # dc gva
        (0x19000440, "MOPS"),  # cpyf
        (0xD9C00843, "LRCPC3"),  # ldapr x3, [x2], #8
        (0x38000000 | 1 << 23 | 1 << 30 | 1 << 31 | 1 << 22, "none of a load or store"),
        (0xF8408442, "CONSTRAINED UNPREDICTABLE"),  # ldr x2, [x2], #8
        (0xA9400C43, "CONSTRAINED UNPREDICTABLE"),  # ldp x3, x3, [x2]
        (0xC8037C43, "CONSTRAINED UNPREDICTABLE"),  # stxr w3, x3, [x2]
    ],
)
def test_what_is_refused_says_why(word: int, why: str) -> None:
    with pytest.raises(Unemulated) as caught:
        decode(word)
    assert why in str(caught.value)


@pytest.mark.skipif(forms.MISSING, reason="no GNU as for arm64")
def test_every_form_of_the_hand_list_is_carried_out_or_refused_by_its_extension(
    tmp_path: Path,
) -> None:
    sources = [*forms.VALID, *forms.INVALID, *forms.DECODED_ONLY]
    refused = {}
    for source, word in zip(sources, forms.assemble(sources, tmp_path), strict=True):
        try:
            decode(word)
        except Unemulated as reason:
            refused[source] = str(reason)
    assert all(any(x in why for x in ("MTE", "LS64", "ldraa")) for why in refused.values()), refused
    assert len(refused) == 8


def test_agrees_with_the_syndrome() -> None:
    draw = random.Random(3)
    for _ in range(40_000):
        word = (draw.getrandbits(32) & ~0x0A000000) | 0x08000000
        try:
            form = decode(word)
        except Unemulated:
            continue
        access = syndrome.decode(word)
        if form.kind == "none":
            assert access is None, hex(word)
            continue
        assert access is not None, hex(word)
        assert (access.write, access.modifies) == (
            form.kind == "store",
            form.kind in ("atomic", "cas"),
        ), hex(word)
        if access.isv:
            (part,) = form.parts
            assert (access.size, access.signed) == (part.size, part.sign > 0), hex(word)
            assert (form.update, form.update_by) == (None, ""), hex(word)
