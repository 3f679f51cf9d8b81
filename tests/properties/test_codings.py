"""What is compressed in whatever pieces is decompressed to the same bytes, and junk is only ever refused."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_gateway_contrib.validate.body import Malformed, parse
from asgi_gateway_plugins.codings import Coding, Decompressor, compressor, decompressor
from tests.properties.profile import examples

CODINGS: tuple[Coding, ...] = ("gzip", "br", "zstd")
MAKE = {coding: compressor(coding, 3, "") for coding in CODINGS}
UNMAKE = {coding: decompressor(coding, "") for coding in (*CODINGS, "deflate")}

texts = st.one_of(
    st.binary(max_size=300), st.builds(bytes.__mul__, st.binary(max_size=9), st.integers(0, 20_000))
)


def read(made: Decompressor, data: bytes, step: int, most: int) -> bytes:
    """All that a decompressor gives when it gets so many bytes at one time."""
    found = b""
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        while piece or made.waiting:
            found += made.piece(piece, most)
            piece = b""
    return found


@pytest.mark.parametrize("coding", CODINGS)
@given(pieces=st.lists(texts, max_size=6), step=st.integers(1, 5000), most=st.sampled_from((3000, 65536)))
@examples(30)
def test_what_is_coded_is_decoded(coding: Coding, pieces: list[bytes], step: int, most: int) -> None:
    whole = b"".join(pieces)
    made = MAKE[coding]()
    coded = b"".join([made.piece(piece) for piece in pieces if piece]) + made.last(b"")
    back = UNMAKE[coding]()
    assert read(back, coded, step, most) == whole
    assert back.finished


@pytest.mark.parametrize("coding", CODINGS)
@given(piece=texts.filter(bool), more=texts)
@examples(25)
def test_every_piece_can_be_read_at_once(coding: Coding, piece: bytes, more: bytes) -> None:
    made, back = MAKE[coding](), UNMAKE[coding]()
    assert read(back, made.piece(piece), 1 << 20, 65536) == piece
    assert read(back, made.last(more), 1 << 20, 65536) == more


@pytest.mark.parametrize("coding", UNMAKE)
@given(data=st.data())
@examples(60)
def test_junk_is_refused_or_unfinished_and_never_anything_else(coding: Coding, data: Any) -> None:
    if coding in MAKE and data.draw(st.booleans()):
        made = MAKE[coding]()
        junk = bytearray(made.last(data.draw(texts)))
        for _ in range(data.draw(st.integers(1, 3))):
            junk[data.draw(st.integers(0, len(junk) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        junk = bytearray(data.draw(st.binary(min_size=1, max_size=200)))
    back, most = UNMAKE[coding](), 0
    try:
        most = len(read(back, bytes(junk), data.draw(st.integers(1, 300)), 65536))
    except ValueError:
        return
    assert most <= 200_000


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=values)
@examples(50)
def test_json_is_read_as_it_was_meant(value: Any) -> None:
    assert parse(json.dumps(value).encode()) == value


@given(body=st.binary(max_size=60) | st.text(alphabet='{}[]":,0123eE.-+ntf\\u ', max_size=40).map(str.encode))
@examples(200)
def test_what_is_no_json_is_told_and_never_fails(body: bytes) -> None:
    with suppress(Malformed):
        parse(body)
