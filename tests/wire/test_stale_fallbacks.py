"""What `fallback` gives out of the cache when an upstream fails, over real sockets."""

import asyncio
from typing import Any

import pytest

from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import HandClock

from .conftest import Answer, Behind, Caller, Line, Serving, served
from .test_fallbacks import Told


class Origin:
    """An upstream that answers until it is told to fail; what it fails with, it says to nobody."""

    def __init__(
        self, control: str = "max-age=60", fields: str = 'ETag: "a"\r\n', body: bytes = b"old"
    ) -> None:
        self.head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: {control}\r\n{fields}".encode()
        self.body = body
        self.fails = ""
        self.go: asyncio.Event | None = None

    async def __call__(self, line: Line) -> None:
        while True:
            head = await line.head()
            if self.go is not None:
                await self.go.wait()
            if self.fails == "closes":
                return
            if self.fails == "busy":
                line.say(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
                continue
            body = b"" if head.startswith(b"HEAD") else self.body
            line.say(self.head + b"Content-Length: %d\r\n\r\n" % len(self.body) + body)
            return


def document(url: str, cache: dict[str, Any] | None = None, *others: Any, **options: Any) -> dict[str, Any]:
    fallback = {"fallback": {"stale": True, **options}}
    return {
        "upstreams": {"up": {"targets": [url], "ejection": None, "components": [*others, fallback]}},
        "routes": [
            {
                "name": "all",
                "path": "/*",
                "upstream": "up",
                "components": ["remember", {"cache": cache or {}}],
            }
        ],
    }


def says(answer: Answer) -> str:
    return answer.all(b"cache-status")[-1].decode().removeprefix("asgi-gateway; ")


def told(answer: Answer) -> tuple[int, bytes, list[bytes]]:
    return answer.status, answer.body, answer.all(b"x-fallback")


@pytest.mark.parametrize("fault", ["closes", "busy"])
async def test_what_is_kept_and_old_stands_in_for_a_failure(upstream: Behind, fault: str) -> None:
    origin, clock, log = Origin(), HandClock(), Told()
    raw = await upstream(origin)
    async with served(Gateway.parse(document(raw.url), clock=clock, plugins=[log])) as serving:
        caller = await serving.caller()
        await caller.ask()
        clock.advance(100)
        origin.fails = fault
        for _ in range(2):
            old = await caller.ask()
            assert told(old) == (200, b"old", [b"stale"])
            assert says(old) == "fwd=stale; detail=fallback"
            assert (old.all(b"age"), old.all(b"warning"), old.all(b"etag")) == ([b"100"], [], [b'"a"'])
        # It was not taken for something new, nor was anything forgotten.
        assert len(raw.heads) == 3
        assert b'if-none-match: "a"' in raw.heads[-1].lower()
        origin.fails, origin.body = "", b"new"
        assert told(await caller.ask()) == (200, b"new", [])
        assert says(await caller.ask()) == "hit; ttl=60"
    cause = {"closes": "reset", "busy": "bad_status"}[fault]
    assert log.ends[1] == ("answered", cause, {"fallback": "stale", "cache": "stale"})
    assert log.ends[-1] == ("answered", "", {"cache": "hit"})


@pytest.mark.parametrize("said", ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=60"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_must_be_validated_never_stands_in(upstream: Behind, said: str, method: str) -> None:
    origin, clock = Origin(f"max-age=60, {said}"), HandClock()
    declared = document((await upstream(origin)).url)
    fixed = document((await upstream(origin)).url, answer={"body": "fixed"})
    for one, want in ((declared, (502, [])), (fixed, (200, [b"answer"]))):
        origin.fails = ""
        async with served(Gateway.parse(one, clock=clock, plugins=[Told()])) as serving:
            caller = await serving.caller()
            await caller.ask()
            clock.advance(61)
            origin.fails = "closes"
            got = await caller.ask(method=method)
            assert (got.status, got.all(b"x-fallback")) == want


async def test_an_origin_that_allows_it_beside_s_maxage_is_believed(upstream: Behind) -> None:
    origin, clock = Origin("s-maxage=60, stale-if-error=30"), HandClock()
    async with served(
        Gateway.parse(document((await upstream(origin)).url), clock=clock, plugins=[Told()])
    ) as serving:
        caller = await serving.caller()
        await caller.ask()
        origin.fails = "closes"
        clock.advance(80)
        assert told(await caller.ask()) == (200, b"old", [b"stale"])
        clock.advance(20)
        assert (await caller.ask()).status == 502


async def test_a_head_and_conditions_are_answered_with_what_is_old(upstream: Behind) -> None:
    origin, clock = Origin(), HandClock()
    raw = await upstream(origin)
    adds = {"headers": {"response": {"add": {"x-added": "1"}}}}
    async with served(Gateway.parse(document(raw.url, None, adds), clock=clock, plugins=[Told()])) as serving:
        caller = await serving.caller()
        await caller.ask()
        clock.advance(100)
        origin.fails = "closes"
        head = await caller.ask(method="HEAD")
        assert told(head) == (200, b"", [b"stale"])
        assert (head.all(b"content-length"), head.all(b"age")) == ([b"3"], [b"100"])
        assert head.all(b"cache-status") == [b"asgi-gateway; fwd=stale; detail=fallback"]
        whole = await caller.ask("/", 'If-None-Match: "b"')
        assert told(whole) == (200, b"old", [b"stale"])
        # What the upstream's own components add, it has once.
        assert head.all(b"x-added") == whole.all(b"x-added") == [b"1"]
        for method in ("GET", "HEAD"):
            same = await caller.ask("/", 'If-None-Match: "b", W/"a"', method=method)
            assert (same.status, same.all(b"age"), says(same)) == (
                304,
                [b"100"],
                "fwd=stale; detail=fallback",
            )
        # What only the origin can answer has no other answer.
        for field in ("Range: bytes=0-0", 'If-Match: "a"', "Cache-Control: no-store"):
            assert (await caller.ask("/", field)).status == 502


async def test_many_callers_get_what_is_old_out_of_one_fetch(upstream: Behind) -> None:
    origin, clock = Origin(), HandClock()
    raw = await upstream(origin)
    async with served(Gateway.parse(document(raw.url), clock=clock, plugins=[Told()])) as serving:
        await (await serving.caller()).ask()
        clock.advance(100)
        origin.fails, origin.go = "closes", asyncio.Event()
        callers = [await serving.caller() for _ in range(10)]
        for caller in callers:
            caller.say()
        while len(serving.state.tasks) < 10:
            await asyncio.sleep(0.001)
        callers[0].leave()
        origin.go.set()
        answers = [await caller.answer() for caller in callers[1:]]
    assert {(one.status, one.body, says(one)) for one in answers} == {
        (200, b"old", "fwd=stale; detail=fallback")
    }
    assert all(one.all(b"x-fallback") == [b"stale"] for one in answers)
    assert len(raw.heads) == 2


async def test_who_asks_anew_gets_what_is_kept_rather_than_nothing(upstream: Behind) -> None:
    origin, clock = Origin(), HandClock()
    async with served(
        Gateway.parse(document((await upstream(origin)).url), clock=clock, plugins=[Told()])
    ) as serving:
        caller = await serving.caller()
        await caller.ask()
        clock.advance(10)
        origin.fails = "closes"
        got = await caller.ask("/", "Cache-Control: no-cache")
        assert (told(got), says(got)) == ((200, b"old", [b"stale"]), "fwd=request; detail=fallback")
        assert says(await caller.ask()) == "hit; ttl=50"


@pytest.mark.parametrize("options", [{}, {"stale_if_error": "1h"}], ids=["fallback", "both"])
async def test_what_was_purged_does_not_stand_in(upstream: Behind, options: dict[str, Any]) -> None:
    origin, clock = Origin(), HandClock()
    raw = await upstream(origin)
    declared = document(raw.url, options)
    async with served(Gateway.parse(declared, clock=clock, plugins=[Told()])) as serving:
        caller = await serving.caller()
        await caller.ask()
        clock.advance(100)
        origin.fails, origin.go = "closes", asyncio.Event()
        caller.say()
        await reached(raw.heads, 2)
        await serving.gateway.operate("route/all/cache/purge")
        origin.go.set()
        assert (await caller.answer()).status == 502


async def reached(heads: list[bytes], many: int) -> None:
    while len(heads) < many:
        await asyncio.sleep(0.001)


async def test_a_fixed_answer_does_not_make_the_cache_forget(upstream: Behind) -> None:
    origin, clock = Origin("max-age=60, must-revalidate"), HandClock()
    raw = await upstream(origin)
    declared = document(raw.url, answer={"body": "fixed"})
    async with served(Gateway.parse(declared, clock=clock, plugins=[Told()])) as serving:
        caller = await serving.caller()
        await caller.ask()
        clock.advance(61)
        origin.fails = "closes"
        assert told(await caller.ask()) == (200, b"fixed", [b"answer"])
        origin.fails = ""
        assert told(await caller.ask()) == (200, b"old", [])
    # It still knows what to ask about.
    assert b'if-none-match: "a"' in raw.heads[-1].lower()


async def test_a_stale_answer_that_is_fetched_anew_in_vain_stays(upstream: Behind) -> None:
    origin, clock = Origin("max-age=60, stale-while-revalidate=1000"), HandClock()
    raw = await upstream(origin)
    async with served(Gateway.parse(document(raw.url), clock=clock, plugins=[Told()])) as serving:
        caller = await serving.caller()
        await caller.ask()
        clock.advance(100)
        origin.fails = "closes"
        for number in (2, 3):
            assert told(await caller.ask()) == (200, b"old", [])
            await reached(raw.heads, number)
            await settled(serving)


async def settled(serving: Serving) -> None:
    """Until nothing is fetched any more."""
    (shelf,) = [
        one.value
        for one in serving.gateway._kernel.resources._kept.values()
        if type(one.value).__name__ == "Shelf"
    ]
    while shelf.aloft:
        await asyncio.sleep(0.001)


async def test_each_caller_has_his_own(upstream: Behind) -> None:
    origin, clock = Origin(), HandClock()
    declared = document((await upstream(origin)).url)
    declared["routes"][0]["components"].append("key_auth")
    declared["consumers"] = [{"name": "anna", "keys": ["a"]}, {"name": "bert", "keys": ["b"]}]

    async def asks(caller: Caller, key: str) -> Answer:
        return await caller.ask("/", f"X-Api-Key: {key}")

    async with served(Gateway.parse(declared, clock=clock, plugins=[Told()])) as serving:
        caller = await serving.caller()
        await asks(caller, "a")
        clock.advance(61)
        origin.fails = "closes"
        assert (await asks(caller, "b")).status == 502
        assert told(await asks(caller, "a")) == (200, b"old", [b"stale"])
