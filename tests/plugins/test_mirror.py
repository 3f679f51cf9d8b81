import asyncio
import gc
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_gateway.asgi import Message, Receive, Scope, Send
from asgi_gateway.errors import ConfigError
from asgi_gateway.exchange import Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.replay import Replay
from asgi_gateway.showing import checked
from asgi_gateway_plugins.mirror import Compare, suffixed
from asgi_gateway_plugins.mirror.comparing import Answer, Comparison, differs
from asgi_gateway_plugins.mirror.copying import Shadow
from tests.plugins.kit import Upstreams, client, document

JSON = (b"content-type", b"application/json")


class Both(Upstreams):
    """`main` and `next` answer as the test says; bodies are read."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: dict[str, list[bytes]] = {"main": [], "next": []}
        self.says: dict[str, tuple[int, list[tuple[bytes, bytes]], bytes]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.fails: set[str] = set()
        self.left: list[str] = []

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        label = scope["label"]
        self.seen.append(scope)
        body, more = b"", scope["method"] != "GET"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies[label].append(body)
        try:
            if label in self.gates:
                await self.gates[label].wait()
        except asyncio.CancelledError:
            self.left.append(label)
            raise
        if label in self.fails:
            raise RuntimeError("this one fails")
        status, headers, text = self.says.get(label, (200, [], b"same"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})


@pytest.fixture
def both() -> Both:
    return Both()


class Mirrored:
    """A gateway with a mirror, its client, and what became of the copies."""

    def __init__(self, gateway: Gateway, http: httpx.AsyncClient) -> None:
        self.gateway, self.http = gateway, http

    @property
    def shadow(self) -> Shadow:
        kept = self.gateway._kernel.resources._kept.values()
        (shadow,) = [each.value for each in kept if isinstance(each.value, Shadow)]
        return shadow

    async def settled(self) -> dict[str, int]:
        """The counts when no copy is on its way any more."""
        async with asyncio.timeout(5):
            while self.shadow.active:
                await asyncio.sleep(0)
        return dict(self.shadow.counts)


@asynccontextmanager
async def mirrored(
    both: Both, *components: Any, route: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Mirrored]:
    declared = document({"mirror": {"upstream": "next", **options}}, *components, route=route or {})
    gateway = Gateway.parse(declared, plugins=[both])
    async with gateway.lifespan(), client(gateway) as http:
        yield Mirrored(gateway, http)


async def test_a_copy_goes_to_the_other_upstream(both: Both) -> None:
    async with mirrored(both) as run:
        assert (await run.http.get("/a?b=c", headers={"x-mirrored": "no", "x-y": "1"})).text == "same"
        assert await run.settled() == {"copied": 1, "answered": 1}
    main, copy = sorted(both.seen, key=lambda scope: str(scope["label"]))
    assert (copy["raw_path"], copy["query_string"]) == (b"/a", b"b=c")
    fields = [dict(scope["headers"]) for scope in (main, copy)]
    assert [each.get(b"x-mirrored") for each in fields] == [None, b"1"]
    assert [each[b"host"] for each in fields] == [b"gateway.test", b"gateway.test-shadow"]
    assert fields[1][b"x-y"] == b"1"


@pytest.mark.parametrize(
    ("host", "becomes"),
    [
        (b"a.example", b"a.example-x"),
        (b"a.example:80", b"a.example-x:80"),
        (b"10.0.0.1:80", b"10.0.0.1:80"),
        (b"[::1]:80", b"[::1]:80"),
        (b"", b""),
    ],
)
def test_a_suffix_stands_before_the_port(host: bytes, becomes: bytes) -> None:
    assert suffixed(host, b"-x") == becomes


async def test_the_host_stays_where_that_is_said(both: Both) -> None:
    async with mirrored(both, host_suffix="", header="") as run:
        await run.http.get("/")
        await run.settled()
    assert both.seen[0]["headers"] == both.seen[1]["headers"]


async def test_a_copy_has_the_path_that_the_route_rewrites(both: Both) -> None:
    async with mirrored(both, route={"path": "/a/{id}", "rewrite": "/b/{id}"}) as run:
        await run.http.get("/a/1%202")
        await run.settled()
    assert [scope["raw_path"] for scope in both.seen] == [b"/b/1%202"] * 2


async def test_only_safe_methods_are_copied_unless_more_is_asked_for(both: Both) -> None:
    async with mirrored(both) as run:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            await run.http.request(method, "/")
        assert await run.settled() == {}
    async with mirrored(both, methods=["POST"]) as run:
        await run.http.post("/", content=b"body")
        assert await run.settled() == {"copied": 1, "answered": 1}
        await run.http.get("/")
        assert await run.settled() == {"copied": 1, "answered": 1}
    assert both.bodies["next"] == [b"body"]


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ((8,), {"copied": 1, "answered": 1}),
        ((3, 5), {"copied": 1, "answered": 1}),
        ((9,), {"dropped: too large": 1}),
        ((3, 5, 1, 7), {"dropped: too large": 1}),
    ],
    ids=str,
)
async def test_bodies_are_copied_up_to_a_cap(
    sizes: tuple[int, ...], counts: dict[str, int], both: Both
) -> None:
    async with mirrored(both, methods=["POST"], max_body="8B") as run:
        await run.http.post("/", content=pieces(*sizes))
        assert await run.settled() == counts
    assert both.bodies["main"] == [b"x" * sum(sizes)]
    assert both.bodies["next"] == [b"x" * sum(sizes)] * ("copied" in counts)


async def test_a_body_that_was_read_before_is_copied_too(both: Both) -> None:
    async with mirrored(both, {"middleware": {"cls": f"{__name__}:ReadsFirst"}}, methods=["POST"]) as run:
        await run.http.post("/", content=b"body")
        await run.settled()
    assert both.bodies == {"main": [b"body"], "next": [b"body"]}


@pytest.mark.parametrize(
    ("size", "counts"), [(8, {"copied": 1, "answered": 1}), (9, {"dropped: too large": 1})], ids=str
)
async def test_a_body_that_is_kept_for_all_is_copied_from_there(
    size: int, counts: dict[str, int], both: Both
) -> None:
    keeps = {"middleware": {"cls": f"{__name__}:Keeps"}}
    async with mirrored(both, keeps, methods=["POST"], max_body="8B") as run:
        await run.http.post("/", content=pieces(size - 3, 3))
        assert await run.settled() == counts
    assert both.bodies["main"] == [b"x" * size]
    assert both.bodies["next"] == [b"x" * size] * ("copied" in counts)


class Keeps:
    """Reads the body for everybody, as a signature does."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        replay = Replay.of(Exchange.of(scope), receive)
        await replay.read(100)
        await self.app(scope, replay.reader(), send)


