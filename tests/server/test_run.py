"""`asgi-gateway run` with one process: where it listens, how it ends, what it refuses."""

import asyncio
import signal
import socket
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.processes import Running, asgi_gateway, gateway, running, write

from .conftest import get

Document = dict[str, Any]


async def connect(one: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    place = urlsplit(one.url)
    return await asyncio.open_connection(place.hostname, place.port)


async def until_refused(one: Running) -> None:
    """Wait until it does not listen any more."""
    while True:
        try:
            _, writer = await connect(one)
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue
        writer.close()


async def test_it_says_where_it_listens_and_serves_there(tmp_path: Path, document: Document) -> None:
    async with gateway(tmp_path, document) as one:
        assert (await get(one.url + "/a")).text == "/a "
        assert (await get(one.url + "/other/a")).text == "other"
        said = await one.says("listens on")
        assert said.string.endswith(": 1 worker, 2 routes, 2 upstreams")


async def test_one_date_and_no_server_name_reach_the_caller(tmp_path: Path, document: Document) -> None:
    async with gateway(tmp_path, document) as one:
        answer = await get(one.url)
        assert len(answer.headers.get_list("date")) == 1
        assert "server" not in answer.headers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_exit_code_0(tmp_path: Path, document: Document, number: int) -> None:
    async with gateway(tmp_path, document) as one:
        assert await one.stop(number) == 0


async def test_sigterm_lets_a_request_in_flight_finish(tmp_path: Path, document: Document) -> None:
    async with gateway(tmp_path, document) as one:
        reader, writer = await connect(one)
        writer.write(b"POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nbe")
        await one.says("reading")
        one.signal(signal.SIGTERM)
        await until_refused(one)
        writer.write(b"gun")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"/late begun")
        assert b"\r\nconnection: close\r\n" in answer
        assert await one.ended() == 0
        writer.close()


