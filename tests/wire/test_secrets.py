"""Secrets never leave, and every request has one line that says how it ended (P59)."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.processes import Running, asgi_gateway, gateway

from .conftest import Caller, Line, raw

KEY, TOKEN, COOKIE, WRONG = "canary-key-4711", "canary-token-4712", "canary-cookie-4713", "canary-wrong-4714"
SECRETS = (KEY, TOKEN, COOKIE, WRONG)


async def script(line: Line) -> None:
    """What a path asks for; a secret that comes is not said again."""
    while True:
        target = (await line.head()).split(b" ")[1]
        if b"/reset" in target:
            line.writer.transport.abort()
            return
        if b"/garbage" in target:
            line.say(b"this is not HTTP\r\n\r\n")
            return
        if b"/cut" in target:
            line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nsome")
            return
        if b"/hang" in target:
            line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nsome")
            await line.gone()
            return
        line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def document(url: str, log: Path) -> dict[str, Any]:
    return {
        "upstreams": {"up": {"targets": [url]}, "broken": {"asgi": "tests.wire.test_secrets:broken"}},
        "consumers": [{"name": "alice", "keys": ["${CANARY_KEY}"]}],
        "components": [
            {"access_log": {"file": str(log)}},
            {"key_auth": {"query": ["key"], "cookies": ["key"]}},
            {"headers": {"request": {"set": {"x-token": "${CANARY_TOKEN}"}}}},
        ],
        "routes": [
            {"name": "up", "path": "/up/*", "upstream": "up"},
            {"name": "broken", "path": "/broken", "upstream": "broken"},
        ],
    }


async def broken(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("an app that fails")


REQUESTS = {
    "/up/answered": ("answered", ""),
    "/up/reset": ("upstream_failed", "reset"),
    "/up/garbage": ("upstream_failed", "protocol_error"),
    "/up/cut": ("aborted", "reset"),
    "/up/hang": ("caller_left", ""),
    "/up/wrong": ("refused", "unknown_key"),
    "/up/none": ("refused", "no_key"),
    "/broken": ("upstream_failed", "raised"),
    "/nowhere": ("refused", "no_route"),
    "/up/a//b": ("refused", "double_slash"),
}


async def ask(one: Running, path: str) -> bytes:
    """One request with secrets wherever they can stand; everything that came back."""
    place = urlsplit(one.url)
    caller = Caller(*await asyncio.open_connection(place.hostname, place.port))
    key = {"/up/wrong": WRONG, "/up/none": ""}.get(path, KEY)
    fields = [f"Cookie: session={COOKIE}", f"Authorization: Bearer {WRONG}", "Connection: close"]
    if key:
        fields.append(f"X-API-Key: {key}")
    caller.say(f"{path}?token={COOKIE}", *fields)
    if path == "/up/hang":
        await caller.reader.readuntil(b"some")
        caller.leave()
        return b""
    try:
        return await caller.reader.read()
    except ConnectionError:
        return b""
    finally:
        caller.leave()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_secrets_are_found_nowhere_and_every_request_has_one_line(tmp_path: Path, workers: str) -> None:
    log = tmp_path / "access.log"
    env = {"CANARY_KEY": KEY, "CANARY_TOKEN": TOKEN}
    async with raw(script) as up:
        written = document(up.url, log)
        async with gateway(tmp_path, written, "--workers", workers, env=env, quiet=False) as one:
            came = [await ask(one, path) for path in REQUESTS]
            one.write({**written, "routes": [{"name": "x", "path": "${CANARY_TOKEN}", "upstream": "up"}]})
            one.signal(1)  # SIGHUP
            await one.says("the new configuration is refused")
            assert await one.stop() == 0
        assert TOKEN.encode() in b"".join(up.heads)
        assert KEY.encode() not in b"".join(up.heads)
    checked = await asgi_gateway("check", str(one.file), env=env)
    listed = await asgi_gateway("routes", str(one.file), env=env)
    told = "\n".join([*map(str, (one, checked, listed)), log.read_text(), *(each.decode() for each in came)])
    # The app that fails has a traceback in the log, with the request and without what is secret in it.
    assert "an app that fails" in told
    assert [secret for secret in SECRETS if secret in told] == []
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["path"]: (line["outcome"], line["cause"]) for line in lines} == REQUESTS
    assert len(lines) == len(REQUESTS)
