from typing import Any

import pytest

from asgi_gateway.gateway import Gateway
from tests.plugins.kit import Upstreams, document, handshake, serving
from tests.plugins.test_basic_auth import basic

CONSUMERS = [
    {"name": "acme", "keys": ["acme-key"], "basic": [{"username": "acme", "password": "hush"}]},
    {"name": "bold", "keys": ["bold-key"], "basic": [{"username": "bold", "password": "hush"}]},
]
KEY, LOGIN = {"x-api-key": "acme-key"}, {"authorization": basic("acme", "hush")}


def guarded(*of: Any, **options: Any) -> dict[str, Any]:
    of = of or ("key_auth", "basic_auth")
    return document({"all_of": {"of": list(of), **options}}, consumers=CONSUMERS, route={"websocket": True})


async def test_all_have_to_let_a_request_in(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded()) as http:
        answer = await http.get("/", headers={**KEY, **LOGIN, "x-consumer": "root"})
    assert answer.status_code == 200
    assert upstreams.headers("x-consumer") == ["acme"]
    assert upstreams.headers("x-api-key") == upstreams.headers("authorization") == []


@pytest.mark.parametrize(
    ("headers", "reason", "challenge"),
    [
        ({}, "no_key", "ApiKey"),
        (LOGIN, "no_key", "ApiKey"),
        (KEY, "no_credentials", 'Basic realm="gateway", charset="UTF-8"'),
        ({**LOGIN, "x-api-key": "wrong"}, "unknown_key", "ApiKey"),
        (
            {**KEY, "authorization": basic("acme", "no")},
            "wrong_credentials",
            'Basic realm="gateway", charset="UTF-8"',
        ),
    ],
    ids=str,
)
async def test_the_first_that_refuses_is_the_answer(
    upstreams: Upstreams, headers: dict[str, str], reason: str, challenge: str
) -> None:
    async with serving(upstreams, guarded()) as http:
        answer = await http.get("/", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (401, reason)
    assert answer.headers["www-authenticate"] == challenge
    assert answer.json()["component"] == "all_of"
    assert upstreams.seen == []


async def test_the_credentials_have_to_be_those_of_one_caller(upstreams: Upstreams) -> None:
    mixed = {"x-api-key": "bold-key", **LOGIN}
    async with serving(upstreams, guarded()) as http:
        answer = await http.get("/", headers=mixed)
        assert (answer.status_code, answer.json()["reason"]) == (403, "different_callers")
    async with serving(upstreams, guarded(same_consumer=False)) as http:
        assert (await http.get("/", headers=mixed)).status_code == 200
    assert upstreams.headers("x-consumer") == ["acme"]


async def test_an_access_list_may_be_one_of_them(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded("key_auth", {"acl": {"consumers": ["bold"]}})) as http:
        assert (await http.get("/", headers={"x-api-key": "bold-key"})).status_code == 200
        assert (await http.get("/", headers=KEY)).status_code == 403


async def test_reporting_lets_pass_without_half_an_identity(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded(mode="report")) as http:
        assert (await http.get("/", headers={**KEY, "x-consumer": "root"})).status_code == 200
    assert upstreams.headers("x-consumer") == []


async def test_a_websocket_needs_all_too(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(guarded(), plugins=[upstreams])
    both = [(name.encode(), value.encode()) for name, value in (*KEY.items(), *LOGIN.items())]
    refused = await handshake(gateway, headers=both[:1])
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)
    assert (await handshake(gateway, headers=both))[0]["type"] == "websocket.accept"