async def test_a_request_that_takes_longer_than_the_grace_is_told_so(
    tmp_path: Path, document: Document
) -> None:
    async with gateway(tmp_path, {**document, "server": {"grace": "100ms"}}) as one:
        reader, writer = await connect(one)
        writer.write(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await one.says("waiting")
        assert await one.stop() == 0
        await one.says("cancelled")
        await one.says("1 request is cut: the grace is over")
        answered = await reader.read()
        assert answered.startswith(b"HTTP/1.1 503 ")
        assert b'"reason": "shutdown"' in answered
        writer.close()


async def test_a_second_signal_does_not_wait(tmp_path: Path, document: Document) -> None:
    async with gateway(tmp_path, {**document, "server": {"grace": "1h"}}) as one:
        _, writer = await connect(one)
        writer.write(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await one.says("waiting")
        one.signal(signal.SIGTERM)
        await until_refused(one)
        assert await one.stop() == 0
        writer.close()


async def test_a_caller_that_leaves_cancels_the_app(tmp_path: Path, document: Document) -> None:
    async with gateway(tmp_path, document) as one:
        _, writer = await connect(one)
        writer.write(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await one.says("waiting")
        writer.close()
        await one.says("cancelled")


async def test_a_bad_request_gets_a_problem(tmp_path: Path, document: Document) -> None:
    document["server"] = {"limits": {"headers": 10, "url_bytes": "100B"}}
    async with gateway(tmp_path, document) as one:
        many = [("x-a", "b")] * 11
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(one.url, headers=many)).json()["reason"] == "too_many_headers"
            assert (await client.get(one.url + "/" + "a" * 101)).status_code == 414
        reader, writer = await connect(one)
        writer.write(b"\x16\x03\x01 not HTTP\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_a_port_in_use_is_one_sentence(tmp_path: Path, document: Document) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        document["server"] = {"listen": f"127.0.0.1:{port}"}
        ended = await asgi_gateway("run", str(write(tmp_path / "gateway.yaml", document)))
    assert ended.process.returncode == 1
    assert ended.err == [
        f"server.listen: 127.0.0.1:{port} is in use already (end the other server, or listen elsewhere)"
    ]


async def test_host_and_port_of_the_command_line_win(tmp_path: Path, document: Document) -> None:
    document["server"] = {"listen": "unix:/never/there.sock"}
    async with gateway(tmp_path, document, "--host", "localhost", "--port", "0") as one:
        assert one.url.startswith("http://")
        for url in one.url.rstrip(":").split(", "):
            assert (await get(url + "/a")).status_code == 200


async def test_ipv6_is_an_address_too(tmp_path: Path, document: Document) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    async with gateway(tmp_path, document, "--host", "::1") as one:
        assert one.url.startswith("http://[::1]:")
        assert (await get(one.url + "/a")).text == "/a "


async def test_a_unix_socket_is_made_taken_over_if_stale_and_removed(
    tmp_path: Path, document: Document
) -> None:
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    document["server"] = {"listen": f"unix:{path}"}
    async with gateway(tmp_path, document) as one:
        assert one.url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        answer = await get("http://gateway/a", transport=httpx.AsyncHTTPTransport(uds=str(path)))
        assert answer.text == "/a "
        other = tmp_path / "other.yaml"
        other.write_text(one.file.read_text() if one.file else "")
        refused = await asgi_gateway("run", str(other))
        assert refused.process.returncode == 1
        assert "is in use already" in refused.err[0]
        assert path.exists()
        assert await one.stop() == 0
    assert not path.exists()


async def test_a_file_in_the_place_of_the_unix_socket_is_kept(tmp_path: Path, document: Document) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    document["server"] = {"listen": f"unix:{path}"}
    ended = await asgi_gateway("run", str(write(tmp_path / "gateway.yaml", document)))
    assert ended.process.returncode == 1
    assert "no socket" in ended.err[0]
    assert path.read_text() == "data"


async def test_every_problem_of_a_file_is_a_sentence_and_the_exit_code_1(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("server: {listen: nowhere}\nroutes: [{name: a, path: /a, upstream: b}]\n")
    ended = await asgi_gateway("run", str(file))
    assert ended.process.returncode == 1
    assert len(ended.err) == 2
    assert all(line.startswith(str(file)) for line in ended.err)


async def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    ended = await asgi_gateway("run", str(tmp_path / "gone.yaml"))
    assert ended.process.returncode == 1
    assert ended.err == [f"{tmp_path / 'gone.yaml'}: cannot be read: No such file or directory"]


async def test_sigterm_lets_a_load_balancer_notice_before_anything_is_refused(
    tmp_path: Path, document: Document
) -> None:
    document["server"] = {"drain": "60s"}
    async with gateway(tmp_path, document) as one, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(one.url + "/-/ready")).status_code == 200
        one.signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            while (answer := await client.get(one.url + "/-/ready")).status_code == 200:
                pass
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        assert (await client.get(one.url + "/a")).text == "/a "
        assert await one.stop() == 0  # said twice: at once


async def test_a_request_that_swallows_its_cancellation_holds_up_nothing(
    tmp_path: Path, document: Document
) -> None:
    document["server"] = {"grace": "10ms"}
    async with gateway(tmp_path, document) as one:
        waiting = asyncio.create_task(get(one.url + "/stubborn"))
        await one.says("waiting")
        assert (await get(one.url + "/a")).text == "/a "
        assert await one.stop() == 0
        said = await one.says("a request does not end although it was cancelled; it waits in")
        assert "app (server/apps.py:" in said.string
        with pytest.raises(httpx.TransportError):
            await waiting


async def test_an_event_loop_that_stands_still_is_noticed(tmp_path: Path, document: Document) -> None:
    async with gateway(tmp_path, document) as one:
        assert (await get(one.url + "/block?2000")).status_code == 200
        assert "app (server/apps.py:" in (await one.says("the event loop stands still; it is in")).string
        await one.says("the event loop stood still for [12].* nobody was served")


async def test_a_start_with_a_bad_file_serves_the_last_good_one(tmp_path: Path, document: Document) -> None:
    kept = tmp_path / "kept.yaml"
    options = ("--last-good", str(kept))
    changed = {**document, "routes": [{"name": "all", "path": "/*", "upstream": "other"}]}
    async with gateway(tmp_path, document, *options) as one:
        one.write({**changed, "server": {"listen": "127.0.0.1:0", "drain": "0s"}})
        one.signal(signal.SIGHUP)
        await one.says("read again")
        one.write("routes: [")
        one.signal(signal.SIGHUP)
        await one.says("refused")
        assert await one.stop() == 0
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert one.file is not None
    async with running("-m", "asgi_gateway", "run", str(one.file), *options) as two:
        url = (await two.says(r"listens on (\S+):"))[1]
        await two.says("the configuration is refused, the last good one is served")
        assert (await get(url + "/a")).text == "other"
        assert await two.stop() == 0


async def test_a_start_with_a_bad_file_and_nothing_kept_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "gateway.yaml", "routes: [")
    ended = await asgi_gateway("run", str(file), "--last-good", str(tmp_path / "kept"))
    assert ended.process.returncode == 1


async def test_a_thread_that_does_not_end_holds_up_nothing(tmp_path: Path, document: Document) -> None:
    async with gateway(tmp_path, document) as one:
        assert (await get(one.url + "/thread")).status_code == 200
        assert await one.stop() == 0
        await one.says("the process does not end by itself; its threads: ")
