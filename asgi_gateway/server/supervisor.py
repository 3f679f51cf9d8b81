"""The only place that starts, watches and ends the processes of a gateway."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Server
from ..errors import ConfigError
from .listening import close
from .reloading import refuse, warn_about
from .worker import READY

LATE = 5.0
"""Seconds past their grace in which workers have to be gone."""
PAUSE = 1.0
"""Seconds before a worker that did not get ready is tried again."""

logger = logging.getLogger("asgi_gateway")


@dataclass(eq=False)
class Worker:
    """One process, and the wire to it: it says when it is ready, and ends when the wire is cut."""

    process: asyncio.subprocess.Process
    wire: socket.socket
    settled: "asyncio.Future[bool]"
    """Whether it got ready."""
    retired: bool = False
    missed: bool = False
    """Whether it has to read the file again as soon as it is ready."""

    @classmethod
    async def start(cls, path: Path, sockets: list[socket.socket]) -> "Worker":
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        numbers = [theirs.fileno(), *(each.fileno() for each in sockets)]
        command = [sys.executable, "-m", "asgi_gateway.server.worker", str(path), *map(str, numbers)]
        # A group of its own: Ctrl-C is for the supervisor, which ends its workers by SIGTERM.
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command, pass_fds=numbers, stdin=subprocess.DEVNULL, process_group=0
            )
        return cls(process, ours, asyncio.get_running_loop().create_future())

    async def until_over(self) -> int:
        """The exit code, below 0 for a signal."""
        with self.wire:
            ready = await asyncio.get_running_loop().sock_recv(self.wire, 1) == READY
            self.settled.set_result(ready)
            if self.missed:
                self.signal(signal.SIGHUP)
            return await self.process.wait()

    def reload(self) -> None:
        if self.settled.done():
            self.signal(signal.SIGHUP)
        else:
            self.missed = True

    def retire(self) -> None:
        self.retired = True
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)


class Supervisor:
    """Keeps workers running on the same sockets. SIGHUP reloads them, SIGUSR2 replaces them in turn."""

    def __init__(self, path: Path, sockets: list[socket.socket], count: int, server: Server) -> None:
        self._path = path
        self._sockets = sockets
        self._count = count
        self._server = server
        self._workers: set[Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def run(self, ready: Callable[[], None], changes: AsyncIterator[None] | None = None) -> int:
        """Until a signal ends it; the exit code. `changes` has an item for each change of the file."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.spawn(self.reload()))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self.spawn(self.restart()))
        if all(await asyncio.gather(*(self.start_one() for _ in range(self._count)))):
            ready()
            if changes is not None:
                self.spawn(self.follow(changes))
            await self._stopping.wait()
        failed = not self._stopping.is_set()
        await self.end()
        return int(failed)

    def stop(self) -> None:
        """End all workers; said twice, at once."""
        self._stopping.set()
        # While one of them is open, callers would wait for somebody who accepts them.
        close(self._sockets)
        for worker in self._workers:
            worker.retire()

    async def end(self) -> None:
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

    async def start_one(self) -> bool:
        """Start a worker; whether it got ready."""
        if self._stopping.is_set():
            return False
        worker = await Worker.start(self._path, self._sockets)
        self._workers.add(worker)
        self.spawn(self.look_after(worker))
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
        while not await self.start_one() and not await self.stopped_within(PAUSE):
            pass

    async def stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def reload(self) -> None:
        """Tell all workers to read the file again, if it can be used."""
        from ..gateway import Gateway

        try:
            gateway = await asyncio.to_thread(Gateway.load, self._path)
        except ConfigError as error:
            refuse(error)
            return
        warn_about(self._server, gateway.config.server)
        for worker in self._workers:
            worker.reload()

    async def follow(self, changes: AsyncIterator[None]) -> None:
        async for _ in changes:
            await self.reload()

    async def restart(self) -> None:
        """Replace the workers one after the other, so that somebody always serves."""
        for worker in list(self._workers):
            if self._stopping.is_set():
                return
            if not await self.start_one():
                logger.error("a new worker could not start; the old ones go on")
                return
            worker.retire()
            await worker.process.wait()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
