import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asgi_gateway.asgi import Header, Receive, Scope, Send
from asgi_gateway.config import GatewayConfig, Use
from asgi_gateway.consumers import Consumer, Principal
from asgi_gateway.errors import Aborted, ConfigError
from asgi_gateway.exchange import Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.plugins import Plugins
from asgi_gateway.testing import Client, HandClock, Response, Upstream, gateway_around
from asgi_gateway.testing.harness import declare
from asgi_gateway_plugins.cache import Cache
from asgi_gateway_plugins.cache.fetching import identify
from asgi_gateway_plugins.cache.policy import Term
from asgi_gateway_plugins.cache.shelf import OVERHEAD, VARIANTS, Entry, Shelf
from asgi_gateway_plugins.canary import Canary
from asgi_gateway_plugins.cors import Cors
from asgi_gateway_plugins.key_auth import KeyAuth

MINUTE = [(b"cache-control", b"max-age=60")]
TAG = (b"etag", b'"a"')
SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"gateway.test")],
    "client": ("203.0.113.7", 50_000),
    "server": ("gateway.test", 80),
}
ANNA = Consumer.model_validate({"name": "anna", "keys": ["a"]})
BERT = Consumer.model_validate({"name": "bert", "keys": ["b"]})


def says(response: Response) -> str:
    """What the cache did, without its name."""
    return response.values("cache-status")[-1].removeprefix("asgi-gateway; ")


def shelf_of(client: Client) -> Shelf:
    kept = client._app._kernel.resources._kept  # type: ignore[attr-defined]
    (found,) = [one.value for one in kept.values() if isinstance(one.value, Shelf)]
    return found


@asynccontextmanager
async def cached(upstream: Any, *components: Any, **more: Any) -> AsyncIterator[Client]:
    """A gateway with a cache; when it is over, nothing is under way any more."""
    kinds = components or (Cache(),)
    async with gateway_around(*kinds, upstream=upstream, **more) as client:
        yield client
        shelf = shelf_of(client)
        for _ in range(5):
            await asyncio.sleep(0)
        assert (len(shelf.flights), len(shelf.aloft), shelf.filling) == (0, 0, 0)


def origin(*chunks: bytes, headers: Sequence[Header] = MINUTE, **more: Any) -> Upstream:
    return Upstream(*chunks, headers=headers, **more)


# Kept and used


async def test_the_second_caller_gets_what_the_first_one_got() -> None:
    clock, upstream = HandClock(), origin(b"a", b"b", headers=[*MINUTE, (b"x-a", b"1"), (b"x-a", b"2")])
    async with cached(upstream, clock=clock) as client:
        first = await client.get("/a?b=c")
        clock.advance(10)
        second = await client.get("/a?b=c")
    assert len(upstream.seen) == 1
    assert says(first) == "fwd=uri-miss; fwd-status=200; stored"
    assert says(second) == "hit; ttl=50"
    assert first.body == second.body == b"ab"
    assert second.values("x-a") == ["1", "2"]
    assert second.values("age") == ["10"]
    assert second.values("content-length") == ["2"]
    assert second.values("date") == ["Tue, 14 Nov 2023 22:13:20 GMT"]


async def test_urls_are_kept_apart() -> None:
    upstream = origin()
    async with cached(upstream) as client:
        for path in ("/?a=1", "/?a=2", "/", "/x", "/%78"):
            await client.get(path)
        await client.get("/", headers={"host": "other.test"})
    assert len(upstream.seen) == 5
    assert {seen.scope["query_string"] for seen in upstream.seen} == {b"a=1", b"a=2", b""}


async def test_head_is_answered_from_a_get() -> None:
    clock, upstream = HandClock(), origin(b"body")
    async with cached(upstream, clock=clock) as client:
        await client.get("/")
        head = await client.request("HEAD", "/")
        clock.advance(61)
        await client.request("HEAD", "/")
        await client.request("HEAD", "/other")
        await client.request("HEAD", "/other")
    assert (head.status, head.body, head.values("content-length")) == (200, b"", ["4"])
    assert [seen.method for seen in upstream.seen] == ["GET", "HEAD", "HEAD", "HEAD"]


async def test_ranges_and_bodies_pass() -> None:
    upstream = origin()
    async with cached(upstream) as client:
        await client.get("/")
        ranged = await client.get("/", headers={"range": "bytes=0-1"})
        await client.request("GET", "/", b"body")
    assert says(ranged) == "fwd=bypass"
    assert [seen.values("range") for seen in upstream.seen] == [[], ["bytes=0-1"], []]


