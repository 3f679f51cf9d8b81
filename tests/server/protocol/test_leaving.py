"""The caller leaves, the answer breaks off: what becomes of the task and of the connection."""

import asyncio
import gc
import logging
import socket

import pytest

from asgi_gateway.asgi import Message, Receive, Scope, Send
from asgi_gateway.errors import Aborted

from .conftest import Serve


def head(*headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": list(headers)}


def body(data: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Patient:
    """An app that answers when it is told to, and remembers how its task ended."""

    def __init__(self, *begin: Message) -> None:
        self.begin = begin
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        for message in self.begin:
            await send(message)
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.mark.parametrize(
    "begin", [(), (head(),), (head(), body(b"some", True))], ids=["computing", "head", "body"]
)
async def test_a_caller_that_leaves_cancels_the_task_in_every_phase(
    serve: Serve, begin: tuple[Message, ...], caplog: pytest.LogCaptureFixture
) -> None:
    app = Patient(*begin)
    async with serve(app) as server:
        caller = await server.caller()
        caller.get()
        await app.begun.wait()
        caller.leave()
        await app.cancelled.wait()
    assert not caplog.records


async def test_a_fin_is_a_departure(serve: Serve) -> None:
    app = Patient()
    async with serve(app) as server:
        caller = await server.caller()
        caller.get()
        await app.begun.wait()
        caller.writer.write_eof()
        await app.cancelled.wait()


async def test_requests_that_wait_behind_one_whose_caller_left_never_begin(serve: Serve) -> None:
    app = Patient()
    async with serve(app) as server:
        caller = await server.caller()
        caller.get()
        caller.get()
        await app.begun.wait()
        caller.writer.transport.abort()
        # While a request waits nothing is read, and leaving is not seen: the server learns it when it writes.
        for connection in list(server.state.connections):
            connection.transport.abort()
        await app.cancelled.wait()
    assert app.requests == 1


async def test_work_after_a_complete_answer_is_not_cancelled(serve: Serve) -> None:
    left, done = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(head((b"content-length", b"0")))
        await send(body())
        await left.wait()
        done.set()

    async with serve(app) as server:
        caller = await server.caller()
        caller.get(b"/", b"Connection: close")
        await caller.answer()
        assert await caller.end() == b""
        left.set()
        await done.wait()


async def test_receive_says_that_the_caller_left(serve: Serve) -> None:
    seen: list[str] = []
    begun = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append((await receive())["type"])

    async with serve(app) as server:
        caller = await server.caller()
        caller.get()
        await begun.wait()
        caller.leave()
    assert seen == ["http.disconnect"]


async def abort(scope: Scope, receive: Receive, send: Send) -> None:
    await send(head())
    await send(body(b"the first part", True))
    raise Aborted("no more")


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_an_aborted_answer_never_ends_cleanly_and_leaves_no_traceback(
    serve: Serve, version: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(abort) as server:
        caller = await server.caller()
        caller.say(b"GET / HTTP/" + version + b"\r\nHost: a\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await caller.end()
    assert not caplog.records


async def test_an_exception_before_the_head_is_a_problem_and_one_traceback(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("mistake")

    async with serve(app) as server:
        caller = await server.caller()
        caller.get(b"/a%0Ab?secret")
        answer = await caller.answer()
        assert await caller.end() == b""
    assert (answer.status, answer[b"content-type"]) == (500, [b"application/problem+json"])
    assert b"mistake" not in answer.body
    assert (len(answer[b"date"]), answer[b"connection"]) == (1, [b"close"])
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.getMessage() == "GET /a%0Ab: the application failed"


@pytest.mark.parametrize("fault", ["raise", "return", "exit", "cancel"])
async def test_an_app_that_breaks_off_in_its_body_cuts_and_is_logged(
    serve: Serve, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(head((b"content-length", b"10")))
        await send(body(b"12345", True))
        if fault == "raise":
            raise RuntimeError("mistake")
        if fault == "exit":
            raise SystemExit(4)
        if fault == "cancel":
            raise asyncio.CancelledError

    async with serve(app) as server:
        caller = await server.caller()
        caller.get()
        with pytest.raises(ConnectionResetError):
            await caller.end()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("fault", ["return", "cancel", "head only"])
async def test_an_app_that_gives_no_answer_is_500_or_cut(
    serve: Serve, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if fault == "cancel":
            raise asyncio.CancelledError
        if fault == "head only":
            await send(head())

    async with serve(app) as server:
        caller = await server.caller()
        caller.get()
        if fault == "head only":
            with pytest.raises(ConnectionResetError):
                await caller.end()
        else:
            assert (await caller.answer()).status == 500
            assert await caller.end() == b""
    assert len(caplog.records) == 1


async def test_a_slow_reader_holds_the_app_back_and_leaving_frees_it(serve: Serve) -> None:
    sent = 0
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(head())
        try:
            while True:
                await send(body(bytes(65536), True))
                sent += 1
        finally:
            ended.set()

    async with serve(app) as server:
        caller = await server.caller()
        caller.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.get()
        (connection,) = server.state.connections
        while not connection.flow.write_paused:
            await asyncio.sleep(0)
        before = sent
        for _ in range(100):
            await asyncio.sleep(0)
        assert sent <= before + 1
        caller.writer.transport.abort()
        await ended.wait()


async def test_plain_requests_leave_nothing_to_collect(serve: Serve) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(head((b"content-length", b"2")))
        await send(body(b"ok"))

    async with serve(app) as server:
        caller = await server.caller()
        for round_ in range(2):
            gc.collect()
            gc.disable()
            try:
                for _ in range(200 if round_ else 10):
                    caller.get()
                    await caller.answer()
                assert not round_ or gc.collect() == 0
            finally:
                gc.enable()


async def test_who_closes_its_sending_side_gets_the_whole_answer_where_that_is_allowed(serve: Serve) -> None:
    gate, size = asyncio.Event(), 1_000_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(10):
            await send({"type": "http.response.body", "body": bytes(size // 10), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with serve(app, half_close=True) as server:
        caller = await server.caller()
        caller.get()
        caller.get()
        caller.writer.write_eof()
        while not server.state.tasks:
            await asyncio.sleep(0)
        gate.set()
        assert len((await caller.answer()).body) == size
        assert len((await caller.answer()).body) == size
        assert await caller.end() == b""


async def test_who_ends_in_the_middle_of_its_body_has_left_in_any_case(serve: Serve) -> None:
    left = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with serve(app, half_close=True) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nsome")
        caller.writer.write_eof()
        await left.wait()
