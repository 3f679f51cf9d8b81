import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asgi_gateway.config import Use
from asgi_gateway.consumers import Consumer, Principal
from asgi_gateway.errors import Aborted
from asgi_gateway.exchange import Exchange
from asgi_gateway.plugins import Plugins
from asgi_gateway.store import MemoryStore
from asgi_gateway.testing import Client, HandClock, Response, Upstream, gateway_around
from asgi_gateway_contrib.redis import RedisStore
from asgi_gateway_plugins.cache import Cache
from asgi_gateway_plugins.idempotency import Idempotency, describe
from asgi_gateway_plugins.idempotency.ledger import Answered, LocalLedger, Running, SharedLedger
from asgi_gateway_plugins.key_auth import KeyAuth
from tests.redis_server import RedisServer, is_installed, redis_server

KEY = {"idempotency-key": '"one"'}
ANNA = Consumer.model_validate({"name": "anna", "keys": ["a"]})
BERT = Consumer.model_validate({"name": "bert", "keys": ["b"]})
MARK = b"m" * 16


def is_replayed(response: Response) -> bool:
    return response.values("idempotent-replayed") == ["true"]


def reason(response: Response) -> tuple[int, str]:
    return response.status, response.json()["reason"]


@asynccontextmanager
async def once(upstream: Any, *components: Any, **more: Any) -> AsyncIterator[Client]:
    async with gateway_around(*(components or (Idempotency(),)), upstream=upstream, **more) as client:
        yield client


