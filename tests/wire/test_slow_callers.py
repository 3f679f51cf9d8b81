"""Callers who are slow on purpose are sent away in time, and nobody else waits for them."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.measuring import busy_while_idle, linux, open_files, until
from tests.processes import Running, gateway
from tests.wire.conftest import OK, Behind, Caller, Line, Raw
from tests.wire.load import leave

BIG = 8 * 1024 * 1024
CONNECTIONS = 50
SLOW = {
    "-H": ("-i", "1"),
    "-B": ("-i", "1", "-s", "4096"),
    "-X": ("-w", "256", "-y", "512", "-z", "8192", "-n", "1"),
}
"""Heads that do not end, bodies that do not end, answers that are not read."""

slowhttptest = pytest.mark.skipif(
    shutil.which("slowhttptest") is None, reason="scripts/setup installs slowhttptest where it may"
)


async def answers(line: Line) -> None:
    """Much for /big, else two bytes; a body is not waited for."""
    while True:
        if b" /big " in await line.head():
            line.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BIG)
            line.say(bytes(BIG))
            await line.writer.drain()
        else:
            line.say(OK)


def impatient(raw: Raw) -> dict[str, Any]:
    return {
        "server": {
            "keep_alive": "1s",
            "limits": {"head": "1s", "body": "1s", "send": "1s", "rate": 65536},
        },
        "upstreams": {"up": {"targets": [raw.url], "pool": {"keep_alive": "100ms"}}},
        "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
    }


async def attack(one: Running, mode: str) -> str:
    """How the attack ended, as its tool says."""
    target = one.url + ("/big" if mode == "-X" else "/")
    process = await asyncio.create_subprocess_exec(
        *("slowhttptest", mode, "-c", str(CONNECTIONS), "-r", "200", "-l", "15", "-v", "1"),
        *(*SLOW[mode], "-u", target),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said.partition("Exit status:")[2]


async def ask_all_the_time(one: Running, over: asyncio.Event) -> list[float]:
    """How long each answer took, on a connection of its own."""
    took: list[float] = []
    while not over.is_set():
        began = time.monotonic()
        caller = Caller(*await asyncio.open_connection("127.0.0.1", one.port))
        assert (await caller.ask()).status == 200
        took.append(time.monotonic() - began)
        await leave(caller)
        await asyncio.sleep(0.01)
    return sorted(took)


@linux
@slowhttptest
async def test_slow_heads_bodies_and_readers_are_sent_away_while_others_are_served(
    tmp_path: Path, upstream: Behind
) -> None:
    async with gateway(tmp_path, impatient(await upstream(answers))) as one:
        before = open_files(one.process.pid)
        over = asyncio.Event()
        asking = asyncio.create_task(ask_all_the_time(one, over))
        began = time.monotonic()
        ends = await asyncio.gather(*(attack(one, mode) for mode in SLOW))
        lasted = time.monotonic() - began
        over.set()
        took = await asking
        assert ["No open connections left" in end for end in ends] == [True] * 3, ends
        # The tool looks once a second, after a second in which it connects.
        assert lasted < 10
        median = took[len(took) // 2]
        print(f"gone in {lasted:.1f} s; others waited {median:.4f} s, at most {took[-1]:.3f} s")
        assert median < 0.05
        assert took[-1] < 5, "the slowest answer"
        # uvloop opens a spare one with the first connection.
        await until(lambda: open_files(one.process.pid) <= before + 1, 5)
        assert await busy_while_idle(one.process.pid) < 0.2
        print()
        assert len(one.err) == 1, one
