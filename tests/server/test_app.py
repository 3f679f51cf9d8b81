"""The gateway under other people's servers: `asgi_gateway.server:app`."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.processes import running

from .conftest import get

Document = dict[str, Any]

APP = "asgi_gateway.server:app"
FILE = "ASGI_GATEWAY_CONFIG"
SERVERS = {
    "uvicorn": ("-m", "uvicorn", APP, "--port"),
    "granian": ("-m", "granian", "--interface", "asgi", APP, "--port"),
    "hypercorn": ("-m", "hypercorn", "asgi_gateway.server:load({file!r})", "--bind"),
}
READY = {"uvicorn": "running on", "granian": "Started worker", "hypercorn": "Running on"}


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago: these servers do not say which one they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(server: str, port: int, file: object = "") -> list[str]:
    start = [word.format(file=str(file)) for word in SERVERS[server]]
    return [*start, f"127.0.0.1:{port}" if server == "hypercorn" else str(port)]


@pytest.mark.parametrize("server", SERVERS)
async def test_it_serves_under(server: str, tmp_path: Path, document: Document, port: int) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(document))
    env = {"ASGI_GATEWAY_CONFIG": str(file)}
    async with running(*command(server, port, file), env=env) as one:
        await one.says(READY[server])
        assert (await get(f"http://127.0.0.1:{port}/a")).text == "/a "
        assert (await get(f"http://127.0.0.1:{port}/other/a")).text == "other"


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
@pytest.mark.parametrize("file", ["", "/gone/gateway.yaml"])
async def test_without_a_usable_file_it_ends_in_a_sentence(server: str, file: str, port: int) -> None:
    expected = "gateway.yaml: cannot be read" if file else "ASGI_GATEWAY_CONFIG names no configuration file"
    async with running(*command(server, port), env={"ASGI_GATEWAY_CONFIG": file}) as one:
        await one.says(expected)
        if server == "uvicorn":
            assert await one.ended() == 3


async def test_importing_the_package_reads_nothing() -> None:
    code = "import asgi_gateway.server, sys; print('asgi_gateway.gateway' in sys.modules)"
    async with running("-c", code, env={"ASGI_GATEWAY_CONFIG": "/gone"}) as one:
        assert await one.ended() == 0
    assert one.out == ["False"]
