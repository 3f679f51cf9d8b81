from collections.abc import Iterable
from typing import Any

import pytest

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.errors import ConfigError, UpstreamError
from asgi_gateway.exchange import Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.hookspecs import hookimpl
from asgi_gateway.stage import Stage
from asgi_gateway_plugins.template import render
from tests.plugins.kit import CALLER, Upstreams, client, document, handshake, serving


async def test_remove_set_and_add_in_this_order(upstreams: Upstreams) -> None:
    request = {"remove": ["A", "b"], "set": {"B": "1", "c": "2"}, "add": {"A": "3", "d": "4"}}
    async with serving(upstreams, document({"headers": {"request": request}})) as http:
        await http.get("/", headers=[("a", "x"), ("b", "x"), ("c", "x"), ("d", "x"), ("e", "x")])
    found = [
        (name, value)
        for name, value in upstreams.seen[0]["headers"]
        if name in (b"a", b"b", b"c", b"d", b"e")
    ]
    assert found == [(b"d", b"x"), (b"e", b"x"), (b"b", b"1"), (b"c", b"2"), (b"a", b"3"), (b"d", b"4")]


async def test_the_answer_is_edited_too(upstreams: Upstreams) -> None:
    upstreams.answers = [(b"server", b"secret/1.0"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    response = {"remove": ["server"], "set": {"x-frame-options": "DENY"}, "add": {"set-cookie": "c=3"}}
    async with serving(upstreams, document({"headers": {"response": response}})) as http:
        answer = await http.get("/")
    assert "server" not in answer.headers
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2", "c=3"]


async def test_values_hold_variables(upstreams: Upstreams) -> None:
    request = {
        "set": {"x-order": "order {id} of {consumer}", "x-who": "{client}@{host}", "x-braces": "{{id}}"}
    }
    declared = document(
        "key_auth",
        {
            "headers": {
                "request": request,
                "response": {"set": {"x-id": "{request_id}", "x-route": "{route}"}},
            }
        },
        path="/orders/{id}",
        consumers=[{"name": "acme", "keys": ["k"]}],
    )
    async with serving(upstreams, declared) as http:
        answer = await http.get("/orders/17", headers={"x-api-key": "k"})
    assert upstreams.headers("x-order") == ["order 17 of acme"]
    assert upstreams.headers("x-who") == [f"{CALLER}@gateway.test"]
    assert upstreams.headers("x-braces") == ["{id}"]
    assert len(answer.headers["x-id"]) == 32
    assert answer.headers["x-route"] == "main"


async def test_a_value_that_comes_out_empty_is_not_sent(upstreams: Upstreams) -> None:
    request = {"set": {"x-user": "{consumer}"}}
    async with serving(upstreams, document({"headers": {"request": request}})) as http:
        await http.get("/", headers={"x-user": "forged", "X_User": "forged"})
    assert [
        name for name, _ in upstreams.seen[0]["headers"] if b"user" in name and name != b"user-agent"
    ] == []


async def test_a_variable_cannot_end_a_field(upstreams: Upstreams) -> None:
    exchange = Exchange({"type": "http"}, print, 0.0)  # type: ignore[arg-type]
    exchange.raw_params = {"id": "1%0D%0Ax-admin: yes%00 "}
    assert render("{id}")(exchange) == b"1%0D%0Ax-admin: yes%00"
    assert render("a\nb")(exchange) == b"a%0Ab"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"request": {"set": {"Content-Length": "1"}}}, "content-length says how a message is framed"),
        ({"response": {"remove": ["transfer-encoding"]}}, "transfer-encoding says how a message is framed"),
        # Removing a spelling removes all, and CGI reads all of them as one.
        ({"request": {"remove": ["Content_Length"]}}, "content_length says how a message is framed"),
        ({"response": {"set": {"transfer_encoding": "x"}}}, "transfer_encoding says how a message is framed"),
        ({"request": {"add": {"connection": "x"}}}, "connection says how a message is framed"),
        ({"request": {"set": {"Host": "x"}}}, "`host` of the upstream"),
        ({"request": {"rename": {"x-host": "host"}}}, "`host` of the upstream"),
        ({"response": {"rename": {"te": "x"}}}, "te says how a message is framed"),
        ({"response": {"append": {"set-cookie": "a=1"}}}, "cookies do not stand behind a comma"),
        ({"request": {"set": {"x": "{a.b}"}}}, "write a variable as {name}"),
        ({"request": {"set": {"x": "{id!r}"}}}, "write a variable as {name}"),
        ({"request": {"set": {"x": "{"}}}, "'{'"),
        ({"request": {"set": {"bad name": "1"}}}, "not the name of a field"),
        ({"request": {"put": {"x": "1"}}}, "put"),
    ],
)
def test_a_wrong_edit_is_told_at_once(upstreams: Upstreams, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Gateway.parse(document({"headers": options}), plugins=[upstreams])
    assert says in str(raised.value)


async def test_on_an_upstream_only_its_own_calls_are_edited(upstreams: Upstreams) -> None:
    edits = {"headers": {"request": {"set": {"x-to": "next"}}, "response": {"set": {"x-from": "next"}}}}
    declared = document({"canary": {"upstream": "next", "by": "ip", "force_header": "x-go"}})
    declared["upstreams"]["next"]["components"] = [edits]
    async with serving(upstreams, declared) as http:
        there = await http.get("/", headers={"x-go": "canary"})
        assert upstreams.headers("x-to") == ["next"]
        here = await http.get("/", headers={"x-go": "stable"})
        assert upstreams.headers("x-to") == []
    assert there.headers["x-from"] == "next"
    assert "x-from" not in here.headers


class Peeking:
    """A plugin whose component asks another upstream before it goes on."""

    @hookimpl
    def gateway_components(self) -> Iterable[type[Component]]:
        class Peek(Component, name="peek", stage=Stage.TRANSFORM):
            upstream: str

            def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
                other = build.upstream(self.upstream)

                async def swallow(message: Message) -> None:
                    pass

                async def peek(scope: Scope, receive: Receive, send: Send) -> None:
                    await other({**scope}, receive, swallow)
                    await app(scope, receive, send)

                return peek

        return [Peek]


async def test_an_upstream_edits_its_own_answers_only(upstreams: Upstreams) -> None:
    declared = document({"peek": {"upstream": "next"}})
    for name, upstream in declared["upstreams"].items():
        upstream["components"] = [{"headers": {"response": {"add": {"x-from": name}}}}]
    gateway = Gateway.parse(declared, plugins=[upstreams, Peeking()])
    async with gateway.lifespan(), client(gateway) as http:
        answer = await http.get("/")
        upstreams.failure = UpstreamError("connect_failed", "connect")
        problem = await http.get("/")
    assert upstreams.labels == ["next", "main", "next", "main"]
    assert answer.headers.get_list("x-from") == ["main"]
    assert (problem.status_code, problem.headers.get_list("x-from")) == (502, [])


async def test_a_handshake_is_edited(upstreams: Upstreams) -> None:
    declared = document({"headers": {"request": {"set": {"x-a": "1"}}}}, route={"websocket": True})
    await handshake(Gateway.parse(declared, plugins=[upstreams]))
    assert upstreams.headers("x-a") == ["1"]


async def test_a_field_gets_another_name_and_keeps_its_place(upstreams: Upstreams) -> None:
    request = {"rename": {"x-a": "x-b", "x-c": "x-d"}}
    sent = [("X-A", "1"), ("x-b", "forged"), ("x_a", "2"), ("x-d", "stays"), ("x_b", "forged")]
    async with serving(upstreams, document({"headers": {"request": request}})) as http:
        await http.get("/", headers=sent)
    found = [field for field in upstreams.seen[0]["headers"] if field[0][:1] == b"x"]
    assert found == [(b"x-b", b"1"), (b"x-b", b"2"), (b"x-d", b"stays")]


async def test_two_fields_change_their_names(upstreams: Upstreams) -> None:
    request = {"rename": {"x-a": "x-b", "x-b": "x-a"}}
    async with serving(upstreams, document({"headers": {"request": request}})) as http:
        await http.get("/", headers=[("x-a", "1"), ("x-b", "2")])
    assert (upstreams.headers("x-b"), upstreams.headers("x-a")) == (["1"], ["2"])


async def test_a_default_gives_way_to_what_is_there(upstreams: Upstreams) -> None:
    upstreams.answers = [(b"cache-control", b"no-store")]
    edits = {"default": {"x-a": "default", "x-b": "{consumer}", "cache-control": "max-age=60", "x-c": "1"}}
    async with serving(upstreams, document({"headers": {"request": edits, "response": edits}})) as http:
        answer = await http.get("/", headers=[("X_A", "mine")])
    assert (upstreams.headers("x-a"), upstreams.headers("x_a")) == ([], ["mine"])
    assert (upstreams.headers("x-b"), upstreams.headers("x-c")) == ([], ["1"])
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert answer.headers["x-a"] == "default"


async def test_a_value_is_appended_to_the_last_of_its_fields(upstreams: Upstreams) -> None:
    request = {"append": {"x-list": "{route}", "x-new": "1", "x-empty": "2"}, "add": {"x-list": "3"}}
    async with serving(upstreams, document({"headers": {"request": request}})) as http:
        await http.get("/", headers=[("x-list", "a"), ("x-list", "b"), ("x-empty", "")])
    assert upstreams.headers("x-list") == ["a", "b, main", "3"]
    assert (upstreams.headers("x-new"), upstreams.headers("x-empty")) == (["1"], ["2"])


async def test_all_edits_in_their_order(upstreams: Upstreams) -> None:
    request = {
        "remove": ["x-a"],
        "rename": {"x-b": "x-a"},
        "set": {"x-c": "set"},
        "default": {"x-a": "default", "x-c": "default"},
        "append": {"x-c": "appended"},
        "add": {"x-c": "added"},
    }
    async with serving(upstreams, document({"headers": {"request": request}})) as http:
        await http.get("/", headers=[("x-a", "1"), ("x-b", "2"), ("x-c", "3")])
    assert (upstreams.headers("x-a"), upstreams.headers("x-b")) == (["2"], [])
    assert upstreams.headers("x-c") == ["set, appended", "added"]