class ReadsFirst:
    """Reads the body, and gives it back."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await self.app(scope, again, send)


async def test_a_body_that_nobody_reads_to_its_end_is_not_copied(both: Both) -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    both.answer = answer  # type: ignore[method-assign]
    async with mirrored(both, methods=["POST"]) as run:
        assert (await run.http.post("/", content=b"body")).status_code == 403
        assert await run.settled() == {"dropped: incomplete": 1}


async def test_sampling_is_turned_while_requests_run(both: Both) -> None:
    async with mirrored(both, percent=0) as run:
        await run.http.get("/")
        assert await run.settled() == {}
        run.gateway.dial("route/main/mirror/percent").set(100)
        await run.http.get("/")
        assert await run.settled() == {"copied": 1, "answered": 1}


async def test_a_part_is_copied(both: Both) -> None:
    declared = document({"mirror": {"upstream": "next", "percent": 25}})
    gateway = Gateway.parse(declared, plugins=[both], dice=random.Random(3))
    async with gateway.lifespan(), client(gateway) as http:
        for _ in range(400):
            await http.get("/")
        copied = (await Mirrored(gateway, http).settled())["copied"]
    assert 74 <= copied <= 126


# What a copy must not do


@pytest.mark.parametrize("wrong", ["slow", "fails", "dead"])
async def test_a_bad_shadow_changes_nothing(wrong: str, both: Both) -> None:
    if wrong == "slow":
        both.gates["next"] = asyncio.Event()
    if wrong == "fails":
        both.fails.add("next")
    declared = document({"mirror": {"upstream": "next"}}, path="/*")
    if wrong == "dead":
        declared["upstreams"]["next"] = {"targets": ["http://127.0.0.1:9"]}
    gateway = Gateway.parse(declared, plugins=[both])
    async with gateway.lifespan(), client(gateway) as http:
        answers = [await http.get("/") for _ in range(5)]
        assert {(answer.status_code, answer.text) for answer in answers} == {(200, "same")}
        run = Mirrored(gateway, http)
        if wrong == "slow":
            assert run.shadow.active == 5
            both.gates["next"].set()
        counts = await run.settled()
    assert counts == {"copied": 5, "answered" if wrong == "slow" else "failed": 5}


async def test_copies_past_the_bound_are_dropped_and_counted(both: Both) -> None:
    both.gates["next"] = asyncio.Event()
    async with mirrored(both, max_copies=2) as run:
        for _ in range(5):
            assert (await run.http.get("/")).status_code == 200
        both.gates["next"].set()
        assert await run.settled() == {"copied": 2, "answered": 2, "dropped: too many": 3}


async def test_a_copy_that_takes_too_long_is_ended(both: Both) -> None:
    both.gates["next"] = asyncio.Event()
    async with mirrored(both, timeout="10ms") as run:
        assert (await run.http.get("/")).status_code == 200
        assert await run.settled() == {"copied": 1, "failed": 1}
    assert both.left == ["next"]


async def test_the_end_of_the_gateway_ends_copies(both: Both) -> None:
    both.gates["next"] = asyncio.Event()
    async with mirrored(both) as run:
        await run.http.get("/")
        await run.gateway._kernel.stop(grace=0.0)
        assert (both.left, run.shadow.active) == (["next"], 0)


async def test_the_background_bound_of_the_gateway_holds_too(both: Both) -> None:
    async with mirrored(both) as run:
        run.gateway._kernel.max_spawned = 0
        await run.http.get("/")
        assert await run.settled() == {"dropped: too many": 1}


async def test_copies_survive_a_reload_and_their_bound_does(both: Both) -> None:
    both.gates["next"] = asyncio.Event()
    async with mirrored(both, max_copies=1) as run:
        await run.http.get("/")
        await run.gateway.reload(run.gateway.config)
        await run.http.get("/")
        both.gates["next"].set()
        assert await run.settled() == {"copied": 1, "answered": 1, "dropped: too many": 1}


async def test_an_event_stream_of_the_shadow_is_not_listened_to(both: Both) -> None:
    both.says["next"] = (200, [(b"content-type", b"text/event-stream")], b"")
    async with mirrored(both) as run:
        await run.http.get("/")
        assert await run.settled() == {"copied": 1, "answered": 1}


async def test_no_cyclic_garbage_is_left(both: Both) -> None:
    async with mirrored(both, methods=["GET", "POST"], compare={}) as run:
        for _ in range(2):
            await run.http.post("/", content=b"body")
            await run.http.get("/")
            await run.settled()
        both.seen.clear()
        gc.collect()
        gc.disable()
        try:
            for method in ("POST", "GET"):
                await run.http.request(method, "/", content=b"body")
            await run.settled()
            both.seen.clear()
            assert not [each for each in gc.get_objects() if isinstance(each, Exchange) and each.ended]
        finally:
            gc.enable()


async def test_the_log_tells_where_a_copy_went(both: Both, tmp_path: Any) -> None:
    file = tmp_path / "access.log"
    async with mirrored(
        both, {"access_log": {"file": str(file)}}, max_body="1B", methods=["GET", "POST"]
    ) as run:
        await run.http.get("/")
        await run.http.post("/", content=b"body")
        await run.settled()
    told = [json.loads(line)["tags"]["mirror"] for line in file.read_text().splitlines()]
    assert told == ["next", "dropped: too large"]


# Comparing


@pytest.mark.parametrize(
    ("main", "other", "options", "says"),
    [
        ((200, [], b"a"), (200, [], b"a"), {}, ""),
        ((200, [], b"a"), (201, [], b"a"), {}, "status 200, then 201"),
        ((200, [], b"a"), (201, [], b"a"), {"status": False}, ""),
        ((200, [], b"abc"), (200, [], b"abd"), {}, "body at byte 2"),
        ((200, [], b"abc"), (200, [], b"ab"), {}, "body at byte 2"),
        ((200, [], b"abc"), (200, [], b"ab"), {"body": False}, ""),
        ((200, [JSON], b'{"a": 1, "b": [1, 2]}'), (200, [JSON], b'{"b":[1,2],"a":1.0}'), {}, ""),
        ((200, [JSON], b'{"a": 1}'), (200, [JSON], b'{"a": true}'), {}, "body at '/a'"),
        ((200, [JSON], b'{"t": 1}'), (200, [JSON], b'{"t": 2}'), {"ignore": ["/t"]}, ""),
        ((200, [JSON], b'{"a": [{"id": 1, "n": 1}]}'), (200, [JSON], b'{"a": [{"id": 2, "n": 2}]}'),
         {"ignore": ["/a/*/id"]}, "body at '/a/0/n'"),
        ((200, [JSON], b"[1]"), (200, [JSON], b"[1, 2]"), {}, "body at '': lengths 1, then 2"),
        ((200, [JSON], b"{"), (200, [JSON], b"["), {}, "body at byte 0"),
        ((200, [JSON], b"[" * 100_000), (200, [JSON], b"[" * 99_999), {}, "body at byte 99999"),
        ((200, [JSON], b"1"), (200, [(b"content-type", b"text/plain")], b"1"), {"headers": ["content-type"]},
         "field content-type"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
async def test_differences_are_reported(
    main: Any,
    other: Any,
    options: dict[str, Any],
    says: str,
    both: Both,
    caplog: pytest.LogCaptureFixture,
) -> None:
    both.says = {"main": main, "next": other}
    async with mirrored(both, compare=options) as run:
        await run.http.get("/orders/7?token=secret")
        counts = await run.settled()
    assert counts == {"copied": 1, "answered": 1, "different" if says else "equal": 1}
    if says:
        assert "mirror of route main to next: GET /orders/7, request " in caplog.text
        assert f"differs in {says}" in caplog.text
    assert "secret" not in caplog.text


async def test_what_has_no_end_or_is_too_large_is_not_compared(both: Both) -> None:
    stream = (200, [(b"content-type", b"text/event-stream")], b"")
    for main, other in (((200, [], b"x" * 9), (200, [], b"y")), ((200, [], b"y"), (200, [], b"x" * 9)),
                        (stream, stream), (stream, (200, [], b"y"))):  # fmt: skip
        both.says = {"main": main, "next": other}
        async with mirrored(both, compare={"max_body": "8B"}) as run:
            await run.http.get("/")
            counts = await run.settled()
        assert counts == {"copied": 1, "answered": 1, "not compared": 1}


async def test_a_shadow_that_fails_is_no_difference(both: Both) -> None:
    both.fails.add("next")
    async with mirrored(both, compare={}) as run:
        await run.http.get("/")
        assert await run.settled() == {"copied": 1, "failed": 1}


async def test_the_slower_main_answer_is_waited_for_by_the_copy_alone(both: Both) -> None:
    both.gates["main"] = asyncio.Event()
    async with mirrored(both, compare={}) as run:
        asked = asyncio.create_task(run.http.get("/"))
        while "next" not in both.labels:
            await asyncio.sleep(0)
        both.gates["main"].set()
        assert (await asked).status_code == 200
        assert await run.settled() == {"copied": 1, "answered": 1, "equal": 1}


async def test_a_caller_who_leaves_leaves_no_comparison(both: Both) -> None:
    both.gates["main"] = asyncio.Event()
    async with mirrored(both, compare={}) as run:
        asked = asyncio.create_task(run.http.get("/"))
        while len(both.seen) < 2:
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert await run.settled() == {"copied": 1, "answered": 1, "not compared": 1}


async def test_reports_are_bounded_and_summed_up(both: Both, caplog: pytest.LogCaptureFixture) -> None:
    both.says["next"] = (500, [], b"")
    caplog.set_level("INFO", "asgi_gateway")
    async with mirrored(both, compare={"reports": 2}) as run:
        for _ in range(5):
            await run.http.get("/")
        await run.settled()
        assert caplog.text.count("differs in status") == 2
        run.shadow.report()
        assert "in a minute: 5 answered, 5 copied, 5 different" in caplog.text
        assert not run.shadow.counts
        await run.http.get("/")
        await run.settled()
        assert caplog.text.count("differs in status") == 3


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(one=TREES, other=TREES)
def test_two_documents_differ_if_and_only_if_they_say_something_else(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (differs(one, other) == "") is same
    assert differs(one, one) == ""
    assert (differs(other, one) == "") is same


@given(
    status=st.integers(100, 599), body=st.binary(max_size=50), cut=st.integers(0, 50), cap=st.integers(0, 60)
)
def test_an_answer_is_equal_to_itself_in_any_pieces(status: int, body: bytes, cut: int, cap: int) -> None:
    answers = []
    for pieces in ([body], [body[:cut], body[cut:]]):
        answers.append(answer := Answer(cap))
        answer.add({"type": "http.response.start", "status": status, "headers": []})
        for place, piece in enumerate(pieces):
            answer.add({"type": "http.response.body", "body": piece, "more_body": place + 1 < len(pieces)})
        assert answer.incomparable is (len(body) > cap)
    if len(body) <= cap:
        assert all(answer.complete for answer in answers)
        assert Comparison(Compare()).difference(*answers) == ""


# What people see


def test_check_shows_where_a_mirror_leads(upstreams: Upstreams) -> None:
    plan = Gateway.parse(document({"mirror": {"upstream": "next", "percent": 5}}), plugins=[upstreams]).plan
    assert "  mirror → next: a copy of 5 % of GET, HEAD" in checked(plan, ())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"upstream": "nxt"}, "did you mean 'next'"),
        ({"upstream": "next", "percent": 101}, "100"),
        ({"upstream": "next", "methods": []}, "methods"),
        ({"upstream": "next", "max_body": "64k"}, "max_body"),
        ({"upstream": "next", "host_suffix": "/x"}, "host_suffix"),
        ({"upstream": "next", "compare": {"status": False, "body": False}}, "nothing is compared"),
        ({"upstream": "next", "compare": {"ignore": ["a"]}}, "'a' is not a JSON pointer"),
        ({}, "upstream"),
    ],
    ids=str,
)
def test_a_wrong_mirror_is_told_at_once(upstreams: Upstreams, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Gateway.parse(document({"mirror": options}), plugins=[upstreams])
    assert says in str(raised.value)