async def test_ttl_is_for_origins_that_say_nothing() -> None:
    clock, upstream = HandClock(), origin(headers=[])
    async with cached(upstream, Cache(ttl="30s"), clock=clock) as client:
        await client.get("/")
        assert says(await client.get("/")) == "hit; ttl=30"
        assert says(await client.get("/", headers={"cookie": "a=b"})) == "fwd=bypass"
        clock.advance(30)
        await client.get("/")
    assert len(upstream.seen) == 3


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (500, MINUTE),
        (503, MINUTE),
        (200, [*MINUTE, (b"set-cookie", b"a=b")]),
        (200, [(b"cache-control", b"private, max-age=60")]),
        (200, [(b"cache-control", b"no-store")]),
        (200, [*MINUTE, (b"vary", b"*")]),
        (200, []),
        (206, MINUTE),
        (200, [*MINUTE, (b"content-type", b"text/event-stream")]),
        (200, [*MINUTE, (b"content-length", b"3")]),
    ],
    ids=["500", "503", "cookie", "private", "no-store", "vary", "silent", "part", "events", "cut"],
)
async def test_what_is_never_kept(status: int, headers: list[Header]) -> None:
    upstream = origin(b"ab", status=status, headers=headers)
    async with cached(upstream) as client:
        for _ in range(3):
            response = await client.get("/")
            assert (response.status, response.body) == (status, b"ab")
            assert all(pair in response.headers for pair in headers)
        assert len(shelf_of(client)) == 0
    assert len(upstream.seen) == 3


async def test_a_post_is_never_kept() -> None:
    upstream = origin()
    async with cached(upstream) as client:
        for _ in range(2):
            await client.post("/")
    assert len(upstream.seen) == 2


async def test_a_broken_answer_is_never_kept() -> None:
    upstream = origin(b"first", fails="chunk")
    async with cached(upstream) as client:
        for _ in range(2):
            with pytest.raises(Aborted):
                await client.get("/")
        assert len(shelf_of(client)) == 0
    assert len(upstream.seen) == 2


# Who may have it


async def test_callers_who_were_identified_have_their_own() -> None:
    upstream = origin()
    async with cached(upstream, Cache(), KeyAuth(), consumers=(ANNA, BERT)) as client:
        for key in ("a", "b", "a", "b"):
            await client.get("/", headers={"x-api-key": key})
    assert [Exchange.of(seen.scope).principal.consumer for seen in upstream.seen] == ["anna", "bert"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"claims": {"sub": "a", "exp": 2, "iat": 2, "jti": "y"}}, True),
        ({"claims": {"sub": "b", "exp": 1}}, False),
        ({"claims": {"sub": "a", "exp": 1, "tenant": "x"}}, False),
        ({"scopes": ("read", "write")}, False),
        ({"groups": ("gold",)}, False),
        ({"consumer": "bert"}, False),
    ],
    ids=["itself", "another-token", "subject", "tenant", "scopes", "groups", "consumer"],
)
def test_tokens_of_one_caller_are_one_caller(other: dict[str, Any], same: bool) -> None:
    told: dict[str, Any] = {"consumer": "anna", "method": "jwt_auth", "scopes": ("read",)}
    told["claims"] = {"sub": "a", "exp": 1, "iat": 1, "jti": "x"}
    assert (identify(Principal(**told)) == identify(Principal(**{**told, **other}))) is same


async def test_shared_answers_are_for_all() -> None:
    upstream = origin()
    async with cached(upstream, Cache(shared=True), KeyAuth(), consumers=(ANNA, BERT)) as client:
        for key in ("a", "b"):
            await client.get("/", headers={"x-api-key": key})
        assert (await client.get("/")).status == 401
    assert len(upstream.seen) == 1


async def test_authorization_shares_only_what_is_public() -> None:
    upstream = origin()
    async with cached(upstream) as client:
        await client.get("/")
        assert says(await client.get("/", headers={"authorization": "x"})) == "fwd=bypass"
        upstream.headers = [(b"cache-control", b"public, max-age=60")]
        await client.get("/public", headers={"authorization": "x"})
        assert says(await client.get("/public", headers={"authorization": "y"})).startswith("hit")
        assert says(await client.get("/public")).startswith("hit")
    assert len(upstream.seen) == 3


async def test_who_sends_authorization_does_not_keep_others_from_the_cache() -> None:
    upstream = origin()
    async with cached(upstream) as client:
        for _ in range(3):
            await client.get("/", headers={"authorization": "x"})
        await client.get("/")
        assert says(await client.get("/")).startswith("hit")


async def test_the_variants_of_a_canary_are_kept_apart() -> None:
    stable, canary = origin(b"stable"), origin(b"canary")
    split = Canary(upstream="next", percent=0, by="ip", force_header="x-go")
    async with cached(stable, Cache(), split, upstreams={"next": canary}) as client:
        for _ in range(2):
            assert (await client.get("/")).body == b"stable"
            assert (await client.get("/", headers={"x-go": "canary"})).body == b"canary"
        await client.post("/")
        await client.get("/", headers={"x-go": "canary"})
    assert (len(stable.seen), len(canary.seen)) == (2, 2)


