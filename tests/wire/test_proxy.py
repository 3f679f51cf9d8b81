"""What reaches the upstream, what comes back, and what happens when either side fails."""

import asyncio
import gc
import json

import pytest

from tests.wire.conftest import OK, Behind, Front, Line, answering


def fields(head: bytes) -> list[bytes]:
    return head.split(b"\r\n")[1:-2]


async def test_the_bytes_of_path_and_query_arrive_as_they_were_sent(upstream: Behind, front: Front) -> None:
    up = await upstream()
    caller = await (await front(up)).caller()
    await caller.ask("/a%20b/%E2%82%AC/c@d:e?q=a+b&q=%2F..%2F&empty=")
    assert up.heads[0].startswith(b"GET /a%20b/%E2%82%AC/c@d:e?q=a+b&q=%2F..%2F&empty= HTTP/1.1\r\n")


async def test_order_and_duplicates_of_headers_are_kept_both_ways(upstream: Behind, front: Front) -> None:
    up = await upstream(
        answering(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-B: 1\r\nSet-Cookie: b=2\r\nVary: A\r\nVary: B\r\n"
            b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx"
        )
    )
    caller = await (await front(up, forwarded="none")).caller()
    answer = await caller.ask("/", "X-Dup: 1", "X-Other: z", "x-dup: 2")
    assert fields(up.heads[0]) == [b"host: gw.test", b"x-dup: 1", b"x-other: z", b"x-dup: 2"]
    assert answer.all(b"set-cookie") == [b"a=1", b"b=2"]
    assert answer.all(b"vary") == [b"A", b"B"]
    assert answer.all(b"content-encoding") == [b"gzip"]
    assert answer.body == b"xx"


async def test_blanks_around_a_value_are_not_part_of_it(upstream: Behind, front: Front) -> None:
    up = await upstream(answering(b"HTTP/1.1 200 OK\r\nX: \t a b\t \r\nContent-Length: 2 \t\r\n\r\nok"))
    caller = await (await front(up, forwarded="none")).caller()
    caller.writer.write(
        b"POST / HTTP/1.1\r\nHost: gw.test \r\nX:\t a b \t\r\nE: \r\nContent-Length:0\t\r\n\r\n"
    )
    answer = await caller.answer()
    assert (answer.all(b"x"), answer.body) == ([b"a b"], b"ok")
    assert fields(up.heads[0]) == [b"host: gw.test", b"x: a b", b"e: ", b"content-length: 0"]


async def test_hop_by_hop_headers_and_those_that_connection_names_are_dropped(
    upstream: Behind, front: Front
) -> None:
    up = await upstream(
        answering(
            b"HTTP/1.1 200 OK\r\nConnection: X-Secret, close\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n"
            b"Content-Length: 2\r\n\r\nok"
        )
    )
    caller = await (await front(up, forwarded="none")).caller()
    answer = await caller.ask(
        "/", "Connection: ", "Connection: keep-alive, X-Gone, Host", "X-Gone: 1", "TE: gzip", "X-Kept: 1"
    )
    assert fields(up.heads[0]) == [b"host: gw.test", b"x-kept: 1"]
    assert not answer.all(b"x-secret")
    assert not answer.all(b"keep-alive")


async def test_forwarding_headers_of_strangers_are_replaced(upstream: Behind, front: Front) -> None:
    up = await upstream()
    caller = await (await front(up)).caller()
    await caller.ask("/", "X-Forwarded-For: 6.6.6.6", "X_Forwarded_For: 6.6.6.6", "Forwarded: for=6.6.6.6")
    assert fields(up.heads[0]) == [
        b"host: gw.test",
        b"x-forwarded-for: 127.0.0.1",
        b"x-forwarded-proto: http",
        b"x-forwarded-host: gw.test",
    ]


async def test_forwarding_headers_of_trusted_proxies_are_continued(upstream: Behind, front: Front) -> None:
    up = await upstream()
    serving = await front(up, config={"trusted_proxies": ["127.0.0.0/8"]})
    caller = await serving.caller()
    await caller.ask("/", "X-Forwarded-For: 6.6.6.6, 7.7.7.7", "X-Forwarded-Proto: https")
    assert b"x-forwarded-for: 6.6.6.6, 7.7.7.7, 127.0.0.1" in fields(up.heads[0])
    assert b"x-forwarded-proto: https" in fields(up.heads[0])


