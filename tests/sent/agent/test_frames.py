"""Frames: whatever is cut or damaged is None, and everything else comes through."""

from __future__ import annotations

import json
import random
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvmscen.sent.agent.frames import START, Reader, pack, unpack

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)
texts = values.map(json.dumps) | values.map(lambda v: json.dumps(v, ensure_ascii=False))


def large(seed: int, size: int) -> str:
    return json.dumps("".join(random.Random(seed).choices(string.printable, k=size)))


@given(texts)
@example("{}")
@example("")
@example('"\x7f\u2028"')
def test_round_trip(text: str) -> None:
    frame = pack(text)
    assert frame[:1] == START
    assert frame.count(b"\n") == 1
    assert frame[-1:] == b"\n"
    assert unpack(frame) == text
    # A serial console turns the line's end into its own.
    assert unpack(frame[:-1]) == text
    assert unpack(frame[:-1] + b"\r\n") == text


@pytest.mark.parametrize("size", [1 << 15, 1 << 16, 1 << 17, 1 << 20])
def test_large_ones_round_trip(size: int) -> None:
    text = large(1, size)
    frame = pack(text)
    assert unpack(frame) == text
    assert frame.count(b"\n") == 1


def test_large_ones_are_compressed() -> None:
    assert len(pack(json.dumps("00" * 500_000))) < 20_000


@settings(max_examples=200)
@given(texts, st.data())
def test_a_cut_line_is_none(text: str, data: st.DataObject) -> None:
    frame = pack(text)[:-1]
    end = data.draw(st.integers(1, len(frame) - 1))
    assert unpack(frame[:end]) is None


@settings(max_examples=300)
@given(texts.filter(lambda t: len(t) > 0), st.data())
def test_a_damaged_body_is_none(text: str, data: st.DataObject) -> None:
    frame = bytearray(pack(text)[:-1])
    start = frame.index(b" ", frame.index(b" ") + 1) + 1
    at = data.draw(st.integers(start, len(frame) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda b: b != frame[at]))
    frame[at] = other
    assert unpack(bytes(frame)) is None


@pytest.mark.parametrize("at", [3, 20, 1000, 60_000, -1])
def test_a_damaged_large_body_is_none(at: int) -> None:
    frame = bytearray(pack(large(2, 1 << 17))[:-1])
    frame[at] ^= 1
    assert unpack(bytes(frame)) is None


@given(st.binary(max_size=60))
@example(b"")
@example(b"\xb2 00000000 x")
@example(b"1 \xff x")
@example(b"0 00000000 ")
@example(b"-1 00000000 x")
@example(b"1 8d11d2e7 z")
@example(b"99999999999999999999999999999 0 x")
def test_any_bytes_at_all(noise: bytes) -> None:
    text = unpack(START + noise)
    assert text is None or unpack(pack(text)) == text


def test_bytes_that_are_no_utf8_are_none() -> None:
    import zlib

    for body in (b"\xff\xfe", b"z!!!!", b"zAAAA", b"z"):
        assert unpack(b"\x1e%d %08x %s\n" % (len(body), zlib.crc32(body), body)) is None


# --- the stream -----------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.binary(max_size=20), values), max_size=5),
    st.binary(max_size=20),
    st.data(),
)
def test_a_reader_finds_every_frame_however_the_stream_is_cut(
    parts: list[tuple[bytes, object]], end: bytes, data: st.DataObject
) -> None:
    # Noise stands before a frame on its line, and may hold what begins one.
    stream = b"".join(noise + pack(json.dumps(value)) for noise, value in parts) + end
    reader, found = Reader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:size])
        stream = stream[size:]
        while (text := reader.next()) is not None:
            found.append(json.loads(text))
    assert found == [value for _, value in parts]


def test_a_reader_keeps_the_end_of_the_noise() -> None:
    reader = Reader()
    reader.feed(b"first\n" + pack("{}") + b"x" * 10_000 + b"\nlast")
    assert reader.next() == "{}"
    assert reader.next() is None
    assert (len(reader.tail), bytes(reader.tail[-7:]), reader.noise) == (4096, b"xx\nlast", 10_005)
    assert not reader.damaged
    reader.feed(b"\x1e12 0000\n")
    assert reader.next() is None
    assert reader.damaged


def test_a_frame_that_ends_with_the_stream_is_noise() -> None:
    reader = Reader()
    reader.feed(b"a\n" + pack("{}")[:-1])
    assert reader.next() is None
    reader.end()
    assert reader.tail.startswith(b"a\n\x1e2 ")