async def test_fields_that_stand_outside_are_each_callers_own() -> None:
    upstream = origin()
    cors = Cors(origins=("https://a.test", "https://b.test"))
    async with cached(upstream, Cache(), cors) as client:
        for page in ("https://a.test", "https://b.test"):
            answer = await client.get("/", headers={"origin": page})
            assert answer.values("access-control-allow-origin") == [page]
    assert len(upstream.seen) == 1


# Vary


async def test_answers_that_vary_are_kept_apart() -> None:
    upstream = origin(headers=[*MINUTE, (b"vary", b"Accept-Encoding")])
    async with cached(upstream) as client:
        for coding in ("gzip", "br", "gzip", "BR", ""):
            await client.get("/", headers={"accept-encoding": coding} if coding else {})
        missed = await client.get("/", headers={"accept-encoding": "zstd"})
    assert len(upstream.seen) == 4
    assert says(missed) == "fwd=vary-miss; fwd-status=200; stored"


async def test_the_variants_of_a_url_are_bounded() -> None:
    upstream = origin(headers=[*MINUTE, (b"vary", b"x-any")])
    async with cached(upstream) as client:
        for number in range(100):
            await client.get("/", headers={"x-any": str(number)})
        shelf = shelf_of(client)
        assert len(shelf) == VARIANTS + 1
        assert says(await client.get("/", headers={"x-any": "99"})).startswith("hit")
        assert says(await client.get("/", headers={"x-any": "0"})).startswith("fwd=vary-miss")
        assert len(shelf._urls) == 1
        assert len(next(iter(shelf._urls.values()))) == len(shelf)


def test_ten_thousand_variants_are_bounded() -> None:
    shelf = Shelf(1024 * 1024)
    base = ("place", "main", "", "http", b"gateway.test", b"/", b"")
    for number in range(10_000):
        key = shelf.vary(base, (b"x-any",), [(b"x-any", b"%d" % number)])
        assert shelf.keep(base, key, Entry(200, [], b"x" * 100, Term(60, 0), 1000.0))
    assert len(shelf) == VARIANTS + 1
    shelf.forget(base)
    assert (len(shelf), shelf.size, shelf._urls) == (0, 0, {})


async def test_what_is_encoded_is_not_for_those_who_cannot_read_it() -> None:
    upstream = origin(b"zipped", headers=[*MINUTE, (b"content-encoding", b"gzip")])
    async with cached(upstream) as client:
        await client.get("/", headers={"accept-encoding": "gzip"})
        upstream.headers, upstream.chunks = MINUTE, (b"plain",)
        assert (await client.get("/")).body == b"plain"


async def test_what_varies_by_other_fields_than_before_is_found_by_the_new_ones() -> None:
    clock, upstream = HandClock(), origin(headers=[*MINUTE, (b"vary", b"a")])
    async with cached(upstream, clock=clock) as client:
        await client.get("/", headers={"a": "1", "b": "1"})
        clock.advance(61)
        upstream.headers = [*MINUTE, (b"vary", b"b")]
        await client.get("/", headers={"a": "1", "b": "1"})
        assert says(await client.get("/", headers={"a": "2", "b": "1"})).startswith("hit")
        clock.advance(61)
        upstream.headers = MINUTE
        await client.get("/", headers={"a": "1", "b": "1"})
        assert says(await client.get("/")).startswith("hit")
        assert len(shelf_of(client)) == 1


# Validation


async def test_what_is_stale_is_asked_about() -> None:
    clock, upstream = HandClock(), origin(b"old", headers=[*MINUTE, TAG, (b"x-a", b"1")])
    async with cached(upstream, clock=clock) as client:
        await client.get("/")
        clock.advance(61)
        upstream.status, upstream.chunks, upstream.headers = 304, (b"",), [*MINUTE, (b"x-a", b"2")]
        validated = await client.get("/", headers={"if-none-match": '"own"'})
        assert upstream.seen[-1].values("if-none-match") == ['"a"']
        hit = await client.get("/")
    assert (validated.status, validated.body, validated.values("x-a")) == (200, b"old", ["2"])
    assert says(validated) == "fwd=stale; fwd-status=304"
    assert (says(hit), hit.values("etag"), hit.values("age")) == ("hit; ttl=60", ['"a"'], ["0"])


async def test_a_new_answer_takes_the_place_of_a_stale_one() -> None:
    clock, upstream = HandClock(), origin(b"old", headers=[*MINUTE, TAG])
    async with cached(upstream, clock=clock) as client:
        await client.get("/")
        clock.advance(61)
        upstream.chunks = (b"new",)
        assert (await client.get("/")).body == b"new"
        assert (await client.get("/")).body == b"new"
        clock.advance(61)
        upstream.headers = [(b"cache-control", b"no-store")]
        await client.get("/")
        assert len(shelf_of(client)) == 0


