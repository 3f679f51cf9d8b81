import re

import pytest

from tests.plugins.kit import CALLER, Upstreams, document, serving

TRUSTED = {"trusted_proxies": [CALLER]}


async def test_upstream_and_caller_see_the_same_id(upstreams: Upstreams) -> None:
    async with serving(upstreams, document("request_id")) as http:
        first, second = [(await http.get("/")).headers["x-request-id"] for _ in range(2)]
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second
    assert upstreams.headers("x-request-id") == [second]


async def test_an_id_from_anybody_is_replaced(upstreams: Upstreams) -> None:
    async with serving(upstreams, document("request_id")) as http:
        answer = await http.get(
            "/", headers={"X-Request-Id": "mine", "X_Request_Id": "mine", "X-Request_Id": "mine"}
        )
    assert answer.headers["x-request-id"] != "mine"
    assert upstreams.headers("x-request-id") == [answer.headers["x-request-id"]]
    assert upstreams.headers("x_request_id") == upstreams.headers("x-request_id") == []


async def test_an_id_from_a_trusted_proxy_is_kept(upstreams: Upstreams) -> None:
    async with serving(upstreams, document("request_id", **TRUSTED)) as http:
        answer = await http.get("/", headers={"X-Request-Id": "edge_1.a-B"})
    assert answer.headers["x-request-id"] == "edge_1.a-B"
    assert upstreams.headers("x-request-id") == ["edge_1.a-B"]


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "a\tb", "ä", 'a"b'])
async def test_what_is_no_id_is_replaced_even_from_a_trusted_proxy(upstreams: Upstreams, given: str) -> None:
    async with serving(upstreams, document("request_id", **TRUSTED)) as http:
        answer = await http.get("/", headers=[(b"x-request-id", given.encode())])
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_two_ids_are_none(upstreams: Upstreams) -> None:
    async with serving(upstreams, document("request_id", **TRUSTED)) as http:
        answer = await http.get("/", headers=[("x-request-id", "a"), ("x-request-id", "b")])
    assert answer.headers.get_list("x-request-id") == upstreams.headers("x-request-id")
    assert answer.headers["x-request-id"] not in ("a", "b")


async def test_the_caller_need_not_be_told(upstreams: Upstreams) -> None:
    async with serving(upstreams, document({"request_id": {"echo": False, "header": "X-Trace"}})) as http:
        answer = await http.get("/")
    assert "x-trace" not in answer.headers
    assert len(upstreams.headers("x-trace")) == 1


async def test_an_upstreams_own_id_does_not_reach_the_caller(upstreams: Upstreams) -> None:
    upstreams.answers = [(b"x-request-id", b"theirs")]
    async with serving(upstreams, document("request_id")) as http:
        answer = await http.get("/")
    assert answer.headers.get_list("x-request-id") == upstreams.headers("x-request-id")


async def test_a_problem_names_the_id(upstreams: Upstreams) -> None:
    declared = document(path="/there", components=["request_id"])
    async with serving(upstreams, declared) as http:
        answer = await http.get("/not-there")
    assert answer.status_code == 404
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
