"""What holds up a process is named."""

import asyncio
import logging

import pytest

from asgi_gateway.server import watchdog
from asgi_gateway.server.watchdog import Watchdog, waits


async def forgotten(event: asyncio.Event) -> None:
    await event.wait()


async def test_tasks_that_pile_up_are_named_and_again_when_they_are_twice_as_many(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watchdog, "CROWD", 10)
    dog, event = Watchdog(asyncio.get_running_loop()), asyncio.Event()
    with caplog.at_level(logging.ERROR, "asgi_gateway"):
        tasks = [asyncio.create_task(forgotten(event)) for _ in range(5)]
        dog.count()
        assert not caplog.messages
        tasks += [asyncio.create_task(forgotten(event)) for _ in range(10)]
        dog.count()
        dog.count()
        assert len(caplog.messages) == 1
        tasks += [asyncio.create_task(forgotten(event)) for _ in range(10)]
        dog.count()
    assert [message.partition(" (")[0] for message in caplog.messages] == [
        "15 tasks run forgotten",
        "25 tasks run forgotten",
    ]
    assert "server/test_watchdog.py:" in caplog.text
    event.set()
    await asyncio.gather(*tasks)


async def test_where_a_task_waits_is_a_place_in_somebodys_code() -> None:
    event = asyncio.Event()
    task = asyncio.create_task(forgotten(event))
    await asyncio.sleep(0)
    assert waits(task).startswith("forgotten (server/test_watchdog.py:")
    event.set()
    await task
