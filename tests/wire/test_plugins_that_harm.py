"""Plugins that leak, that do not end and that do not answer, in a process: others are served (P60)."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.measuring import busy_while_idle, linux
from tests.processes import Running, gateway
from tests.wire.conftest import Behind, Caller
from tests.wire.load import leave, load


def behind(url: str) -> dict[str, Any]:
    def route(name: str, kind: str) -> dict[str, Any]:
        harm = {"middleware": {"cls": f"tests.wire.middlewares:{kind}"}}
        return {
            "name": name,
            "path": f"/{name}",
            "upstream": "up",
            "timeout": "300ms",
            "components": [harm],
        }

    return {
        "server": {"grace": "100ms"},
        "upstreams": {"up": {"targets": [url]}},
        "routes": [
            {"name": "all", "path": "/*", "upstream": "up"},
            route("waits", "Waits"),
            route("swallows", "Swallows"),
            route("leaks", "Leaks"),
        ],
    }


async def reach(one: Running) -> Caller:
    return Caller(*await asyncio.open_connection("127.0.0.1", one.port))


@linux
async def test_plugins_that_leak_swallow_and_never_answer_harm_nobody_else(
    tmp_path: Path, upstream: Behind
) -> None:
    async with gateway(tmp_path, behind((await upstream()).url)) as one:
        async with load(one.url) as seen:
            # It leaks tasks: 4,000 at a time.
            leaking = await reach(one)
            for _ in range(3):
                assert (await leaking.ask("/leaks")).body == b"leaked"
            # It swallows that its caller leaves; another caller's deadline passes.
            leaving, waiting = await reach(one), await reach(one)
            leaving.say("/swallows")
            await one.says("waiting")
            await leave(leaving)
            await one.says("not me")
            # It never answers: the deadline of the route does.
            answer = await waiting.ask("/waits")
            assert (answer.status, json.loads(answer.body)["reason"]) == (504, "total_timeout")
            enough = seen.answered + 50
            while seen.answered < enough:
                await asyncio.sleep(0.001)
        assert not seen.failed
        assert await busy_while_idle(one.process.pid) < 0.2
        await leave(leaking, waiting)
        assert await one.stop() == 0
        said = await one.says("a request does not end although it was cancelled; it waits in")
        assert "__call__ (wire/middlewares.py:" in said.string
