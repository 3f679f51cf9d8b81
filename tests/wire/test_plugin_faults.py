"""A plugin that misbehaves hurts its own requests only, and is named."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint
from typing import Any, Literal

import pytest

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.errors import ConfigError
from asgi_gateway.exchange import Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.hookspecs import hookimpl
from asgi_gateway.plugins import load
from asgi_gateway.stage import Stage
from tests.wire.conftest import Caller, Serving, served


class Bad(Component, name="bad", stage=Stage.GUARD):
    """Does something wrong."""

    does: Literal["raise", "raise_late", "twice", "nothing", "at_end", "cancels"]
    """What."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        async def bad(scope: Scope, receive: Receive, send: Send) -> None:
            if self.does == "raise":
                raise RuntimeError("a fault of the plugin")
            if self.does == "cancels":
                raise asyncio.CancelledError
            if self.does == "at_end":
                Exchange.of(scope).on_end(lambda exchange: 1 / 0)  # type: ignore[arg-type, return-value]
            if self.does != "nothing":
                await app(scope, receive, send)
            if self.does == "raise_late":
                raise RuntimeError("a late fault of the plugin")
            if self.does == "twice":
                await app(scope, receive, send)

        return bad


class Plugin:
    @hookimpl
    def gateway_components(self) -> Iterable[type[Component]]:
        return [Bad]


@asynccontextmanager
async def serving(does: str) -> AsyncIterator[Serving]:
    document: dict[str, Any] = {
        "upstreams": {"app": {"asgi": "tests.wire.test_upstreams:app"}},
        "routes": [
            {"name": "bad", "path": "/bad", "upstream": "app", "components": [{"bad": {"does": does}}]},
            {"name": "good", "path": "/good", "upstream": "app"},
        ],
    }
    async with served(Gateway.parse(document, plugins=[Plugin()])) as front:
        yield front


async def status(caller: Caller, path: str) -> int | str:
    """The status of an answer, or how the connection ended instead."""
    try:
        return (await caller.ask(path)).status
    except (asyncio.IncompleteReadError, ConnectionError):
        return "cut"


@pytest.mark.parametrize(
    ("does", "seen"),
    [
        ("raise", 500),
        ("nothing", 500),
        ("cancels", 500),
        ("at_end", 200),
        ("raise_late", 200),
        ("twice", 200),
    ],
)
async def test_a_component_that_misbehaves_hurts_only_its_own_requests(does: str, seen: int) -> None:
    async with serving(does) as front:
        assert await status(await front.caller(), "/bad") == seen
        assert await status(await front.caller(), "/good") == 200


async def test_a_component_that_raises_denies_and_the_log_names_its_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving("raise") as front:
        with caplog.at_level(logging.ERROR, "asgi_gateway"):
            answered = await (await front.caller()).ask("/bad")
    told = json.loads(answered.body)
    assert (told["reason"], told["route"]) == ("internal_error", "bad")
    assert "a fault of the plugin" not in answered.body.decode()
    assert told["request_id"] in caplog.text
    assert "a fault of the plugin" in caplog.text


@pytest.mark.parametrize(
    ("offers", "told"),
    [
        (RuntimeError("no"), "gateway_components of plugin"),
        (["nothing"], "'nothing' is not a subclass of Component"),
        ([Component], "Component has no name"),
    ],
)
def test_a_plugin_that_cannot_be_registered_is_a_sentence(offers: Any, told: str) -> None:
    class Broken:
        @hookimpl
        def gateway_components(self) -> Iterable[type[Component]]:
            if isinstance(offers, Exception):
                raise offers
            found: Iterable[type[Component]] = offers
            return found

    with pytest.raises(ConfigError) as refused:
        Gateway.parse({}, plugins=[Broken()])
    assert told in str(refused.value)


def test_a_plugin_that_raises_at_import_is_a_sentence() -> None:
    with pytest.raises(ConfigError) as refused:
        load(EntryPoint("gone", "asgi_gateway_that_is_not_there", "asgi_gateway"))
    told = str(refused.value)
    assert "plugin 'gone' (asgi_gateway_that_is_not_there) cannot be imported" in told
    assert "plugins: {disable: [gone]}" in told
