"""The Autobahn test-suite, through a gateway, in both directions."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from asgi_gateway.gateway import Gateway
from tests.autobahn import Missing, wstest

from .conftest import served

CASES = [f"{section}.*" for section in (1, 2, 3, 4, 5, 6, 7, 10)]
"""Without 9 (how fast it is), 12 and 13 (compression, which no hop agrees to)."""
SECONDS = 120.0
CALLED = "%61gent=gateway"
"""The name in the report; the suite reads it as any server has to, decoded."""
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
LATE = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}
"""An echo is expected before the frame that breaks the protocol; but that one came with it, and ended it."""
WHOLE = {"6.4.1", "6.4.2", "6.4.3", "6.4.4"}
"""Whether a text is UTF-8 is decided about whole messages, not about fragments."""


@pytest.fixture(scope="module")
def suite() -> Path:
    try:
        return wstest()
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def quiet() -> logging.Logger:
    """For the upstream, which cannot know that its callers misbehave on purpose."""
    logger = logging.getLogger("tests.autobahn")
    logger.setLevel(logging.CRITICAL + 1)
    return logger


def gateway(port: int, **options: Any) -> Gateway:
    return Gateway.parse(
        {
            "routes": [{"name": "all", "path": "/*", "websocket": True, "upstream": "up"}],
            "upstreams": {"up": {"targets": [f"http://127.0.0.1:{port}"], **options}},
        }
    )


async def echo(peer: ServerConnection | ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in peer:
            await peer.send(message)


@contextlib.asynccontextmanager
async def running(
    suite: Path, mode: str, folder: Path, **spec: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    file = folder / "spec.json"
    file.write_text(json.dumps({"outdir": str(folder), "cases": CASES, "exclude-cases": [], **spec}))
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            suite, "-m", mode, "-s", file, cwd=folder, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def judge(folder: Path) -> None:
    """Fail with all cases that did not end well."""
    ((_, cases),) = json.loads((folder / "index.json").read_text()).items()
    assert len(cases) == 247
    ends = {name: (case["behavior"], case["behaviorClose"]) for name, case in cases.items()}
    assert {name: end for name, end in ends.items() if not GOOD.issuperset(end)} == {}
    assert {name for name, end in ends.items() if "NON-STRICT" in end} <= LATE | WHOLE


async def test_callers_that_try_everything_find_no_fault(
    suite: Path, quiet: logging.Logger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listening = serve(echo, "127.0.0.1", 0, compression=None, max_size=None, logger=quiet)
    async with listening as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with served(gateway(port), seconds=SECONDS) as front:
            servers = [{"url": f"ws://127.0.0.1:{front.port}"}]
            async with running(suite, "fuzzingclient", tmp_path, servers=servers) as process:
                await process.wait()
    judge(tmp_path)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_targets_that_try_everything_find_no_fault(
    suite: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with (
        running(suite, "fuzzingserver", tmp_path, url=f"ws://127.0.0.1:{port}"),
        served(gateway(port, host="target"), seconds=SECONDS) as front,
    ):
        await answers(port)
        address = f"ws://127.0.0.1:{front.port}"
        async with connect(f"{address}/getCaseCount", proxy=None) as socket_:
            count = int(await socket_.recv())
        for number in range(1, count + 1):
            case = f"{address}/runCase?case={number}&{CALLED}"
            async with connect(case, proxy=None, compression=None, max_size=None) as socket_:
                await echo(socket_)
        async with connect(f"{address}/updateReports?{CALLED}", proxy=None) as socket_:
            await echo(socket_)
    judge(tmp_path)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def answers(port: int) -> None:
    """Wait until somebody listens."""
    while True:
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.05)
