"""The tables of `mmu: identity`, read back by the walk of stage 1."""

from __future__ import annotations

import pytest

from kvmscen.sent.arch import arm64_tables
from kvmscen.sent.undecoded.walk import NoTranslation, translate

SPANS = ((0, 0x4000), (0x100000, 24), (0x3FFFFFF8, 16), (0x40_0000_0000, 0x1000))
AT = 0xFFFC0000


def walk(address: int, write: bool = True, seen: list[int] | None = None) -> int:
    raw = arm64_tables.tables(AT, SPANS)
    regs = arm64_tables.boot(AT)

    def fetch(at: int, size: int) -> bytes | None:
        data = raw[at - AT : at - AT + size] if at >= AT else b""
        if seen is not None:
            seen.append(int.from_bytes(data, "little"))
        return data if len(data) == size else None

    return translate(address, write, regs.__getitem__, fetch)


@pytest.mark.parametrize(
    "address",
    [0, 0x123, 0x1FFFFF, 0x200000, 0x3FFFFFFF, 0x40000000, AT, 0x40_0000_0FFF, (1 << 39) - 1],
)
def test_each_address_is_mapped_to_itself(address: int) -> None:
    assert walk(address) == address


@pytest.mark.parametrize("address", [1 << 39, 1 << 48, (1 << 64) - 8])
def test_beyond_512_gib_there_is_nothing(address: int) -> None:
    with pytest.raises(NoTranslation):
        walk(address)


@pytest.mark.parametrize(
    ("address", "normal"),
    [
        *(
            (0, True),
            (0x1FFFFF, True),
            (0x200000, False),
            (0x3FFFFFF8, True),
            (0x40000000, True),
            (0x40200000, False),
        ),
        *((AT, True), (0x40_0000_0000, True), (0x41_0000_0000, False)),
    ],
)
def test_what_is_used_is_normal_memory_and_all_else_device(address: int, normal: bool) -> None:
    seen: list[int] = []
    walk(address, seen=seen)
    index, never = seen[-1] >> 2 & 7, seen[-1] >> 53 & 3
    attribute = arm64_tables.boot(AT)["mair_el1"] >> 8 * index & 0xFF
    assert (attribute, never) == ((0xFF, 0) if normal else (0x04, 3))


def test_the_size_is_enough_and_suits_large_pages() -> None:
    many = tuple((n << 30, 0x1000) for n in range(40))
    for spans in ((), SPANS, many):
        size = arm64_tables.tables_size(spans)
        assert len(arm64_tables.tables(AT, spans)) <= size
        assert size % 0x10000 == 0
