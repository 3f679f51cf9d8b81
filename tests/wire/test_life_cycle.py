"""The life of the processes under load: ends, replacements, deaths and the first moments (P55, P56)."""

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.measuring import children, linux, until
from tests.processes import Running, gateway, running, write
from tests.wire.conftest import Behind, Caller, Line

from .load import leave, load

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def answers(line: Line) -> None:
    """200 to everything when its body is there; /events gets one event, and another one a little later."""
    while True:
        head = await line.head()
        if found := re.search(rb"content-length: (\d+)", head):
            await line.reader.readexactly(int(found[1]))
        if b" /events " in head:
            line.say(HEAD + b"7\r\ndata: 1\r\n")
            await asyncio.sleep(0.7)
            line.say(b"7\r\ndata: 2\r\n0\r\n\r\n")
        else:
            line.say(OK)


def behind(*urls: str, **server: Any) -> dict[str, Any]:
    return {
        "server": server,
        "upstreams": {"up": {"targets": list(urls)}, "app": {"asgi": "tests.wire.sockets:app"}},
        "routes": [
            {"name": "all", "path": "/*", "upstream": "up"},
            {"name": "socket", "path": "/socket", "upstream": "app", "websocket": True},
        ],
    }


async def asked(seen: "Any", more: int = 50) -> None:
    """So many more requests were answered."""
    enough = seen.answered + more
    await until(lambda: seen.answered >= enough)


async def serving(one: Running, count: int) -> set[int]:
    """The workers, when there are so many."""
    await until(lambda: len(children(one.process.pid)) == count)
    return children(one.process.pid)


