"""The deadline of a route holds for the whole request, whatever waits in it; and who knows of it (P30)."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.hookspecs import hookimpl
from asgi_gateway.stage import Stage

from .conftest import Answer, Behind, Front, Line, served


class Hang(Component, name="hang", stage=Stage.GUARD):
    """Waits for ever, before or after the request was answered."""

    late: bool = False
    """Whether the head of an answer goes out before."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        async def hang(scope: Scope, receive: Receive, send: Send) -> None:
            if self.late:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"some", "more_body": True})
            await asyncio.Event().wait()

        return hang


class Plugin:
    @hookimpl
    def gateway_components(self) -> Iterable[type[Component]]:
        return [Hang]


def hanging(**options: Any) -> Gateway:
    document = {
        "upstreams": {"app": {"asgi": "tests.wire.test_upstreams:app"}},
        "routes": [
            {
                "name": "all",
                "path": "/*",
                "upstream": "app",
                "timeout": "50ms",
                "components": [{"hang": options}],
            }
        ],
    }
    return Gateway.parse(document, plugins=[Plugin()])


async def test_a_component_that_never_answers_is_a_504_at_the_deadline_of_the_route() -> None:
    async with served(hanging()) as front:
        answer = await (await front.caller()).ask()
    assert (answer.status, json.loads(answer.body)["reason"]) == (504, "total_timeout")


async def test_an_answer_that_never_ends_is_cut_at_the_deadline_of_the_route() -> None:
    async with served(hanging(late=True)) as front:
        caller = await front.caller()
        caller.say()
        assert (await caller.head()).status == 200
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await caller.reader.readuntil(b"0\r\n\r\n")


# The deadline of who asked


HEADER = "X-Request-Timeout-Ms"


async def told(
    upstream: Behind, front: Front, *fields: str, trusted: bool = True, **options: Any
) -> tuple[Answer, list[int]]:
    """What a caller gets, and what the targets were told."""
    up = await upstream()
    config = {
        "deadline_header": HEADER,
        "trusted_proxies": ["127.0.0.1"] if trusted else [],
        **options.pop("config", {}),
    }
    serving = await front(up, config=config, **options)
    answer = await (await serving.caller()).ask("/", *fields)
    rows = [row.partition(b": ") for head in up.heads for row in head.split(b"\r\n")]
    return answer, [
        int(value) for name, _, value in rows if name.replace(b"_", b"-") == HEADER.lower().encode()
    ]


async def test_a_target_is_told_what_is_left(upstream: Behind, front: Front) -> None:
    answer, (left,) = await told(upstream, front, timeout={"total": "20s"})
    assert answer.status == 200
    assert 10_000 < left <= 20_000


async def test_a_trusted_proxy_shortens_it(upstream: Behind, front: Front) -> None:
    _, (left,) = await told(upstream, front, f"{HEADER}: 9000")
    assert 4000 < left <= 9000


@pytest.mark.parametrize(
    "bounds", [{"timeout": {"total": "15s"}}, {"route": {"timeout": "15s"}}], ids=["upstream", "route"]
)
async def test_nobody_extends_it(upstream: Behind, front: Front, bounds: dict[str, Any]) -> None:
    _, (left,) = await told(upstream, front, f"{HEADER}: 600000", **bounds)
    assert 5000 < left <= 15_000


async def test_that_of_anybody_else_is_dropped(upstream: Behind, front: Front) -> None:
    fields = (f"{HEADER}: 7", f"{HEADER.replace('-', '_')}: 8", f"{HEADER}: soon")
    answer, (left,) = await told(upstream, front, *fields, trusted=False)
    assert answer.status == 200
    assert left > 10_000


@pytest.mark.parametrize(
    "fields",
    [("soon",), ("-1",), ("1.5",), ("",), ("5", "6"), ("9" * 13,)],
    ids=["word", "negative", "fraction", "empty", "two", "endless"],
)
async def test_what_is_no_number_is_refused(upstream: Behind, front: Front, fields: tuple[str, ...]) -> None:
    answer, lefts = await told(upstream, front, *(f"{HEADER}: {value}" for value in fields))
    assert (answer.status, json.loads(answer.body)["reason"], lefts) == (400, "bad_deadline", [])


async def test_a_request_whose_time_is_over_is_not_sent(upstream: Behind, front: Front) -> None:
    answer, lefts = await told(upstream, front, f"{HEADER}: 0")
    assert (answer.status, json.loads(answer.body)["reason"], lefts) == (504, "total_timeout", [])


async def test_a_deadline_of_who_asked_ends_the_call(upstream: Behind, front: Front) -> None:
    async def silent(line: Line) -> None:
        await line.head()
        await line.gone()

    up = await upstream(silent)
    config = {"deadline_header": HEADER, "trusted_proxies": ["127.0.0.1"]}
    answer = await (await (await front(up, config=config)).caller()).ask("/", f"{HEADER}: 500")
    assert (answer.status, json.loads(answer.body)["reason"]) == (504, "total_timeout")
    await up.closed.wait()


async def test_each_attempt_is_told_less(upstream: Behind, front: Front) -> None:
    async def late(line: Line) -> None:
        await line.head()
        await asyncio.sleep(0.03)
        line.say(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
        await line.gone()

    first, second = await upstream(late), await upstream()
    retry = [{"retry": {"back_off": "0s"}}]
    serving = await front(first, second, components=retry, config={"deadline_header": HEADER})
    assert (await (await serving.caller()).ask()).status == 200
    before, after = (
        int(up.heads[0].partition(HEADER.lower().encode() + b": ")[2].partition(b"\r")[0])
        for up in (first, second)
    )
    assert after <= before - 30


@pytest.mark.parametrize("name", ["Host", "content-length", "X-Forwarded-For", "a b", "Connection"])
def test_the_field_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ConfigError):
        Gateway.parse({"deadline_header": name})
