"""The store as a file names it."""

from pathlib import Path
from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from tests.processes import asgi_gateway, gateway, write
from tests.redis_server import RedisServer

LIMITED = {"rate_limit": {"limit": "5/hour"}}


def document(**more: Any) -> dict[str, Any]:
    upstreams = {"app": {"asgi": "tests.server.apps:app"}}
    route = {"name": "all", "path": "/*", "upstream": "app", "components": [LIMITED]}
    return {"upstreams": upstreams, "routes": [route], **more}


def test_a_wrong_store_is_told_with_its_place(tmp_path: Path) -> None:
    file = write(tmp_path / "gateway.yaml", "routes: []\n\nstore: moon://secret@place\n")
    with pytest.raises(ConfigError) as raised:
        Gateway.load(file)
    assert str(raised.value).startswith(f"{file}:3: store: no store has the scheme 'moon' (known: memory://,")
    assert "secret" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"^store: is not the URL of a store"):
        Gateway.parse({"store": "secret"})


async def test_check_and_the_start_say_that_workers_count_for_themselves(tmp_path: Path) -> None:
    alone = document(server={"workers": 2})
    said = (
        "store: each of the 2 workers counts for itself in rate_limit: limits admit up to 2 times what is "
        "written, and what one worker remembers no other knows "
        "(share one, as in store: redis://127.0.0.1:6379/0)"
    )
    checked = await asgi_gateway("check", str(write(tmp_path / "a.yaml", alone)))
    assert checked.out[-1] == f"warning: {said}"
    async with gateway(tmp_path, document(), "--workers", "2") as one:
        assert any(line.endswith(said) for line in one.err)
    shared = write(tmp_path / "b.yaml", {**alone, "store": "redis://127.0.0.1:1"})
    assert not any("warning" in line for line in (await asgi_gateway("check", str(shared))).out)


async def test_a_store_stays_over_a_reload_and_is_closed_at_the_end(redis: RedisServer) -> None:
    import httpx

    def config(**more: Any) -> Any:
        # With time for a busy machine.
        return Gateway.parse(document(store={"url": redis.url, "timeout": "5s"}, **more)).config

    one = Gateway(config())
    transport = httpx.ASGITransport(one)
    async with one.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/")).headers["ratelimit"].startswith('"hour";r=4;')
        open_before = redis.connections()
        await one.reload(config(trusted_proxies=["10.0.0.0/8"]))
        assert (await http.get("/")).headers["ratelimit"].startswith('"hour";r=3;')
        assert redis.connections() == open_before
    assert redis.connections() == open_before - 1
