"""Writes lines to a file or a stream, beside the requests: bounded, in batches, from a thread."""

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from select import PIPE_BUF, POLLOUT, poll
from threading import Lock

logger = logging.getLogger("asgi_gateway.access_log")

INTERVAL = 0.1
"""Seconds that lines are gathered before they are written."""
PATIENCE = 1000
"""Milliseconds that a pipe may be full before the lines for it are dropped."""
STREAMS = {"stdout": 1, "stderr": 2}
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
LARGE = 1024 * 1024

Piece = tuple[bytes, int]
"""What is written at once, and how many lines that is."""


class Writer:
    """The lines that wait for one file. What cannot be written is dropped and counted, never waited for."""

    def __init__(self, file: str, most: int, now: Callable[[], float]) -> None:
        self._most = most
        self._sink = Sink(file, now)
        self._lines: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._renew()

    def _renew(self) -> None:
        """Events belong to the loop in which they are waited for."""
        self._some = asyncio.Event()
        self._many = asyncio.Event()

    def append(self, line: bytes) -> None:
        """Hand in one line, its end included."""
        if not self._lines:
            self._some.set()
        self._size += len(line)
        if self._size > self._most:
            self._size -= len(line)
            self._dropped += 1
            return
        self._lines.append(line)
        if self._size > self._most // 2:
            self._many.set()

    async def run(self) -> None:
        """Write what comes, for as long as the gateway runs."""
        self._renew()
        try:
            while True:
                await self.flush()
                await self._some.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL):
                        await self._many.wait()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Write what has come."""
        self._some.clear()
        self._many.clear()
        lines, self._lines, self._size = self._lines, [], 0
        dropped, self._dropped = self._dropped, 0
        if lines or dropped:
            # Here and not in the thread: that would take the interpreter from the requests for each line.
            pieces = list(joined(lines, self._sink.piece))
            del lines
            await asyncio.to_thread(self._sink.write, pieces, dropped)

    async def close(self) -> None:
        """Write the rest, and close the file."""
        await self.flush()
        await asyncio.to_thread(self._sink.close)


class Sink:
    """The file itself. Its methods block, one at a time, and run in threads."""

    def __init__(self, file: str, now: Callable[[], float]) -> None:
        self.file = file
        self._now = now
        self._lock = Lock()
        self._descriptor = -1
        self.piece = PIPE_BUF
        """Bytes of one write. So many go into a pipe in one piece: lines of workers are never mixed."""
        self._blocks = True
        """Whether a write may have to wait, so that it is asked before."""
        self._torn = False
        self._failing = False
        self._dropped = 0
        self._said = float("-inf")

    def write(self, pieces: list[Piece], dropped: int) -> None:
        """Write these lines, and at most once a second how many were dropped before them."""
        with self._lock:
            self._dropped += dropped
            written = 0
            try:
                self._open()
                for data, _ in pieces:
                    self._pour(data)
                    written += 1
                self._confess()
                self._failing = False
            except OSError as error:
                self._dropped += sum(lines for _, lines in pieces[written:])
                self._fail(error)

    def close(self) -> None:
        with self._lock:
            self._said = float("-inf")
            with suppress(OSError):
                if self._descriptor >= 0:
                    self._confess()
            if self._dropped:
                logger.warning("access log %s: %d lines were dropped", self.file, self._dropped)
                self._dropped = 0
            self._shut()

    def _confess(self) -> None:
        if self._dropped and self._now() >= self._said + 1:
            self._pour(b'{"dropped":%d}\n' % self._dropped)
            self._dropped = 0
            self._said = self._now()

    def _fail(self, error: OSError) -> None:
        self._shut()
        if not self._failing:
            logger.warning("access log %s: %s; lines are dropped until it can be written", self.file, error)
        self._failing = True

    def _open(self) -> None:
        if self.file not in STREAMS and self._descriptor >= 0 and self._moved():
            self._shut()
        if self._descriptor >= 0:
            return
        if self.file in STREAMS:
            self._descriptor = stream(STREAMS[self.file])
        else:
            # A FIFO without a reader must not hold the thread: not blocking, it fails.
            self._descriptor = os.open(self.file, FLAGS | os.O_CREAT, 0o640)
        kind = os.fstat(self._descriptor).st_mode
        if stat.S_ISREG(kind) or (stat.S_ISCHR(kind) and not os.isatty(self._descriptor)):
            self.piece, self._blocks = LARGE, False
        else:
            self.piece, self._blocks = PIPE_BUF, os.get_blocking(self._descriptor)

    def _moved(self) -> bool:
        """Whether somebody took the file away, as logrotate does."""
        try:
            return not os.path.samestat(os.stat(self.file), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True

    def _shut(self) -> None:
        if self._descriptor >= 0 and self._descriptor not in STREAMS.values():
            os.close(self._descriptor)
        self._descriptor = -1

    def _pour(self, data: bytes) -> None:
        rest = memoryview(b"\n" + data if self._torn else data)
        while rest:
            if self._blocks:
                self._wait()
            try:
                rest = rest[os.write(self._descriptor, rest[: self.piece]) :]
            except BlockingIOError:
                self._wait()
            # What stands there is half a line: the next one begins anew.
            self._torn = bool(rest)

    def _wait(self) -> None:
        ready = poll()
        ready.register(self._descriptor, POLLOUT)
        if not ready.poll(PATIENCE):
            raise TimeoutError(f"nobody reads for {PATIENCE} ms")


def stream(number: int) -> int:
    """Standard output or error. A pipe is opened once more: whether that blocks is nobody else's affair, and
    what need not be asked costs half.
    """
    if stat.S_ISFIFO(os.fstat(number).st_mode):
        # Not where there is no /proc, or another user made the pipe.
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{number}", FLAGS)
    return number


def unwritable(file: str) -> str:
    """Why nothing can ever be written there, as it is now; empty if it can. Nothing is opened or made."""
    if file in STREAMS:
        return ""
    folder = os.path.dirname(file) or "."
    if not os.path.isdir(folder):
        return f"there is no folder {folder}"
    if os.path.isdir(file):
        return "it is a folder"
    if not os.access(file if os.path.exists(file) else folder, os.W_OK):
        return "this user may not"
    return ""


def joined(lines: list[bytes], most: int) -> Iterator[Piece]:
    """Whole lines in pieces of at most `most` bytes; a longer line is a piece of its own."""
    if sum(map(len, lines)) <= most:
        yield b"".join(lines), len(lines)
        return
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and size + len(line) > most:
            yield b"".join(batch), len(batch)
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield b"".join(batch), len(batch)
