"""The only place that makes control calls: what the gateway itself asks key servers and other services."""

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .asgi import Headers
from .clock import Clock
from .component import Reply
from .errors import ControlError

if TYPE_CHECKING:
    from .transport.httpx import Fetcher

MAX_CALLS = 1000
"""Calls at one time; more fail at once."""
PATIENT = 3
"""Failures in a row after which nobody waits for a service any more."""
PAUSE = 1.0
"""Seconds between two attempts to reach a service that failed so often."""
GLANCE = 0.05
"""Seconds that the caller of such an attempt waits for it."""
SLACK = 1.25
"""How much longer than its timeout a call may last whose answer comes drop by drop."""


class Standing:
    """How often a service failed in a row, and when it may be tried again."""

    __slots__ = ("failures", "retry_at")

    def __init__(self) -> None:
        self.failures = 0
        self.retry_at = 0.0


class Control:
    """One client for all control calls of a gateway. A call runs in a task of its own: who leaves cancels
    nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._fetcher: Fetcher | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: set[asyncio.Task[Reply]] = set()
        self._services: dict[str, Standing] = {}

    async def call(
        self,
        method: str,
        url: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        timeout: float,  # noqa: ASYNC109  # it ends the call, not the wait for it
        max_size: int = 1 << 20,
    ) -> Reply:
        # Addresses come from the configuration: there are few of them.
        standing = self._services.setdefault(urlsplit(url).netloc, Standing())
        patient = standing.failures < PATIENT
        if not patient:
            now = self._monotonic()
            if now < standing.retry_at:
                raise ControlError("unavailable")
            standing.retry_at = now + PAUSE
        if len(self._calls) >= MAX_CALLS:
            raise ControlError("too_many_calls")
        fetched = self._fetch(standing, method, url, headers, body, timeout, max_size)
        task = asyncio.get_running_loop().create_task(fetched)
        self._calls.add(task)
        task.add_done_callback(self._done)
        if not patient and not (await asyncio.wait({task}, timeout=GLANCE))[0]:
            raise ControlError("unavailable")
        return await asyncio.shield(task)

    async def _fetch(
        self,
        standing: Standing,
        method: str,
        url: str,
        headers: Headers,
        body: bytes,
        seconds: float,
        max_size: int,
    ) -> Reply:
        try:
            async with asyncio.timeout(seconds * SLACK):
                reply = await self._client().fetch(method, url, headers, body, seconds, max_size)
        except TimeoutError:
            self._failed(standing)
            raise ControlError("timeout") from None
        except ControlError:
            self._failed(standing)
            raise
        standing.failures = 0
        return reply

    def _failed(self, standing: Standing) -> None:
        standing.failures += 1
        standing.retry_at = self._monotonic() + PAUSE

    def _client(self) -> "Fetcher":
        """Made in the loop that uses it, when it is first needed: most gateways never do."""
        loop = asyncio.get_running_loop()
        if self._fetcher is None or self._loop is not loop:
            from .transport.httpx import Fetcher

            self._fetcher, self._loop = Fetcher(), loop
        return self._fetcher

    def _done(self, task: "asyncio.Task[Reply]") -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be there any more to ask for it

    async def aclose(self) -> None:
        """End what runs. The next call opens everything anew."""
        loop = asyncio.get_running_loop()
        mine = [task for task in self._calls if task.get_loop() is loop]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        if self._fetcher is not None and self._loop is loop:
            await self._fetcher.aclose()
        self._fetcher = None