@pytest.mark.parametrize(("host", "sent"), [("target", None), ("api.example.com", b"host: api.example.com")])
async def test_the_host_sent_is_as_configured(
    host: str, sent: bytes | None, upstream: Behind, front: Front
) -> None:
    up = await upstream()
    caller = await (await front(up, host=host)).caller()
    await caller.ask()
    assert (sent or f"host: 127.0.0.1:{up.port}".encode()) in fields(up.heads[0])


@pytest.mark.parametrize("host", ["preserve", "target", "api.example.com"])
async def test_a_request_without_host_gets_one_on_its_way(host: str, upstream: Behind, front: Front) -> None:
    up = await upstream()
    caller = await (await front(up, host=host, forwarded="both")).caller()
    caller.writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await caller.answer()).status == 200
    assert fields(up.heads[0]) == [
        b"host: " + (host.encode() if "." in host else b"127.0.0.1:%d" % up.port),
        b"forwarded: for=127.0.0.1;proto=http",
        b"x-forwarded-for: 127.0.0.1",
        b"x-forwarded-proto: http",
    ]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/a/../b", "dot_segment"),
        ("/a/%2e%2e/b", "dot_segment"),
        ("//b", "double_slash"),
        ("/a%2Fb", "encoded_slash"),
        ("/a%5Cb", "backslash"),
        ("/a%00", "control_character"),
        ("/a%0d%0aX: 1", "control_character"),
        ("/a%zz", "bad_encoding"),
    ],
)
async def test_an_ambiguous_path_is_refused_before_the_upstream(
    path: str, reason: str, upstream: Behind, front: Front
) -> None:
    up = await upstream()
    caller = await (await front(up)).caller()
    answer = await caller.ask(path.replace(" ", "%20"))
    assert answer.status == 400
    assert json.loads(answer.body)["reason"] == reason
    assert json.loads(answer.body)["request_id"]
    assert not up.heads


async def test_a_prefix_is_stripped_and_a_path_is_rewritten(upstream: Behind, front: Front) -> None:
    up = await upstream()
    strip = await front(up, route={"path": "/shop/*", "strip_prefix": "/shop"})
    await (await strip.caller()).ask("/shop/a/b?x=1")
    rewrite = await front(up, route={"path": "/o/{id}/*", "rewrite": "/v2/{id}/{*}"})
    await (await rewrite.caller()).ask("/o/7%3F8/a/b")
    assert [head.split(b" ")[1] for head in up.heads] == [b"/a/b?x=1", b"/v2/7%3F8/a/b"]


async def test_connections_are_kept_and_used_again(upstream: Behind, front: Front) -> None:
    up = await upstream()
    caller = await (await front(up)).caller()
    for _ in range(20):
        assert (await caller.ask()).status == 200
    assert up.connections == 1


