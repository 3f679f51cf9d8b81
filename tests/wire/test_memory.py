"""What passes through is not kept: the memory of the gateway, and how far one side is ahead (P35, P36)."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.measuring import MIB, NIGHTLY, linux, resident
from tests.peers import peer
from tests.processes import Running, gateway
from tests.wire.conftest import Caller
from tests.wire.load import leave

pytestmark = linux

KEY = "a-key-that-is-long-enough-for-anything"
BULK, MORE = (1024 * MIB, 32 * MIB) if NIGHTLY else (64 * MIB, 8 * MIB)
SLOW = 100 if NIGHTLY else 20
LONG = 100 * MIB
AHEAD = 2 * MIB
RATE = 10 * 1024
PIECE = bytes(64 * 1024)
SMALL = 64 * 1024
"""Of the buffers that are not the gateway's."""
STILL = 0.5
"""Seconds between two looks whether there is still a rush."""


def quiet(connection: socket.socket) -> None:
    """Keep the system's buffers of our own side out of the sum."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)


@dataclass
class Bulk:
    """An upstream of much: /down/9 gives so many bytes, /slow reads 10 KiB/s, anything else reads all."""

    port: int = 0
    written: list[int] = field(default_factory=list)
    """Bytes of each answer that could be written."""
    read: list[int] = field(default_factory=list)
    """Bytes of each body that were read."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if found := re.search(rb"content-length: (\d+)", head):
                    await self.take(reader, int(found[1]), slow=b" /slow " in head)
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                else:
                    found = re.search(rb" /down/(\d+) ", head)
                    assert found is not None
                    await self.give(writer, int(found[1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def give(self, writer: asyncio.StreamWriter, size: int) -> None:
        number = len(self.written)
        self.written.append(0)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while self.written[number] < size:
            writer.write(PIECE)
            await writer.drain()
            self.written[number] += len(PIECE)

    async def take(self, reader: asyncio.StreamReader, size: int, *, slow: bool) -> None:
        number = len(self.read)
        self.read.append(0)
        while self.read[number] < size:
            piece = await reader.read(RATE // 10 if slow else len(PIECE))
            if not piece:
                raise ConnectionError
            self.read[number] += len(piece)
            if slow:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def bulk() -> AsyncIterator[Bulk]:
    one = Bulk()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    quiet(listener)

    async with peer(one.serve, sock=listener, limit=SMALL) as one.port:
        yield one


def behind(upstream: Bulk) -> dict[str, Any]:
    """Through all that a usual chain has."""
    return {
        # Who leaves in the middle of a body that nobody reads is not seen to leave.
        "server": {"limits": {"rate": 0}, "grace": "100ms"},
        "consumers": [{"name": "alice", "keys": [KEY]}],
        "upstreams": {"up": {"targets": [f"http://127.0.0.1:{upstream.port}"], "timeout": {"total": "10m"}}},
        "components": ["request_id", {"access_log": {"file": "stderr"}}],
        "routes": [
            {
                "name": "all",
                "path": "/*",
                "upstream": "up",
                "components": [
                    "key_auth",
                    {"rate_limit": {"limit": "1000/second", "by": "consumer"}},
                    {"headers": {"response": {"set": {"x-a": "b"}}}},
                ],
            }
        ],
    }


async def reach(one: Running) -> Caller:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    quiet(connection)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", one.port))
    return Caller(*await asyncio.open_connection(sock=connection, limit=SMALL))


async def settled(counts: list[int], many: int) -> list[int]:
    """The counts, when so many are there and they move no faster than somebody reads."""
    before = 0
    async with asyncio.timeout(30):
        while len(counts) < many or min(counts) == 0 or sum(counts) - before > 2 * RATE * STILL * many:
            before = sum(counts)
            await asyncio.sleep(STILL)
    return counts


@dataclass
class Ahead:
    """How far those who send are ahead of those who read, at most, in bytes."""

    all: int
    received: int
    """What the system has received for the gateway, and the gateway has not read. How much that may be is up
    to how fast the beginning was read; to bound it (SO_RCVBUF) would slow down long lines.
    """

    @classmethod
    def of(cls, sent: list[int], read: list[int], *, at: int = 0, to: int = 0) -> "Ahead":
        """`at`, `to`: the port of the gateway, or that which it has reached."""
        waiting = [0]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, queues, *_ = line.split()
            ports = int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16)
            if state == "01" and (at or ports[0], to or ports[1]) == ports:
                waiting.append(int(queues.partition(":")[2], 16))
        return cls(max(sent) - min(read), max(waiting))

    @property
    def kept(self) -> int:
        return self.all - self.received

    def __str__(self) -> str:
        return f"{self.all / MIB:.2f} MiB ahead, {self.received / MIB:.2f} of it received and not read"


class Peak:
    """The most memory that a process had, while the block ran, beyond what it had before."""

    def __init__(self, one: Running) -> None:
        self.pid = one.process.pid
        self.before = self.most = resident(self.pid)

    async def __aenter__(self) -> "Peak":
        self._looking = asyncio.create_task(self._look())
        return self

    async def _look(self) -> None:
        while True:
            self.most = max(self.most, resident(self.pid))
            await asyncio.sleep(0.01)

    async def __aexit__(self, *exc: object) -> None:
        self._looking.cancel()
        self.most = max(self.most, resident(self.pid))

    @property
    def more(self) -> int:
        return self.most - self.before


async def test_much_goes_up_and_down_and_the_memory_stays(tmp_path: Path) -> None:
    async with bulk() as upstream, gateway(tmp_path, behind(upstream)) as one:
        caller = await reach(one)
        await warm(caller)
        async with Peak(one) as down:
            caller.say(f"/down/{BULK}", f"X-API-Key: {KEY}")
            assert (await caller.head()).status == 200
            left = BULK
            while left:
                piece = await caller.reader.read(min(left, len(PIECE)))
                assert piece
                left -= len(piece)
        async with Peak(one) as up:
            caller.say("/up", f"X-API-Key: {KEY}", f"Content-Length: {BULK}", method="POST")
            for _ in range(BULK // len(PIECE)):
                caller.writer.write(PIECE)
                await caller.writer.drain()
            assert (await caller.answer()).status == 200
        print(f"{BULK // MIB} MiB: {down.more / MIB:.1f} MiB more down, {up.more / MIB:.1f} MiB up")
        assert upstream.read[-1] == BULK
        assert down.more <= MORE
        assert up.more <= MORE
        await leave(caller)


async def warm(caller: Caller) -> None:
    """What is made once is made."""
    assert (await caller.ask("/down/65536", f"X-API-Key: {KEY}")).status == 200
    assert (await caller.ask("/up", f"X-API-Key: {KEY}", method="POST", body=PIECE)).status == 200


@asynccontextmanager
async def slow_callers(one: Running, work: Callable[[Caller, int], Awaitable[None]]) -> AsyncIterator[None]:
    """So many callers at work; they leave with the block."""
    callers = [await reach(one) for _ in range(SLOW)]
    tasks = [asyncio.ensure_future(work(caller, number)) for number, caller in enumerate(callers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for caller in callers:
            caller.writer.transport.abort()
        await leave(*callers)


async def test_upstreams_are_not_far_ahead_of_callers_who_read_slowly(tmp_path: Path) -> None:
    got = [0] * SLOW

    async def read(caller: Caller, number: int) -> None:
        caller.say(f"/down/{LONG}", f"X-API-Key: {KEY}")
        while piece := await caller.reader.read(RATE // 10):
            got[number] += len(piece)
            await asyncio.sleep(0.1)

    async with bulk() as upstream, gateway(tmp_path, behind(upstream)) as one:
        first = await reach(one)
        await warm(first)
        await leave(first)
        upstream.written.clear()
        async with Peak(one) as peak, slow_callers(one, read):
            ahead = Ahead.of(await settled(upstream.written, SLOW), got, to=upstream.port)
        print(f"{SLOW} readers: {ahead}, {peak.more / MIB:.1f} MiB more")
        assert ahead.kept <= AHEAD
        assert peak.more <= SLOW * MIB


async def test_callers_are_not_far_ahead_of_upstreams_that_read_slowly(tmp_path: Path) -> None:
    sent = [0] * SLOW

    async def send(caller: Caller, number: int) -> None:
        caller.writer.transport.set_write_buffer_limits(high=0)
        caller.say("/slow", f"X-API-Key: {KEY}", f"Content-Length: {LONG}", method="POST")
        while sent[number] < LONG:
            caller.writer.write(PIECE)
            await caller.writer.drain()
            sent[number] += len(PIECE)

    async with bulk() as upstream, gateway(tmp_path, behind(upstream)) as one:
        first = await reach(one)
        await warm(first)
        await leave(first)
        upstream.read.clear()
        async with Peak(one) as peak, slow_callers(one, send):
            ahead = Ahead.of(await settled(sent, SLOW), upstream.read, at=one.port)
        print(f"{SLOW} senders: {ahead}, {peak.more / MIB:.1f} MiB more")
        assert ahead.kept <= AHEAD
        assert peak.more <= SLOW * MIB
