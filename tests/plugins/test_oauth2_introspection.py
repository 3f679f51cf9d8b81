import asyncio
from base64 import b64encode
from typing import Any
from urllib.parse import parse_qs

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Request, check_component
from asgi_gateway_plugins.oauth2_introspection import OAuth2Introspection
from tests.plugins.issuer import NOW, claims, service
from tests.plugins.kit import Hand, Upstreams, document, handshake, serving

CONSUMERS = [{"name": "acme", "subjects": ["u-17"]}]
CLIENT = {"client_id": "gate way", "client_secret": "hush:hush"}
TOKEN = {"authorization": "Bearer opaque+token/="}


def guarded(url: str, **options: Any) -> dict[str, Any]:
    options = {"url": f"{url}/introspect", **CLIENT, **options}
    return document({"oauth2_introspection": options}, consumers=CONSUMERS, route={"websocket": True})


def active(**more: Any) -> dict[str, Any]:
    return {"/introspect": {"active": True, **claims(**more)}}


async def test_the_server_says_who_is_calling(upstreams: Upstreams, clock: Hand) -> None:
    async with (
        service(active(scope="read", email="a@b.c")) as server,
        serving(
            upstreams, guarded(server.url, scopes=["read"], claim_headers={"x-email": "email"}), clock
        ) as http,
    ):
        assert (await http.get("/", headers={**TOKEN, "x-consumer": "root"})).status_code == 200
    assert upstreams.headers("x-consumer") == ["acme"]
    assert upstreams.headers("x-email") == ["a@b.c"]
    assert parse_qs(server.bodies[0].decode()) == {"token": ["opaque+token/="]}
    login = b64encode(b"gate+way:hush%3Ahush")
    assert b"authorization: Basic " + login in server.heads[0]
    assert server.heads[0].startswith(b"POST /introspect ")


async def test_the_client_may_be_named_in_the_body(upstreams: Upstreams, clock: Hand) -> None:
    async with (
        service(active()) as server,
        serving(upstreams, guarded(server.url, client_auth="post"), clock) as http,
    ):
        assert (await http.get("/", headers=TOKEN)).status_code == 200
    body = parse_qs(server.bodies[0].decode())
    assert (body["client_id"], body["client_secret"]) == (["gate way"], ["hush:hush"])
    assert b"authorization" not in server.heads[0].lower()


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ({"active": False}, 401, "token_inactive"),
        ({"active": False, **claims()}, 401, "token_inactive"),
        ({"active": True, **claims(exp=NOW - 5)}, 401, "token_expired"),
        ({"active": True, **claims(nbf=NOW + 60)}, 401, "token_early"),
        ({"active": True, **claims(aud="others")}, 401, "wrong_audience"),
        ({"active": True, **claims(iss="other")}, 401, "wrong_issuer"),
        ({"active": True, **claims(sub=None)}, 401, "bad_claims"),
        ({"active": True, **claims(scope="write")}, 403, "insufficient_scope"),
        ({"active": "true", **claims()}, 503, "introspection_unavailable"),
        ({"active": 1, **claims()}, 503, "introspection_unavailable"),
        (claims(), 503, "introspection_unavailable"),
        ([], 503, "introspection_unavailable"),
        (b"no JSON", 503, "introspection_unavailable"),
        (b"[" * 60_000, 503, "introspection_unavailable"),
        (b"x" * 100_000, 503, "introspection_unavailable"),
        (None, 503, "introspection_unavailable"),
    ],
)
async def test_what_is_no_good_is_refused(
    upstreams: Upstreams, clock: Hand, answer: Any, status: int, reason: str
) -> None:
    options = {"audience": ["orders"], "issuer": "https://issuer.test", "scopes": ["read"]}
    async with (
        service({"/introspect": answer}) as server,
        serving(upstreams, guarded(server.url, **options), clock) as http,
    ):
        answered = await http.get("/", headers=TOKEN)
    assert (answered.status_code, answered.json()["reason"]) == (status, reason)
    if status == 401:
        assert answered.headers["www-authenticate"] == 'Bearer realm="gateway", error="invalid_token"'
    assert upstreams.seen == []


async def test_nobody_is_asked_without_one_token(upstreams: Upstreams) -> None:
    async with service(active()) as server, serving(upstreams, guarded(server.url)) as http:
        for headers in ([], [("authorization", "Basic a")], [("authorization", "Bearer " + "a" * 9000)]):
            assert (await http.get("/", headers=headers)).status_code == 401
        twice = [*TOKEN.items(), *TOKEN.items()]
        assert (await http.get("/", headers=twice)).json()["reason"] == "several_tokens"
    assert server.asked == []


