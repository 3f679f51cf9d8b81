from typing import Any

import pytest
from pydantic import ValidationError

from asgi_gateway.config import Use
from asgi_gateway.gateway import Gateway
from asgi_gateway.testing import Upstream, gateway_around
from asgi_gateway_plugins.user_agent import UserAgent
from tests.plugins.kit import Upstreams, document, handshake

NO_BOTS = UserAgent(deny=("(?i)bot|spider", "^curl/"))


async def status(component: UserAgent, *sent: str) -> int:
    async with gateway_around(component) as client:
        return (await client.get("/", headers=[("user-agent", name) for name in sent])).status


@pytest.mark.parametrize(
    ("names", "passes"),
    [
        (["Mozilla/5.0"], True),
        (["a Spider of the web"], False),
        (["curl/8.5"], False),
        (["libcurl/8.5"], True),
        ([], True),
        ([""], True),
        (["Mozilla/5.0", "bot"], False),
        (["x" * 512], True),
        (["x" * 513], False),
        (["x" * 30_000 + "bot"], False),
        (["é\xff"], True),
    ],
)
async def test_what_is_found_is_denied(names: list[str], passes: bool) -> None:
    assert await status(NO_BOTS, *names) == (200 if passes else 403)


async def test_if_something_is_allowed_all_others_are_refused() -> None:
    component = UserAgent(allow=("^shop-app/[0-9]+",), deny=("/1[.]",))
    assert await status(component, "shop-app/2.0") == 200
    assert await status(component, "shop-app/1.9") == 403
    assert await status(component, "other") == 403
    assert await status(component) == 200


async def test_requests_that_say_nothing_can_be_refused() -> None:
    assert await status(UserAgent(allow_missing=False)) == 403
    assert await status(UserAgent(allow_missing=False), "") == 403
    assert await status(UserAgent(allow_missing=False), "anything") == 200


async def test_what_explodes_elsewhere_does_not() -> None:
    assert await status(UserAgent(deny=("(a+)+$", "(a|a)*b")), "a" * 500 + "!") == 200


async def test_a_handshake_is_refused_too(upstreams: Upstreams) -> None:
    declared = document({"user_agent": {"deny": ["bot"]}}, route={"websocket": True})
    gateway = Gateway.parse(declared, plugins=[upstreams])
    assert (await handshake(gateway, headers=[(b"user-agent", b"bot")]))[0]["status"] == 403
    assert (await handshake(gateway))[0]["type"] == "websocket.accept"


async def test_reporting_lets_pass() -> None:
    upstream = Upstream()
    async with gateway_around(Use(component=NO_BOTS, mode="report"), upstream=upstream) as client:
        assert (await client.get("/", headers={"user-agent": "bot"})).status == 200
    assert upstream.seen[0].scope["asgi_gateway.exchange"].reported[0].reason == "user_agent_not_allowed"


@pytest.mark.parametrize("options", [{}, {"deny": ["(a"]}, {"deny": "bot"}, {"allow": ["(?=a)"]}])
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        UserAgent.model_validate(options)