async def turns(true: Any) -> None:
    """Let others go on until something is so."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never became so")


async def test_a_request_is_carried_out_once() -> None:
    upstream = Upstream(b"ma", b"de", status=201, headers=[(b"location", b"/1"), (b"set-cookie", b"a=b")])
    async with once(upstream) as client:
        first = await client.post("/orders", b"body", headers=KEY)
        second = await client.post("/orders", b"body", headers=KEY)
        other = await client.post("/orders", b"body", headers={"idempotency-key": '"two"'})
    assert not is_replayed(first)
    assert is_replayed(second)
    assert not is_replayed(other)
    assert (second.status, second.body, second.values("location")) == (201, b"made", ["/1"])
    assert [seen.body for seen in upstream.seen] == [b"body", b"body"]
    assert upstream.seen[0].values("idempotency-key") == ['"one"']


async def test_other_methods_and_requests_without_a_key_pass() -> None:
    upstream = Upstream()
    async with once(upstream) as client:
        for method, headers in (("POST", {}), ("PUT", KEY), ("GET", KEY)):
            for _ in range(2):
                await client.request(method, "/", headers=headers)
    assert len(upstream.seen) == 6


async def test_a_key_may_be_required() -> None:
    upstream = Upstream()
    async with once(upstream, Idempotency(required=True)) as client:
        assert reason(await client.post("/")) == (400, "idempotency_key_missing")
        assert (await client.get("/")).status == 200
        assert (await client.post("/", headers=KEY)).status == 200


@pytest.mark.parametrize(
    "values",
    [[""], ['""'], ['"a'], ['a"b'], ["a,b"], ["a b"], ['"a", "b"'], ["a", "a"], ["x" * 256], ["\xe4"]],
    ids=["none", "empty", "open", "quote", "list", "space", "strings", "twice", "long", "letter"],
)
async def test_a_key_is_one_short_string(values: list[str]) -> None:
    upstream = Upstream()
    async with once(upstream) as client:
        headers = [("idempotency-key", value.encode("latin-1")) for value in values]
        response = await client.post("/", headers=headers)
        assert reason(response) == (400, "bad_idempotency_key")
    assert not upstream.seen


@pytest.mark.parametrize("value", ["8e03978e-40d5-43dd-bc93-6894a57f9324", '"a b, c"', "x" * 255])
async def test_what_many_send_is_taken(value: str) -> None:
    async with once(Upstream()) as client:
        assert not is_replayed(await client.post("/", headers={"idempotency-key": value}))
        assert is_replayed(await client.post("/", headers={"idempotency-key": value}))


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"),
    [
        ("POST", "/a?b", b"other", "text/plain"),
        ("POST", "/a?c", b"body", "text/plain"),
        ("POST", "/b?b", b"body", "text/plain"),
        ("PATCH", "/a?b", b"body", "text/plain"),
        ("POST", "/a?b", b"body", "text/html"),
    ],
)
async def test_a_key_is_for_one_request_only(method: str, path: str, body: bytes, kind: str) -> None:
    upstream = Upstream()
    async with once(upstream) as client:
        await client.post("/a?b", b"body", headers={**KEY, "content-type": "text/plain"})
        other = await client.request(method, path, body, headers={**KEY, "content-type": kind})
        assert reason(other) == (422, "idempotency_key_reused")
    assert len(upstream.seen) == 1


async def test_a_key_is_for_one_host_only() -> None:
    upstream = Upstream()
    async with once(upstream) as client:
        await client.post("/", headers=KEY)
        other = await client.post("/", headers={**KEY, "host": "other.test"})
        assert reason(other) == (422, "idempotency_key_reused")
        assert is_replayed(await client.post("/", headers={**KEY, "host": "GATEWAY.test"}))


async def test_the_second_is_told_while_the_first_is_under_way() -> None:
    upstream = Upstream(waits="head")
    async with once(upstream) as client:
        first = asyncio.create_task(client.post("/", b"body", headers=KEY))
        await upstream.reached.wait()
        second = await client.post("/", b"body", headers=KEY)
        assert reason(second) == (409, "idempotency_key_in_use")
        assert second.values("retry-after") == ["1"]
        assert reason(await client.post("/", b"other", headers=KEY)) == (422, "idempotency_key_reused")
        upstream.proceed()
        assert (await first).status == 200
        assert is_replayed(await client.post("/", b"body", headers=KEY))
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("moment", ["head", "chunk"])
async def test_it_is_carried_out_to_its_end_without_its_caller(moment: Any) -> None:
    upstream = Upstream(b"a", b"b", waits=moment)
    async with once(upstream) as client:
        async with client.stream("POST", "/", b"body", headers=KEY) as first:
            await upstream.reached.wait()
            if moment == "chunk":
                await first.chunk()
            assert await first.leave()
        assert reason(await client.post("/", b"body", headers=KEY))[0] == 409
        upstream.proceed()
        await turns(lambda: not kept_by(client).running)
        again = await client.post("/", b"body", headers=KEY)
        assert (again.body, is_replayed(again)) == (b"ab", True)
    assert not upstream.seen[0].left
    assert len(upstream.seen) == 1


def kept_by(client: Client) -> LocalLedger:
    kept = client._app._kernel.resources._kept  # type: ignore[attr-defined]
    (found,) = [one.value for one in kept.values() if isinstance(one.value, LocalLedger)]
    return found


@pytest.mark.parametrize("how", [500, 503, "head"])
async def test_what_fails_may_be_tried_again(how: Any) -> None:
    upstream = Upstream(b"no", status=how) if how != "head" else Upstream(fails="head")
    async with once(upstream) as client:
        assert (await client.post("/", headers=KEY)).status == (how if how != "head" else 500)
        upstream.status, upstream.fails = 200, "never"
        second = await client.post("/", headers=KEY)
        assert (second.status, is_replayed(second)) == (200, False)
        assert is_replayed(await client.post("/", headers=KEY))


async def test_what_breaks_is_cut_and_may_be_tried_again() -> None:
    upstream = Upstream(b"a", fails="chunk")
    async with once(upstream) as client:
        with pytest.raises(Aborted):
            await client.post("/", headers=KEY)
        upstream.fails = "never"
        assert not is_replayed(await client.post("/", headers=KEY))


async def test_refusals_of_the_origin_are_answers() -> None:
    upstream = Upstream(b"no", status=402)
    async with once(upstream) as client:
        await client.post("/", headers=KEY)
        again = await client.post("/", headers=KEY)
        assert (again.status, again.body, is_replayed(again)) == (402, b"no", True)


async def test_callers_have_keys_of_their_own() -> None:
    upstream = Upstream()
    async with once(upstream, Idempotency(), KeyAuth(), consumers=(ANNA, BERT)) as client:
        for key in ("a", "b"):
            assert not is_replayed(await client.post("/", headers={**KEY, "x-api-key": key}))
    async with once(upstream) as client:
        for address in ("192.0.2.1", "192.0.2.2"):
            assert not is_replayed(await client.post("/", headers=KEY, client=(address, 1)))
        other = await client.post("/", headers={**KEY, "authorization": "x"}, client=("192.0.2.1", 1))
        assert reason(other) == (422, "idempotency_key_reused")


async def test_nobody_gets_the_answer_of_another_whose_keys_are_the_same() -> None:
    upstream = Upstream()
    once_by = Idempotency(by="ip")
    async with once(upstream, once_by, KeyAuth(), consumers=(ANNA, BERT)) as client:
        await client.post("/", headers={**KEY, "x-api-key": "a"})
        other = await client.post("/", headers={**KEY, "x-api-key": "b"})
        assert reason(other) == (422, "idempotency_key_reused")
        assert is_replayed(await client.post("/", headers={**KEY, "x-api-key": "a"}))


def test_who_is_asking_is_part_of_the_request_and_his_token_is_not() -> None:
    async def send(message: Any) -> None: ...

    def described(**claims: Any) -> bytes:
        scope, told = scope_of("k"), bytearray()
        exchange = Exchange(scope, send, 0.0)
        exchange.principal = Principal("app", "jwt_auth", claims=claims)
        describe(told.extend, scope, exchange)
        return bytes(told)

    assert described(sub="anna", exp=1, jti="x") == described(sub="anna", exp=2, jti="y")
    assert described(sub="anna") != described(sub="bert")
    assert described(sub="anna", iss="a") != described(sub="anna", iss="b")


async def test_a_key_is_forgotten_after_its_time() -> None:
    clock, upstream = HandClock(), Upstream()
    async with once(upstream, Idempotency(ttl="1h"), clock=clock) as client:
        await client.post("/", headers=KEY)
        clock.advance(3599)
        assert is_replayed(await client.post("/", headers=KEY))
        clock.advance(1)
        assert not is_replayed(await client.post("/", headers=KEY))


async def test_bodies_have_a_bound() -> None:
    upstream = Upstream()
    async with once(upstream, Idempotency(max_body="4B")) as client:
        assert (await client.post("/", b"1234", headers=KEY)).status == 200
        assert reason(await client.post("/", b"12345", headers=KEY)) == (413, "body_too_large")
        assert (await client.post("/", b"12345")).status == 200


async def test_an_answer_that_is_too_large_passes_once() -> None:
    upstream = Upstream(b"123", b"456")
    async with once(upstream, Idempotency(max_answer="5B")) as client:
        assert (await client.post("/", headers=KEY)).body == b"123456"
        assert reason(await client.post("/", headers=KEY)) == (409, "idempotency_answer_lost")
    assert len(upstream.seen) == 1


async def test_answers_stream() -> None:
    upstream = Upstream(b"a", b"b", waits="chunk")
    async with once(upstream) as client, client.stream("POST", "/", headers=KEY) as stream:
        assert await stream.chunk() == b"a"
        upstream.proceed()
        assert await stream.read() == b"b"


async def test_it_is_written_down_before_the_caller_has_all_of_it() -> None:
    async with once(Upstream(b"a", b"b")) as client:
        ledger, known = kept_by(client), list[tuple[bool, int, int]]()

        async def receive() -> Any:
            return {"type": "http.request", "body": b"body", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                known.append((message.get("more_body", False), len(ledger.running), len(ledger.done)))

        await client._app(scope_of("k"), receive, send)
    assert known[0] == (True, 1, 0)
    assert known[-1] == (False, 0, 1)


async def test_memory_is_bounded_in_bytes() -> None:
    upstream = Upstream(b"x" * 100_000)
    async with once(upstream, Idempotency(max_size="1MiB")) as client:
        for number in range(30):
            await client.post("/", headers={"idempotency-key": str(number)})
        ledger = kept_by(client)
        assert ledger.done.currsize <= 1024 * 1024
        assert not ledger.running


async def test_report_mode_carries_everything_out() -> None:
    upstream = Upstream()
    use = Use(component=Idempotency(required=True), mode="report")
    async with once(upstream, use) as client:
        for headers in ({}, KEY, KEY, {"idempotency-key": "a b"}):
            response = await client.post("/", b"body", headers=headers)
            assert (response.status, is_replayed(response)) == (200, False)
    assert [seen.body for seen in upstream.seen] == [b"body"] * 4


async def test_a_replay_changes_nothing_and_the_first_does() -> None:
    upstream = Upstream(headers=[(b"cache-control", b"max-age=60")])
    async with once(upstream, Idempotency(), Cache()) as client:
        await client.get("/")
        await client.post("/", headers=KEY)
        await client.get("/")
        await client.post("/", headers=KEY)
        await client.get("/")
    assert [seen.method for seen in upstream.seen] == ["GET", "POST", "GET"]


async def test_it_leaves_no_garbage() -> None:
    upstream = Upstream()
    async with once(upstream) as client:
        await client.post("/", b"body", headers=KEY)
        upstream.seen.clear()
        gc.collect()
        gc.disable()
        try:
            for number in range(100):
                await ask(client, f"{number // 2}")
                upstream.seen.clear()
            assert gc.collect() == 0
        finally:
            gc.enable()


def scope_of(key: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"gateway.test"),
            (b"content-length", b"4"),
            (b"idempotency-key", key.encode()),
        ],
        "client": ("203.0.113.7", 50_000),
        "server": ("gateway.test", 80),
    }


async def ask(client: Client, key: str) -> None:
    """One request without a client around it."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"body", "more_body": False}

    async def send(message: Any) -> None:
        assert message["type"] != "http.response.start" or message["status"] == 200

    await client._app(scope_of(key), receive, send)


