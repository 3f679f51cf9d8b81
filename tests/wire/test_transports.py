"""What can carry requests to an upstream instead of the gateway's own HTTP/1.1."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from hypercorn.asyncio import serve
from hypercorn.config import Config

from asgi_gateway.asgi import Receive, Scope, Send
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from tests.peers import peer

from .conftest import served

PIECES = 50


class Own(httpx.AsyncBaseTransport):
    """Answers by itself, with what it was asked for."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = request.extensions["target"]
        return httpx.Response(200, headers=[("X-Target", target)], stream=httpx.ByteStream(b"own"))


def not_a_transport() -> str:
    return "nothing"


def breaks() -> httpx.AsyncBaseTransport:
    raise RuntimeError("no")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says what it saw of the request, and how many bytes came."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    seen = {
        "http": scope["http_version"],
        "path": scope["raw_path"].decode(),
        "size": size,
        "fields": [(name.decode(), value.decode()) for name, value in scope["headers"]],
    }
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    await send({"type": "http.response.start", "status": 201, "headers": cookies})
    body = json.dumps(seen).encode()
    for piece in (body[:10], body[10:]):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def hypercorn(folder: Path, authority: trustme.CA | None) -> AsyncIterator[str]:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    if authority is not None:
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        config.certfile, config.keyfile = str(folder / "cert.pem"), str(folder / "key.pem")
    sockets = config.create_sockets()
    (opened,) = sockets.secure_sockets or sockets.insecure_sockets
    port = opened.getsockname()[1]
    config.bind = [f"fd://{opened.detach()}"]
    stop = asyncio.Event()
    task = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    try:
        yield f"{'https' if authority else 'http'}://127.0.0.1:{port}"
    finally:
        stop.set()
        await task


def document(**upstream: Any) -> dict[str, Any]:
    return {"upstreams": {"up": upstream}, "routes": [{"name": "all", "path": "/*", "upstream": "up"}]}


@pytest.mark.parametrize("secure", [False, True])
async def test_http2_carries_requests_and_answers(tmp_path: Path, secure: bool) -> None:
    authority = trustme.CA() if secure else None
    async with hypercorn(tmp_path, authority) as url:
        tls = {"tls": {"ca": str(tmp_path / "ca.pem")}} if secure else {}
        config = document(targets=[url], transport="http2", **tls)
        async with served(Gateway.parse(config)) as front:
            callers = [await front.caller() for _ in range(10)]
            answers = await asyncio.gather(
                *(caller.ask("/a%20b?c", "X-Twice: 1", "X-Twice: 2") for caller in callers)
            )
            for answer in answers:
                seen = json.loads(answer.body)
                assert (answer.status, seen["http"], seen["path"]) == (201, "2", "/a%20b")
                assert answer.all(b"set-cookie") == [b"a=1", b"b=2"]
                assert [value for name, value in seen["fields"] if name == "x-twice"] == ["1", "2"]
            sent = await callers[0].ask(method="POST", body=b"x" * 200_000)
            assert json.loads(sent.body)["size"] == 200_000


async def test_http2_and_http1_to_one_target_do_not_share_what_they_offer(tmp_path: Path) -> None:
    authority = trustme.CA()
    async with hypercorn(tmp_path, authority) as url:
        options = {"targets": [url], "tls": {"ca": str(tmp_path / "ca.pem")}}
        config = {
            "upstreams": {"two": {**options, "transport": "http2"}, "one": options},
            "routes": [{"name": name, "path": f"/{name}", "upstream": name} for name in ("one", "two")],
        }
        async with served(Gateway.parse(config)) as front:
            for _ in range(2):
                for name, version in (("two", "2"), ("one", "1.1")):
                    seen = json.loads((await (await front.caller()).ask(f"/{name}")).body)
                    assert seen["http"] == version


async def test_a_transport_of_the_users_own_carries_requests() -> None:
    config = document(targets=["http://nowhere.test"], transport="tests.wire.test_transports:Own")
    async with served(Gateway.parse(config)) as front:
        answer = await (await front.caller()).ask("/a%20b?c=d")
    assert (answer.body, answer.all(b"x-target")) == (b"own", [b"/a%20b?c=d"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("http3", "'http3' is not a transport (one of http1, http2, httpx, or package.module:name"),
        (
            "tests.wire.test_transports:gone",
            "upstream up: 'tests.wire.test_transports:gone' cannot be imported",
        ),
        ("tests.wire.test_transports:PIECES", "is not something that makes a transport but of type int"),
        ("tests.wire.test_transports:not_a_transport", "makes a str, not an httpx.AsyncBaseTransport"),
        ("tests.wire.test_transports:breaks", "cannot be made: RuntimeError: no"),
    ],
)
def test_a_transport_that_cannot_be_had_is_a_sentence(name: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Gateway.parse(document(targets=["http://nowhere.test"], transport=name))
    assert told in str(refused.value)


async def test_a_target_that_does_not_speak_http2_is_a_bad_gateway(tmp_path: Path) -> None:
    async def http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")

    async with peer(http1) as port:
        gateway = Gateway.parse(document(targets=[f"http://127.0.0.1:{port}"], transport="http2"))
        async with served(gateway) as front:
            answer = await (await front.caller()).ask()
    assert answer.status == 502


def test_tls_contexts_are_not_needed_before_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> ssl.SSLContext:
        raise AssertionError("a context was made")

    monkeypatch.setattr(ssl, "create_default_context", refuse)
    for transport in ("http1", "http2", "httpx"):
        Gateway.parse(document(targets=["https://a.test"], transport=transport))
