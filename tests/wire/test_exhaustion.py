"""Too few files, too many callers, no room on the disk: what can be served is served (P58)."""

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.measuring import MIB, busy, busy_while_idle, linux, open_files, resident, until
from tests.processes import Running, gateway
from tests.wire.conftest import OK, Behind, Caller, Line
from tests.wire.load import leave

FILES = 64
CALLERS = 200
ROOM = (FILES - 32) // 2
"""Connections that are served with so few files."""
IDLE = 5000

pytestmark = linux
loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


async def slowly(line: Line) -> None:
    """Answers after a moment, so that callers are there at the same time."""
    while True:
        await line.head()
        await asyncio.sleep(0.05)
        line.say(OK)


def behind(url: str, loop: str, **options: Any) -> dict[str, Any]:
    return {
        "server": {"loop": loop, **options.pop("server", {})},
        "upstreams": {"up": {"targets": [url], **options}},
        "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
    }


async def reach(one: Running) -> Caller:
    return Caller(*await asyncio.open_connection("127.0.0.1", one.port))


async def status(one: Running) -> int:
    """What one request gets on a connection of its own."""
    caller = await reach(one)
    answer = await caller.ask()
    await leave(caller)
    return answer.status


async def call(one: Running) -> tuple[int, str, Caller]:
    """The answer to one request, on a connection that stays open."""
    caller = await reach(one)
    answer = await caller.ask()
    reason = answer.body.partition(b'"reason":')[2].strip(b' "').partition(b'"')[0].decode()
    return answer.status, reason, caller


@loops
async def test_with_few_files_some_are_served_the_others_told_and_nothing_spins(
    tmp_path: Path, upstream: Behind, loop: str
) -> None:
    async with gateway(tmp_path, behind((await upstream(slowly)).url, loop), files=FILES) as one:
        pid = one.process.pid
        began, used = time.monotonic(), busy(pid)
        async with asyncio.timeout(20):
            told = await asyncio.gather(*(call(one) for _ in range(CALLERS)))
        seen = Counter((status, reason) for status, reason, _ in told)
        print(f"{dict(seen)} in {time.monotonic() - began:.1f} s, {busy(pid) - used:.2f} s of CPU")
        assert seen[200, ""] >= ROOM
        assert seen[200, ""] + seen[503, "too_many_connections"] == CALLERS
        assert open_files(pid) <= FILES
        assert await busy_while_idle(pid) < 0.1
        await leave(*(caller for _, _, caller in told))
        began = time.monotonic()
        while await status(one) != 200:
            assert time.monotonic() < began + 2
        assert len(one.err) == 1, one


@loops
async def test_where_files_run_out_nobody_is_taken_in_and_requests_are_told_so_until_there_are_some(
    tmp_path: Path, upstream: Behind, loop: str
) -> None:
    raw = await upstream(slowly)
    document = behind(raw.url, loop, server={"limits": {"connections": 1000}})
    async with gateway(tmp_path, document, files=FILES) as one:
        callers = [await reach(one) for _ in range(CALLERS)]
        await one.says("no connection can be accepted: Too many open files")
        first, *others = callers
        for _ in range(2):
            answer = await first.ask()
            assert answer.status == 503
            assert b'"exhausted"' in answer.body
        used = await busy_while_idle(one.process.pid)
        print(f"{used:.2f} of a CPU without files")
        assert used < 0.1
        await leave(*others)
        began = time.monotonic()
        while (await first.ask()).status != 200 or await status(one) != 200:
            assert time.monotonic() < began + 2
        await leave(first)
        # Two lines: where it listens, and that there are no files.
        assert len(one.err) == 2, one


@contextmanager
def files(wanted: int) -> Iterator[int]:
    """So many open files for this process, if it may have them; how many it may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = before[1] if before[1] != resource.RLIM_INFINITY else wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(wanted, most)), before[1]))
    try:
        yield most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_thousands_of_idle_connections_cost_little_and_hold_nobody_up(
    tmp_path: Path, upstream: Behind
) -> None:
    document = behind((await upstream()).url, "auto", server={"limits": {"head": "60s"}})
    with files(IDLE + 1000) as most:
        many = min(IDLE, (most - 1000) // 2)
        async with gateway(tmp_path, document) as one:
            pid = one.process.pid
            assert await status(one) == 200
            before = resident(pid)
            idle = [await reach(one) for _ in range(many)]
            await until(lambda: open_files(pid) >= many)
            # Some have asked already; what a connection needs for that is not kept.
            for some in range(0, many, many // 10):
                assert {
                    a.status for a in await asyncio.gather(*(c.ask() for c in idle[some : some + 50]))
                } == {200}
            each = (resident(pid) - before) / many
            began = time.monotonic()
            for _ in range(10):
                assert await status(one) == 200
            took = (time.monotonic() - began) / 10
            used = await busy_while_idle(pid)
            print(f"{many} idle: {each / 1024:.1f} KiB each, {took:.3f} s a request, {used:.2f} of a CPU")
            assert each < 40 * 1024
            assert took < 0.5
            assert used < 0.2
            await leave(*idle)
            await until(lambda: open_files(pid) < 100, 5)
            assert await one.stop() == 0


async def test_a_full_disk_under_the_access_log_costs_lines_and_no_request(
    tmp_path: Path, upstream: Behind
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    document = behind((await upstream(slowly)).url, "auto")
    document["components"] = [{"access_log": {"file": "/dev/full", "buffer": "64KiB"}}]
    async with gateway(tmp_path, document) as one:
        before = resident(one.process.pid)
        for _ in range(5):
            answers = await asyncio.gather(*(call(one) for _ in range(100)))
            assert {status for status, _, _ in answers} == {200}
            await leave(*(caller for _, _, caller in answers))
        await one.says(r"access log /dev/full: \[Errno 28\] No space left on device; lines are dropped")
        assert resident(one.process.pid) - before < 8 * MIB
        assert await one.stop() == 0
        dropped = await one.says(r"access log /dev/full: (\d+) lines were dropped")
        assert int(dropped[1]) == 500
        assert len(one.err) == 5, one
