"""curl and wrk through the gateway, to nginx and to a uvicorn app; reloads and lost upstreams in between."""

import asyncio
import os
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import gateway, running

NGINX = shutil.which("nginx", path=os.defpath + ":/usr/sbin") or ""

pytestmark = pytest.mark.skipif(
    not (NGINX and shutil.which("wrk") and shutil.which("curl")),
    reason="scripts/setup installs nginx, wrk and curl where it may",
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def nginx(folder: Path) -> AsyncIterator[str]:
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;\n"
        "events { worker_connections 512; }\n"
        "http { access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fcgi;"
        " uwsgi_temp_path uwsgi; scgi_temp_path scgi; keepalive_requests 1000;"
        f" server {{ listen 127.0.0.1:{port}; location / {{ return 200 'from nginx $request_uri'; }} }} }}\n"
    )
    process = await asyncio.create_subprocess_exec(
        NGINX, "-p", str(folder), "-c", "nginx.conf", stderr=asyncio.subprocess.DEVNULL
    )
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except ConnectionError:
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode()


def document(url: str, app: str, routes: int = 1) -> dict[str, Any]:
    more = [{"name": f"r{n}", "path": f"/r{n}/{{id}}", "upstream": "nginx"} for n in range(routes)]
    return {
        "upstreams": {"nginx": {"targets": [url]}, "app": {"targets": [app]}},
        "routes": [
            {"name": "nginx", "path": "/nginx/*", "upstream": "nginx"},
            {"name": "app", "path": "/app/*", "upstream": "app"},
            *more,
        ],
    }


def lost(report: str) -> list[str]:
    """What wrk complains of."""
    return re.findall(r"Socket errors:.*|Non-2xx.*", report)


async def test_curl_and_wrk_get_every_answer_also_while_the_gateway_reloads(tmp_path: Path) -> None:
    async with nginx(tmp_path) as url:
        port = free_port()
        options = ("--port", str(port), "--log-level", "warning", "--lifespan", "off")
        async with running("-m", "uvicorn", "tests.wire.test_upstreams:app", *options):
            wanted = document(url, f"http://127.0.0.1:{port}", routes=500)
            async with gateway(tmp_path, wanted) as front:
                assert (
                    await output("curl", "-s", f"{front.url}/nginx/a%20b?x=1")
                    == "from nginx /nginx/a%20b?x=1"
                )
                retry = ("--retry", "20", "--retry-all-errors", "--retry-delay", "0")
                assert await output("curl", "-sf", *retry, f"{front.url}/app/x") == "from the app"
                load = asyncio.ensure_future(output("wrk", "-t1", "-c16", "-d2", f"{front.url}/nginx/x"))
                for number in range(5):
                    front.signal(signal.SIGHUP)
                    await front.says("was read again", times=number + 1)
                report = await load
                assert int(re.findall(r"(\d+) requests in", report)[0]) > 100
                assert lost(report) == []


async def test_an_upstream_that_dies_is_a_502_and_one_that_comes_back_serves(tmp_path: Path) -> None:
    wrong = f"http://127.0.0.1:{free_port()}"
    async with nginx(tmp_path) as url, gateway(tmp_path, document(url, wrong)) as front:
        status = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}")
        assert await output(*status, f"{front.url}/nginx/x") == "200"
        assert await output(*status, f"{front.url}/app/x") == "502"
        assert await output(*status, f"{front.url}/nginx/x") == "200"