async def test_answers_are_kept_good_ones_longer(upstreams: Upstreams, clock: Hand) -> None:
    async with (
        service(active(exp=NOW + 30)) as server,
        serving(upstreams, guarded(server.url, leeway="0s"), clock) as http,
    ):
        for _ in range(3):
            assert (await http.get("/", headers=TOKEN)).status_code == 200
        assert len(server.asked) == 1
        clock.seconds += 30
        assert (await http.get("/", headers=TOKEN)).json()["reason"] == "token_expired"
        assert len(server.asked) == 2
        server.answers = active(exp=NOW + 3600)
        clock.seconds += 4.9
        assert (await http.get("/", headers=TOKEN)).status_code == 401
        assert len(server.asked) == 2
        clock.seconds += 0.2
        assert (await http.get("/", headers=TOKEN)).status_code == 200
        clock.seconds += 59
        assert (await http.get("/", headers=TOKEN)).status_code == 200
        assert len(server.asked) == 3
        server.answers = {"/introspect": {"active": False}}
        clock.seconds += 2
        assert (await http.get("/", headers=TOKEN)).status_code == 401


async def test_bad_tokens_do_not_push_out_good_ones(upstreams: Upstreams, clock: Hand) -> None:
    async with (
        service(active()) as server,
        serving(upstreams, guarded(server.url, max_remembered=2), clock) as http,
    ):
        assert (await http.get("/", headers=TOKEN)).status_code == 200
        server.answers = {"/introspect": {"active": False}}
        for number in range(10):
            answer = await http.get("/", headers={"authorization": f"Bearer random-{number}"})
            assert answer.status_code == 401
        assert (await http.get("/", headers=TOKEN)).status_code == 200


async def test_many_who_ask_at_once_are_one_question_whoever_leaves(
    upstreams: Upstreams, clock: Hand
) -> None:
    async with (
        service(active()) as server,
        serving(upstreams, guarded(server.url), clock) as http,
    ):
        server.go.clear()
        first = asyncio.ensure_future(http.get("/", headers=TOKEN))
        while not server.asked:
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(http.get("/", headers=TOKEN)) for _ in range(20)]
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        server.go.set()
        assert {answer.status_code for answer in await asyncio.gather(*others)} == {200}
        assert len(server.asked) == 1


async def test_an_answer_that_failed_is_not_kept(upstreams: Upstreams, clock: Hand) -> None:
    async with (
        service(active()) as server,
        serving(upstreams, guarded(server.url), clock) as http,
    ):
        server.status = 500
        answer = await http.get("/", headers=TOKEN)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        server.status = 200
        assert (await http.get("/", headers=TOKEN)).status_code == 200


async def test_it_keeps_the_rules_of_components() -> None:
    async with service({"/introspect": {"active": True, "sub": "u-17"}}) as server:
        server.answers["/introspect"] = lambda: {"active": b"token=no" not in server.bodies[-1], "sub": "u"}
        component = OAuth2Introspection.model_validate({"url": f"{server.url}/introspect", **CLIENT})
        await check_component(
            component,
            request=Request(headers=[("authorization", "Bearer yes")]),
            refused_by=Request(headers=[("authorization", "Bearer no")]),
        )


async def test_a_websocket_needs_a_token_too(upstreams: Upstreams, clock: Hand) -> None:
    async with service(active()) as server:
        gateway = Gateway.parse(guarded(server.url), plugins=[upstreams], clock=clock)
        async with gateway.lifespan():
            refused = await handshake(gateway)
            assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)
            token = [(b"authorization", TOKEN["authorization"].encode())]
            assert (await handshake(gateway, headers=token))[0]["type"] == "websocket.accept"


async def test_reporting_lets_pass(upstreams: Upstreams, clock: Hand) -> None:
    async with (
        service({"/introspect": {"active": False}}) as server,
        serving(upstreams, guarded(server.url, mode="report"), clock) as http,
    ):
        assert (await http.get("/", headers={**TOKEN, "x-consumer": "root"})).status_code == 200
    assert upstreams.headers("x-consumer") == []


def test_a_secret_is_in_no_message(upstreams: Upstreams) -> None:
    with pytest.raises(ConfigError) as error:
        Gateway.parse(guarded("no url"), plugins=[upstreams])
    assert "hush" not in str(error.value)
