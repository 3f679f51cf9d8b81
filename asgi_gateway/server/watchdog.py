"""The only place that notices what holds up a process: an event loop that stands still, tasks that pile up,
an end that does not come.
"""

import asyncio
import logging
import os
import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

PATIENCE = 1.0
"""Seconds that the event loop may stand still before it is said where."""
CENSUS = 60.0
"""Seconds between two counts of the tasks."""
CROWD = 10_000
"""Tasks of one kind past which that is said; again at each doubling."""
DEPTH = 4
"""Frames that are shown."""
STANDARD, PACKAGES = sysconfig.get_path("stdlib"), "site-packages"

logger = logging.getLogger("asgi_gateway")


class Watchdog:
    """A thread that asks the event loop every half second whether it still turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bound: float = float("inf")) -> None:
        """`bound`: seconds of standing still after which the process ends itself, to be replaced."""
        self._loop = loop
        self._bound = bound
        self._main = threading.get_ident()
        self._beat = threading.Event()
        self._over = threading.Event()
        self._crowd = CROWD
        self._thread = threading.Thread(target=self._watch, name="asgi-gateway-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        clock = self._loop.time
        census = clock() + CENSUS
        while not self._over.wait(PATIENCE / 2):
            asked, told = clock(), False
            self._beat.clear()
            try:
                self._loop.call_soon_threadsafe(self._beat.set)
                if clock() > census:
                    census = clock() + CENSUS
                    self._loop.call_soon_threadsafe(self.count)
            except RuntimeError:  # the loop is closed
                return
            while not self._beat.wait(PATIENCE if not told else 0.1):
                still = clock() - asked
                if not told:
                    told = True
                    logger.error("the event loop stands still; it is in %s", where(self._main))
                if still > self._bound:
                    logger.critical("the event loop has stood still for %.0f s: this process ends", still)
                    os._exit(70)
            if told:
                logger.error("the event loop stood still for %.1f s; nobody was served", clock() - asked)

    def count(self) -> None:
        """Say of which kind there are too many tasks: somebody starts them and does not end them."""
        tasks = asyncio.all_tasks(self._loop)
        if len(tasks) < self._crowd:
            return
        ((name, many),) = Counter(kind(task) for task in tasks).most_common(1)
        if many >= self._crowd:
            self._crowd *= 2
            logger.error("%d tasks run %s: are they ever ended?", many, name)


def kind(task: "asyncio.Task[Any]") -> str:
    """Which function a task runs."""
    coroutine = task.get_coro()
    code = getattr(coroutine, "cr_code", None)
    name = getattr(coroutine, "__qualname__", repr(coroutine))
    return f"{name} ({short(code.co_filename)}:{code.co_firstlineno})" if code is not None else name


def waits(task: "asyncio.Task[Any]") -> str:
    """Where a task waits: the innermost function that is not the standard library's."""
    coroutine: Any = task.get_coro()
    place = kind(task)
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        file = frame.f_code.co_filename
        if not file.startswith(STANDARD) or PACKAGES in file:
            place = f"{frame.f_code.co_name} ({short(file)}:{frame.f_lineno})"
        coroutine = coroutine.cr_await
    return place


def where(thread: int) -> str:
    """What a thread is doing, innermost first, without the standard library's own steps."""
    frame: FrameType | None = sys._current_frames().get(thread)
    frames: list[str] = []
    while frame is not None and len(frames) < DEPTH:
        file = frame.f_code.co_filename
        if not file.startswith((STANDARD, "<")) or PACKAGES in file:
            frames.append(f"{frame.f_code.co_name} ({short(file)}:{frame.f_lineno})")
        frame = frame.f_back
    return ", called by ".join(frames) or "the standard library"


def short(file: str) -> str:
    return os.path.join(*file.split(os.sep)[-2:]) if os.sep in file else file


def deadman(seconds: float, code: int) -> Callable[[], None]:
    """End the process after so many seconds, whatever holds it up; the function that calls that off."""

    def end() -> None:
        alive = [each.name for each in threading.enumerate() if each is not threading.current_thread()]
        logger.error("the process does not end by itself; its threads: %s", ", ".join(alive))
        logging.shutdown()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.name, timer.daemon = "asgi-gateway-deadman", True
    timer.start()
    return timer.cancel
