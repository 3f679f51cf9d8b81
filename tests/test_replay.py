import hashlib
from collections.abc import Iterable

import pytest

from asgi_gateway.asgi import Message, Receive
from asgi_gateway.errors import CallerLeft
from asgi_gateway.replay import Replay


def caller(messages: Iterable[Message]) -> Receive:
    each = iter(messages)

    async def receive() -> Message:
        return next(each)

    return receive


def body(*chunks: bytes) -> list[Message]:
    last = len(chunks) - 1
    return [
        {"type": "http.request", "body": chunk, "more_body": place < last}
        for place, chunk in enumerate(chunks)
    ]


async def drain(receive: Receive) -> bytes:
    whole = b""
    while True:
        message = await receive()
        whole += message["body"]
        if not message["more_body"]:
            return whole


async def test_a_body_is_read_once_and_replayed_to_everybody() -> None:
    replay = Replay(caller([*body(b"ab", b"", b"c"), {"type": "http.disconnect"}]))
    assert await replay.read(3)
    first, second = replay.reader(), replay.reader()
    assert await drain(first) == await drain(second) == b"abc"
    assert await first() == {"type": "http.disconnect"}


async def test_what_is_larger_is_not_held_and_not_lost() -> None:
    replay = Replay(caller(body(b"abc", b"de", b"fgh")))
    assert not await replay.read(4)
    assert replay.size == 5
    assert await drain(replay.reader()) == b"abcdefgh"


async def test_whoever_reads_along_sees_every_byte_once() -> None:
    replay = Replay(caller(body(b"abc", b"de")))
    one, two = hashlib.sha256(), hashlib.sha256()
    assert await replay.read(5, one.update)
    assert await replay.read(5, two.update)
    assert one.digest() == two.digest() == hashlib.sha256(b"abcde").digest()


async def test_a_request_without_a_body_is_not_waited_for() -> None:
    replay = Replay(caller([]), empty=True)
    assert await replay.read(0)
    assert await drain(replay.reader()) == b""


async def test_a_caller_who_leaves_in_the_middle_is_gone() -> None:
    replay = Replay(caller([body(b"abc", b"de")[0], {"type": "http.disconnect"}]))
    with pytest.raises(CallerLeft):
        await replay.read(10)


async def test_what_a_reader_keeps_the_next_one_begins_with() -> None:
    replay = Replay(caller(body(b"ab", b"", b"cd", b"e")))
    first = replay.reader(5)
    assert [(await first())["body"] for _ in range(3)] == [b"ab", b"", b"cd"]
    assert await drain(replay.reader(5)) == b"abcde"
    assert await drain(replay.reader(5)) == b"abcde"
    assert not replay.lost


async def test_a_reader_that_keeps_passes_on_what_is_too_much_and_holds_nothing() -> None:
    replay = Replay(caller(body(b"abc", b"de", b"fgh")))
    reader = replay.reader(4)
    assert (await reader())["body"] == b"abc"
    assert not replay.lost
    assert await drain(reader) == b"defgh"
    assert replay.lost
    assert replay.chunks == []


async def test_a_caller_who_leaves_a_reader_that_keeps_is_told() -> None:
    replay = Replay(caller([body(b"abc", b"de")[0], {"type": "http.disconnect"}]))
    reader = replay.reader(10)
    await reader()
    assert (await reader())["type"] == "http.disconnect"
    assert replay.lost


async def test_an_empty_body_is_kept_too() -> None:
    replay = Replay(caller(body(b"")))
    assert await drain(replay.reader(5)) == b""
    assert await drain(replay.reader(5)) == b""
