"""The deadline of a route holds for the whole request, whatever waits in it."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.gateway import Gateway
from asgi_gateway.hookspecs import hookimpl
from asgi_gateway.stage import Stage

from .conftest import served


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