# In a store


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if not is_installed():
        pytest.skip("no redis-server here: scripts/setup installs it where it can")
    with redis_server(tmp_path) as server:
        yield server


def dropped(coroutine: Any) -> bool:
    coroutine.close()
    return False


@pytest.fixture(params=["memory", "redis"])
def ledger(request: pytest.FixtureRequest) -> SharedLedger:
    if request.param == "memory":
        return SharedLedger(MemoryStore(HandClock().monotonic), "place", 30.0, dropped)
    server: RedisServer = request.getfixturevalue("redis")
    return SharedLedger(RedisStore(server.url, 1.0), "place", 30.0, dropped)


async def test_a_key_in_a_store_is_taken_once(ledger: SharedLedger) -> None:
    held = await ledger.take("a", MARK)
    assert not isinstance(held, Running | Answered)
    assert await ledger.take("a", MARK) == Running(MARK)
    answered = Answered(MARK, 201, [(b"a", b"\xff")], b"\x00\xff")
    await held.finish(answered, 60)
    assert await ledger.take("a", MARK) == answered
    assert not ledger.held
    await ledger._store.aclose()


async def test_a_key_in_a_store_is_given_back(ledger: SharedLedger) -> None:
    held = await ledger.take("a", MARK)
    assert not isinstance(held, Running | Answered)
    await held.finish(None, 0)
    assert not isinstance(await ledger.take("a", MARK), Running | Answered)
    await ledger._store.aclose()


