"""The other commands: check, routes, plugins, schema, demo."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import httpx

from asgi_gateway import __version__
from tests.processes import ROOT, asgi_gateway, running, write

Document = dict[str, Any]


async def test_check_shows_how_each_route_is_built(tmp_path: Path) -> None:
    document = {
        "upstreams": {
            "orders": {
                "targets": ["http://127.0.0.1:9001", "http://127.0.0.1:9002"],
                "components": [{"headers": {"request": {"set": {"x-a": "b"}}}}],
            },
            "pages": {"asgi": "tests.server.apps:app"},
        },
        "components": ["request_id"],
        "consumers": [{"name": "alice", "keys": ["secret-key"]}],
        "routes": [
            {
                "name": "orders",
                "path": "/orders/{id}",
                "methods": ["GET", "POST"],
                "host": "example.com",
                "upstream": "orders",
                "components": [{"rate_limit": {"limit": "5/minute"}}, "key_auth"],
                "websocket": True,
            },
            {"name": "pages", "path": "/*", "upstream": "pages"},
        ],
    }
    ended = await asgi_gateway("check", str(write(tmp_path / "gateway.yaml", document)))
    assert ended.process.returncode == 0, ended
    assert ended.out == [
        "orders: GET POST /orders/{id} on example.com",
        "  request_id → key_auth → rate_limit → orders",
        "  WebSocket: request_id → key_auth → rate_limit → orders",
        "",
        "pages: any /*",
        "  request_id → pages",
        "",
        "upstream orders: headers → http://127.0.0.1:9001, http://127.0.0.1:9002",
        "upstream pages: asgi:tests.server.apps:app",
    ]


async def test_check_lists_every_problem_and_exits_with_1(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("upstream: {}\nroutes:\n- {name: a, path: a, upstream: b}\n- {name: c}\n")
    ended = await asgi_gateway("check", str(file))
    assert ended.process.returncode == 1
    assert not ended.out
    assert len(ended.err) >= 4
    assert all(line.startswith(f"{file}:") for line in ended.err)


async def test_routes_is_a_table(tmp_path: Path, document: Document) -> None:
    ended = await asgi_gateway("routes", str(write(tmp_path / "gateway.yaml", document)))
    assert ended.process.returncode == 0
    assert ended.out == [
        "METHODS  HOSTS  PATH      ROUTE  UPSTREAM",
        "any      any    /*        all    app",
        "any      any    /other/*  other  other",
    ]


async def test_plugins_lists_components_with_stage_and_description() -> None:
    ended = await asgi_gateway("plugins")
    assert ended.process.returncode == 0, ended
    assert any(re.fullmatch(r"standard +asgi_gateway_plugins", line) for line in ended.out)
    assert any(
        re.match(r"key_auth +AUTH +asgi_gateway_plugins\.key_auth +Identifies ", line) for line in ended.out
    )


async def test_schema_is_json() -> None:
    ended = await asgi_gateway("schema")
    assert ended.process.returncode == 0, ended
    assert "routes" in json.loads("\n".join(ended.out))["properties"]


async def test_version_and_help_say_what_there_is() -> None:
    assert (await asgi_gateway("--version")).out == [f"asgi-gateway, version {__version__}"]
    said = "\n".join((await asgi_gateway("--help")).out)
    assert all(name in said for name in ("run", "check", "routes", "plugins", "schema", "demo"))


async def test_help_does_not_import_the_gateway() -> None:
    code = (
        "import sys; from asgi_gateway import cli; print('pydantic' in sys.modules, 'uvicorn' in sys.modules)"
    )
    async with running("-c", code) as one:
        await one.ended()
    assert one.out == ["False False"]


async def test_a_command_that_is_written_wrongly_exits_with_2() -> None:
    ended = await asgi_gateway("run")
    assert ended.process.returncode == 2


async def test_the_three_commands_of_the_demo_do_what_it_says() -> None:
    async with running("-m", "asgi_gateway", "demo") as one:
        await one.says("Ctrl-C")
        commands = [line.strip() for line in one.out if "curl" in line]
        assert len(commands) == 3
        urls = [command.split()[-1] for command in commands]
        key = re.search(r"X-API-Key: (\S+)'", commands[2])
        assert key is not None
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(urls[0])).json()["path"] == "/public/hello"
            assert (await client.get(urls[1])).status_code == 401
            answers = [await client.get(urls[2], headers={"x-api-key": key[1]}) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert await one.stop(signal.SIGINT) == 0


async def test_the_example_of_the_operating_page_is_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    ended = await asgi_gateway("routes", str(write(tmp_path / "gateway.yaml", example)))
    assert ended.process.returncode == 0, ended
    assert len(ended.out) == 3
