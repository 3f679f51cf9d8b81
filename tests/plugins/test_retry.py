import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from asgi_gateway.asgi import Message
from asgi_gateway.testing import HandClock, Upstream, gateway_around
from asgi_gateway_plugins.retry import Budget, Knock, Retry, pause_before, seconds


@pytest.fixture(autouse=True)
def same_time() -> Iterator[None]:
    """A test may have changed the time zone."""
    yield
    time.tzset()


def test_a_budget_is_a_part_of_the_calls_of_ten_seconds() -> None:
    budget, now = Budget(0.2, 3), 100.0
    assert [budget.take(now) for _ in range(5)] == [True, True, True, False, False]
    for _ in range(50):
        budget.call(now)
    assert sum(budget.take(now) for _ in range(50)) == 7
    assert not budget.take(now + 9)
    assert budget.take(now + 10)
    assert (budget.calls, budget.retries) == (0, 1)


@pytest.mark.parametrize("idle", [1, 9, 10, 11, 1000])
def test_a_budget_forgets_what_is_over(idle: int) -> None:
    budget = Budget(0.5, 0)
    for second in range(25):
        budget.call(second)
        budget.take(second)
    assert (budget.calls, budget.retries) == (10, 5)
    budget.call(24 + idle)
    assert budget.calls == max(1, 11 - idle)


async def test_an_upstream_that_always_fails_gets_a_fifth_more() -> None:
    """P29: 200 requests a second for half a minute."""
    clock, upstream = HandClock(), Upstream(status=503)
    retry = Retry.model_validate({"attempts": 5, "back_off": "0s"})
    async with gateway_around(retry, upstream=upstream, clock=clock) as client:
        for _ in range(200 * 30):
            await client.get("/")
            clock.advance(1 / 200)
    assert 6000 * 1.15 < len(upstream.seen) <= 6000 * 1.2


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"7", 7),
        (b"0", 0),
        (b"9" * 400, 999_999_999_999),
        (b"Sun, 06 Nov 1994 08:49:47 GMT", 10),
        (b"Sun, 06 Nov 1994 08:49:07 GMT", 0),
        (b"Sun Nov  6 08:49:47 1994", 10),
        (b"Sunday, 06-Nov-94 08:49:47 GMT", 10),
        (b"-3", 0),
        (b"soon", 0),
        (b"", 0),
        (b"\xff", 0),
    ],
    ids=[
        "seconds",
        "zero",
        "endless",
        "later",
        "past",
        "asctime",
        "rfc850",
        "negative",
        "word",
        "empty",
        "bytes",
    ],
)
def test_retry_after_is_seconds_or_a_date(
    value: bytes, wanted: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    assert seconds(value, 784111777.0) == wanted


@pytest.mark.parametrize("tried", [1, 2, 3, 4, 9])
def test_the_pause_doubles_and_is_random_from_zero_on(tried: int) -> None:
    dice, most = random.Random(1), min(0.25, 0.025 * 2 ** (tried - 1))
    pauses = [pause_before(tried, 0.025, 0.25, dice) for _ in range(1000)]
    assert 0 <= min(pauses) < most * 0.05
    assert most * 0.95 < max(pauses) <= most


async def test_each_attempt_hears_that_a_websocket_begins() -> None:
    messages: list[Message] = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "a"}]

    async def receive() -> Message:
        return messages.pop(0)

    knock = Knock(receive)
    assert (await knock.receive())["type"] == "websocket.connect"
    again = knock.reader()
    assert [(await again())["type"] for _ in range(2)] == ["websocket.connect", "websocket.receive"]


async def test_who_was_not_told_that_a_websocket_begins_is_told_once() -> None:
    messages: list[Message] = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "a"}]

    async def receive() -> Message:
        return messages.pop(0)

    first = Knock(receive).reader()
    assert [(await first())["type"] for _ in range(2)] == ["websocket.connect", "websocket.receive"]


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 1},
        {"attempts": 11},
        {"statuses": [200]},
        {"on": ["anything"]},
        {"methods": ["CONNECT"]},
        {"budget": {"percent": 101}},
        {"back_off": 1},
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Retry.model_validate(options)
