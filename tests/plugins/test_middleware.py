import gzip
from typing import Any

import pytest

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.stage import Stage
from asgi_gateway_plugins.middleware import Middleware
from tests.plugins.kit import Upstreams, document, handshake, serving

GZIP = "starlette.middleware.gzip:GZipMiddleware"
MARK = "tests.plugins.test_middleware:Mark"


class Mark:
    """A middleware that leaves a field."""

    def __init__(self, app: ASGIApp, text: str = "mark") -> None:
        self.app = app
        self.text = text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(
            {**scope, "headers": [*scope["headers"], (b"x-mark", self.text.encode())]}, receive, send
        )


async def test_a_middleware_of_starlette_works(upstreams: Upstreams) -> None:
    upstreams.body = b"hello " * 500
    entry = {"middleware": {"cls": GZIP, "options": {"minimum_size": 500}}}
    async with (
        serving(upstreams, document(entry)) as http,
        http.stream("GET", "/", headers={"accept-encoding": "gzip"}) as answer,
    ):
        body = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == upstreams.body


async def test_it_stands_at_the_stage_that_is_named(upstreams: Upstreams) -> None:
    early = {"middleware": {"cls": MARK, "stage": "GUARD", "options": {"text": "early"}}}
    late = {"middleware": {"cls": MARK, "stage": "CACHE", "options": {"text": "late"}}}
    gateway = Gateway.parse(document(late, "key_auth", early), plugins=[upstreams])
    assert gateway.plan[0].chain == ("middleware", "key_auth", "middleware")
    async with serving(upstreams, document(late, early)) as http:
        await http.get("/")
    assert upstreams.headers("x-mark") == ["early", "late"]


async def test_a_websocket_goes_past_it_unless_it_is_said_to_handle_it(upstreams: Upstreams) -> None:
    for websocket in (False, True):
        entry = {"middleware": {"cls": MARK, "websocket": websocket}}
        await handshake(Gateway.parse(document(entry, route={"websocket": True}), plugins=[upstreams]))
        assert upstreams.headers("x-mark") == (["mark"] if websocket else [])


def test_a_guard_that_does_not_handle_websocket_is_told(upstreams: Upstreams) -> None:
    entry = {"middleware": {"cls": MARK, "stage": "GUARD"}}
    with pytest.raises(ConfigError, match="does not serve WebSocket"):
        Gateway.parse(document(entry, route={"websocket": True}), plugins=[upstreams])


def test_it_is_hashable_and_comes_back_as_it_was_written() -> None:
    written = {"cls": GZIP, "stage": "GUARD", "options": {"b": [1, {"c": None}], "a": "x"}, "websocket": True}
    one, two = Middleware.model_validate(written), Middleware.model_validate(written)
    assert one == two
    assert hash(one) == hash(two)
    assert one.model_dump() == written
    assert (one.stage, Middleware.stage) == (Stage.GUARD, Stage.TRANSFORM)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cls": "no.such:Thing"}, "cannot be imported: ModuleNotFoundError"),
        ({"cls": "starlette.middleware.gzip:Zip"}, "cannot be imported: AttributeError"),
        ({"cls": "starlette.middleware.gzip"}, "must match"),
        ({"cls": "string:digits"}, "is not a class but of type str"),
        ({"cls": GZIP, "options": {"size": 1}}, "cannot be made with the options"),
        ({"cls": GZIP, "stage": "transform"}, "'transform' is not a stage"),
        ({"cls": GZIP, "options": {"minimum_size": {1, 2}}}, "write a component"),
        ({"cls": GZIP, "options": [1]}, "options are a mapping"),
        ({"cls": GZIP, "stage": "RETRY"}, "belongs on an upstream"),
    ],
)
def test_a_wrong_middleware_is_told_at_once(upstreams: Upstreams, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Gateway.parse(document({"middleware": options}), plugins=[upstreams])
    assert says in str(raised.value)
