from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from asgi_gateway.config import Use
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Response, Upstream, gateway_around
from asgi_gateway_plugins.maintenance import Maintenance
from tests.plugins.kit import Upstreams, client, document, handshake, serving

OUTSIDE = ("203.0.113.9", 1)


def closed(**options: Any) -> Maintenance:
    return Maintenance.model_validate({"active": True, **options})


async def told(component: Maintenance) -> Response:
    async with gateway_around(component) as caller:
        return await caller.get("/")


async def status(gateway: Gateway) -> int:
    async with client(gateway) as http:
        return (await http.get("/")).status_code


async def test_while_it_is_on_everybody_is_told_to_come_back() -> None:
    upstream = Upstream()
    async with gateway_around(closed(retry_after="90s"), upstream=upstream) as caller:
        answer = await caller.get("/")
    assert (answer.status, answer.values("retry-after")) == (503, ["90"])
    assert (answer.json()["reason"], answer.json()["component"]) == ("maintenance", "maintenance")
    assert upstream.seen == []


async def test_it_is_turned_while_the_gateway_runs(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(document("maintenance"), plugins=[upstreams])
    dial = gateway.dial("route/main/maintenance/on")
    assert await status(gateway) == 200
    dial.set(True)
    assert await status(gateway) == 503
    await gateway.reload(gateway.config)
    assert await status(gateway) == 503
    dial.set(False)
    assert await status(gateway) == 200


@pytest.mark.parametrize(
    ("address", "expected"),
    [("10.1.2.3", 200), ("::ffff:10.1.2.3", 200), ("203.0.113.9", 503), ("", 503), ("x", 503)],
)
async def test_some_networks_are_served_all_the_same(address: str, expected: int) -> None:
    async with gateway_around(closed(allow=("10.0.0.0/8",))) as caller:
        assert (await caller.get("/", client=(address, 1))).status == expected
        forged = await caller.get("/", headers={"x-forwarded-for": "10.1.2.3"}, client=OUTSIDE)
    assert forged.status == 503


async def test_a_page_can_be_shown() -> None:
    answer = await told(closed(body="<h1>Zurück um 12</h1>", retry_after="0s"))
    assert (answer.status, answer.body) == (503, "<h1>Zurück um 12</h1>".encode())
    assert answer.values("content-type") == ["text/html; charset=utf-8"]
    assert answer.values("content-length") == [str(len(answer.body))]
    assert answer.values("retry-after") == []
    answer = await told(closed(body='{"closed": true}', content_type="application/json"))
    assert (answer.json(), answer.values("content-type")) == ({"closed": True}, ["application/json"])


async def test_a_page_is_recorded_as_the_refusal_that_it_is(upstreams: Upstreams, tmp_path: Path) -> None:
    log = {"access_log": {"file": str(tmp_path / "log"), "format": "json"}}
    async with serving(upstreams, document(log, {"maintenance": {"active": True, "body": "closed"}})) as http:
        assert (await http.get("/")).text == "closed"
    assert '"maintenance"' in (tmp_path / "log").read_text()


async def test_a_handshake_is_refused_too(upstreams: Upstreams) -> None:
    options = {"maintenance": {"active": True, "body": "closed"}}
    gateway = Gateway.parse(document(options, route={"websocket": True}), plugins=[upstreams])
    head, body = await handshake(gateway)
    assert (head["type"], head["status"], body["body"]) == ("websocket.http.response.start", 503, b"closed")
    assert (b"retry-after", b"300") in head["headers"]


async def test_reporting_lets_pass_as_it_is() -> None:
    upstream = Upstream(headers=[(b"content-type", b"text/plain")])
    use = Use(component=closed(body="closed"), mode="report")
    async with gateway_around(use, upstream=upstream) as caller:
        answer = await caller.get("/")
    assert (answer.status, answer.body, answer.values("content-type")) == (200, b"ok", ["text/plain"])
    assert upstream.seen[0].scope["asgi_gateway.exchange"].reported[0].reason == "maintenance"


@pytest.mark.parametrize(
    "options", [{"active": "on"}, {"allow": ["home"]}, {"retry_after": 5}, {"content_type": "a\r\nb: c"}]
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Maintenance.model_validate(options)
