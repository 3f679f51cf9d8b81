import json
import re
from typing import Any

import pytest

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.errors import ConfigError, UpstreamError
from asgi_gateway.exchange import Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.stage import Stage
from asgi_gateway.testing import Upstream, gateway_around
from asgi_gateway_contrib.validate import Validate
from asgi_gateway_plugins.errors import Errors
from asgi_gateway_plugins.key_auth import KeyAuth
from tests.plugins.kit import Upstreams, document, handshake, serving

SANIC = {"code": "code", "message": "message", "error": "reason", "status_code": "status"}
RULES = [
    {"match": ["no_key", "rate_limited"], "code": 4010, "message": "Say who you are."},
    {"match": ["404"], "source": "gateway", "code": "NOT_FOUND"},
    {"match": ["5xx"], "source": "upstream", "status": 502, "code": 5020, "message": "Try again."},
    {"match": ["5XX"], "code": 5000},
]


def by(**options: Any) -> Errors:
    return Errors.model_validate(options)


async def test_a_problem_has_a_code_and_a_type(upstreams: Upstreams) -> None:
    options = {"rules": RULES, "types": "https://errors.example.com/"}
    async with serving(upstreams, document("key_auth", {"errors": options})) as http:
        answer = await http.get("/")
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert "www-authenticate" in answer.headers
    assert problem.pop("request_id")
    assert problem == {
        "type": "https://errors.example.com/no_key",
        "title": "Unauthorized",
        "status": 401,
        "reason": "no_key",
        "detail": "Say who you are.",
        "code": 4010,
        "route": "main",
        "component": "key_auth",
    }


class Coded(Component, name="coded", stage=Stage.GUARD, refuses=True):
    """Refuses with a code and a type of its own."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse = build.refuse(app)
        refusal = Refusal(422, "coded", members=(("code", 17), ("type", "urn:example:coded")))

        async def coded(scope: Scope, receive: Receive, send: Send) -> None:
            await refuse(scope, receive, send, refusal)

        return coded


@pytest.mark.parametrize(
    ("options", "code", "kind"),
    [
        ({}, 17, "urn:example:coded"),
        ({"types": "https://errors.example.com/"}, 17, "https://errors.example.com/coded"),
        ({"rules": [{"match": ["coded"], "code": 4220}]}, 4220, "urn:example:coded"),
    ],
)
async def test_a_component_may_have_a_code_of_its_own(options: Any, code: int, kind: str) -> None:
    async with gateway_around(Coded(), Errors.model_validate(options)) as caller:
        answer = await caller.get("/")
    assert (answer.status, answer.json()["code"], answer.json()["type"]) == (422, code, kind)


@pytest.mark.parametrize("members", [None, SANIC, {"State": "code", "Msg": "message", "Data": "data"}])
async def test_an_envelope_has_the_members_that_clients_know(
    upstreams: Upstreams, members: dict[str, str] | None
) -> None:
    options: Any = {"format": "envelope", "rules": [{"match": [401], "code": 7, "message": "Who \u00e9?"}]}
    options |= {"members": members} if members else {}
    async with serving(upstreams, document("key_auth", {"errors": options})) as http:
        answer = await http.get("/")
    assert upstreams.seen == []
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/json")
    found = answer.json()
    assert list(found) == list(members or {"code": 1, "message": 2, "data": 3})
    assert 7 in found.values()
    assert "Who \u00e9?" in found.values()
    if members is SANIC:
        assert found["status_code"] == 401
    else:
        assert None in found.values()


async def test_without_a_rule_the_status_is_the_code(upstreams: Upstreams) -> None:
    upstreams.failure = UpstreamError("connect_failed", "connect")
    async with serving(upstreams, document({"errors": {"format": "envelope"}})) as http:
        answer = await http.get("/")
    assert (answer.status_code, answer.json()) == (
        502,
        {"code": 502, "message": "The upstream could not be reached.", "data": None},
    )


async def test_on_all_routes_it_is_there_for_requests_without_one(upstreams: Upstreams) -> None:
    options = {"format": "envelope", "rules": RULES}
    declared = document(path="/orders", components=[{"errors": options}])
    async with serving(upstreams, declared) as http:
        answer = await http.get("/other")
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


class Breaks(Component, name="breaks", stage=Stage.TRANSFORM):
    """Fails."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
            raise RuntimeError("broken")

        return breaks


async def test_a_failure_of_the_gateway_itself_is_told_so_too() -> None:
    async with gateway_around(Breaks(), by(format="envelope", rules=RULES)) as caller:
        answer = await caller.get("/")
    assert (answer.status, answer.json()["code"]) == (500, 5000)


async def test_a_handshake_is_denied_in_this_format(upstreams: Upstreams) -> None:
    declared = document("key_auth", {"errors": {"format": "envelope"}}, route={"websocket": True})
    start, body = await handshake(Gateway.parse(declared, plugins=[upstreams]))
    assert start["status"] == 401
    assert json.loads(body["body"])["code"] == 401


async def test_mistakes_of_a_body_can_be_in_an_envelope() -> None:
    component = Validate.model_validate({"query": {"required": ["page"]}})
    members = {"code": "code", "errors": "errors", "id": "request_id", "title": "title"}
    async with gateway_around(component, by(format="envelope", members=members)) as caller:
        found = (await caller.get("/")).json()
    assert found.pop("id")
    assert found == {
        "code": 400,
        "errors": [{"in": "query", "name": "page", "detail": "is missing"}],
        "title": "Bad Request",
    }


# Errors of the upstream