async def test_an_error_leaves_what_is_stale() -> None:
    clock, upstream = HandClock(), origin(b"old", headers=[*MINUTE, TAG])
    async with cached(upstream, clock=clock) as client:
        await client.get("/")
        clock.advance(61)
        for status in (500, 501, 503, 505):
            upstream.status = status
            assert (await client.get("/")).status == status
        upstream.status = 304
        assert (await client.get("/")).body == b"old"


async def test_a_304_that_forbids_to_keep_it_is_obeyed() -> None:
    clock, upstream = HandClock(), origin(b"old", headers=[*MINUTE, TAG])
    async with cached(upstream, clock=clock) as client:
        await client.get("/")
        clock.advance(61)
        upstream.status, upstream.chunks = 304, (b"",)
        upstream.headers = [(b"cache-control", b"no-store")]
        assert (await client.get("/")).body == b"old"
        assert len(shelf_of(client)) == 0


async def test_callers_conditions_are_answered_here() -> None:
    upstream = origin(b"whole", headers=[*MINUTE, TAG, (b"content-type", b"text/plain")])
    async with cached(upstream) as client:
        missed = await client.get("/", headers={"if-none-match": '"a"'})
        assert upstream.seen[-1].values("if-none-match") == []
        hit = await client.get("/", headers={"if-none-match": '"b", W/"a"'})
        other = await client.get("/", headers={"if-none-match": '"b"'})
    assert (missed.status, missed.body, missed.values("etag")) == (304, b"", ['"a"'])
    assert (hit.status, hit.body, hit.values("content-type")) == (304, b"", [])
    assert (other.status, other.body) == (200, b"whole")
    assert len(upstream.seen) == 1


async def test_callers_may_ask_for_more() -> None:
    clock, upstream = HandClock(), origin(headers=[*MINUTE, TAG])
    async with cached(upstream, clock=clock) as client:
        await client.get("/")
        clock.advance(10)
        reloaded = await client.get("/", headers={"cache-control": "no-cache"})
        assert says(reloaded) == "fwd=request; fwd-status=200; stored"
        clock.advance(10)
        await client.get("/", headers={"cache-control": "max-age=5"})
        await client.get("/", headers={"cache-control": "no-store"})
        assert len(upstream.seen) == 4
        clock.advance(65)
        stale = await client.get("/", headers={"cache-control": "max-stale=10"})
        assert says(stale) == "hit; ttl=-5"


async def test_callers_are_not_asked_where_that_is_said() -> None:
    upstream = origin()
    async with cached(upstream, Cache(obey_callers=False)) as client:
        await client.get("/")
        for wish in ("no-cache", "max-age=0", "no-store"):
            assert says(await client.get("/", headers={"cache-control": wish})).startswith("hit")


async def test_only_if_cached_asks_nobody() -> None:
    clock, upstream = HandClock(), origin()
    wish = {"cache-control": "only-if-cached"}
    async with cached(upstream, clock=clock) as client:
        for method in ("GET", "HEAD"):
            missed = await client.request(method, "/", headers=wish)
            assert missed.status == 504
        assert (await client.get("/", headers=wish)).json()["reason"] == "not_cached"
        await client.get("/")
        assert (await client.get("/", headers=wish)).status == 200
        clock.advance(61)
        assert (await client.get("/", headers=wish)).status == 504
    assert len(upstream.seen) == 1


# Stale


async def test_a_stale_answer_is_used_while_it_is_fetched_anew() -> None:
    clock = HandClock()
    upstream = origin(b"1", headers=[(b"cache-control", b"max-age=60, stale-while-revalidate=30")])
    async with cached(upstream, clock=clock) as client:
        await client.get("/")
        clock.advance(70)
        upstream.chunks, upstream.waits = (b"2",), "head"
        stale = [await client.get("/") for _ in range(3)]
        assert [(each.body, says(each)) for each in stale] == [(b"1", "hit; ttl=-10")] * 3
        await turns(lambda: len(upstream.seen) == 2)
        upstream.proceed()
        await turns(lambda: not shelf_of(client).aloft)
        assert (await client.get("/")).body == b"2"
        clock.advance(100)
        upstream.proceed()
        assert says(await client.get("/")).startswith("fwd=stale")
    assert len(upstream.seen) == 3


async def test_refreshing_that_fails_keeps_what_is_there() -> None:
    clock, upstream = HandClock(), origin()
    async with cached(upstream, Cache(stale_while_revalidate="30s"), clock=clock) as client:
        await client.get("/")
        clock.advance(70)
        upstream.fails = "head"
        for number in (2, 3):
            assert (await client.get("/")).status == 200
            await turns(lambda wanted=number: len(upstream.seen) == wanted and not shelf_of(client).aloft)


