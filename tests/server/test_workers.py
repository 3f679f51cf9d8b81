"""Several processes on one address."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import Running, gateway

from .conftest import get

Document = dict[str, Any]


async def workers(one: Running, count: int) -> set[int]:
    """Who answers, as soon as so many different processes do."""
    seen: set[int] = set()
    async with asyncio.timeout(30):
        while len(seen) < count:
            # All at once, so that no worker can take them all.
            answers = await asyncio.gather(*(get(one.url + "/pid") for _ in range(8)))
            seen |= {int(answer.text) for answer in answers}
    return seen


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until_gone(*pids: int) -> None:
    async with asyncio.timeout(30):
        while any(is_there(pid) for pid in pids):
            await asyncio.sleep(0.01)


async def test_two_workers_answer_and_sigterm_ends_both(tmp_path: Path, document: Document) -> None:
    async with gateway(tmp_path, document, "--workers", "2") as one:
        assert "2 workers" in (await one.says("listens on")).string
        pids = await workers(one, 2)
        assert one.process.pid not in pids
        assert await one.stop() == 0
        assert not any(is_there(pid) for pid in pids)


async def test_ctrl_c_ends_workers_softly(tmp_path: Path, document: Document) -> None:
    document["server"] = {"workers": 2}
    async with gateway(tmp_path, document) as one:
        assert await one.stop(signal.SIGINT) == 0


async def test_a_worker_that_dies_is_replaced(tmp_path: Path, document: Document) -> None:
    async with gateway(tmp_path, document, "--workers", "2") as one:
        before = await workers(one, 2)
        victim = before.pop()
        os.kill(victim, signal.SIGKILL)
        said = await one.says("another one takes its place")
        assert f"worker {victim} ended by SIGKILL" in said.string
        (survivor,) = before
        async with asyncio.timeout(30):
            while True:
                pids = await workers(one, 1)
                if pids - {survivor, victim}:
                    break
        assert await one.stop() == 0


async def test_no_worker_outlives_a_supervisor_that_was_killed(tmp_path: Path, document: Document) -> None:
    async with gateway(tmp_path, document, "--workers", "2") as one:
        pids = await workers(one, 2)
        one.process.kill()
        await until_gone(*pids)


async def test_sighup_brings_a_good_file_to_all_workers_and_a_bad_one_to_none(
    tmp_path: Path, document: Document
) -> None:
    async with gateway(tmp_path, document, "--workers", "2") as one:
        pids = await workers(one, 2)
        one.write({**document, "routes": [{"name": "broken", "path": "/", "upstream": "nobody"}]})
        one.signal(signal.SIGHUP)
        await one.says("the new configuration is refused")
        assert (await get(one.url + "/a")).text == "/a "
        changed = {**document, "routes": [{"name": "all", "path": "/*", "upstream": "other"}]}
        one.write({**changed, "server": {"listen": "127.0.0.1:1"}})
        one.signal(signal.SIGHUP)
        await one.says("used after a restart only: server.listen")
        await one.says("the configuration was read again: 1 route, 2 upstreams; 2 workers serve it")
        answers = await asyncio.gather(*(get(one.url + "/a") for _ in range(16)))
        assert {answer.text for answer in answers} == {"other"}
        one.write(document)
        one.signal(signal.SIGHUP)
        await one.says("2 routes, 2 upstreams; 2 workers serve it")
        assert await workers(one, 2) == pids


async def test_sigusr2_replaces_the_workers_without_a_failed_request(
    tmp_path: Path, document: Document
) -> None:
    async with gateway(tmp_path, document, "--workers", "2") as one:
        before = await workers(one, 2)
        one.signal(signal.SIGUSR2)
        async with asyncio.timeout(30):
            while any(is_there(pid) for pid in before):
                assert (await get(one.url + "/pid")).status_code == 200
        assert not await workers(one, 2) & before
        assert await one.stop() == 0


async def test_a_request_in_flight_finishes_in_its_worker(tmp_path: Path, document: Document) -> None:
    async with gateway(tmp_path, document, "--workers", "2") as one:
        release = asyncio.Event()

        async def body() -> Any:
            yield b"be"
            await release.wait()
            yield b"gun"

        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            answering = asyncio.create_task(client.post(one.url + "/late", content=body()))
            await one.says("reading")
            one.signal(signal.SIGTERM)
            while True:
                try:
                    await get(one.url + "/pid")
                except httpx.TransportError:
                    break
            release.set()
            assert (await answering).text == "/late begun"
        assert await one.ended() == 0


async def test_a_worker_that_is_replaced_while_the_file_is_bad_serves_the_last_good_one(
    tmp_path: Path, document: Document
) -> None:
    async with gateway(tmp_path, document, "--workers", "2") as one:
        before = await workers(one, 2)
        one.write("routes: [")
        one.signal(signal.SIGHUP)
        await one.says("the new configuration is refused")
        os.kill(before.pop(), signal.SIGKILL)
        await one.says("another one takes its place")
        assert len(await workers(one, 2) - before) == 1
        assert await one.stop() == 0


async def test_a_worker_whose_loop_stands_still_is_replaced_and_the_log_says_where(
    tmp_path: Path, document: Document
) -> None:
    document["server"] = {"workers": 2, "limits": {"stalled": "1200ms"}}
    async with gateway(tmp_path, document) as one:
        before = await workers(one, 2)
        stuck = asyncio.create_task(get(one.url + "/block"))
        said = await one.says("the event loop stands still; it is in")
        assert "app (server/apps.py:" in said.string
        assert (await get(one.url + "/pid")).status_code == 200  # the other one serves
        await one.says("this process ends")
        await one.says("ended by exit code 70; another one takes its place")
        with pytest.raises(httpx.TransportError):
            await stuck
        assert await workers(one, 2) != before
        assert await one.stop() == 0


async def test_a_drain_is_heard_by_all_workers(tmp_path: Path, document: Document) -> None:
    document["server"] = {"workers": 2, "drain": "60s"}
    async with gateway(tmp_path, document) as one:
        await workers(one, 2)
        one.signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            while {(await get(one.url + "/-/ready")).status_code for _ in range(16)} != {503}:
                pass
        answer = await get(one.url + "/a")
        assert (answer.text, answer.headers["connection"]) == ("/a ", "close")
        assert await one.stop() == 0  # said twice: at once