async def test_who_lost_its_lease_overwrites_nothing(ledger: SharedLedger) -> None:
    slow = await ledger.take("a", MARK)
    assert not isinstance(slow, Running | Answered)
    await ledger._store.delete("place/a")
    fast = await ledger.take("a", MARK)
    assert not isinstance(fast, Running | Answered)
    answered = Answered(MARK, 200, [], b"fast")
    await fast.finish(answered, 60)
    await slow.finish(Answered(MARK, 200, [], b"slow"), 60)
    assert await ledger.take("a", MARK) == answered
    await slow.finish(None, 0)
    assert await ledger.take("a", MARK) == answered
    await ledger._store.aclose()


async def test_a_lease_is_kept_up_while_it_is_under_way() -> None:
    clock = HandClock()
    ledger = SharedLedger(MemoryStore(clock.monotonic), "place", 30.0, dropped)
    held = await ledger.take("a", MARK)
    for _ in range(5):
        clock.advance(20)
        await ledger.renew_all()
    assert await ledger.take("a", MARK) == Running(MARK)
    clock.advance(31)
    other = await ledger.take("a", MARK)
    assert not isinstance(other, Running | Answered)
    assert not isinstance(held, Running | Answered)
    await held.finish(None, 0)
    assert await ledger.take("a", MARK) == Running(MARK)


async def test_of_many_gateways_one_carries_it_out(redis: RedisServer) -> None:
    upstream = Upstream(waits="head")
    async with AsyncExitStack() as stack:
        around = {
            "upstream": upstream,
            "plugins": Plugins.installed(),
            "store": {"url": redis.url, "timeout": "2s"},
        }
        clients = [await stack.enter_async_context(gateway_around(Idempotency(), **around)) for _ in range(3)]
        tasks = [asyncio.create_task(client.post("/", b"body", headers=KEY)) for client in clients]
        await upstream.reached.wait()
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 2:
            more, _ = await asyncio.wait(set(tasks) - done, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        upstream.proceed()
        statuses = sorted([(await task).status for task in tasks])
        assert statuses == [200, 409, 409]
        assert all([is_replayed(await client.post("/", b"body", headers=KEY)) for client in clients])
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(("on_error", "status"), [("closed", 503), ("open", 200), ("local", 200)])
async def test_a_store_that_is_away(redis: RedisServer, on_error: Any, status: int) -> None:
    upstream = Upstream()
    redis.kill()
    around: dict[str, Any] = {"plugins": Plugins.installed(), "store": {"url": redis.url}}
    async with once(upstream, Idempotency(on_error=on_error), **around) as client:
        answers = [await client.post("/", b"body", headers=KEY) for _ in range(2)]
        assert [answer.status for answer in answers] == [status] * 2
        assert is_replayed(answers[1]) is (on_error == "local")
        if status == 503:
            assert answers[0].json()["reason"] == "store_away"
    assert len(upstream.seen) == {"closed": 0, "open": 2, "local": 1}[on_error]


async def test_a_store_that_goes_away_in_between_costs_no_answer(redis: RedisServer) -> None:
    upstream = Upstream(waits="head")
    around: dict[str, Any] = {"plugins": Plugins.installed(), "store": {"url": redis.url, "timeout": "1s"}}
    async with once(upstream, **around) as client:
        first = asyncio.create_task(client.post("/", b"body", headers=KEY))
        await upstream.reached.wait()
        redis.kill()
        upstream.proceed()
        assert (await first).status == 200