async def test_head_204_and_304_have_no_body_and_do_not_hang(upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        while head := await line.head():
            status = head.split(b" ")[1].removeprefix(b"/")
            line.say(b"HTTP/1.1 %b X\r\ncontent-length: 9\r\n\r\n" % (status if status.isdigit() else b"200"))

    up = await upstream(script)
    caller = await (await front(up)).caller()
    head = await caller.ask("/", method="HEAD")
    assert head.all(b"content-length") == [b"9"]
    assert (await caller.ask("/304")).status == 304
    assert (await caller.ask("/", method="HEAD")).status == 200


async def test_a_body_goes_up_with_its_length_or_in_chunks(upstream: Behind, front: Front) -> None:
    got: list[bytes] = []

    async def script(line: Line) -> None:
        while True:
            head = await line.head()
            if b"content-length: 5" in head:
                got.append(await line.reader.readexactly(5))
            else:
                got.append(await line.reader.readuntil(b"0\r\n\r\n"))
            line.say(OK)

    up = await upstream(script)
    caller = await (await front(up)).caller()
    await caller.ask("/", method="POST", body=b"hello")
    caller.say("/", "Transfer-Encoding: chunked", method="POST")
    caller.writer.write(b"3\r\nabc\r\n")
    while len(up.heads) < 2:
        await asyncio.sleep(0)
    caller.writer.write(b"2\r\nde\r\n0\r\n\r\n")
    assert (await caller.answer()).status == 200
    assert got[0] == b"hello"
    assert got[1].endswith(b"0\r\n\r\n")
    assert b"abc" in got[1]


async def test_the_first_byte_is_not_held_back(upstream: Behind, front: Front) -> None:
    go = asyncio.Event()

    async def script(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
        await go.wait()
        line.say(b"data: 2\n\n")

    up = await upstream(script)
    caller = await (await front(up, timeout={"total": "300ms"})).caller()
    caller.say()
    assert (await caller.head()).status == 200
    assert b"data: 1" in await caller.reader.readuntil(b"data: 1\n\n")
    go.set()
    assert b"data: 2" in await caller.reader.readuntil(b"data: 2\n\n")


async def test_an_early_final_answer_reaches_the_caller_while_it_still_sends(
    upstream: Behind, front: Front
) -> None:
    async def script(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno")
        await line.gone()

    up = await upstream(script)
    caller = await (await front(up)).caller()
    caller.say("/", "Content-Length: 100000000", method="POST")
    caller.writer.write(b"x" * 100_000)
    assert (await caller.answer()).status == 401
    await up.closed.wait()


@pytest.mark.parametrize("moment", ["head", "body"])
async def test_a_caller_who_leaves_cancels_the_upstream(moment: str, upstream: Behind, front: Front) -> None:
    reached = asyncio.Event()

    async def script(line: Line) -> None:
        await line.head()
        if moment == "body":
            line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx")
        reached.set()
        await line.gone()

    up = await upstream(script)
    caller = await (await front(up)).caller()
    caller.say()
    await reached.wait()
    if moment == "body":
        await caller.head()
    caller.leave()
    await up.closed.wait()


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        (b"", 502, "reset"),
        (b"garbage\r\n\r\n", 502, "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab", 502, "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 502, "protocol_error"),
        (b"HTTP/1.1 101 Up\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 502, "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 100_000, 502, "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 502, "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 502, "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 502, "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 502, "protocol_error"),
        (
            b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
            502,
            "protocol_error",
        ),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502, "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", 502, "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", 502, "protocol_error"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", 502, "protocol_error"),
        (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", 502, "protocol_error"),
        (b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", 502, "protocol_error"),
        (b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", 502, "protocol_error"),
    ],
)
async def test_an_upstream_that_answers_no_http_is_a_502(
    said: bytes, status: int, reason: str, upstream: Behind, front: Front
) -> None:
    up = await upstream(answering(said))
    caller = await (await front(up)).caller()
    answer = await caller.ask()
    assert answer.status == status
    assert answer.all(b"content-type") == [b"application/problem+json"]
    assert json.loads(answer.body)["reason"] == reason


async def test_a_target_that_refuses_is_a_502(upstream: Behind, front: Front) -> None:
    up = await upstream()
    serving = await front(up)
    gone = await front(type(up)(port=1))
    assert (await (await serving.caller()).ask()).status == 200
    answer = await (await gone.caller()).ask()
    assert (answer.status, json.loads(answer.body)["reason"]) == (502, "connect_failed")


async def test_a_target_that_hangs_is_a_504(upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        await line.head()
        await line.gone()

    up = await upstream(script)
    head = await (await front(up, timeout={"head": "50ms"})).caller()
    total = await (await front(up, timeout={"total": "50ms"})).caller()
    assert json.loads((await head.ask()).body)["reason"] == "head_timeout"
    assert json.loads((await total.ask()).body)["reason"] == "total_timeout"


async def test_a_truncated_answer_cuts_the_caller(upstream: Behind, front: Front) -> None:
    up = await upstream(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"))
    caller = await (await front(up)).caller()
    caller.say()
    await caller.head()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await caller.reader.readexactly(10)


async def test_a_stale_connection_is_replaced_for_a_get_and_not_for_a_post(
    upstream: Behind, front: Front
) -> None:
    async def once(line: Line) -> None:
        await line.head()
        line.say(OK)
        await line.head()  # then it closes without an answer, as if the connection had been idle for too long

    up = await upstream(once)
    caller = await (await front(up)).caller()
    for _ in range(5):
        assert (await caller.ask()).status == 200
    gets = len(up.heads)
    answer = await caller.ask("/", method="POST", body=b"x")
    assert answer.status == 502
    assert len(up.heads) == gets + 1


async def test_connections_are_bounded_and_waiting_is_fair_and_bounded(
    upstream: Behind, front: Front
) -> None:
    go = asyncio.Event()

    async def script(line: Line) -> None:
        while True:
            await line.head()
            await go.wait()
            line.say(OK)

    up = await upstream(script)
    pool = {"max_connections": 2, "max_waiting": 2, "wait": "10s"}
    serving = await front(up, pool=pool)
    callers = [await serving.caller() for _ in range(5)]
    asked = [asyncio.ensure_future(caller.ask()) for caller in callers]
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    assert json.loads(done.pop().result().body)["reason"] == "pool_full"
    go.set()
    statuses = [answer.status for answer in await asyncio.gather(*asked)]
    assert sorted(statuses) == [200, 200, 200, 200, 503]
    assert up.connections == 2


async def test_waiting_for_a_connection_ends_with_503(upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        await line.head()
        await line.gone()

    up = await upstream(script)
    serving = await front(up, pool={"max_connections": 1, "wait": "30ms"})
    first, second = await serving.caller(), await serving.caller()
    first.say()
    while not up.heads:
        await asyncio.sleep(0)
    answer = await second.ask()
    assert (answer.status, json.loads(answer.body)["reason"]) == (503, "pool_timeout")
    assert answer.all(b"retry-after") == [b"1"]


async def test_cancelled_requests_leak_no_connection(upstream: Behind, front: Front) -> None:
    up = await upstream()
    serving = await front(up, pool={"max_connections": 3, "max_waiting": 1000})
    for _ in range(20):
        callers = [await serving.caller() for _ in range(10)]
        for caller in callers:
            caller.say()
            caller.leave()
    caller = await serving.caller()
    assert (await caller.ask()).status == 200


async def test_a_target_that_fails_is_ejected_and_the_other_one_serves(
    upstream: Behind, front: Front
) -> None:
    good, bad = await upstream(), await upstream(answering(b""))
    ejection = {"failures": 2, "duration": "1h", "max_percent": 50}
    caller = await (await front(good, bad, ejection=ejection)).caller()
    statuses = [(await caller.ask("/", method="POST", body=b"x")).status for _ in range(20)]
    assert statuses.count(502) == 2
    assert statuses[-10:] == [200] * 10


async def test_unknown_routes_and_methods_are_told_apart(upstream: Behind, front: Front) -> None:
    up = await upstream()
    serving = await front(up, route={"path": "/a", "methods": ["GET", "PUT"]})
    caller = await serving.caller()
    assert (await caller.ask("/b")).status == 404
    answer = await caller.ask("/a", method="DELETE")
    assert (answer.status, answer.all(b"allow")) == (405, [b"GET, PUT"])
    assert not up.heads


async def test_no_tunnel_is_made_also_where_the_target_is_a_path(upstream: Behind, front: Front) -> None:
    up = await upstream()
    caller = await (await front(up)).caller()
    answer = await caller.ask("/", method="CONNECT")
    assert (answer.status, answer.all(b"connection")) == (400, [b"close"])
    assert not up.heads


@pytest.mark.parametrize("host", ["", "a,b", "u@h", "h/p", "h:x"])
async def test_a_host_that_is_none_is_refused(host: str, upstream: Behind, front: Front) -> None:
    up = await upstream()
    caller = await (await front(up)).caller()
    caller.writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (await caller.answer()).status == 400
    assert not up.heads


async def test_a_plain_request_leaves_no_cyclic_garbage(upstream: Behind, front: Front) -> None:
    up = await upstream()
    caller = await (await front(up)).caller()
    for _ in range(20):
        await caller.ask()
    gc.collect()
    gc.disable()
    try:
        for _ in range(200):
            await caller.ask()
        assert gc.collect() == 0
    finally:
        gc.enable()


async def test_probes_answer(upstream: Behind, front: Front) -> None:
    serving = await front(await upstream())
    caller = await serving.caller()
    assert (await caller.ask("/-/live")).status == 200
    serving.gateway.ready = False
    assert (await caller.ask("/-/ready")).status == 503


async def test_many_callers_at_once_share_connections_without_losing_an_answer(
    upstream: Behind, front: Front
) -> None:
    up = await upstream()
    serving = await front(up)
    callers = [await serving.caller() for _ in range(50)]
    for _ in range(20):
        answers = await asyncio.gather(*(caller.ask() for caller in callers))
        assert {answer.status for answer in answers} == {200}
    assert up.connections <= 50
