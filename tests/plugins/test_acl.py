from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from tests.plugins.kit import Upstreams, document, handshake, serving

CONSUMERS = [
    {"name": "acme", "keys": ["acme-key"], "groups": ["gold", "old"]},
    {"name": "bold", "keys": ["bold-key"], "groups": ["gold"]},
    {"name": "cold", "keys": ["cold-key"]},
]


def listed(*around: Any, **options: Any) -> dict[str, Any]:
    return document({"acl": options}, *around, consumers=CONSUMERS, route={"websocket": True})


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"consumers": ["acme"]}, ["acme"]),
        ({"groups": ["gold"]}, ["acme", "bold"]),
        ({"groups": ["gold"], "consumers": ["cold"]}, ["acme", "bold", "cold"]),
        ({"groups": ["gold"], "not_groups": ["old"]}, ["bold"]),
        ({"consumers": ["acme"], "not_consumers": ["acme"]}, []),
        ({"not_consumers": ["acme"]}, ["bold", "cold"]),
        ({"not_groups": ["gold"]}, ["cold"]),
        ({"groups": ["GOLD", "gol"]}, []),
    ],
)
async def test_who_is_listed_may_come(
    upstreams: Upstreams, options: dict[str, Any], allowed: list[str]
) -> None:
    async with serving(upstreams, listed("key_auth", **options)) as http:
        answers = {
            name: await http.get("/", headers={"x-api-key": f"{name}-key"})
            for name in ("acme", "bold", "cold")
        }
    assert [name for name, answer in answers.items() if answer.status_code == 200] == allowed
    refused = [answer for answer in answers.values() if answer.status_code != 200]
    assert {(answer.status_code, answer.json()["reason"]) for answer in refused} <= {(403, "not_allowed")}
    assert len(upstreams.seen) == len(allowed)


async def test_it_stands_behind_authentication_wherever_it_is_listed(upstreams: Upstreams) -> None:
    async with serving(upstreams, listed("key_auth", groups=["gold"])) as http:
        assert (await http.get("/")).status_code == 401
        assert (await http.get("/", headers={"x-api-key": "wrong"})).status_code == 401


@pytest.mark.parametrize("around", [[], [{"key_auth": {"mode": "report"}}]])
async def test_nobody_may_come(upstreams: Upstreams, around: list[Any]) -> None:
    async with serving(upstreams, listed(*around, not_groups=["gold"])) as http:
        answer = await http.get("/", headers={"x-consumer": "cold"})
    assert (answer.status_code, answer.json()["reason"]) == (403, "unidentified")
    assert "www-authenticate" not in answer.headers


async def test_reporting_lets_pass(upstreams: Upstreams) -> None:
    async with serving(upstreams, listed("key_auth", groups=["gold"], mode="report")) as http:
        assert (await http.get("/", headers={"x-api-key": "cold-key"})).status_code == 200


async def test_a_websocket_is_held_to_it_too(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(listed("key_auth", groups=["gold"]), plugins=[upstreams])
    refused = await handshake(gateway, headers=[(b"x-api-key", b"cold-key")])
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 403)
    accepted = await handshake(gateway, headers=[(b"x-api-key", b"bold-key")])
    assert accepted[0]["type"] == "websocket.accept"


def test_a_list_without_names_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="name consumers or groups"):
        Gateway.parse(listed())
