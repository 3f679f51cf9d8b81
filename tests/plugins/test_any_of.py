import json
from pathlib import Path
from typing import Any

import pytest

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send, answer
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from tests.plugins.issuer import claims, sign
from tests.plugins.kit import Hand, Upstreams, document, handshake, serving
from tests.plugins.test_basic_auth import basic
from tests.plugins.test_jwt_auth import SECRET, SHARED
from tests.plugins.test_signature import read_it
from tests.plugins.test_signature import sign as sign_request

CONSUMERS = [
    {
        "name": "acme",
        "keys": ["acme-key"],
        "basic": [{"username": "acme", "password": "hush"}],
        "subjects": ["u-17"],
        "hmac": [{"id": "acme-1", "secret": SECRET}],
    },
    {"name": "guest", "groups": ["guests"]},
]
JWT = {"jwt_auth": {"keys": [{"algorithm": "HS256", "secret": SECRET}], "scopes": ["read"]}}
KEY, LOGIN = {"x-api-key": "acme-key"}, {"authorization": basic("acme", "hush")}
__all__ = ["read_it"]


def guarded(*of: Any, route: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    route = {"websocket": True, **(route or {})}
    return document({"any_of": {"of": list(of), **options}}, consumers=CONSUMERS, route=route)


def bearer(**more: Any) -> dict[str, str]:
    return {"authorization": "Bearer " + sign(SHARED, {"alg": "HS256"}, claims(**more))}


@pytest.mark.parametrize("headers", [KEY, LOGIN, bearer(scope="read"), {**KEY, **bearer(exp=1)}], ids=str)
async def test_one_way_is_enough(upstreams: Upstreams, clock: Hand, headers: dict[str, str]) -> None:
    async with serving(upstreams, guarded("key_auth", "basic_auth", JWT), clock) as http:
        answer = await http.get("/", headers={**headers, "x-consumer": "root"})
    assert answer.status_code == 200
    assert upstreams.headers("x-consumer") == ["acme"]


async def test_who_shows_nothing_is_told_all_ways(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded("key_auth", "basic_auth", JWT, "key_auth")) as http:
        answer = await http.get("/")
    assert (answer.status_code, answer.json()["reason"]) == (401, "no_credentials")
    assert answer.json()["component"] == "any_of"
    assert answer.headers.get_list("www-authenticate") == [
        "ApiKey",
        'Basic realm="gateway", charset="UTF-8"',
        'Bearer realm="gateway"',
    ]
    assert upstreams.seen == []


async def test_a_401_has_a_challenge_or_is_none(upstreams: Upstreams) -> None:
    mtls = {"mtls": {"header": "x-cert", "format": "fingerprint"}}
    declared = guarded(mtls, {"mtls": {"header": "x-other", "format": "fingerprint"}})
    async with serving(upstreams, {**declared, "trusted_proxies": ["203.0.113.0/24"]}) as http:
        answer = await http.get("/")
        assert (answer.status_code, answer.json()["reason"]) == (403, "no_certificate")
    async with serving(upstreams, guarded(mtls, "key_auth")) as http:
        answer = await http.get("/")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "ApiKey")


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"x-api-key": "wrong"}, 401, "unknown_key"),
        ({"x-api-key": "wrong", "authorization": "Bearer bogus"}, 401, "unknown_key"),
        ({"authorization": "Bearer bogus"}, 401, "bad_token"),
        ({"authorization": basic("acme", "wrong")}, 401, "wrong_credentials"),
        ({"authorization": "Unheard of"}, 401, "no_credentials"),
        (bearer(scope="write"), 403, "insufficient_scope"),
    ],
    ids=str,
)
async def test_who_shows_something_wrong_is_told_what(
    upstreams: Upstreams, clock: Hand, headers: dict[str, str], status: int, reason: str
) -> None:
    of = ("key_auth", "basic_auth", JWT)
    # Nobody becomes anonymous by showing something wrong.
    for options in ({}, {"anonymous": "guest"}):
        async with serving(upstreams, guarded(*of, **options), clock) as http:
            answer = await http.get("/", headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert upstreams.seen == []


async def test_who_shows_nothing_may_be_anonymous(upstreams: Upstreams) -> None:
    declared = guarded("key_auth", "basic_auth", anonymous="guest")
    declared["routes"][0]["components"].append({"acl": {"groups": ["guests"]}})
    async with serving(upstreams, declared) as http:
        assert (await http.get("/", headers={"x-consumer": "root"})).status_code == 200
        assert upstreams.headers("x-consumer") == ["guest"]
        assert (await http.get("/", headers=KEY)).status_code == 403


async def test_a_body_is_there_for_every_way_and_for_the_upstream(upstreams: Upstreams, clock: Hand) -> None:
    signed = sign_request("POST", body=b"body")
    for of in (["signature", "basic_auth"], ["basic_auth", "signature"], [{"any_of": {"of": ["signature"]}}]):
        declared = guarded(*of)
        declared["upstreams"]["main"] = {"asgi": f"{__name__}:read_it"}
        async with serving(upstreams, declared, clock) as http:
            for headers in ({"authorization": signed}, *([LOGIN] if len(of) > 1 else [])):
                answer = await http.post("/", headers=headers, content=b"body")
                assert (answer.status_code, answer.content.replace(b"|", b"")) == (200, b"body")
            altered = await http.post("/", headers={"authorization": sign_request("POST")}, content=b"body")
            assert (altered.status_code, altered.json()["reason"]) == (401, "wrong_signature")


async def test_a_nonce_is_used_once_inside_and_outside(upstreams: Upstreams, clock: Hand) -> None:
    declared = guarded("signature", "key_auth")
    other = {"name": "other", "path": "/", "headers": {"x-to": "other"}, "upstream": "next"}
    declared["routes"].append({**other, "components": ["signature"]})
    async with serving(upstreams, declared, clock) as http:
        headers = {"authorization": sign_request()}
        assert (await http.get("/", headers=headers)).status_code == 200
        assert (await http.get("/", headers={**headers, "x-to": "other"})).json()["reason"] == "replayed"


async def test_identity_of_a_way_that_failed_is_gone(upstreams: Upstreams, clock: Hand) -> None:
    half = {"all_of": {"of": [JWT, "key_auth"]}}
    async with serving(upstreams, guarded(half, anonymous="guest", mode="report"), clock) as http:
        headers = {**bearer(scope="read"), "x-consumer": "root"}
        assert (await http.get("/", headers=headers)).status_code == 200
    assert upstreams.headers("x-consumer") == []


async def test_fields_that_its_components_set_are_removed_on_every_route(upstreams: Upstreams) -> None:
    inner = {"jwt_auth": {**JWT["jwt_auth"], "claim_headers": {"x-email": "email"}}}
    declared = guarded("key_auth", {"all_of": {"of": [inner]}})
    declared["routes"].append({"name": "open", "path": "/open", "upstream": "main"})
    async with serving(upstreams, declared) as http:
        await http.get("/open", headers={"x-email": "root", "X_Email": "root", "x-consumer": "root"})
    assert not {b"x-email", b"x_email", b"x-consumer"} & {name for name, _ in upstreams.seen[0]["headers"]}


async def test_the_log_has_every_failure(upstreams: Upstreams, clock: Hand, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    declared = guarded("key_auth", JWT)
    declared["components"] = [{"access_log": {"file": str(log)}}]
    async with serving(upstreams, declared, clock) as http:
        await http.get("/", headers={"x-api-key": "wrong", **bearer(exp=1)})
        await http.get("/", headers={"x-api-key": "wrong", **bearer(scope="read")})
        await http.get("/", headers=bearer(scope="read"))
    tags = [json.loads(line)["tags"] for line in log.read_text().splitlines()]
    assert tags == [
        {"any_of": ["key_auth: unknown_key", "jwt_auth: token_expired"]},
        {"any_of": ["key_auth: unknown_key"]},
        {},
    ]


async def test_a_websocket_passes_by_any_way_too(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(guarded("key_auth", "basic_auth"), plugins=[upstreams])
    refused = await handshake(gateway)
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)
    login = [(b"authorization", LOGIN["authorization"].encode())]
    assert (await handshake(gateway, headers=login))[0]["type"] == "websocket.accept"


@pytest.mark.parametrize("name", ["any_of", "all_of"])
@pytest.mark.parametrize(
    ("of", "what"),
    [
        ([], "must not be empty"),
        (["request_id"], r"request_id \(OBSERVE\) does not find out who is calling"),
        ([{"key_auth": {"mode": "report"}}], "key_auth takes no `when` and no `mode` here"),
        ([{"key_auth": {"when": {"path": "/a"}}}], "key_auth takes no `when` and no `mode` here"),
        ([{"key_auth": {"enabled": False}}], "nothing in it is enabled"),
        (["key_out"], "no component is called 'key_out'"),
        ([{"key_auth": {"hied": True}}], "hied"),
        (
            [{"jwt_auth": {"keys": [{"algorithm": "HS256", "secret": "short"}]}}],
            "jwt_auth: keys.0.: a secret",
        ),
    ],
)
def test_what_cannot_be_right_is_a_mistake(upstreams: Upstreams, name: str, of: list[Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Gateway.parse(document({name: {"of": of}}), plugins=[upstreams])


class Answers:
    """A middleware that answers by itself."""

    def __init__(self, app: ASGIApp) -> None:
        pass

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(scope, send, 401, b"by itself")


@pytest.mark.parametrize("name", ["any_of", "all_of"])
async def test_who_answers_by_itself_is_the_only_answer(upstreams: Upstreams, name: str) -> None:
    middleware = {"middleware": {"cls": "tests.plugins.test_any_of:Answers", "stage": "AUTH"}}
    declared = document({name: {"of": [middleware, "key_auth"]}}, consumers=CONSUMERS)
    async with serving(upstreams, declared) as http:
        for headers in ({}, KEY):
            told = await http.get("/", headers=headers)
            assert (told.status_code, told.text) == (401, "by itself")
    assert upstreams.seen == []


async def test_what_is_switched_off_is_not_asked(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded({"key_auth": {"enabled": False}}, "basic_auth")) as http:
        assert (await http.get("/", headers=KEY)).status_code == 401
        assert (await http.get("/", headers=LOGIN)).status_code == 200
