import pytest
from pydantic import ValidationError

from asgi_gateway.config import Use
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Upstream, gateway_around
from asgi_gateway_plugins.csrf import Csrf
from tests.plugins.kit import Upstreams, document, handshake, serving

EVIL, ADMIN = "https://evil.example", "https://admin.example.com"
Fields = list[tuple[str, str]]


async def status(component: Csrf, fields: Fields, method: str = "POST") -> int:
    async with gateway_around(component) as client:
        return (await client.request(method, "/", headers=fields)).status


@pytest.mark.parametrize(
    "fields",
    [
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
        [("sec-fetch-site", "cross-site"), ("origin", "http://gateway.test")],
        [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "SAME-ORIGIN")],
        [("origin", EVIL)],
        [("origin", "null")],
        [("origin", "http://gateway.test.evil.example")],
        [("origin", "http://evil.example@gateway.test")],
        [("origin", "http://gateway.test:8080")],
        [("origin", "gateway.test")],
        [("origin", "://")],
        [("origin", "http://gateway.test"), ("origin", EVIL)],
        [("origin", ADMIN + ".evil.example")],
        [("origin", ADMIN), ("origin", EVIL), ("sec-fetch-site", "cross-site")],
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PURGE", "TRACE", "get"])
async def test_what_a_page_of_another_site_sends_is_refused(fields: Fields, method: str) -> None:
    component = Csrf(trusted_origins=(ADMIN,))
    assert await status(component, fields, method) == 403
    assert await status(component, fields, "GET") == 200


@pytest.mark.parametrize(
    "fields",
    [
        [("sec-fetch-site", "same-origin"), ("origin", "https://whatever.example")],
        [("sec-fetch-site", "none")],
        [("origin", "http://gateway.test")],
        [("origin", "https://gateway.test")],
        [("origin", "https://gateway.test"), ("host", "GATEWAY.test:443")],
        [("origin", "https://gateway.test:8443"), ("host", "gateway.test:8443")],
        [("origin", ADMIN), ("sec-fetch-site", "cross-site")],
        [("origin", ADMIN)],
        [],
        [("origin", "")],
    ],
)
async def test_what_its_own_and_trusted_pages_send_passes(fields: Fields) -> None:
    assert await status(Csrf(trusted_origins=("https://ADMIN.example.com:443",)), fields) == 200


async def test_who_says_nothing_can_be_refused() -> None:
    assert await status(Csrf(allow_missing=False), []) == 403
    assert await status(Csrf(allow_missing=False), [("origin", "")]) == 403
    assert await status(Csrf(allow_missing=False), [("origin", "http://gateway.test")]) == 200


async def test_the_reasons_differ() -> None:
    async with gateway_around(Csrf(allow_missing=False)) as client:
        assert (await client.post("/")).json()["reason"] == "no_origin"
        assert (await client.post("/", headers={"origin": EVIL})).json()["reason"] == "cross_site"


async def test_a_handshake_counts_as_unsafe(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(document("csrf", route={"websocket": True}), plugins=[upstreams])
    for origin, accepted in ((EVIL, False), ("http://gateway.test", True), ("null", False)):
        sent = await handshake(gateway, headers=[(b"origin", origin.encode())])
        assert (sent[0]["type"] == "websocket.accept") == accepted
    assert (await handshake(gateway))[0]["type"] == "websocket.accept"


async def test_paths_are_chosen_with_when(upstreams: Upstreams) -> None:
    async with serving(upstreams, document({"csrf": {"when": {"path": "/forms/*"}}})) as http:
        assert (await http.post("/forms/a", headers={"origin": EVIL})).status_code == 403
        assert (await http.post("/hooks/a", headers={"origin": EVIL})).status_code == 200


async def test_reporting_lets_pass() -> None:
    upstream = Upstream()
    async with gateway_around(Use(component=Csrf(), mode="report"), upstream=upstream) as client:
        assert (await client.post("/", headers={"origin": EVIL})).status == 200
    assert upstream.seen[0].scope["asgi_gateway.exchange"].reported[0].reason == "cross_site"


@pytest.mark.parametrize("origin", ["null", "*", "admin.example.com", "https://admin.example.com/path"])
def test_an_origin_is_an_origin(origin: str) -> None:
    with pytest.raises(ValidationError, match="origin"):
        Csrf.model_validate({"trusted_origins": [origin]})
