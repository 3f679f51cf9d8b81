"""uvicorn answering by itself: the least that an ASGI server can do, and the unit of the comparison."""

import os
from collections.abc import Awaitable, Callable, MutableMapping, Sequence

from .peer import Peer, Place, uvicorn

Message = MutableMapping[str, object]


def create() -> Callable[..., Awaitable[None]]:
    """An ASGI app with one answer."""
    body = b"x" * int(os.environ["BENCHMARK_BODY_BYTES"])
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    head: Message = {"type": "http.response.start", "status": 200, "headers": headers}
    rest: Message = {"type": "http.response.body", "body": body}

    async def answer(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        await send(head)
        await send(rest)

    return answer


class Answer(Peer):
    """uvloop, httptools, no access log, one process. It has no upstream."""

    name = "uvicorn by itself"
    install = "pip install uvicorn httptools uvloop"
    module = "uvicorn"

    def command(self, program: str, place: Place) -> Sequence[str]:
        return [*uvicorn("benchmarks.peers.answer:create", place), "--lifespan", "off", "--no-proxy-headers"]
