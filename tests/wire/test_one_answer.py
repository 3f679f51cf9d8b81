"""One answer for each request, also where requests are pipelined, malformed, or answered before they end."""

import asyncio
import itertools
import random
from typing import Any

import pytest

from tests.wire.ambiguous import BAD
from tests.wire.conftest import OK, Behind, Caller, Front, Line
from tests.wire.strict import Strict
from tests.wire.talking import LAST, talk

MIB = 1024 * 1024
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: gw.test\r\n\r\n"
BODY = SMUGGLED * (15 * MIB // len(SMUGGLED))

GOOD = {
    "get": b"GET /good HTTP/1.1\r\nHost: gw.test\r\n\r\n",
    "length": b"POST /good HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": b"POST /good HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n",
}
MALFORMED = {
    "line": b"GET /bad HTTP/1.1\r\nHost : gw.test\r\n\r\n",
    "framing": b"POST /bad HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 0\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "host": b"GET /bad HTTP/1.1\r\n\r\n",
    "tunnel": b"CONNECT /bad HTTP/1.1\r\nHost: gw.test\r\n\r\n",
    "body": b"POST /bad HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nhello\r\n",
}


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_of_three_pipelined_only_those_before_the_malformed_one_are_served(
    place: int, upstream: Behind, front: Front
) -> None:
    strict = Strict()
    port = (await front(await upstream(strict))).port
    for good, bad in itertools.product(GOOD.values(), MALFORMED.values()):
        strict.requests.clear()
        requests = [good, good, good]
        requests[place] = bad
        data = b"".join(requests)
        for pieces in ([data], requests, [data[n : n + 7] for n in range(0, len(data), 7)]):
            told = await talk(port, *pieces)
            assert (told.statuses, told.refused) == ([200] * place + [400], True), (good, bad, told)
        assert strict.targets == [b"/good"] * place * 3
    assert strict.breaches == []


async def test_a_malformed_request_waits_for_the_answer_before_it(upstream: Behind, front: Front) -> None:
    go = asyncio.Event()

    async def script(line: Line) -> None:
        await line.head()
        await go.wait()
        line.say(OK)

    up = await upstream(script)
    caller = await (await front(up)).caller()
    caller.writer.write(GOOD["get"] + MALFORMED["line"] + GOOD["get"])
    while not up.heads:
        await asyncio.sleep(0)
    go.set()
    assert [(await caller.answer()).status for _ in range(2)] == [200, 400]
    assert await caller.reader.read() == b""
    assert len(up.heads) == 1


async def test_a_hundred_pipelined_are_answered_in_their_order(upstream: Behind, front: Front) -> None:
    strict = Strict()
    caller = await (await front(await upstream(strict))).caller()
    kinds = itertools.cycle(GOOD.values())
    caller.writer.write(b"".join(next(kinds).replace(b"/good", b"/%d" % n) for n in range(100)))
    for number in range(100):
        assert (await caller.answer()).all(b"x-target") == [b"/%d" % number]
    assert strict.breaches == []


async def test_a_refused_path_in_a_pipeline_costs_only_its_own_request(
    upstream: Behind, front: Front
) -> None:
    strict = Strict()
    port = (await front(await upstream(strict))).port
    told = await talk(port, GOOD["length"] + GOOD["length"].replace(b"/good", b"/a//b") + GOOD["chunks"])
    assert (told.statuses, told.end) == ([200, 400, 200], "usable")
    assert strict.targets == [b"/good", b"/good", b"/last"]


UPGRADE = b"Host: gw.test\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: gw.test\r\n\r\n"
ODD = GOOD | {
    "upgrade": b"GET /good HTTP/1.1\r\n" + UPGRADE + b"\r\n",
    "upgrade_with_length": b"PUT /good HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b"
    % (UPGRADE, len(HIDDEN), HIDDEN),
    "upgrade_with_chunks": b"PUT /good HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (UPGRADE, len(HIDDEN), HIDDEN),
    "absolute": b"GET http://gw.test/good HTTP/1.1\r\nHost: gw.test\r\n\r\n",
    "trailers": b"PUT /good HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n\r\n",
    "expects": b"PUT /good HTTP/1.1\r\nHost: gw.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    "empty_line": b"\r\nGET /good HTTP/1.1\r\nHost: gw.test\r\n\r\n",
    "large": b"PUT /good HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 200000\r\n\r\n" + b"a" * 200_000,
    "path": b"GET /a//b HTTP/1.1\r\nHost: gw.test\r\n\r\n",
}


async def test_pipelines_of_everything_in_any_pieces_are_answered_one_by_one(
    upstream: Behind, front: Front
) -> None:
    strict, dice, bad = Strict(), random.Random(3), [b"", *BAD.values()]
    port = (await front(await upstream(strict))).port
    for end in bad * 4:
        strict.requests.clear()
        kinds = dice.choices(list(ODD), k=dice.randint(1, 5))
        data = b"".join(ODD[kind] for kind in kinds) + end
        places = sorted(dice.sample(range(len(data)), min(len(data), dice.choice([0, 1, 3, 20]))))
        pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
        told = await talk(port, *pieces)
        served = [b"/good" for kind in kinds if kind != "path"]
        statuses = [400 if kind == "path" else 200 for kind in kinds]
        assert told.statuses[: len(kinds)] == statuses, (kinds, end, pieces)
        assert len(told.statuses) == len(kinds) + bool(end), (kinds, end, pieces)
        assert told.refused if end else told.end == "usable", (kinds, end, pieces)
        assert strict.targets == (served if end else [*served, b"/last"]), (kinds, end, pieces)
    assert strict.breaches == []


async def test_an_answer_that_nobody_asked_for_reaches_nobody(upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        head = await line.head()
        evil = b"HTTP/1.1 200 OK\r\nx-evil: 1\r\ncontent-length: 4\r\n\r\nevil"
        line.say(OK + evil if b"/first" in head else OK)
        await line.gone()

    up = await upstream(script)
    caller = await (await front(up)).caller()
    for path in ("/first", "/second"):
        answer = await caller.ask(path)
        assert (answer.status, answer.body, answer.all(b"x-evil")) == (200, b"ok", [])
    assert up.connections == 2


async def test_nothing_follows_an_answer_that_broke_off(upstream: Behind, front: Front) -> None:
    async def script(line: Line) -> None:
        await line.head()
        line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")

    up = await upstream(script)
    port = (await front(up)).port
    told = await talk(port, GOOD["get"] + GOOD["get"])
    assert (told.statuses, told.end) == ([], "reset")
    assert len(up.heads) == 1


def large(framing: str, *fields: str, path: str = "/", method: str = "POST") -> list[bytes]:
    """Head and body of a request of 15 MiB, full of requests."""
    lines = [f"{method} {path} HTTP/1.1", "Host: gw.test", *fields]
    if framing == "length":
        return ["\r\n".join([*lines, f"Content-Length: {len(BODY)}", "", ""]).encode(), BODY]
    head = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()
    return [head, b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"]


async def next_target(caller: Caller) -> bytes:
    """What the connection says to one more request: its target as the upstream saw it; empty at the end."""
    caller.writer.write(LAST)
    try:
        return b"".join((await caller.answer()).all(b"x-target"))
    except asyncio.IncompleteReadError as error:
        return error.partial


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("closes", [False, True])
async def test_an_upstream_that_answers_early_is_heard_and_the_body_is_no_request(
    framing: str, closes: bool, upstream: Behind, front: Front
) -> None:
    targets: list[bytes] = []

    async def script(line: Line) -> None:
        while True:
            target = (await line.head()).split(b" ")[1]
            targets.append(target)
            if target == b"/":
                line.say(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno")
                if closes:
                    return
                await line.gone()
            line.say(b"HTTP/1.1 200 OK\r\nx-target: %b\r\ncontent-length: 0\r\n\r\n" % target)

    caller = await (await front(await upstream(script))).caller()
    for piece in large(framing):
        caller.writer.write(piece)
    async with asyncio.timeout(1):
        assert (await caller.answer()).status == 401
    assert await next_target(caller) in (b"/last", b"")
    assert set(targets) <= {b"/", b"/last"}


EARLY: dict[int, tuple[str, str]] = {
    400: ("POST", "/a//b"),
    401: ("POST", "/key"),
    404: ("POST", "/nowhere"),
    405: ("DELETE", "/get"),
    429: ("POST", "/rare"),
}


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("fields", [(), ("Connection: close",), ("Expect: 100-continue",)])
async def test_what_the_gateway_answers_early_is_heard_and_the_body_is_no_request(
    framing: str, fields: tuple[str, ...], upstream: Behind, front: Front
) -> None:
    strict = Strict()
    limit: list[Any] = [{"rate_limit": {"limit": "1/hour", "by": "route"}}]
    routes = [
        {"name": "key", "path": "/key", "upstream": "up", "components": ["key_auth"]},
        {"name": "get", "path": "/get", "upstream": "up", "methods": ["GET"]},
        {"name": "rare", "path": "/rare", "upstream": "up", "components": limit},
        {"name": "last", "path": "/last", "upstream": "up"},
    ]
    serving = await front(await upstream(strict), config={"routes": routes})
    assert (await (await serving.caller()).ask("/rare")).status == 200
    for status, (method, path) in EARLY.items():
        caller = await serving.caller()
        for piece in large(framing, *fields, path=path, method=method):
            caller.writer.write(piece)
        async with asyncio.timeout(1):
            answer = await caller.answer()
        assert answer.status == status
        assert answer.all(b"connection") == ([b"close"] if fields else [])
        assert await next_target(caller) == (b"" if fields else b"/last")
    assert set(strict.targets) <= {b"/rare", b"/last"}


async def test_a_refused_head_is_heard_by_a_caller_who_sends_on(upstream: Behind, front: Front) -> None:
    up = await upstream()
    serving = await front(up)
    for more, status in (("X: " + "a" * 80_000, 431), ("Content-Length: 1, 2", 400)):
        caller = await serving.caller()
        for piece in large("chunks", more):
            caller.writer.write(piece)
        async with asyncio.timeout(1):
            answer = await caller.answer()
        assert (answer.status, answer.all(b"connection")) == (status, [b"close"])
        assert await caller.reader.read() == b""
    assert not up.heads
