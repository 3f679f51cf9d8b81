"""What a process takes of the machine, as Linux tells it."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PROC = Path("/proc")
NIGHTLY = os.environ.get("ASGI_GATEWAY_NIGHTLY") == "1"
MIB = 1024 * 1024

linux = pytest.mark.skipif(not (PROC / "self/fd").is_dir(), reason="Linux tells what a process takes")


def resident(pid: int) -> int:
    """Bytes of memory."""
    return int((PROC / f"{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def busy(pid: int) -> float:
    """Seconds of CPU since it began."""
    fields = (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def busy_while_idle(pid: int) -> float:
    """Which part of a CPU it takes while nobody wants anything."""
    before, began = busy(pid), time.monotonic()
    await asyncio.sleep(0.5)
    return (busy(pid) - before) / (time.monotonic() - began)


def open_files(pid: int) -> int:
    return len(os.listdir(PROC / f"{pid}/fd"))


def children(pid: int) -> set[int]:
    """The processes that a process has started, and that are not over."""
    try:
        return {int(each) for each in (PROC / f"{pid}/task/{pid}/children").read_text().split()}
    except FileNotFoundError:
        return set()


async def until(reached: Callable[[], bool], seconds: float = 30.0) -> float:
    """How long it took. TimeoutError."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not reached():
            await asyncio.sleep(0.005)
    return time.monotonic() - began