SENT = [
    (b"content-type", b"text/html"),
    (b"content-encoding", b"gzip"),
    (b"etag", b'"1"'),
    (b"retry-after", b"7"),
    (b"x-a", b"1"),
    (b"x-a", b"2"),
]


async def test_an_answer_of_the_upstream_is_replaced_and_its_fields_stay() -> None:
    up = Upstream(b"a stack ", b"trace", status=503, headers=[*SENT, (b"content-length", b"13")])
    async with gateway_around(by(upstream=["5xx"], rules=RULES), upstream=up) as caller:
        answer = await caller.get("/")
    problem = answer.json()
    assert problem.pop("request_id")
    assert (answer.status, problem) == (
        502,
        {
            "type": "about:blank",
            "title": "Bad Gateway",
            "status": 502,
            "reason": "upstream_error",
            "detail": "Try again.",
            "code": 5020,
            "route": "main",
            "upstream": "main",
        },
    )
    assert answer.values("x-a") == ["1", "2"]
    assert answer.values("retry-after") == ["7"]
    assert answer.values("content-type") == ["application/problem+json"]
    assert answer.values("etag") == answer.values("content-encoding") == []
    assert answer.values("content-length") == [str(len(answer.body))]


@pytest.mark.parametrize(("status", "is_replaced"), [(404, True), (403, False), (500, True), (200, False)])
async def test_only_the_statuses_that_are_named_are_replaced(status: int, is_replaced: bool) -> None:
    up = Upstream(b"own", status=status)
    async with gateway_around(by(upstream=["404", "5xx"]), upstream=up) as caller:
        answer = await caller.get("/")
    assert (answer.status, answer.body != b"own") == (status, is_replaced)


async def test_what_the_gateway_tells_is_not_told_twice() -> None:
    errors = by(upstream=["4xx", "5xx"], rules=[{"match": ["5xx", "4xx"], "source": "upstream", "code": 1}])
    async with gateway_around(errors, KeyAuth(), upstream=Upstream()) as caller:
        refused = await caller.get("/")
    async with gateway_around(errors, upstream=Upstream(fails="head")) as caller:
        failed = await caller.get("/")
    assert (refused.status, refused.json()["component"]) == (401, "key_auth")
    assert (failed.status, failed.json()["reason"]) == (500, "raised")
    assert "code" not in refused.json()
    assert "code" not in failed.json()


async def test_that_of_a_route_counts_more_than_that_of_all() -> None:
    of_all = by(upstream=["404", "5xx"], format="envelope")
    of_route = by(upstream=["5xx"], rules=[{"match": [503], "code": "own"}])
    async with gateway_around(of_all, of_route, upstream=Upstream(status=503)) as caller:
        assert (await caller.get("/")).json()["code"] == "own"
    async with gateway_around(of_all, of_route, upstream=Upstream(b"own", status=404)) as caller:
        assert (await caller.get("/")).body == b"own"


@pytest.mark.parametrize("chunks", [(b"x" * 70_000, b"y" * 10), (b"x" * 40_000, b"y" * 40_000)])
async def test_a_long_body_that_is_dropped_is_not_read_to_its_end(chunks: tuple[bytes, ...]) -> None:
    up = Upstream(*chunks, status=500)
    async with gateway_around(by(upstream=["5xx"]), upstream=up) as caller:
        answer = await caller.get("/")
    exchange = Exchange.of(up.seen[0].scope)
    assert (answer.status, answer.json()["reason"]) == (500, "upstream_error")
    assert (exchange.outcome, exchange.complete) == ("answered", True)


async def test_a_body_that_breaks_after_it_was_dropped_is_nothing_to_the_caller() -> None:
    up = Upstream(b"first", status=500, fails="chunk")
    async with gateway_around(by(upstream=["5xx"]), upstream=up) as caller:
        answer = await caller.get("/")
    assert answer.json()["reason"] == "upstream_error"
    assert Exchange.of(up.seen[0].scope).outcome == "answered"


async def test_the_caller_waits_for_no_body_that_is_dropped() -> None:
    up = Upstream(b"first", b"second", status=500, waits="chunk")
    async with (
        gateway_around(by(upstream=["5xx"]), upstream=up) as caller,
        caller.stream("GET", "/") as stream,
    ):
        assert json.loads(await stream.read())["status"] == 500
        assert await stream.leave()
    assert up.seen[0].left


async def test_trailers_of_what_is_dropped_are_dropped() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    async with gateway_around(by(upstream=["500"]), upstream=app) as caller:
        assert (await caller.get("/")).status == 500


async def test_a_websocket_is_served_as_ever() -> None:
    async with gateway_around(by(upstream=["5xx"])) as caller, caller.websocket("/") as socket:
        await socket.send("hello")
        assert await socket.receive() == "hello"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rules": [{"match": []}]}, "rules[0].match"),
        ({"rules": [{"match": ["200"]}]}, "'200' is neither a status nor a reason"),
        ({"rules": [{"match": ["6xx"]}]}, "'6xx' is neither a status nor a reason"),
        ({"rules": [{"match": ["404"], "code": 0}]}, "says that nothing is wrong"),
        ({"rules": [{"match": ["404"], "status": 204}]}, "status 204 has no body"),
        ({"upstream": ["200"]}, "'200' is not the status of an error"),
        ({"types": "not a url"}, "types"),
        ({"members": {}}, "an envelope has members with names"),
        ({"members": {"a": "b"}}, "members"),
        ({"format": "xml"}, "format"),
    ],
)
def test_what_cannot_be_is_told_at_once(upstreams: Upstreams, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Gateway.parse(document({"errors": options}), plugins=[upstreams])
