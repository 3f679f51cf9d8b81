from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.config import Use
from asgi_gateway.errors import Aborted
from asgi_gateway.exchange import Exchange
from asgi_gateway.testing import Upstream, gateway_around
from asgi_gateway_plugins.body_limit import BodyLimit

EIGHT = BodyLimit.model_validate({"max_size": "8B"})


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size


async def say(send: Send, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(("length", "status"), [("8", 200), ("9", 413), ("0", 200), ("9" * 400, 413)])
async def test_an_announced_length_is_believed_before_anything_is_read(length: str, status: int) -> None:
    read: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield b""

    async with gateway_around(EIGHT) as client:
        answer = await client.request("POST", "/", body(), headers={"content-length": length})
    assert answer.status == status
    assert read == ([] if status == 413 else [1])
    assert status == 200 or answer.json()["reason"] == "body_too_large"


@pytest.mark.parametrize(
    ("sizes", "status"),
    [((4, 4), 200), ((8,), 200), ((9,), 413), ((4, 5), 413), ((1,) * 9, 413), ((0,) * 20, 200)],
)
async def test_a_body_of_unknown_length_is_counted(sizes: tuple[int, ...], status: int) -> None:
    upstream = Upstream()
    async with gateway_around(EIGHT, upstream=upstream) as client:
        answer = await client.post("/", pieces(*sizes))
    assert answer.status == status
    assert all(len(seen.body) <= 8 for seen in upstream.seen)
    assert status == 200 or answer.json()["reason"] == "body_too_large"


async def test_a_length_that_is_a_lie_changes_nothing() -> None:
    async with gateway_around(EIGHT) as client:
        answer = await client.request("POST", "/", pieces(4, 4, 4), headers={"content-length": "4"})
    assert answer.status == 413


async def test_nothing_is_held_back() -> None:
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["more_body"]:
            seen.append(len(message["body"]))
        await say(send)

    async def body() -> AsyncIterator[bytes]:
        for count in range(4):
            assert len(seen) == count
            yield b"xx"

    async with gateway_around(EIGHT, upstream=app) as client:
        assert (await client.post("/", body())).status == 200


async def swallows(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers whatever happens."""
    await returns(scope, receive, send)
    await say(send, b"ok")


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that gives up without a word."""
    try:
        while (await receive())["more_body"]:
            pass
    except Exception:
        return


@pytest.mark.parametrize("app", [swallows, returns])
async def test_an_application_that_hides_it_is_not_heard(app: ASGIApp) -> None:
    async with gateway_around(EIGHT, upstream=app) as client:
        assert (await client.post("/", pieces(9))).status == 413


async def test_an_answer_that_had_begun_is_cut() -> None:
    exchanges: list[Exchange] = []

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        exchanges.append(Exchange.of(scope))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (message := await receive())["more_body"]:
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with gateway_around(EIGHT, upstream=echo) as client:
        assert (await client.post("/", pieces(4, 4))).body == b"x" * 8
        with pytest.raises(Aborted):
            await client.post("/", pieces(4, 4, 4))
    assert (exchanges[1].outcome, exchanges[1].cause) == ("aborted", "body_too_large")


async def test_an_answer_that_was_complete_stays() -> None:
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await say(send, b"early")
        await receive()

    async with gateway_around(EIGHT, upstream=early) as client:
        assert (await client.post("/", pieces(9))).body == b"early"


async def test_failures_of_others_stay_what_they_are() -> None:
    async with gateway_around(EIGHT, upstream=Upstream(fails="head")) as client:
        assert (await client.post("/", pieces(4))).status == 500


async def test_requests_without_a_body_get_no_wrapper() -> None:
    received: list[Receive] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(receive)
        await swallows(scope, receive, send)

    async with gateway_around(EIGHT, upstream=app) as client:
        assert (await client.get("/")).status == 200
    assert "body_limit" not in repr(received[0])


@pytest.mark.parametrize("body", [b"123456789", None])
async def test_reporting_records_once_and_lets_all_of_it_pass(body: bytes | None) -> None:
    upstream = Upstream()
    async with gateway_around(Use(component=EIGHT, mode="report"), upstream=upstream) as client:
        answer = await client.post("/", pieces(4, 4, 4, 4) if body is None else body)
    assert answer.status == 200
    assert upstream.seen[0].body == (body or b"x" * 16)
    (reported,) = Exchange.of(upstream.seen[0].scope).reported or ()
    assert (reported.reason, reported.component) == ("body_too_large", "body_limit")


async def test_a_handshake_passes() -> None:
    async with gateway_around(EIGHT) as client, client.websocket("/") as socket:
        await socket.send("more than eight")
        assert await socket.receive() == "more than eight"


async def test_an_unread_body_is_not_counted() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await say(send)

    async with gateway_around(EIGHT, upstream=app) as client:
        assert (await client.post("/", pieces(9))).status == 200


@pytest.mark.parametrize("size", ["8", "-1B", 8, "many"])
def test_a_size_has_a_unit(size: object) -> None:
    with pytest.raises(ValidationError):
        BodyLimit.model_validate({"max_size": size})
