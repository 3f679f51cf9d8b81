"""A proxy over aiohttp's server and client, written with care, as a peer. Run as a module it serves."""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from .peer import Peer, Place

if TYPE_CHECKING:
    from aiohttp import web

HOPS = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"})


def create() -> "web.Application":
    """One session for the whole life, bodies streamed both ways, nothing decoded or remembered."""
    from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web
    from yarl import URL

    origin = URL(os.environ["BENCHMARK_UPSTREAM"])
    session = web.AppKey("session", ClientSession)

    async def life(app: web.Application) -> AsyncIterator[None]:
        connector = TCPConnector(limit=0)
        async with ClientSession(
            connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False
        ) as app[session]:
            yield

    async def proxy(request: web.Request) -> web.StreamResponse:
        fields = [(name, value) for name, value in request.headers.items() if name.lower() not in HOPS]
        async with request.app[session].request(
            request.method,
            origin.join(request.rel_url),
            headers=fields,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in HOPS:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app = web.Application()
    app.cleanup_ctx.append(life)
    app.router.add_route("*", "/{path:.*}", proxy)
    return app


class AiohttpProxy(Peer):
    """On uvloop, one process."""

    name = "aiohttp proxy"
    install = "pip install aiohttp uvloop"
    module = "aiohttp"

    def command(self, program: str, place: Place) -> Sequence[str]:
        return [program, "-m", __name__, str(place.port)]


if __name__ == "__main__":
    import uvloop
    from aiohttp import web

    web.run_app(
        create(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )
