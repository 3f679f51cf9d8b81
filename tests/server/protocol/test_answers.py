"""What is written: framing, dates, and what an app cannot write."""

from collections.abc import Sequence

import pytest

from asgi_gateway.asgi import ASGIApp, Header, Receive, Scope, Send

from .conftest import DATE, Caller, Serve


def answering(headers: Sequence[Header], *pieces: bytes | memoryview, status: int = 200) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


def ask(caller: Caller, method: bytes = b"GET", version: bytes = b"1.1") -> None:
    caller.say(method + b" / HTTP/" + version + b"\r\nHost: a\r\n\r\n")


async def test_an_answer_without_length_is_chunked(serve: Serve) -> None:
    async with serve(answering([], b"one", b"", b"two")) as server:
        caller = await server.caller()
        for _ in range(2):
            ask(caller)
            answer = await caller.answer()
            assert (answer.body, answer[b"transfer-encoding"]) == (b"onetwo", [b"chunked"])


@pytest.mark.parametrize("framing", [[], [(b"content-length", b"6")]], ids=["chunked", "length"])
async def test_an_app_may_say_other_kinds_of_bytes(serve: Serve, framing: Sequence[Header]) -> None:
    async with serve(answering(framing, memoryview(b"one"), bytearray(b"two"))) as server:
        caller = await server.caller()
        for _ in range(2):
            ask(caller)
            assert (await caller.answer()).body == b"onetwo"


async def test_an_old_caller_never_gets_chunks(serve: Serve) -> None:
    async with serve(answering([], b"one", b"two")) as server:
        caller = await server.caller()
        ask(caller, version=b"1.0")
        answer = await caller.answer()
        assert (answer.body, answer[b"connection"]) == (b"onetwo", [b"close"])
        assert not answer[b"transfer-encoding"]


async def test_an_old_caller_is_not_told_to_continue(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        await answering([(b"content-length", b"2")], body)(scope, receive, send)

    async with serve(app) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab")
        assert (await caller.answer()).body == b"ab"


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none_and_304_may_tell_a_length(serve: Serve, status: int) -> None:
    async with serve(answering([(b"content-length", b"5")], b"never", status=status)) as server:
        caller = await server.caller()
        for _ in range(2):
            ask(caller)
            answer = await caller.answer()
            assert answer.status == status
            assert answer[b"content-length"] == ([b"5"] if status == 304 else [])


async def test_an_answer_to_head_has_the_length_and_no_body(serve: Serve) -> None:
    async with serve(answering([(b"content-length", b"5")], b"never")) as server:
        caller = await server.caller()
        for _ in range(2):
            ask(caller, b"HEAD")
            assert (await caller.answer(bodyless=True))[b"content-length"] == [b"5"]


async def test_one_date_reaches_the_caller_and_the_apps_wins(serve: Serve) -> None:
    async with serve(answering([(b"Date", b"Mon, 01 Jan 2024 00:00:00 GMT")])) as server:
        caller = await server.caller()
        ask(caller)
        assert (await caller.answer())[b"date"] == [b"Mon, 01 Jan 2024 00:00:00 GMT"]
    async with serve(answering([])) as server:
        caller = await server.caller()
        ask(caller)
        answer = await caller.answer()
        assert (answer[b"date"], answer[b"server"]) == ([DATE[1]], [])


async def test_framing_is_the_servers_alone(serve: Serve) -> None:
    fields = [(b"transfer-encoding", b"chunked"), (b"content-length", b"3"), (b"keep-alive", b"timeout=5")]
    async with serve(answering([*fields, (b"connection", b"keep-alive, x-a")], b"one")) as server:
        caller = await server.caller()
        for _ in range(2):
            ask(caller)
            answer = await caller.answer()
            assert (answer.body, answer[b"content-length"]) == (b"one", [b"3"])
            assert answer[b"transfer-encoding"] == answer[b"connection"] == answer[b"keep-alive"] == []


async def test_an_app_may_close_the_connection(serve: Serve) -> None:
    async with serve(answering([(b"connection", b"Close")], b"one")) as server:
        caller = await server.caller()
        ask(caller)
        answer = await caller.answer()
        assert (answer.body, answer[b"connection"]) == (b"one", [b"close"])
        assert await caller.end() == b""


async def test_order_and_repetition_of_headers_are_kept(serve: Serve) -> None:
    fields = [(b"set-cookie", b"a=1"), (b"x-b", b"\xe9\tx"), (b"set-cookie", b"c=3")]
    fields.append((b"content-length", b"0"))
    async with serve(answering(fields)) as server:
        caller = await server.caller()
        ask(caller)
        assert (await caller.answer()).headers == [*fields, DATE]


@pytest.mark.parametrize(
    "field",
    [
        (b"x", b"a\r\nX-Injected: yes"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x", b"a\x7fb"),
        (b"x y", b"a"),
        (b"x:", b"a"),
        (b"", b"a"),
        (b"content-length", b"+1"),
        (b"content-length", b"1, 1"),
    ],
)
async def test_a_header_that_would_break_the_answer_is_a_fault_of_the_app(
    serve: Serve, field: Header, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(answering([field], b"a")) as server:
        caller = await server.caller()
        ask(caller)
        answer = await caller.answer()
        assert (answer.status, answer[b"x-injected"]) == (500, [])
    assert len(caplog.records) == 1


@pytest.mark.parametrize("pieces", [(b"four",), (b"two",), (b"tw", b"o", b"!")])
async def test_a_body_that_is_not_as_long_as_promised_is_cut(
    serve: Serve, pieces: tuple[bytes, ...], caplog: pytest.LogCaptureFixture
) -> None:
    length = b"4" if pieces == (b"two",) else b"3"
    async with serve(answering([(b"content-length", length)], *pieces)) as server:
        caller = await server.caller()
        ask(caller)
        with pytest.raises(ConnectionResetError):
            await caller.end()
    assert len(caplog.records) == 1


async def test_a_second_answer_is_a_fault_of_the_app_and_does_not_reach_the_next_request(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering([(b"content-length", b"3")], b"one")(scope, receive, send)
        await answering([(b"content-length", b"3")], b"two")(scope, receive, send)

    async with serve(app) as server:
        caller = await server.caller()
        for _ in range(2):
            ask(caller)
            assert (await caller.answer()).body == b"one"
    assert len(caplog.records) == 2
