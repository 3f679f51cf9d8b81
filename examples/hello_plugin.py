"""A plugin with one component, and a gateway that has it: `python examples/hello_plugin.py` tries it."""

import asyncio
import sys

import httpx

from asgi_gateway.asgi import ASGIApp, Message, Receive, Scope, Send, answer
from asgi_gateway.component import Build, Component
from asgi_gateway.exchange import Exchange
from asgi_gateway.gateway import Gateway
from asgi_gateway.hookspecs import hookimpl
from asgi_gateway.stage import Stage


class Hello(Component, name="hello", stage=Stage.TRANSFORM):
    """Greets the caller in a header of the answer."""

    greeting: str = "hello"
    """What to say."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        def greet(exchange: Exchange, message: Message) -> None:
            message["headers"].append((b"x-greeting", self.greeting.encode()))

        async def hello(scope: Scope, receive: Receive, send: Send) -> None:
            Exchange.of(scope).on_start(greet)
            await app(scope, receive, send)

        return hello


@hookimpl
def gateway_components() -> list[type[Component]]:
    return [Hello]


async def service(scope: Scope, receive: Receive, send: Send) -> None:
    """What stands behind the gateway."""
    await answer(scope, send, 200, b"from the service\n", (), b"text/plain")


async def main() -> None:
    document = {
        "upstreams": {"service": {"asgi": f"{__name__}:service"}},
        "components": [{"hello": {"greeting": "hi"}}],
        "routes": [{"name": "all", "path": "/*", "upstream": "service"}],
    }
    gateway = Gateway.parse(document, plugins=[sys.modules[__name__]])
    transport = httpx.ASGITransport(gateway)
    async with gateway.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/")
        print(response.status_code, response.headers["x-greeting"], response.text, end="")


if __name__ == "__main__":
    asyncio.run(main())
