from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from tests.plugins.kit import Upstreams, document, handshake, serving

CONSUMERS = [
    {"name": "acme", "keys": ["acme-key", "acme-old"], "groups": ["gold"]},
    {"name": "bold, börse & co", "keys": ["bold-key"]},
]


def guarded(**options: Any) -> dict[str, Any]:
    return document({"key_auth": options}, consumers=CONSUMERS, route={"websocket": True})


@pytest.mark.parametrize("name", ["X-API-Key", "apikey", "access_token"])
async def test_a_key_identifies_its_consumer(upstreams: Upstreams, name: str) -> None:
    async with serving(upstreams, guarded()) as http:
        answer = await http.get("/", headers={name: "acme-old"})
    assert answer.status_code == 200
    assert upstreams.headers("x-consumer") == ["acme"]
    assert upstreams.headers(name.lower()) == []


async def test_a_request_without_a_key_is_refused(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded()) as http:
        answer = await http.get("/", headers={"x_api_key": "acme-key"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "ApiKey"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reason"] == "no_key"
    assert answer.json()["component"] == "key_auth"
    assert upstreams.seen == []


@pytest.mark.parametrize("key", ["", "acme", "acme-key ,", "ACME-KEY", "ä", "x" * 10_000])
async def test_a_key_that_is_unknown_is_refused(upstreams: Upstreams, key: str) -> None:
    async with serving(upstreams, guarded()) as http:
        answer = await http.get("/", headers=[(b"x-api-key", key.encode())])
    assert (answer.status_code, answer.json()["reason"]) == (401, "unknown_key")
    assert key not in answer.text or not key
    assert upstreams.seen == []


async def test_a_wrong_key_is_refused_whatever_else_says_who_calls(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded()) as http:
        headers = {"x-api-key": "wrong", "authorization": "Bearer acme-key", "x-consumer": "acme"}
        answer = await http.get("/", headers=headers)
    assert answer.status_code == 401


async def test_different_keys_in_one_request_are_refused(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded(query=["key"])) as http:
        twice = await http.get("/", headers=[("x-api-key", "acme-key"), ("x-api-key", "bold-key")])
        two_fields = await http.get("/", headers={"x-api-key": "acme-key", "apikey": "acme-old"})
        two_places = await http.get("/?key=bold-key", headers={"x-api-key": "acme-key"})
        the_same = await http.get("/?key=acme-key", headers={"x-api-key": "acme-key"})
    for answer in (twice, two_fields, two_places):
        assert (answer.status_code, answer.json()["reason"]) == (401, "several_keys")
    assert the_same.status_code == 200


async def test_a_key_comes_by_query_or_cookie_only_where_that_is_said(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded()) as http:
        assert (await http.get("/?apikey=acme-key")).status_code == 401
        assert (await http.get("/", headers={"cookie": "apikey=acme-key"})).status_code == 401


async def test_a_key_in_the_query_is_cut_out_of_it(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded(query=["key"])) as http:
        answer = await http.get("/?a=%31&key=acme-key&&b=x+y&%6Bey=acme%2Dkey&keys=1")
    assert answer.status_code == 200
    assert upstreams.seen[0]["query_string"] == b"a=%31&&b=x+y&keys=1"


async def test_a_key_in_a_cookie_is_cut_out_of_it(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded(cookies=["key"])) as http:
        headers = [("cookie", 'a=1; key="acme-key";b=2'), ("cookie", "key=acme-key")]
        assert (await http.get("/", headers=headers)).status_code == 200
    assert upstreams.headers("cookie") == ["a=1; b=2"]


async def test_hidden_keys_can_be_shown(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded(hide=False, query=["key"])) as http:
        await http.get("/?key=acme-key", headers={"apikey": "acme-key"})
    assert upstreams.headers("apikey") == ["acme-key"]
    assert upstreams.seen[0]["query_string"] == b"key=acme-key"


@pytest.mark.parametrize("forged", ["X-Consumer", "x_consumer", "X_CONSUMER"])
async def test_the_identity_cannot_be_forged(upstreams: Upstreams, forged: str) -> None:
    async with serving(upstreams, guarded()) as http:
        await http.get("/", headers=[(forged, "root"), (forged, "admin"), ("x-api-key", "acme-key")])
    values = [
        value for name, value in upstreams.seen[0]["headers"] if name.replace(b"_", b"-") == b"x-consumer"
    ]
    assert values == [b"acme"]


@pytest.mark.parametrize(
    "entry",
    [
        {"key_auth": {"enabled": False}},
        {"any_of": {"of": [{"key_auth": {"enabled": False}}, "basic_auth"], "enabled": False}},
    ],
    ids=["key_auth", "any_of"],
)
async def test_an_identity_is_removed_where_authentication_is_switched_off(
    upstreams: Upstreams, entry: dict[str, Any]
) -> None:
    async with serving(upstreams, document(entry)) as http:
        assert (await http.get("/", headers={"x-consumer": "root", "x-other": "1"})).status_code == 200
    assert (upstreams.headers("x-consumer"), upstreams.headers("x-other")) == ([], ["1"])


async def test_reporting_lets_pass_without_an_identity(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded(mode="report")) as http:
        answer = await http.get("/", headers={"x-api-key": "wrong", "x-consumer": "root"})
    assert answer.status_code == 200
    assert upstreams.headers("x-consumer") == upstreams.headers("x-api-key") == []


async def test_a_consumer_may_have_any_name(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded()) as http:
        await http.get("/", headers={"x-api-key": "bold-key"})
    assert upstreams.headers("x-consumer") == ["bold, börse & co"]


async def test_without_consumers_everybody_is_refused(upstreams: Upstreams) -> None:
    async with serving(upstreams, document("key_auth")) as http:
        assert (await http.get("/", headers={"x-api-key": "acme-key"})).status_code == 401


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"headers": []}, "looks for a key nowhere"),
        ({"headers": ["x key"]}, "'x key' is not the name of a field"),
        ({"consumer_header": "x:y"}, "'x:y' is not the name of a field"),
    ],
)
def test_what_cannot_be_right_is_a_mistake(upstreams: Upstreams, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Gateway.parse(document({"key_auth": options}), plugins=[upstreams])


async def test_a_websocket_needs_a_key_too(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(guarded(), plugins=[upstreams])
    refused = await handshake(gateway)
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)
    accepted = await handshake(gateway, headers=[(b"x-api-key", b"acme-key")])
    assert accepted[0]["type"] == "websocket.accept"
    assert upstreams.headers("x-consumer") == ["acme"]
