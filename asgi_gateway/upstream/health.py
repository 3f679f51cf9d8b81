"""The only place that asks targets whether they are well."""

import asyncio
import logging
import random
from typing import Any

from ..call import Call, closed
from ..clock import Clock
from ..config import HealthConfig
from ..errors import UpstreamError
from ..ticker import Ticker
from ..transport import Transport
from ..transport.connections import Http1
from .target import Target

logger = logging.getLogger("asgi_gateway")


class Checker:
    """Asks one target again and again."""

    def __init__(
        self,
        target: Target,
        transport: Transport,
        options: HealthConfig,
        host: str,
        ticker: Ticker,
        clock: Clock,
        dice: random.Random,
    ) -> None:
        self._target = target
        self._transport = transport
        self._options = options
        self._ticker = ticker
        self._monotonic = clock.monotonic
        self._dice = dice
        fields = f"host: {host}\r\nuser-agent: asgi-gateway-health\r\naccept: */*\r\n"
        self._head = f"GET {options.path} HTTP/1.1\r\n{fields}\r\n".encode()
        self._streak = 0

    async def run(self) -> None:
        # Not all at once: a thousand targets are spread over the interval.
        await asyncio.sleep(self._options.interval * self._dice.random() * 0.1)
        while True:
            self._judge(await self.check())
            await asyncio.sleep(self._options.interval * self._dice.uniform(0.9, 1.1))

    async def check(self) -> bool:
        """Ask once. Any failure, the timeout among them, is a bad answer."""
        now = self._monotonic()
        call = Call("health", closed, now, now + self._options.timeout, asyncio.current_task())
        self._ticker.add(call, asyncio.get_running_loop())
        try:
            return await self.ask(call)
        except UpstreamError:
            return False
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call.expired is None or task is None or task.uncancel():
                raise
            return False
        finally:
            self._ticker.discard(call)
            call.close()

    async def ask(self, call: Call) -> bool:
        answer = await self._transport.send("GET", self._head, None, call)
        try:
            while await answer.read():
                pass
        finally:
            answer.close()
        return answer.status in self._options.statuses

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _judge(self, good: bool) -> None:
        """Turn the target's health after enough equal answers in a row."""
        self._streak = self._streak + 1 if good != self._target.healthy else 0
        needed = self._options.healthy if good else self._options.unhealthy
        if self._streak >= needed:
            self._streak = 0
            target = self._target
            if good:
                logger.info("target %s is well again", target.name)
                # Checks that succeed say more than the failures of some calls before.
                target.failures = 0
                target.mark(healthy=True, ejected=False)
            else:
                logger.warning("target %s is not well: it is left out", target.name)
                target.mark(healthy=False)


class TcpChecker(Checker):
    """Opens a connection to one target again and again."""

    def __init__(self, target: Target, transport: Http1, *args: Any) -> None:
        super().__init__(target, transport, *args)
        self._dialed = transport

    async def ask(self, call: Call) -> bool:
        await self._dialed.reach(call)
        return True
