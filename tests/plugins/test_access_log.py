import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from asgi_gateway.errors import ConfigError, UpstreamError
from asgi_gateway.gateway import Gateway
from tests.plugins.kit import CALLER, Upstreams, client, document, handshake, serving


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def logged(file: Path, *components: Any, **more: Any) -> dict[str, Any]:
    """A gateway whose log is `file`; options of the log in `log`."""
    log = {"file": str(file), **more.pop("log", {})}
    return document(*components, components=[{"access_log": log}], **more)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_a_line_says_what_happened(upstreams: Upstreams, file: Path) -> None:
    declared = logged(
        file,
        "key_auth",
        {"canary": {"upstream": "next", "by": "ip"}},
        consumers=[{"name": "acme", "keys": ["secret-1"]}],
    )
    async with serving(upstreams, declared) as http:
        await http.post("/orders/17?token=secret-2", headers={"x-api-key": "secret-1"}, content=b"{}")
    (line,) = lines(file)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert re.fullmatch("[0-9a-f]{32}", line.pop("id"))
    assert 0 <= line.pop("duration_ms") < 10_000
    line.pop("target")
    assert line == {
        "client": CALLER,
        "method": "POST",
        "path": "/orders/17",
        "route": "main",
        "status": 200,
        "bytes": 4,
        "upstream": "main",
        "attempts": line["attempts"],
        "consumer": "acme",
        "outcome": "answered",
        "cause": "",
        "tags": {"variant": "stable"},
        "reported": [],
    }
    assert "secret" not in file.read_text()


async def test_what_ended_early_has_a_line_too(upstreams: Upstreams, file: Path) -> None:
    async with serving(upstreams, logged(file, "key_auth", path="/there")) as http:
        await http.get("/there")
        await http.get("/not-there")
        await http.get("/a/../b")
    assert [(line["status"], line["outcome"]) for line in lines(file)] == [
        (401, "refused"),
        (404, "refused"),
        (404, "refused"),
    ]
    assert lines(file)[0]["cause"] == "no_key"


async def test_an_upstream_that_fails_is_named(upstreams: Upstreams, file: Path) -> None:
    upstreams.failure = UpstreamError("connect_failed", "connect")
    async with serving(upstreams, logged(file)) as http:
        await http.get("/")
    (line,) = lines(file)
    assert (line["status"], line["outcome"], line["cause"]) == (502, "upstream_failed", "connect_failed")


async def test_a_caller_that_leaves_has_a_line(upstreams: Upstreams, file: Path) -> None:
    upstreams.hangs = True
    async with serving(upstreams, logged(file)) as http:
        request = asyncio.create_task(http.get("/"))
        await upstreams.reached.wait()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    (line,) = lines(file)
    assert (line["status"], line["outcome"]) == (0, "caller_left")


async def test_what_was_only_reported_is_said(upstreams: Upstreams, file: Path) -> None:
    async with serving(upstreams, logged(file, {"key_auth": {"mode": "report"}})) as http:
        await http.get("/")
    (line,) = lines(file)
    assert line["status"] == 200
    assert line["reported"] == [{"component": "key_auth", "status": 401, "reason": "no_key"}]


async def test_a_handshake_has_a_line(upstreams: Upstreams, file: Path) -> None:
    gateway = Gateway.parse(logged(file, route={"websocket": True}), plugins=[upstreams])
    async with gateway.lifespan():
        await asyncio.sleep(0)
        await handshake(gateway)
    (line,) = lines(file)
    assert (line["method"], line["status"]) == ("GET", 101)


async def test_the_query_is_logged_where_that_is_said(upstreams: Upstreams, file: Path) -> None:
    async with serving(upstreams, logged(file, log={"query": True})) as http:
        await http.get("/a?b=c")
    assert lines(file)[0]["path"] == "/a?b=c"


async def test_fields_are_chosen_and_ordered(upstreams: Upstreams, file: Path) -> None:
    async with serving(upstreams, logged(file, log={"fields": ["status", "path"]})) as http:
        await http.get("/a")
    assert file.read_text() == '{"status":200,"path":"/a"}\n'


async def test_text_is_a_combined_log_and_more(upstreams: Upstreams, file: Path) -> None:
    async with serving(upstreams, logged(file, log={"format": "text"})) as http:
        await http.get("/a", headers=[("user-agent", 'curl "8"\\')])
    assert re.fullmatch(
        re.escape(CALLER) + r" - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "
        r'"GET /a HTTP/1\.1" 200 4 "-" "curl \\x228\\x22\\x5c" '
        r"[\d.]+ [0-9a-f]{32} main answered -\n",
        file.read_text(),
    )


@pytest.mark.parametrize("kind", ["json", "text"])
async def test_nothing_ends_a_line_but_its_end(upstreams: Upstreams, file: Path, kind: str) -> None:
    name = 'ac me"} \x9b31m\u2028'
    declared = logged(file, "key_auth", log={"format": kind}, consumers=[{"name": name, "keys": ["k"]}])
    async with serving(upstreams, declared) as http:
        await http.get("/", headers=[(b"x-api-key", b"k"), (b"user-agent", b'x"\x7f\xff\x1b')])
        await http.get("/a%0d%0ab")
    written = file.read_bytes()
    assert written.count(b"\n") == 2
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", written)


async def test_several_routes_write_to_one_file(upstreams: Upstreams, file: Path) -> None:
    declared = logged(file, path="/a")
    declared["routes"].append({"name": "b", "path": "/b", "upstream": "next"})
    async with serving(upstreams, declared) as http:
        for _ in range(3):
            await asyncio.gather(http.get("/a"), http.get("/b"), http.get("/c"))
    assert sorted(line["route"] for line in lines(file)) == [
        "",
        "",
        "",
        "b",
        "b",
        "b",
        "main",
        "main",
        "main",
    ]


async def test_lines_are_written_without_a_lifespan_too(upstreams: Upstreams, file: Path) -> None:
    gateway = Gateway.parse(logged(file), plugins=[upstreams])
    async with client(gateway) as http:
        await http.get("/")
        async with asyncio.timeout(10):
            while not file.exists() or not file.read_text().endswith("\n"):
                await asyncio.sleep(0.01)
    async with gateway.lifespan():
        pass


async def test_a_disk_that_is_full_harms_no_request(
    upstreams: Upstreams, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(upstreams, logged(Path("/dev/full"))) as http:
        answers = [await http.get("/") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    assert caplog.text.count("No space left on device") == 1


def test_a_file_that_can_never_be_written_refuses_the_configuration(
    upstreams: Upstreams, tmp_path: Path
) -> None:
    def told(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            Gateway.parse(logged(path), plugins=[upstreams])
        (problem,) = caught.value.problems
        return str(problem)

    gone = tmp_path / "gone"
    assert told(gone / "access.log") == (
        f"route main: access_log: file: '{gone}/access.log' cannot be written: there is no folder {gone}"
    )
    assert told(tmp_path).endswith("it is a folder")
    assert not list(tmp_path.iterdir())
