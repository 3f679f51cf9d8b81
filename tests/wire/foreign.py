"""The gateway under its own server and under others, as processes in front of upstreams of the test."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import Running, gateway, running
from tests.wire.conftest import Raw, raw
from tests.wire.spelled import PROTECTED, ROUTES
from tests.wire.strict import Strict

APP = "tests.wire.mounted:app"


def commands(port: str) -> dict[str, tuple[str, ...]]:
    """Each server with this app on this port."""
    uvicorn = ("uvicorn", APP, "--port", port, "--no-proxy-headers", "--log-level", "error")
    return {
        "h11": (*uvicorn, "--http", "h11"),
        "httptools": (*uvicorn, "--http", "httptools"),
        "granian": ("granian", APP, "--port", port, "--interface", "asgi", "--log-level", "error"),
        "hypercorn": ("hypercorn", APP, "--bind", f"127.0.0.1:{port}", "--log-level", "error"),
    }


NAMES = ("own", *commands(""))


@dataclass
class Server:
    """A server with the gateway in it, and what stands behind."""

    port: int
    process: Running
    strict: Strict
    upstream: Raw

    @property
    def memory(self) -> int:
        """Resident bytes of all its processes."""
        children = Path(f"/proc/{self.process.process.pid}/task/{self.process.process.pid}/children")
        pids = [self.process.process.pid, *map(int, children.read_text().split())]
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        return pages * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def document(upstream: Raw) -> dict[str, Any]:
    return {
        "consumers": [{"name": "acme", "keys": ["k-1"]}],
        "upstreams": {name: {"targets": [upstream.url]} for name in PROTECTED},
        "routes": ROUTES,
    }


async def listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


@asynccontextmanager
async def servers(folder: Path) -> AsyncIterator[Mapping[str, Server]]:
    """All of them, each with an upstream of its own."""
    async with AsyncExitStack() as stack, asyncio.timeout(20) as clock:
        started: dict[str, Server] = {}
        for name in NAMES:
            strict, port = Strict(), free_port()
            upstream = await stack.enter_async_context(raw(strict))
            if name == "own":
                (folder / name).mkdir()
                listen = {"server": {"listen": f"127.0.0.1:{port}"}}
                process = gateway(folder / name, document(upstream) | listen)
            else:
                env = {"TEST_GATEWAY": json.dumps(document(upstream))}
                process = running("-m", *commands(str(port))[name], env=env, quiet=False)
            started[name] = Server(port, await stack.enter_async_context(process), strict, upstream)
        await asyncio.gather(*(listening(server.port) for server in started.values()))
        clock.reschedule(None)
        yield started