@pytest.mark.parametrize("how", ["status", "failure"])
async def test_a_stale_answer_is_better_than_an_error(how: str) -> None:
    clock = HandClock()
    upstream = origin(b"1", headers=[(b"cache-control", b"max-age=60, stale-if-error=30"), TAG])
    async with cached(upstream, clock=clock) as client:
        await client.get("/")
        clock.advance(70)
        if how == "status":
            upstream.status = 503
        else:
            upstream.fails = "head"
        stale = await client.get("/")
        assert (stale.status, stale.body) == (200, b"1")
        status = 503 if how == "status" else 500
        assert says(stale) == f"fwd=stale; fwd-status={status}; detail=stale-if-error"
        assert Exchange.of(upstream.seen[-1].scope).outcome == "answered"
        clock.advance(30)
        assert (await client.get("/")).status == status


@pytest.mark.parametrize("said", [b"must-revalidate", b"proxy-revalidate", b"s-maxage=60", b"no-cache"])
async def test_what_must_be_validated_is_never_stale(said: bytes) -> None:
    clock = HandClock()
    upstream = origin(headers=[(b"cache-control", b"max-age=60, " + said), TAG])
    cache = Cache(stale_while_revalidate="30s", stale_if_error="30s")
    async with cached(upstream, cache, clock=clock) as client:
        await client.get("/")
        clock.advance(61)
        upstream.status = 503
        assert (await client.get("/", headers={"cache-control": "max-stale"})).status == 503
        assert (await client.get("/")).status == 503


# One fetch for all


async def gathered(client: Client, many: int, path: str = "/", **more: Any) -> list[asyncio.Task[Response]]:
    tasks = [asyncio.create_task(client.get(path, **more)) for _ in range(many)]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


