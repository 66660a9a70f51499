"""The stage-1 walk: tables of each granule, and what is not mapped."""

from __future__ import annotations

import random

import pytest

from kvmscen.sent.undecoded.walk import NoTranslation, translate

RAM, SIZE = 0x40000000, 0x4000000
TG0 = {12: 0, 16: 1, 14: 2}
TG1 = {14: 1, 12: 2, 16: 3}


class Guest:
    """Tables made at random in RAM."""

    def __init__(self, grain: int, bits: int, seed: int) -> None:
        self.draw = random.Random(seed)
        self.grain, self.bits, self.stride = grain, bits, grain - 3
        self.ram = bytearray(SIZE)
        self.free = RAM + (1 << grain)
        self.regs = {"ttbr0_el1": self.table(), "ttbr1_el1": self.table()}
        size = 64 - bits
        self.regs["tcr_el1"] = (
            size | size << 16 | TG0[grain] << 14 | TG1[grain] << 30 | 5 << 32 | 1 << 37
        )

    def table(self) -> int:
        at, self.free = self.free, self.free + (1 << self.grain)
        assert self.free < RAM + SIZE
        return at

    def entry(self, at: int, value: int | None = None) -> int:
        if value is not None:
            self.ram[at - RAM : at - RAM + 8] = value.to_bytes(8, "little")
        return int.from_bytes(self.ram[at - RAM : at - RAM + 8], "little")

    def map(self, address: int, end: int, target: int) -> None:
        """Map what lies round an address by an entry of the level `end`."""
        upper = address >> 63
        table, low = (
            self.regs["ttbr1_el1" if upper else "ttbr0_el1"],
            address & (1 << self.bits) - 1,
        )
        level = 4 - -(-(self.bits - self.grain) // self.stride)
        while True:
            shift = self.grain + self.stride * (3 - level)
            at = table + 8 * (low >> shift)
            if level >= end:
                if not self.entry(at):
                    block = target >> shift << shift
                    self.entry(at, block | 1 << 10 | (3 if level == 3 else 1))
                return
            if not self.entry(at):
                self.entry(at, self.table() | 3)
            elif not self.entry(at) & 2:
                return
            table, low, level = (
                self.entry(at) >> self.grain << self.grain & (1 << 48) - 1,
                low & (1 << shift) - 1,
                level + 1,
            )

    def fetch(self, at: int, size: int) -> bytes | None:
        return bytes(self.ram[at - RAM : at - RAM + size]) if RAM <= at < RAM + SIZE else None

    def walk(self, address: int) -> int | None:
        try:
            return translate(address, False, self.regs.__getitem__, self.fetch)
        except NoTranslation:
            return None


def placed(grain: int, bits: int) -> tuple[Guest, dict[int, int]]:
    """A guest with addresses mapped at random levels, and where each of them lies."""
    guest = Guest(grain, bits, grain * bits)
    guest.map(RAM, 3, RAM)
    target = RAM + SIZE - 0x400000
    guest.ram[target - RAM :] = guest.draw.randbytes(0x400000)
    where: dict[int, int] = {}
    for _ in range(40):
        upper = guest.draw.randrange(2)
        address = guest.draw.getrandbits(bits) & ~7 | (
            ((1 << 64 - bits) - 1) << bits if upper else 0
        )
        end = guest.draw.choice((1, 2, 3, 3)) if grain == 12 else guest.draw.choice((2, 3))
        shift = grain + guest.stride * (3 - end)
        page = (target + guest.draw.randrange(0x400000)) >> shift << shift
        if all(address >> 36 != other >> 36 for other in (*where, RAM)):
            guest.map(address, end, page)
            where[address] = page | address & (1 << shift) - 1
    return guest, where


@pytest.mark.parametrize(
    ("grain", "bits"), [(12, 48), (12, 39), (12, 42), (14, 47), (14, 48), (16, 48), (16, 42)]
)
def test_every_level_of_every_granule(grain: int, bits: int) -> None:
    guest, where = placed(grain, bits)
    assert len(where) > 8
    assert {address: guest.walk(address) for address in where} == where
    assert all(
        guest.walk(address | 0xAB << 56) == at for address, at in where.items() if not address >> 63
    )  # TBI0 is on
    assert guest.walk(RAM) == RAM


@pytest.mark.parametrize(
    ("change", "address", "say"),
    [
        ({}, 0x1000, "level 0"),
        ({"tcr_el1": 1 << 59}, 0, "52-bit"),
        ({"tcr_el1": 16 | 1 << 7}, 0, "no range"),
        ({"tcr_el1": 16 | 16 << 16}, 1 << 50, "no range"),
        ({"tcr_el1": 16 | 3 << 14}, 0, "no range"),
        ({"ttbr0_el1": 0x1000}, 0, "no memslot"),
    ],
)
def test_what_is_not_translated_says_why(change: dict[str, int], address: int, say: str) -> None:
    guest = Guest(12, 48, 1)
    guest.regs.update(change)
    with pytest.raises(NoTranslation, match=say):
        translate(address, False, guest.regs.__getitem__, guest.fetch)


def test_a_page_that_may_only_be_read() -> None:
    guest = Guest(12, 39, 1)
    guest.map(0x1000, 3, RAM)
    assert guest.walk(0x1234) == RAM + 0x234
    leaf = next(at for at in range(RAM, guest.free, 8) if guest.entry(at) & ~3 == RAM | 1 << 10)
    guest.entry(leaf, guest.entry(leaf) | 1 << 7)
    assert guest.walk(0x1234) == RAM + 0x234
    with pytest.raises(NoTranslation, match="only be read"):
        translate(0x1234, True, guest.regs.__getitem__, guest.fetch)
