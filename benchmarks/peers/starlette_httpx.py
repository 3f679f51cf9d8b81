"""A proxy out of Starlette and httpx, written in the obvious way, as a peer."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from .peer import Peer, Place, uvicorn


def create() -> Starlette:
    """The application: a client for the whole life, a streamed request and a streamed response."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(base_url=os.environ["BENCHMARK_UPSTREAM"]) as client:
            app.state.client = client
            yield

    async def proxy(request: Request) -> Response:
        client: httpx.AsyncClient = request.app.state.client
        content = request.stream() if request.method in {"POST", "PUT", "PATCH"} else None
        outgoing = client.build_request(
            request.method,
            request.url.path,
            params=request.url.query,
            headers=request.headers.raw,
            content=content,
        )
        answer = await client.send(outgoing, stream=True)
        return StreamingResponse(
            answer.aiter_raw(),
            answer.status_code,
            dict(answer.headers),
            background=BackgroundTask(answer.aclose),
        )

    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return Starlette(routes=[Route("/{path:path}", proxy, methods=methods)], lifespan=lifespan)


class StarletteHttpx(Peer):
    """On uvicorn with uvloop and httptools, one process."""

    name = "starlette + httpx"
    install = "pip install starlette httpx"
    module = "httpx"

    def command(self, program: str, place: Place) -> Sequence[str]:
        return uvicorn("benchmarks.peers.starlette_httpx:create", place)
