from typing import Any

import pytest
from pydantic import ValidationError

from asgi_gateway.config import Use
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Upstream, gateway_around
from asgi_gateway_plugins.referer import Referer
from tests.plugins.kit import Upstreams, document, handshake

OURS = Referer(allow=("Example.com", "*.shop.example.com", "[2001:db8::1]"))


async def status(component: Referer, *referers: str) -> int:
    async with gateway_around(component) as client:
        return (await client.get("/", headers=[("referer", referer) for referer in referers])).status


@pytest.mark.parametrize(
    "referer",
    [
        "https://example.com/page?x=1#y",
        "http://EXAMPLE.com",
        "https://example.com:8443/",
        "https://example.com?x",
        "https://a.shop.example.com/",
        "https://a.b.shop.example.com/",
        "https://[2001:DB8::1]:8443/",
    ],
)
async def test_pages_of_these_hosts_may(referer: str) -> None:
    assert await status(OURS, referer) == 200


@pytest.mark.parametrize(
    "referer",
    [
        "https://evil.example/",
        "https://example.com.evil.example/",
        "https://evilexample.com/",
        "https://shop.example.com/",
        "https://evilshop.example.com/",
        "https://evil.example/https://example.com/",
        "https://evil.example?example.com",
        "https://evil.example#.shop.example.com",
        "https://example.com@evil.example/",
        "https://evil.example\\@example.com/",
        "https://evil.example\\.shop.example.com/",
        "https://evil.example%2f.shop.example.com/",
        "https:///example.com/",
        "https://example.com:x/",
        "https://example.com /",
        "//example.com/",
        "example.com",
        "null",
        "about:blank",
        "javascript://example.com/",
        "https://.shop.example.com@evil.example",
        "https://é.shop.example.com/",
        "https://" + "a" * 20_000,
    ],
)
async def test_others_may_not(referer: str) -> None:
    assert await status(OURS, referer) == 403
    assert await status(OURS.model_copy(update={"allow_missing": True}), referer) == 403


async def test_who_says_nothing_passes_only_where_that_is_said() -> None:
    assert await status(OURS) == await status(OURS, "") == 403
    assert await status(Referer(allow=("example.com",), allow_missing=True)) == 200


async def test_several_are_none() -> None:
    assert await status(OURS, "https://example.com", "https://evil.example") == 403
    assert await status(OURS, "https://evil.example", "https://example.com") == 403


@pytest.mark.parametrize(
    ("fields", "accepted"),
    [
        ([(b"origin", b"https://example.com")], True),
        ([(b"origin", b"https://evil.example")], False),
        ([(b"referer", b"https://example.com")], False),
        ([], False),
    ],
)
async def test_a_handshake_is_known_by_its_origin(
    upstreams: Upstreams, fields: list[tuple[bytes, bytes]], accepted: bool
) -> None:
    declared = document({"referer": {"allow": ["example.com"]}}, route={"websocket": True})
    sent = await handshake(Gateway.parse(declared, plugins=[upstreams]), headers=fields)
    assert (sent[0]["type"] == "websocket.accept") == accepted


async def test_reporting_lets_pass() -> None:
    upstream = Upstream()
    async with gateway_around(Use(component=OURS, mode="report"), upstream=upstream) as client:
        assert (await client.get("/")).status == 200
    assert upstream.seen[0].scope["asgi_gateway.exchange"].reported[0].reason == "no_referer"


@pytest.mark.parametrize(
    "host", ["", "*", "*.*.com", "a.*", "https://a.com", "a.com:80", "a/b", "é.com", "a..b"]
)
def test_a_host_is_a_name(host: str) -> None:
    with pytest.raises(ValidationError, match="is not a host"):
        Referer.model_validate({"allow": [host]})


@pytest.mark.parametrize("options", [{}, {"allow": []}])
def test_without_hosts_it_makes_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Referer.model_validate(options)