def holds_signals(pid: int) -> bool:
    found = re.search(r"SigBlk:\s*(\S+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return bool(int(found[1], 16) >> (signal.SIGHUP - 1) & 1)


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_under_load_fails_no_request(tmp_path: Path, upstream: Behind, workers: int) -> None:
    document = behind((await upstream(answers)).url, drain="1s", workers=workers)
    async with gateway(tmp_path, document) as one:
        async with load(one.url) as seen:
            await asked(seen)
            one.signal(signal.SIGTERM)
            assert await one.ended() == 0
            await until(lambda: seen.gone)
        print(f"{seen.answered} answered")
        assert not seen.failed
        _, begins, ended = one.err
        assert "the gateway ends: everything is served for 1 s more" in begins
        assert "the gateway has ended" in ended


async def test_who_has_come_and_said_nothing_yet_is_answered_after_sigterm(
    tmp_path: Path, upstream: Behind
) -> None:
    async with gateway(tmp_path, behind((await upstream(answers)).url, drain="0s")) as one:
        callers = [Caller(*await asyncio.open_connection("127.0.0.1", one.port)) for _ in range(50)]
        one.signal(signal.SIGTERM)
        await one.says("the gateway ends: requests in flight have")
        told = await asyncio.gather(*(caller.ask("/a") for caller in callers))
        assert {answer.status for answer in told} == {200}
        assert {tuple(answer.all(b"connection")) for answer in told} == {(b"close",)}
        await leave(*callers)
        assert await one.ended() == 0


async def test_an_event_stream_ends_by_itself_and_a_websocket_is_told(
    tmp_path: Path, upstream: Behind
) -> None:
    async with gateway(tmp_path, behind((await upstream(answers)).url, drain="100ms", grace="10s")) as one:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", one.port))
        caller.say("/events")
        await caller.head()
        async with websockets.connect(one.url.replace("http", "ws") + "/socket", proxy=None) as socket:
            await socket.send("a")
            assert await socket.recv() == "a"
            one.signal(signal.SIGTERM)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code in (1001, 1012)
        assert (await caller.reader.read()).endswith(b"data: 2\r\n0\r\n\r\n")
        assert await one.ended() == 0
        caller.leave()


@linux
async def test_sigusr2_under_load_fails_no_request_and_twice_doubles_no_worker(
    tmp_path: Path, upstream: Behind
) -> None:
    async with gateway(tmp_path, behind((await upstream(answers)).url, workers=2)) as one:
        before = await serving(one, 2)
        # Some ask all the time, and some now and then.
        async with load(one.url) as seen, load(one.url, pause=0.3) as seldom:
            await asked(seen)
            one.signal(signal.SIGUSR2)
            await one.says("2 workers are to be replaced")
            one.signal(signal.SIGUSR2)
            await one.says("2 workers were replaced", times=2)
            await asked(seen)
        assert not seen.failed
        assert not seldom.failed
        assert not await serving(one, 2) & before
        print(f"{seen.answered} answered")
        assert await one.stop() == 0


@linux
async def test_a_worker_that_dies_during_a_replacement_does_not_change_their_number(
    tmp_path: Path, upstream: Behind
) -> None:
    async with gateway(tmp_path, behind((await upstream(answers)).url, workers=2)) as one:
        old = await serving(one, 2)
        one.signal(signal.SIGUSR2)
        await one.says("2 workers are to be replaced")
        await serving(one, 3)
        for each in old:
            os.kill(each, signal.SIGKILL)
        await one.says("2 workers were replaced")
        assert not await serving(one, 2) & old
        one.signal(signal.SIGUSR2)
        await one.says("2 workers were replaced", times=2)
        await serving(one, 2)
        async with load(one.url) as seen:
            await asked(seen, 20)
        assert not seen.failed
        assert len(children(one.process.pid)) == 2
        assert await one.stop() == 0


@linux
async def test_a_killed_worker_loses_its_own_requests_only_and_is_replaced(
    tmp_path: Path, upstream: Behind
) -> None:
    async with gateway(tmp_path, behind((await upstream(answers)).url, workers=2)) as one:
        before = await serving(one, 2)
        async with load(one.url, callers=8) as seen:
            await asked(seen)
            victim = min(before)
            os.kill(victim, signal.SIGKILL)
            began = time.monotonic()
            await one.says("another one takes its place")
            await until(lambda: len(children(one.process.pid) - {victim}) == 2)
            (new,) = children(one.process.pid) - before
            # It lets go of them when it serves.
            await until(lambda: not holds_signals(new))
            print(f"{len(seen.failed)} failed; another one serves after {time.monotonic() - began:.2f} s")
            await asked(seen)
        # Each caller had one connection at most to the one that was killed.
        assert len(seen.failed) <= 8
        assert time.monotonic() - began < 10
        assert await one.stop() == 0


@linux
async def test_a_killed_supervisor_leaves_nobody_on_its_port(tmp_path: Path, upstream: Behind) -> None:
    async with gateway(tmp_path, behind((await upstream(answers)).url, workers=2)) as one:
        orphans = await serving(one, 2)
        async with load(one.url) as seen:
            await asked(seen)
            one.process.kill()
            took = await until(lambda: not any(Path(f"/proc/{each}").exists() for each in orphans))
            await until(lambda: seen.gone)
        print(f"the last one was gone after {took:.2f} s")
        assert took < 5
        assert not seen.failed
        document = behind("http://127.0.0.1:9", listen=f"127.0.0.1:{one.port}")
        async with gateway(tmp_path, document) as two:
            assert two.port == one.port


@linux
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sighup_and_sigusr2_in_the_first_moments_end_nothing(
    tmp_path: Path, upstream: Behind, workers: str
) -> None:
    document = behind((await upstream(answers)).url, listen="127.0.0.1:0", drain="0s")
    file = write(tmp_path / "gateway.yaml", document)
    async with running("-m", "asgi_gateway", "run", str(file), "--workers", workers) as one:
        # Before that there is only the interpreter, on its way to the command.
        await until(lambda: holds_signals(one.process.pid))
        for _ in range(12):
            one.signal(signal.SIGHUP)
            one.signal(signal.SIGUSR2)
            for worker in children(one.process.pid):
                os.kill(worker, signal.SIGHUP)
            await asyncio.sleep(0.05)
        await one.says("listens on")
        one.url = (await one.says(r"listens on (\S+):"))[1]
        async with load(one.url, callers=2) as seen:
            await asked(seen, 10)
        assert not seen.failed
        assert await one.stop() == 0
