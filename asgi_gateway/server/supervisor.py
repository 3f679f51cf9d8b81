"""The only place that starts, watches and ends the processes of a gateway."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import Server
from ..errors import ConfigError
from . import logs
from .holding import held, hold, let_go
from .listening import close
from .reloading import ConfigFile, count, refuse, size, warn_about
from .wire import Note, Wire

LATE = 10.0
"""Seconds past their grace in which workers have to be gone."""
PAUSE = 1.0
"""Seconds before a worker that did not get ready is tried again."""
CONVERGED = 10.0
"""Seconds in which workers have to serve a new configuration, before that is said."""

logger = logging.getLogger("asgi_gateway")


def workers(number: int, one: str, many: str) -> str:
    return f"{count(number, 'worker')} {one if number == 1 else many}"


@dataclass(eq=False)
class Worker:
    """One process, and the wire to it."""

    process: asyncio.subprocess.Process
    wire: Wire
    settled: "asyncio.Future[bool]"
    """Whether it got ready."""
    retired: bool = False
    _asked: "list[asyncio.Future[Note | None]]" = field(default_factory=list)

    @classmethod
    async def start(cls, path: Path, sockets: Sequence[socket.socket], content: bytes) -> "Worker":
        ours, theirs = socket.socketpair()
        numbers = [theirs.fileno(), *(each.fileno() for each in sockets)]
        command = [sys.executable, "-m", "asgi_gateway.server.worker", str(path), *map(str, numbers)]
        # A group of its own: Ctrl-C is for the supervisor, which ends its workers by SIGTERM.
        with theirs, held():
            process = await asyncio.create_subprocess_exec(
                *command, pass_fds=numbers, stdin=subprocess.DEVNULL, process_group=0
            )
        ours.setblocking(False)
        wire = await Wire.over(ours)
        wire.send({"load": content.decode()})
        return cls(process, wire, asyncio.get_running_loop().create_future())

    async def until_over(self) -> int:
        """Listen to it until it ends; the exit code, below 0 for a signal."""
        while (note := await self.wire.next()) is not None:
            if not self.settled.done():
                self.settled.set_result(True)
            elif self._asked:
                self._asked.pop(0).set_result(note)
        if not self.settled.done():
            self.settled.set_result(False)
        for asked in self._asked:
            asked.set_result(None)
        self.wire.close()
        return await self.process.wait()

    def load(self, content: bytes) -> "asyncio.Future[Note | None]":
        """Let it serve a new configuration; what it says to that, None if it ends before."""
        asked: asyncio.Future[Note | None] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self.wire.send({"load": content.decode()})
        return asked

    def retire(self) -> None:
        self.retired = True
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)


class Supervisor:
    """Keeps workers running on the same sockets. SIGHUP reloads them, SIGUSR2 replaces them in turn."""

    def __init__(self, file: ConfigFile, sockets: list[socket.socket], count: int, server: Server) -> None:
        self._file = file
        self._sockets = sockets
        self._count = count
        self._server = server
        self._workers: set[Worker] = set()
        self._beginning = 0
        """Workers whose process is about to be there."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._replacing = asyncio.Lock()

    async def run(self, ready: Callable[[], None], *, watch: bool = False) -> int:
        """Until a signal ends it; the exit code. `watch`: reload when the file changes."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: self.end(self._server.drain))
        loop.add_signal_handler(signal.SIGINT, self.end)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.spawn(self.reread()))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self.spawn(self.restart()))
        let_go()
        async with self._replacing:
            up = all(await asyncio.gather(*(self.start_one() for _ in range(self._count))))
        if up:
            ready()
            if watch:
                self.spawn(self.follow())
            await self._stopping.wait()
        failed = not self._stopping.is_set()
        await self.finish()
        hold()
        if not failed:
            logs.has_ended()
        return int(failed)

    # How it ends

    def end(self, drain: float = 0.0) -> None:
        """Stop after so many seconds in which the readiness probe says no; said twice, at once."""
        if self._ending:
            logs.ends_at_once()
        else:
            logs.ends(drain, self._server.grace)
        if self._ending or not drain:
            self.stop()
            return
        self._ending = True
        for worker in self._workers:
            worker.wire.send({"drain": True})
        asyncio.get_running_loop().call_later(drain, self.stop)

    def stop(self) -> None:
        """End all workers; said twice, at once."""
        self._ending = True
        self._stopping.set()
        # While one of them is open, callers would wait for somebody who accepts them.
        close(self._sockets)
        for worker in self._workers:
            worker.retire()

    async def finish(self) -> None:
        if not self._stopping.is_set():
            self.stop()
        over = [asyncio.create_task(worker.process.wait()) for worker in self._workers]
        if over:
            _, late = await asyncio.wait(over, timeout=self._server.grace + LATE)
            for worker in self._workers if late else ():
                worker.signal(signal.SIGKILL)
            await asyncio.gather(*over)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Workers

    @property
    def _staying(self) -> int:
        """Workers that serve, or will, and were not told to end."""
        return sum(not worker.retired for worker in self._workers) + self._beginning

    async def start_one(self) -> bool:
        """Start a worker; whether it got ready."""
        if self._stopping.is_set():
            return False
        content = self._file.content
        self._beginning += 1
        try:
            worker = await Worker.start(self._file.path, self._sockets, content)
            self._workers.add(worker)
        finally:
            self._beginning -= 1
        if content is not self._file.content:
            # It was read again meanwhile, when nobody could tell this worker.
            worker.load(self._file.content)
        self.spawn(self.look_after(worker))
        if self._ending:
            worker.wire.send({"drain": True})
        if self._stopping.is_set():
            worker.retire()
        return await worker.settled

    async def look_after(self, worker: Worker) -> None:
        """Put another one in its place when a worker ends that was not told to."""
        code = await worker.until_over()
        self._workers.discard(worker)
        if self._stopping.is_set() or worker.retired or not worker.settled.result():
            return
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        logger.error("worker %d ended by %s; another one takes its place", worker.process.pid, how)
        await self.fill()

    async def fill(self) -> None:
        """Start as many workers as are missing: none where another one is on its way already."""
        while self._staying < self._count and not self._stopping.is_set():
            if not await self.start_one():
                await self.stopped_within(PAUSE)

    async def stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def restart(self) -> None:
        """Replace the workers one after the other, so that somebody always serves."""
        async with self._replacing:
            if self._stopping.is_set():
                return
            old = set(self._workers)
            many = len(old)
            logger.info("%s to be replaced, one after the other", workers(many, "is", "are"))
            while (left := list(old & self._workers)) and not self._stopping.is_set():
                # One of them may have died meanwhile: then the new one is in its place.
                if self._staying > self._count:
                    left[0].retire()
                    await left[0].process.wait()
                    old.discard(left[0])
                elif not await self.start_one() and not self._stopping.is_set():
                    logger.error("a new worker could not start; the old ones go on")
                    await self.fill()
                    return
            if not self._stopping.is_set():
                logger.info("%s replaced", workers(many, "was", "were"))

    # The configuration

    async def reread(self) -> None:
        try:
            await self.reload(await asyncio.to_thread(self._file.read))
        except ConfigError as error:
            refuse(error)

    async def follow(self) -> None:
        async for content in self._file.changes():
            await self.reload(content)

    async def reload(self, content: bytes) -> None:
        """Let all workers serve what the file says now, if it can be used. All get the same bytes."""
        async with self._reloading:
            try:
                gateway = await asyncio.to_thread(self._file.gateway, content)
            except ConfigError as error:
                refuse(error)
                return
            warn_about(self._server, gateway.config.server)
            asked = {worker.load(content): worker for worker in self._workers}
            late = (await asyncio.wait(asked, timeout=CONVERGED))[1] if asked else set()
            for each in late:
                logger.error("worker %d does not serve the new configuration yet", asked[each].process.pid)
            served = sum(
                not each.cancelled() and "loaded" in (each.result() or {}) for each in asked if each.done()
            )
            told = workers(served, "serves", "serve")
            logger.info("the configuration was read again: %s; %s it", size(gateway), told)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
