"""A configuration that was replaced goes on for its requests, and not for ever."""

import asyncio
import json
from typing import Any

import pytest

from asgi_gateway.config import GatewayConfig

from .conftest import Behind, Front, Line

SOON: dict[str, Any] = {"server": {"limits": {"retired": "50ms"}}}


async def hangs(line: Line) -> None:
    await line.head()
    await line.gone()


async def streams(line: Line) -> None:
    await line.head()
    line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun")
    await line.gone()


async def test_requests_that_outlive_their_configuration_are_told_to_try_again(
    upstream: Behind, front: Front
) -> None:
    up = await upstream(hangs)
    serving = await front(up, config=SOON)
    caller = await serving.caller()
    caller.say()
    while not up.heads:
        await asyncio.sleep(0.001)
    before = serving.gateway._live
    await serving.gateway.reload(serving.gateway.config)
    answer = await caller.answer()
    assert (answer.status, json.loads(answer.body)["reason"]) == (503, "configuration_expired")
    assert answer.all(b"retry-after") == [b"1"]
    await up.closed.wait()
    assert not before.active
    assert len(before.lease) == 0


async def test_answers_that_outlive_their_configuration_are_cut(upstream: Behind, front: Front) -> None:
    up = await upstream(streams)
    serving = await front(up, config=SOON)
    caller = await serving.caller()
    caller.say()
    assert (await caller.head()).status == 200
    await serving.gateway.reload(serving.gateway.config)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await caller.reader.readexactly(100)
    await up.closed.wait()


async def test_requests_that_end_in_time_notice_nothing(upstream: Behind, front: Front) -> None:
    up = await upstream()
    serving = await front(up)
    caller = await serving.caller()
    before = serving.gateway._live
    assert (await caller.ask()).status == 200
    await serving.gateway.reload(GatewayConfig.model_validate(serving.gateway.config))
    assert before.timer is None
    assert (await caller.ask()).status == 200
