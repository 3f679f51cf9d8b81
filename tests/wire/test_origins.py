"""What the gateway forwards means the same to every origin."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from asgi_gateway.gateway import Gateway
from tests.processes import running
from tests.wire.conftest import Serving, served
from tests.wire.foreign import free_port, listening
from tests.wire.talking import LAST

pytestmark = pytest.mark.asyncio(loop_scope="module")

NGINX = shutil.which("nginx", path=os.defpath + ":/usr/sbin") or ""
ECHOES = "tests.wire.echoes"
HOST = b"Host: gw.test\r\n"


def origin_commands(ports: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    uvicorn = ("uvicorn", f"{ECHOES}:asgi", "--log-level", "error", "--lifespan", "off", "--no-proxy-headers")
    return {
        "h11": (*uvicorn, "--http", "h11", "--port", ports["h11"]),
        "httptools": (*uvicorn, "--http", "httptools", "--port", ports["httptools"]),
        "hypercorn": ("hypercorn", f"{ECHOES}:asgi", "--bind", f"127.0.0.1:{ports['hypercorn']}"),
        "aiohttp": ("aiohttp.web", "-H", "127.0.0.1", "-P", ports["aiohttp"], f"{ECHOES}:aiohttp"),
        "gunicorn": ("gunicorn", "-k", "gthread", "-b", f"127.0.0.1:{ports['gunicorn']}", f"{ECHOES}:wsgi"),
    }


NAMES = ("h11", "httptools", "hypercorn", "aiohttp", "gunicorn", *(("nginx",) if NGINX else ()))


async def start_nginx(stack: AsyncExitStack, folder: Path, port: str, behind: str) -> None:
    """nginx passes on what it understood to an echo."""
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; events {{ }}\n"
        "http { access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fcgi;"
        f" uwsgi_temp_path uwsgi; scgi_temp_path scgi; server {{ listen 127.0.0.1:{port};"
        f" location / {{ proxy_pass http://127.0.0.1:{behind}; proxy_http_version 1.1;"
        " proxy_set_header Host $http_host; proxy_set_header Connection ''; } } }\n"
    )
    process = await asyncio.create_subprocess_exec(
        NGINX, "-p", str(folder), "-c", "nginx.conf", stderr=asyncio.subprocess.DEVNULL
    )

    async def end() -> None:
        process.terminate()
        await process.wait()

    stack.push_async_callback(end)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fronts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Serving]]:
    """A gateway in front of each origin."""
    ports = {name: str(free_port()) for name in NAMES}
    async with AsyncExitStack() as stack:
        for command in origin_commands(ports).values():
            await stack.enter_async_context(running("-m", *command))
        if NGINX:
            await start_nginx(stack, tmp_path_factory.mktemp("nginx"), ports["nginx"], ports["h11"])
        fronts: dict[str, Serving] = {}
        for name, port in ports.items():
            document = {
                "paths": {"encoded_slash": "keep", "semicolon": "keep"},
                "upstreams": {"up": {"targets": [f"http://127.0.0.1:{port}"]}},
                "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
            }
            async with asyncio.timeout(20):
                await listening(int(port))
            fronts[name] = await stack.enter_async_context(served(Gateway.parse(document)))
        yield fronts


def request(line: str, *fields: bytes, body: bytes = b"", host: bytes = b"gw.test") -> bytes:
    return b"\r\n".join([line.encode("latin-1"), b"Host: " + host, *fields, b"", body])


CHUNKED = b"Transfer-Encoding: chunked"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"

SAID: dict[str, tuple[bytes, str, str, str]] = {
    # What is sent; and method, target and body of what it means.
    "plain": (request("GET /a HTTP/1.1"), "GET", "/a", ""),
    "query": (
        request("GET /a?b=c&b=%2F..%2F&d=e+f&&=&%00 HTTP/1.1"),
        "GET",
        "/a?b=c&b=%2F..%2F&d=e+f&&=&%00",
        "",
    ),
    "query_of_odd_signs": (
        request("GET /a?[b]={c}|d\"e'<f>?/?;g HTTP/1.1"),
        "GET",
        "/a?[b]={c}|d\"e'<f>?/?;g",
        "",
    ),
    "query_empty": (request("GET /a? HTTP/1.1"), "GET", "/a", ""),
    "encoded": (request("GET /a%20b/%e2%82%ac/%7Ec/%41 HTTP/1.1"), "GET", "/a%20b/%E2%82%AC/~c/A", ""),
    "encoded_twice": (request("GET /%252e%252e/%2541 HTTP/1.1"), "GET", "/%252e%252e/%2541", ""),
    "encoded_slash": (request("GET /a%2fb/c;d=e/f HTTP/1.1"), "GET", "/a%2Fb/c;d=e/f", ""),
    "no_utf_8": (request("GET /a%ff HTTP/1.1"), "GET", "/a%FF", ""),
    "odd_path": (
        request("GET /a:b@c!$&'()*+,=~-._/.../..d HTTP/1.1"),
        "GET",
        "/a:b@c!$&'()*+,=~-._/.../..d",
        "",
    ),
    "signs_to_encode": (request('GET /a|b"c<d>^{e} HTTP/1.1'), "GET", "/a%7Cb%22c%3Cd%3E%5E%7Be%7D", ""),
    "absolute": (request("GET http://gw.test/a?b HTTP/1.1"), "GET", "/a?b", ""),
    "port_in_host": (request("GET /a HTTP/1.1", host=b"GW.test:8080"), "GET", "/a", ""),
    "address_as_host": (request("GET /a HTTP/1.1", host=b"[::1]:80"), "GET", "/a", ""),
    "http_1_0": (request("GET /a HTTP/1.0", b"Connection: keep-alive"), "GET", "/a", ""),
    "spaces_in_line": (request("GET  /a  HTTP/1.1"), "GET", "/a", ""),
    "empty_line_before": (b"\r\n" + request("GET /a HTTP/1.1"), "GET", "/a", ""),
    "options": (request("OPTIONS /a HTTP/1.1"), "OPTIONS", "/a", ""),
    "propfind": (request("PROPFIND /a HTTP/1.1", b"Depth: 1"), "PROPFIND", "/a", ""),
    "delete_with_body": (
        request("DELETE /a HTTP/1.1", b"Content-Length: 5", body=b"hello"),
        "DELETE",
        "/a",
        "hello",
    ),
    "get_with_body": (request("GET /a HTTP/1.1", b"Content-Length: 5", body=b"hello"), "GET", "/a", "hello"),
    "get_with_chunks": (request("GET /a HTTP/1.1", CHUNKED, body=HELLO), "GET", "/a", "hello"),
    "post": (request("POST /a HTTP/1.1", b"Content-Length: 2", body=b"\r\n"), "POST", "/a", "\r\n"),
    "post_without_length": (request("POST /a HTTP/1.1"), "POST", "/a", ""),
    "post_of_nothing": (request("POST /a HTTP/1.1", b"Content-Length: 0"), "POST", "/a", ""),
    "post_of_no_chunks": (request("POST /a HTTP/1.1", CHUNKED, body=b"0\r\n\r\n"), "POST", "/a", ""),
    "leading_zeros": (
        request("POST /a HTTP/1.1", b"Content-Length: 0005", body=b"hello"),
        "POST",
        "/a",
        "hello",
    ),
    "upper_case": (
        request("POST /a HTTP/1.1", b"TRANSFER-ENCODING:\tCHUNKED", body=HELLO),
        "POST",
        "/a",
        "hello",
    ),
    "many_chunks": (
        request("PUT /a HTTP/1.1", CHUNKED, body=b"1\r\na\r\n" * 500 + b"0\r\n\r\n"),
        "PUT",
        "/a",
        "a" * 500,
    ),
    "chunk_extension": (
        request("POST /a HTTP/1.1", CHUNKED, body=b'05;x="y;z"\r\n' + HELLO[3:]),
        "POST",
        "/a",
        "hello",
    ),
    "trailers": (
        request("POST /a HTTP/1.1", CHUNKED, body=HELLO[:-2] + b"X-Sum: 1\r\n\r\n"),
        "POST",
        "/a",
        "hello",
    ),
    "body_that_looks_like_a_request": (
        request("POST /a HTTP/1.1", b"Content-Length: 30", body=b"GET /b HTTP/1.1\r\nHost: c.d\r\n\r\n"),
        "POST",
        "/a",
        "GET /b HTTP/1.1\r\nHost: c.d\r\n\r\n",
    ),
    "expectation": (
        request("POST /a HTTP/1.1", b"Expect: 100-continue", b"Content-Length: 5", body=b"hello"),
        "POST",
        "/a",
        "hello",
    ),
    "upgrade": (
        request(
            "POST /a HTTP/1.1",
            b"Connection: upgrade, http2-settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMA",
            b"Content-Length: 5",
            body=b"hello",
        ),
        "POST",
        "/a",
        "hello",
    ),
    "fields": (
        request(
            "GET /a HTTP/1.1",
            b"X-A: 1",
            b"x-b:2",
            b"X-A:\t 3 ",
            b"X-Empty:",
            b"X-Obs: \xe9\xff",
            b"X-Long: " + b"a" * 3000,
        ),
        "GET",
        "/a",
        "",
    ),
    "tabs_around_a_value": (request("GET /a HTTP/1.1", b"X-A: \t a\tb \t "), "GET", "/a", ""),
    "odd_signs_in_values": (
        request("GET /a HTTP/1.1", b'X-A: a;b="c,d\\"e", (f) <g>:;=?{}@'),
        "GET",
        "/a",
        "",
    ),
    "named_by_connection": (
        request("GET /a HTTP/1.1", b"Connection: X-Gone", b"X-Gone: 1", b"X-Kept: 1"),
        "GET",
        "/a",
        "",
    ),
    "cookies": (request("GET /a HTTP/1.1", b'Cookie: a=1; b="2"; c=%20'), "GET", "/a", ""),
    "digits_as_name": (request("GET /a HTTP/1.1", b"123: 4"), "GET", "/a", ""),
}


async def understood(front: Serving, data: bytes) -> dict[str, Any]:
    """What an origin says of a request, and whether it finds the next one behind it."""
    caller = await front.caller()
    caller.writer.write(data + LAST)
    answer = await caller.answer()
    while answer.status == 100:
        answer = await caller.answer()
    assert answer.status == 200, answer
    told: dict[str, Any] = json.loads(answer.body)
    if not answer.all(b"connection"):
        assert json.loads((await caller.answer()).body)["target"] == "/last"
    caller.leave()
    return told


async def test_every_origin_understands_the_same(fronts: dict[str, Serving]) -> None:
    for case, (data, *wanted) in SAID.items():
        seen = await asyncio.gather(*(understood(front, data) for front in fronts.values()))
        told = dict(zip(fronts, seen, strict=True))
        assert [seen[0]["method"], seen[0]["target"], seen[0]["body"]] == wanted, case
        assert {name: each for name, each in told.items() if each != seen[0]} == {}, f"{case}: {seen[0]}"
