"""Callers who ask all the time, keep their connections, and go elsewhere when they are told to."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.wire.conftest import Answer, Caller


async def leave(*callers: Caller) -> None:
    """All of them close their connections."""
    for caller in callers:
        caller.leave()
    for caller in callers:
        with suppress(ConnectionError):
            await caller.writer.wait_closed()


Look = Callable[[Answer], bool]


def fine(answer: Answer) -> bool:
    return answer.status == 200


@dataclass
class Load:
    """What came of the requests of some callers."""

    port: int
    look: Look = fine
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    gone: bool = False
    """Whether nobody listens any more; new connections are not made then."""
    over: bool = False

    async def call(self, method: str, pause: float) -> None:
        while not (self.over or self.gone):
            try:
                caller = Caller(*await asyncio.open_connection("127.0.0.1", self.port))
            except (ConnectionRefusedError, ConnectionResetError):  # the door closes, nothing was asked
                self.gone = True
                return
            with suppress(ConnectionError):
                await self._keep_asking(caller, method, pause)
            await leave(caller)

    async def _keep_asking(self, caller: Caller, method: str, pause: float) -> None:
        while not self.over:
            try:
                answer = await caller.ask("/a", method=method, body=b"x" * 1000 if method == "POST" else b"")
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                self.failed.append(f"{method}: {error!r}")
                return
            self.answered += 1
            if not self.look(answer):
                self.failed.append(f"{method}: {answer}")
            if b"close" in answer.all(b"connection"):
                return
            await asyncio.sleep(pause)


@asynccontextmanager
async def load(
    url: str,
    callers: int = 8,
    *,
    look: Look = fine,
    pause: float = 0.002,
    methods: Sequence[str] = ("GET", "POST"),
) -> AsyncIterator[Load]:
    """Each caller has a method. `look`: whether an answer is as it should be."""
    found = re.search(r":(\d+)$", url)
    assert found is not None
    one = Load(int(found[1]), look)
    tasks = [
        asyncio.create_task(one.call(methods[number % len(methods)], pause)) for number in range(callers)
    ]
    try:
        yield one
    finally:
        one.over = True
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks)
