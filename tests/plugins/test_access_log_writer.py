import asyncio
import os
from pathlib import Path

import pytest

from asgi_gateway.call import closed
from asgi_gateway.exchange import Exchange
from asgi_gateway_plugins.access_log import writer as module
from asgi_gateway_plugins.access_log.record import json_lines
from asgi_gateway_plugins.access_log.writer import Writer, joined


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def writer(file: Path, most: int = 1_000_000) -> Writer:
    now = iter(range(1_000_000))
    return Writer(str(file), most, lambda: next(now))


async def test_lines_beyond_the_bound_are_dropped_and_counted(file: Path) -> None:
    log = writer(file, most=100)
    for number in range(30):
        log.append(b"line %03d\n" % number)
    await log.flush()
    log.append(b"later\n")
    await log.close()
    written = file.read_bytes().splitlines()
    assert written[:11] == [b"line %03d" % number for number in range(11)]
    assert written[11:] == [b'{"dropped":19}', b"later"]


async def test_a_full_disk_is_said_once_and_its_losses_are_counted(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.symlink_to("/dev/full")
    log = writer(file)
    for _ in range(3):
        log.append(b"lost\n")
        await log.flush()
    file.unlink()
    log.append(b"found\n")
    await log.close()
    assert file.read_bytes() == b'found\n{"dropped":3}\n'
    assert caplog.text.count("No space left") == 1


async def test_a_file_that_was_moved_away_is_opened_again(file: Path) -> None:
    log = writer(file)
    log.append(b"one\n")
    await log.flush()
    moved = file.rename(file.with_suffix(".1"))
    log.append(b"two\n")
    await log.close()
    assert (moved.read_bytes(), file.read_bytes()) == (b"one\n", b"two\n")


async def test_a_reader_that_is_stuck_holds_nobody_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 10)
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    log = writer(file)
    line = b"x" * 999 + b"\n"
    for _ in range(200):
        log.append(line)
    await log.flush()
    taken = b""
    while chunk := read(reader):
        taken += chunk
    assert 0 < len(taken) < 200_000
    log.append(b"again\n")
    await log.close()
    rest = read(reader)
    os.close(reader)
    whole = (taken + rest).splitlines(keepends=True)
    assert whole.count(line) + int(whole[-1].removeprefix(b'{"dropped":').rstrip(b"}\n")) == 200
    assert whole[-2] == b"again\n"


async def test_half_a_line_does_not_spoil_the_next_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 10)
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    log = writer(file)
    log.append(b"x" * 300_000 + b"\n")
    await log.flush()
    while read(reader):
        pass
    log.append(b"again\n")
    await log.close()
    rest = read(reader)
    os.close(reader)
    assert rest.splitlines() == [b"", b"again", b'{"dropped":1}']


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""


async def test_a_pipe_that_nobody_reads_harms_nobody(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(file)
    log = writer(file)
    log.append(b"lost\n")
    await log.close()
    assert "No such device or address" in caplog.text


async def test_many_lines_are_written_before_their_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 3600)
    log = writer(file, most=1000)
    running = asyncio.create_task(log.run())
    await asyncio.sleep(0)
    log.append(b"few\n")
    await asyncio.sleep(0)
    log.append(b"x" * 600 + b"\n")
    async with asyncio.timeout(10):
        while not file.exists() or not file.stat().st_size:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert file.stat().st_size == 605


async def test_what_waits_is_written_when_it_is_stopped(file: Path) -> None:
    log = writer(file)
    running = asyncio.create_task(log.run())
    await asyncio.sleep(0)
    log.append(b"last\n")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert file.read_bytes() == b"last\n"


def test_pieces_hold_whole_lines() -> None:
    lines = [b"12", b"345", b"6789012", b"3"]
    assert list(joined(lines, 5)) == [(b"12345", 2), (b"6789012", 1), (b"3", 1)]


def test_text_that_is_no_unicode_is_escaped() -> None:
    exchange = Exchange({"method": "GET", "path": "/"}, closed, 0.0)
    exchange.path = "/\udcff"
    assert json_lines(lambda: 0.0, ("path",), query=False)(exchange) == b'{"path":"/\\\\x3f"}\n'


def test_a_member_that_is_named_twice_is_written_once() -> None:
    exchange = Exchange({"method": "GET", "path": "/"}, closed, 0.0)
    line = json_lines(lambda: 0.0, ("method", "status", "method"), query=False)
    assert line(exchange) == b'{"method":"GET","status":0}\n'


async def test_a_pipe_as_standard_output_gets_all_and_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    monkeypatch.setitem(module.STREAMS, "stdout", writing)
    log = Writer("stdout", 10_000_000, lambda: 0.0)
    lines = [b"%06d " % number + b"x" * 300 + b"\n" for number in range(3000)]

    def take() -> bytes:
        with os.fdopen(reading, "rb") as pipe:
            return pipe.read()

    taking = asyncio.create_task(asyncio.to_thread(take))
    for line in lines:
        log.append(line)
    await log.close()
    assert os.get_blocking(writing)
    os.close(writing)
    assert (await taking).splitlines(keepends=True) == lines
