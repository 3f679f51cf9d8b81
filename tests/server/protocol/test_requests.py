"""What a connection reads: limits, refusals, pipelines, bodies, upgrades."""

import asyncio
import json
import logging

import pytest

from asgi_gateway.asgi import Receive, Scope, Send
from asgi_gateway.server.reader import EXTENSIONS

from .conftest import Answer, Serve


class Echo:
    """Answers with what it saw of each request, once `gate` is open."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await self.gate.wait()
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        seen = f"{scope['method']} {scope['path']} ".encode() + body
        headers = [(b"content-length", b"%d" % len(seen))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": seen})


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without reading the body."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


def is_refusal(answer: Answer, status: int, reason: str) -> bool:
    return (
        answer.status == status
        and json.loads(answer.body)["reason"] == reason
        and answer[b"content-type"] == [b"application/problem+json"]
        and answer[b"connection"] == [b"close"]
        and len(answer[b"date"]) == 1
    )


async def test_the_scope_says_that_this_server_cancels(serve: Serve) -> None:
    app = Echo()
    async with serve(app) as server:
        caller = await server.caller()
        caller.get(b"/a%20b/%2F?x=%20&y")
        await caller.answer()
    (scope,) = app.scopes
    assert scope["extensions"] is EXTENSIONS
    assert "asgi_gateway" in scope["extensions"]
    with pytest.raises(TypeError):
        scope["extensions"]["more"] = {}
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b//", b"/a%20b/%2F", b"x=%20&y")
    assert scope["http_version"] == "1.1"


@pytest.mark.parametrize(
    "data",
    [
        b"NOTHING\r\n\r\n",
        b"GET / HTTP/1.2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
    ids=lambda data: repr(data[:60]),
)
async def test_what_is_no_request_gets_400_and_the_end(
    serve: Serve, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app = Echo()
    async with serve(app) as server:
        caller = await server.caller()
        caller.say(data)
        assert is_refusal(await caller.answer(), 400, "bad_request")
        assert await caller.end() == b""
    assert not app.scopes
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_version_that_is_not_spoken_gets_505(serve: Serve) -> None:
    async with serve(Echo()) as server:
        caller = await server.caller()
        caller.say(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n")
        assert is_refusal(await caller.answer(), 505, "http_version")


async def test_an_absolute_target_that_agrees_with_host_is_read_as_its_path(serve: Serve) -> None:
    app = Echo()
    async with serve(app) as server:
        caller = await server.caller()
        caller.say(b"GET HTTP://A.example:80/b?c HTTP/1.1\r\nHost: a.example:80\r\n\r\n")
        assert (await caller.answer()).body == b"GET /b "
    assert app.scopes[0]["query_string"] == b"c"


async def test_too_many_headers_get_431(serve: Serve) -> None:
    app = Echo()
    async with serve(app, headers=5) as server:
        caller = await server.caller()
        caller.get(b"/", *[b"X-%d: a" % n for n in range(4)])
        assert (await caller.answer()).status == 200
        caller.get(b"/", *[b"X-%d: a" % n for n in range(5)])
        assert is_refusal(await caller.answer(), 431, "too_many_headers")
    assert len(app.scopes) == 1


async def test_headers_that_are_too_large_get_431(serve: Serve) -> None:
    app = Echo()
    async with serve(app, header_bytes=1000) as server:
        caller = await server.caller()
        caller.get(b"/", b"X: " + b"a" * 980)  # Host: a is 9 bytes more, the line ends 2 each
        assert (await caller.answer()).status == 200
        caller.get(b"/", b"X: " + b"a" * 990)
        assert is_refusal(await caller.answer(), 431, "headers_too_large")
    assert len(app.scopes) == 1


async def test_large_headers_behind_a_pipelined_request_count_alone(serve: Serve) -> None:
    async with serve(Echo(), header_bytes=1000) as server:
        caller = await server.caller()
        for _ in range(4):
            caller.get(b"/", b"X: " + b"a" * 600)
        caller.get(b"/", b"X: " + b"a" * 1000)
        for _ in range(4):
            assert (await caller.answer()).status == 200
        assert is_refusal(await caller.answer(), 431, "headers_too_large")


@pytest.mark.parametrize(
    "begin",
    [b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: "],
)
async def test_a_field_without_end_is_refused_before_it_fills_the_memory(serve: Serve, begin: bytes) -> None:
    async with serve(Echo()) as server:
        caller = await server.caller()
        caller.say(begin)
        for _ in range(128):
            caller.say(b"a" * 65536)
        assert is_refusal(await caller.answer(), 431, "headers_too_large")
        assert await caller.end() == b""


async def test_a_url_that_is_too_long_gets_414(serve: Serve) -> None:
    async with serve(Echo(), url_bytes=100) as server:
        caller = await server.caller()
        caller.get(b"/" + b"a" * 99)
        assert (await caller.answer()).status == 200
        caller.get(b"/?" + b"a" * 99)
        assert is_refusal(await caller.answer(), 414, "url_too_long")


async def test_a_large_body_is_not_taken_for_headers(serve: Serve) -> None:
    async with serve(Echo(), header_bytes=1000, url_bytes=100) as server:
        caller = await server.caller()
        for size in (1, 5_000_000):
            caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            caller.say(bytes(size))
            caller.get()
            assert len((await caller.answer()).body) == len(b"POST / ") + size
            assert (await caller.answer()).body == b"GET / "


async def test_three_pipelined_with_a_broken_one_in_the_middle_get_one_answer_one_400_and_the_end(
    serve: Serve,
) -> None:
    app = Echo()
    app.gate.clear()
    async with serve(app) as server:
        caller = await server.caller()
        caller.say(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost : a\r\n\r\n")
        caller.get(b"/3")
        while not app.scopes:
            await asyncio.sleep(0)
        app.gate.set()
        assert (await caller.answer()).body == b"GET /1 "
        assert is_refusal(await caller.answer(), 400, "bad_request")
        assert await caller.end() == b""
    assert [scope["path"] for scope in app.scopes] == ["/1"]


async def test_pipelined_requests_are_answered_in_their_order(serve: Serve) -> None:
    app = Echo()
    app.gate.clear()
    async with serve(app) as server:
        caller = await server.caller()
        for number in range(100):
            caller.say(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab" % number)
        app.gate.set()
        for number in range(100):
            assert (await caller.answer()).body == b"POST /%d ab" % number


async def test_a_pipeline_has_a_bound(serve: Serve) -> None:
    app = Echo()
    app.gate.clear()
    async with serve(app) as server:
        caller = await server.caller()
        caller.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 5000)
        while not app.scopes:
            await asyncio.sleep(0)
        app.gate.set()
        while (answer := await caller.answer()).status == 200:
            pass
        assert is_refusal(answer, 400, "bad_request")
    assert len(app.scopes) < 300


async def test_a_body_that_breaks_off_its_framing_gets_400_and_ends_the_request(serve: Serve) -> None:
    app = Echo()
    async with serve(app) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        while not app.scopes:
            await asyncio.sleep(0)
        caller.say(b"what\r\n")
        assert is_refusal(await caller.answer(), 400, "bad_request")
        assert await caller.end() == b""


async def test_a_broken_body_in_a_pipeline_is_refused_in_its_turn(serve: Serve) -> None:
    app = Echo()
    app.gate.clear()
    async with serve(app) as server:
        caller = await server.caller()
        caller.say(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        caller.say(b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nwhat\r\n")
        while not app.scopes:
            await asyncio.sleep(0)
        app.gate.set()
        assert (await caller.answer()).body == b"GET /1 "
        assert is_refusal(await caller.answer(), 400, "bad_request")
    assert len(app.scopes) == 1


async def test_an_early_answer_to_a_large_upload_arrives_and_the_connection_goes_on(serve: Serve) -> None:
    async with serve(refuse) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 15000000\r\n\r\n")
        assert (await caller.answer()).status == 401
        caller.say(bytes(15_000_000))
        caller.get()
        assert (await caller.answer()).body == b"no"


async def test_an_early_last_answer_is_not_lost_to_a_reset(serve: Serve) -> None:
    async with serve(refuse) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 15000000\r\nConnection: close\r\n\r\n")
        caller.say(bytes(3_000_000))
        answer = await caller.answer()
        assert (answer.status, answer[b"connection"]) == (401, [b"close"])
        assert await caller.end() == b""


async def test_a_last_answer_is_not_lost_to_requests_behind_it(serve: Serve) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def last(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await gate.wait()
        headers = [(b"content-length", b"2"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})

    async with serve(last) as server:
        late, early = await server.caller(), await server.caller()
        for caller in (late, early):
            caller.get()
        await begun.wait()
        early.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        gate.set()
        for caller in (late, early):
            assert (await caller.answer()).status == 400
            caller.get()
            assert await caller.end() == b""


async def test_trailers_never_become_headers(serve: Serve) -> None:
    app = Echo()
    async with serve(app) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        caller.say(b"0\r\nX-Admin: yes\r\n\r\n")
        assert (await caller.answer()).body == b"POST / a"
    assert (b"x-admin", b"yes") not in app.scopes[0]["headers"]


async def test_100_continue_is_said_when_the_app_wants_the_body(serve: Serve) -> None:
    async with serve(Echo()) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await caller.head()).status == 100
        caller.say(b"ab")
        assert (await caller.answer()).body == b"POST / ab"
        caller.get()
        assert (await caller.answer()).status == 200


async def test_without_100_continue_the_answer_ends_the_connection(serve: Serve) -> None:
    async with serve(refuse) as server:
        caller = await server.caller()
        caller.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        answer = await caller.answer()
        assert (answer.status, answer[b"connection"]) == (401, [b"close"])
        assert await caller.end() == b""


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
async def test_a_request_with_an_upgrade_that_is_not_spoken_is_a_normal_request(
    serve: Serve, framing: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    fields = b" HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    async with serve(Echo()) as server:
        caller = await server.caller()
        for number in range(3):
            caller.say(b"POST /%d" % number + fields + framing + b"GET /bare" + fields + b"\r\n")
        caller.get(b"/last")
        for number in range(3):
            assert (await caller.answer()).body == b"POST /%d abc" % number
            assert (await caller.answer()).body == b"GET /bare "
        assert (await caller.answer()).body == b"GET /last "
    assert not caplog.records


async def test_a_body_that_comes_after_the_head_of_an_unspoken_upgrade_is_its_body(serve: Serve) -> None:
    app = Echo()
    async with serve(app) as server:
        caller = await server.caller()
        caller.say(b"POST /1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n")
        caller.say(b"Content-Length: 35\r\n\r\n")
        while not app.scopes:
            await asyncio.sleep(0)
        caller.get(b"/smuggled")
        assert (await caller.answer()).body.startswith(b"POST /1 GET /smuggled HTTP/1.1")
    assert len(app.scopes) == 1


@pytest.mark.parametrize("between", [b"", b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_what_is_no_request_behind_an_unspoken_upgrade_gets_400(
    serve: Serve, between: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(Echo()) as server:
        caller = await server.caller()
        caller.say(b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n")
        caller.say(between + b"GET #a HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(2 if between else 1):
            assert (await caller.answer()).status == 200
        assert is_refusal(await caller.answer(), 400, "bad_request")
    assert not caplog.records


async def test_an_idle_connection_is_closed_after_keep_alive(serve: Serve) -> None:
    async with serve(Echo(), keep_alive=0.05) as server:
        caller = await server.caller()
        caller.get()
        assert (await caller.answer()).status == 200
        assert await caller.end() == b""


async def test_at_shutdown_a_request_that_has_begun_to_arrive_is_answered(serve: Serve) -> None:
    async with serve(Echo()) as server:
        caller, idle = await server.caller(), await server.caller()
        for other in (caller, idle):
            other.get()
            await other.answer()
        caller.say(b"GET / HTTP/1.1\r\nHo")
        while not any(connection.in_head() for connection in server.state.connections):
            await asyncio.sleep(0)
        for connection in list(server.state.connections):
            connection.shutdown()
        caller.say(b"st: a\r\n\r\n")
        idle.get()  # it was on its way
        for other in (caller, idle):
            answer = await other.answer()
            assert (answer.status, answer[b"connection"]) == (200, [b"close"])
            assert await other.end() == b""


async def test_at_shutdown_an_idle_connection_is_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_gateway.server.protocol.SHUTDOWN", 0.01)
    async with serve(Echo()) as server:
        caller, silent = await server.caller(), await server.caller()
        caller.get()
        await caller.answer()
        for connection in list(server.state.connections):
            connection.shutdown()
        assert await caller.end() == b""
        assert await silent.end() == b""
