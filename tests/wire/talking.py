"""Raw bytes to a server, and what became of them."""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.wire.conftest import Answer, Caller

LAST = b"GET /last HTTP/1.1\r\nHost: gw.test\r\n\r\n"
PATIENCE = 1.0
"""Seconds after which a server that has got everything, and says nothing, is taken to wait for more."""

End = Literal["usable", "closed", "reset", "waiting"]


@dataclass
class Told:
    """The answers on one connection, without that of the request that was sent last, and its end."""

    answers: list[Answer] = field(default_factory=list)
    end: End = "waiting"

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

    @property
    def refused(self) -> bool:
        """Whether the last answer is a refusal that ends the connection."""
        last = self.answers[-1] if self.answers else None
        return (
            last is not None
            and (400 <= last.status < 500 or last.status == 505)
            and last.all(b"connection") == [b"close"]
            and self.end == "closed"
        )


async def talk(port: int, *pieces: bytes, last: bytes = LAST) -> Told:
    """Send the pieces one by one, a request behind them, and read until that is answered or nothing comes."""
    caller = Caller(*await asyncio.open_connection("127.0.0.1", port))
    told = Told()
    sending = asyncio.ensure_future(say(caller, pieces, last))
    now = asyncio.get_running_loop().time
    clock = asyncio.timeout(10)

    def sent(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the last answer came in the same turn of the loop
            clock.reschedule(now() + PATIENCE)

    try:
        async with clock:
            sending.add_done_callback(sent)
            while (answer := await caller.answer()).all(b"x-target") != [b"/last"]:
                if answer.status >= 200:
                    told.answers.append(answer)
                if sending.done():
                    clock.reschedule(now() + PATIENCE)
        told.end = "usable"
    except asyncio.IncompleteReadError as error:
        told.end = "closed" if not error.partial else "reset"
    except ConnectionError:
        told.end = "reset"
    except TimeoutError:
        pass
    finally:
        sending.remove_done_callback(sent)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        caller.leave()
    return told


async def talk_all(port: int, all_pieces: Iterable[Sequence[bytes]]) -> list[Told]:
    """Talk on many connections at a time, in their order: no more than the system takes in at once."""
    gate = asyncio.Semaphore(50)

    async def one(pieces: Sequence[bytes]) -> Told:
        async with gate:
            return await talk(port, *pieces)

    return await asyncio.gather(*map(one, all_pieces))


async def say(caller: Caller, pieces: Iterable[bytes], last: bytes) -> None:
    """Each piece reaches the server alone: its loop turns in between."""
    for piece in pieces:
        if caller.reader.at_eof():
            return
        caller.writer.write(piece)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    caller.writer.write(last)
    await caller.writer.drain()