async def turns(true: Any) -> None:
    """Let others go on until something is so."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never became so")


async def test_fifty_callers_are_one_fetch() -> None:
    upstream = origin(b"a", b"b", waits="head")
    async with cached(upstream) as client:
        tasks = await gathered(client, 50)
        upstream.proceed()
        answers = await asyncio.gather(*tasks)
    assert len(upstream.seen) == 1
    assert {answer.body for answer in answers} == {b"ab"}
    assert sum(says(answer).endswith("collapsed") for answer in answers) == 49


async def test_the_first_caller_may_leave() -> None:
    upstream = origin(b"a", b"b", waits="chunk")
    async with cached(upstream) as client, client.stream("GET", "/") as first:
        assert await first.chunk() == b"a"
        tasks = await gathered(client, 3)
        assert await first.leave()
        upstream.proceed()
        assert {answer.body for answer in await asyncio.gather(*tasks)} == {b"ab"}
        assert says(await client.get("/")).startswith("hit")
    assert len(upstream.seen) == 1
    assert not upstream.seen[0].left


@pytest.mark.parametrize("moment", ["head", "chunk"])
async def test_the_last_caller_who_leaves_ends_the_fetch(moment: Any) -> None:
    upstream = origin(b"a", b"b", waits=moment)
    async with cached(upstream) as client:
        async with client.stream("GET", "/") as one, client.stream("GET", "/") as two:
            await upstream.reached.wait()
            await asyncio.sleep(0)
            if moment == "chunk":
                await one.chunk()
                await two.chunk()
            assert await one.leave()
            assert not upstream.seen[0].left
            assert await two.leave()
            await turns(lambda: upstream.seen[0].left)
        assert len(shelf_of(client)) == 0


async def test_who_comes_when_the_last_one_leaves_begins_anew() -> None:
    upstream = origin(waits="head")
    async with cached(upstream) as client:
        left = asyncio.create_task(ask(client._app, "/"))
        await upstream.reached.wait()
        left.cancel()
        later = asyncio.create_task(ask(client._app, "/"))
        await turns(lambda: len(upstream.seen) == 2)
        upstream.proceed()
        await later
        assert len(shelf_of(client)) == 1
    assert [seen.left for seen in upstream.seen] == [True, False]


@pytest.mark.parametrize("said", [b"max-age=60", b"private"])
async def test_who_leaves_a_server_that_does_not_cancel_is_noticed(said: bytes) -> None:
    upstream = origin(b"a", b"b", headers=[(b"cache-control", said)], waits="chunk")
    gone = asyncio.Event()
    sent: list[Any] = []

    async def receive() -> Any:
        if gone.is_set():
            return {"type": "http.disconnect"}
        await gone.wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async with cached(upstream) as client:
        request = asyncio.create_task(client._app({**SCOPE, "path": "/", "raw_path": b"/"}, receive, send))
        await upstream.reached.wait()
        gone.set()
        await request
        await turns(lambda: upstream.seen[0].left)
    assert [message.get("body") for message in sent] == [None, b"a"]


async def test_an_answer_for_one_does_not_hold_up_the_others() -> None:
    upstream = origin(b"a", b"b", headers=[(b"cache-control", b"private")], waits="head")
    async with cached(upstream) as client:
        tasks = await gathered(client, 20)
        assert len(upstream.seen) == 1
        upstream.proceed()
        await turns(lambda: len(upstream.seen) == 20)
        upstream.proceed(19)
        assert {answer.body for answer in await asyncio.gather(*tasks)} == {b"ab"}
        # For a while nobody waits for such an answer at all.
        tasks = await gathered(client, 5)
        assert len(upstream.seen) == 25
        upstream.proceed(5)
        await asyncio.gather(*tasks)


async def test_what_was_not_kept_is_kept_as_soon_as_it_may_be() -> None:
    upstream = origin(headers=[])
    async with cached(upstream) as client:
        await client.get("/")
        upstream.headers = MINUTE
        assert says(await client.get("/")) == "fwd=uri-miss"
        assert says(await client.get("/")) == "fwd=uri-miss; fwd-status=200; stored"
        assert says(await client.get("/")).startswith("hit")


async def test_those_who_want_another_variant_go_again() -> None:
    upstream = origin(headers=[*MINUTE, (b"vary", b"a")], waits="head")
    async with cached(upstream) as client:
        tasks = [
            *await gathered(client, 5, headers={"a": "1"}),
            *await gathered(client, 5, headers={"a": "2"}),
        ]
        assert len(upstream.seen) == 1
        upstream.proceed(2)
        await asyncio.gather(*tasks)
    assert [seen.values("a") for seen in upstream.seen] == [["1"], ["2"]]


async def test_a_fetch_that_fails_fails_for_all_together() -> None:
    upstream = origin(waits="head", fails="head")
    async with cached(upstream) as client:
        tasks = await gathered(client, 200)
        upstream.proceed()
        answers = await asyncio.gather(*tasks)
        assert {(answer.status, answer.json()["reason"]) for answer in answers} == {(500, "raised")}
        assert len({answer.json()["request_id"] for answer in answers}) == 200
    assert len(upstream.seen) == 1


async def test_a_fetch_that_hangs_holds_nobody_for_longer_than_said() -> None:
    upstream = origin(waits="head")
    async with cached(upstream, Cache(wait="10ms")) as client:
        first = await gathered(client, 1)
        others = await gathered(client, 3)
        while len(upstream.seen) < 4:
            await asyncio.sleep(0.005)
        upstream.proceed(4)
        answers = await asyncio.gather(*first, *others)
    assert [says(answer) for answer in answers[1:]] == ["fwd=uri-miss; collapsed"] * 3


async def test_a_fetch_that_times_out_releases_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, upstream = HandClock(), origin(waits="head")
    async with cached(upstream, clock=clock) as client:
        tasks = await gathered(client, 20)
        clock.advance(31)
        answers = await asyncio.gather(*tasks)
        assert {answer.status for answer in answers} == {504}
    assert len(upstream.seen) == 1


async def test_who_comes_in_the_middle_gets_all_of_it() -> None:
    upstream = origin(b"a", b"b", b"c", waits="chunk")
    async with cached(upstream) as client, client.stream("GET", "/") as first:
        assert await first.chunk() == b"a"
        upstream.proceed()
        assert await first.chunk() == b"b"
        async with client.stream("GET", "/") as second:
            assert await second.chunk() == b"ab"
            upstream.proceed()
            assert (await first.read(), await second.read()) == (b"c", b"c")
    assert len(upstream.seen) == 1


async def test_a_fetch_that_breaks_is_cut_for_all() -> None:
    upstream = origin(b"a", fails="chunk")
    async with cached(upstream) as client:
        tasks = [asyncio.create_task(client.get("/")) for _ in range(5)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, Aborted) for each in results)


# Bounds


async def test_what_is_too_large_streams_past() -> None:
    upstream = origin(*[b"x" * 512] * 8, waits="chunk")
    async with cached(upstream, Cache(max_entry="1KiB")) as client:
        async with client.stream("GET", "/") as slow, client.stream("GET", "/") as fast:
            assert len(await slow.chunk()) == 512
            await asyncio.sleep(0)
            assert len(await fast.chunk()) == 512
            upstream.proceed(7)
            rest = asyncio.create_task(fast.read())
            for _ in range(50):
                await asyncio.sleep(0)
            # It goes on only as fast as the slowest caller: the permits that are left say how far it came.
            assert upstream._permits._value >= 3
            assert len(await slow.read()) == 512 * 7
            assert len(await rest) == 512 * 7
        assert len(shelf_of(client)) == 0


async def test_a_length_that_is_too_large_is_known_before() -> None:
    upstream = origin(b"x" * 2048, headers=[*MINUTE, (b"content-length", b"2048")])
    async with cached(upstream, Cache(max_entry="1KiB")) as client:
        for _ in range(2):
            assert len((await client.get("/")).body) == 2048
        assert len(shelf_of(client)) == 0


async def test_memory_is_bounded_in_bytes() -> None:
    upstream = origin(b"x" * 100_000, headers=[*MINUTE, (b"cache-tag", b"all")])
    async with cached(upstream, Cache(max_size="1MiB")) as client:
        for number in range(50):
            await client.get(f"/{number}")
        shelf = shelf_of(client)
        assert shelf.size <= 1024 * 1024
        assert len(shelf) == 10
        assert len(shelf._urls) == len(shelf._tags[b"all"]) == 10
        assert says(await client.get("/49")).startswith("hit")
        assert says(await client.get("/0")).startswith("fwd")


async def test_small_answers_count_for_what_they_take_up() -> None:
    upstream = origin(b"")
    async with cached(upstream, Cache(max_size="1MiB")) as client:
        for number in range(1200):
            await client.get(f"/{number}")
        assert len(shelf_of(client)) < 1024 * 1024 / OVERHEAD


# What is no longer true


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "ODD"])
async def test_a_change_makes_the_url_forget(method: str) -> None:
    upstream = origin(headers=[*MINUTE, (b"vary", b"a")])
    async with cached(upstream) as client:
        for value in ("1", "2"):
            await client.get("/", headers={"a": value})
        await client.request(method, "/")
        assert len(shelf_of(client)) == 0


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PROPFIND"])
async def test_safe_methods_change_nothing(method: str) -> None:
    upstream = origin()
    async with cached(upstream) as client:
        await client.get("/")
        await client.request(method, "/")
        assert says(await client.get("/")).startswith("hit")


async def test_a_change_that_fails_changes_nothing() -> None:
    upstream = origin()
    async with cached(upstream) as client:
        await client.get("/")
        upstream.status = 404
        await client.post("/")
        upstream.fails = "head"
        await client.post("/")
        assert says(await client.get("/")).startswith("hit")


async def test_a_change_tells_where_else_something_changed() -> None:
    upstream = origin()
    async with cached(upstream) as client:
        for path in ("/a/b", "/a/c?d", "/a/e", "/f"):
            await client.get(path)
        upstream.headers = [(b"location", b"c?d"), (b"content-location", b"http://gateway.test/a/e")]
        await client.post("/a/b")
        upstream.headers = [(b"location", b"http://other.test/f"), (b"content-location", b"http://[")]
        await client.post("/other")
        assert [key[5] for key in shelf_of(client)._entries] == [b"/f"]


async def test_a_change_of_one_caller_is_one_for_all() -> None:
    upstream = origin()
    async with cached(upstream, Cache(), KeyAuth(), consumers=(ANNA, BERT)) as client:
        for key in ("a", "b"):
            await client.get("/", headers={"x-api-key": key})
        await client.post("/", headers={"x-api-key": "a"})
        assert len(shelf_of(client)) == 0


async def purge(client: Client, **what: str) -> int:
    gateway: Gateway = client._app  # type: ignore[assignment]
    gone: int = await gateway.operate("route/main/cache/purge", **what)
    return gone


async def test_an_operator_purges_by_url_path_tag_and_all() -> None:
    upstream = origin(headers=[*MINUTE, (b"cache-tag", b"one, two three")])
    async with cached(upstream) as client:
        for path in ("/a", "/b?c", "/d", "/e"):
            assert (await client.get(path)).values("cache-tag") == []
        assert await purge(client, url="http://gateway.test/a") == 1
        assert await purge(client, url="http://other.test/d") == 0
        assert await purge(client, url="/b?c") == 1
        await client.get("/a")
        upstream.headers = [*MINUTE, (b"cache-tag", b"four")]
        await client.get("/f")
        assert await purge(client, tag="two") == 3
        assert await purge(client, tag="two") == 0
        assert await purge(client) == 1
        assert len(shelf_of(client)) == 0
        for wrong in ({"url": "a"}, {"url": "/a", "tag": "b"}):
            with pytest.raises(ValueError, match=r"url|URL"):
                await purge(client, **wrong)


async def test_operations_have_names() -> None:
    async with cached(origin()) as client:
        gateway: Gateway = client._app  # type: ignore[assignment]
        assert gateway.operations == ("route/main/cache/purge",)
        with pytest.raises(KeyError, match="did you mean 'route/main/cache/purge'"):
            await gateway.operate("route/main/cache/purg")


@pytest.mark.parametrize("what", [{"url": "/"}, {"tag": "x"}, {}], ids=["url", "tag", "all"])
async def test_what_is_purged_while_it_comes_is_not_kept(what: dict[str, str]) -> None:
    upstream = origin(b"old", waits="head")
    async with cached(upstream) as client:
        tasks = await gathered(client, 2)
        await purge(client, **what)
        upstream.chunks = (b"new",)
        later = await gathered(client, 2)
        assert len(upstream.seen) == 2
        upstream.proceed(2)
        await asyncio.gather(*tasks, *later)
        assert (await client.get("/")).body == b"new"
    assert len(upstream.seen) == 2


# Its life


async def test_a_reload_keeps_what_is_warm() -> None:
    clock, upstream = HandClock(), origin()

    def config(**options: Any) -> GatewayConfig:
        return declare([Cache(**options)], {"main": upstream}, {})

    gateway = Gateway(config(), plugins=Plugins(), clock=clock)
    async with gateway.lifespan():
        client = Client(gateway)
        await client.get("/")
        await gateway.reload(config())
        assert says(await client.get("/")).startswith("hit")
        await gateway.reload(config(ttl="5s"))
        assert says(await client.get("/")).startswith("hit")
        await gateway.reload(config(max_size="1MiB"))
        assert says(await client.get("/")).startswith("fwd")


async def test_a_reload_in_the_middle_of_a_fetch_lets_it_end() -> None:
    upstream = origin(waits="head")
    config = declare([Cache()], {"main": upstream}, {})
    gateway = Gateway(config, plugins=Plugins())
    async with gateway.lifespan():
        client = Client(gateway)
        tasks = await gathered(client, 2)
        await gateway.reload(config)
        tasks += await gathered(client, 2)
        upstream.proceed()
        assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
    assert len(upstream.seen) == 1


async def test_a_fetch_beside_the_requests_ends_with_the_gateway() -> None:
    clock, upstream = HandClock(), origin()
    async with gateway_around(Cache(stale_while_revalidate="30s"), upstream=upstream, clock=clock) as client:
        await client.get("/")
        clock.advance(70)
        upstream.waits = "head"
        await client.get("/")
        await turns(lambda: len(upstream.seen) == 2)
    assert upstream.seen[1].left


async def test_a_condition_leaves_the_cache_out() -> None:
    upstream = origin()
    use = Use.model_validate({"component": Cache(), "when": {"path": "/a/*"}})
    async with gateway_around(use, upstream=upstream) as client:
        for path in ("/a/1", "/b/1"):
            for _ in range(2):
                await client.get(path)
    assert [seen.path for seen in upstream.seen] == ["/a/1", "/b/1", "/b/1"]


async def test_the_log_hears_what_the_cache_did() -> None:
    upstream = origin()
    tags: list[Any] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, send)

    async with cached(answer) as client:
        gateway: Gateway = client._app  # type: ignore[assignment]
        live = gateway._live
        original = live.active.discard

        class Watched(set[Exchange]):
            def discard(self, exchange: Exchange) -> None:
                tags.append((exchange.tags, [call.upstream for call in exchange.calls], exchange.status))
                original(exchange)

        live.active = Watched()
        for _ in range(2):
            await client.get("/")
        await client.post("/")
    assert tags == [
        ({"cache": "miss"}, ["main"], 200),
        ({"cache": "hit"}, [], 200),
        ({"cache": "pass"}, ["main"], 200),
    ]


async def test_neither_hits_nor_misses_leave_garbage() -> None:
    clock, upstream = HandClock(), origin(headers=[*MINUTE, TAG])
    async with cached(upstream, clock=clock) as client:
        gateway = client._app
        for kind in ("hit", "miss", "stale", "pass"):
            upstream.headers = [] if kind == "pass" else [*MINUTE, TAG]
            await ask(gateway, "/warm")
            upstream.seen.clear()
            gc.collect()
            gc.disable()
            try:
                for number in range(100):
                    if kind == "stale":
                        clock.advance(61)
                    await ask(gateway, f"/{kind}/{number}" if kind in ("miss", "pass") else "/warm")
                    upstream.seen.clear()
                assert (kind, gc.collect()) == (kind, 0)
            finally:
                gc.enable()


async def ask(gateway: Any, path: str) -> None:
    """One request without a client around it."""
    scope = {**SCOPE, "path": path, "raw_path": path.encode(), "extensions": {"asgi_gateway": {}}}

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        assert message["type"] != "http.response.start" or message["status"] == 200

    await gateway(scope, receive, send)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ttl": "30"}, "is not a time"),
        ({"max_size": "1KiB"}, "1048576"),
        ({"max_entry": "1B"}, "1024"),
        ({"heuristic": 2}, "1"),
        ({"tags": "a b"}, "is not the name of a field"),
        ({"status": "a b"}, "must match"),
        ({"wait": "0s"}, "0"),
        ({"tll": "1s"}, "did you mean 'ttl'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_wrong_options_are_told_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Gateway.parse(
            {
                "upstreams": {"main": {"targets": ["http://127.0.0.1:1"]}},
                "routes": [
                    {"name": "main", "path": "/", "upstream": "main", "components": [{"cache": options}]}
                ],
            }
        )
    assert says in str(raised.value)
