"""Requests mean the same however their bytes are cut into pieces on the way from a caller (P01, P02, P04)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from uvicorn import Config
from uvicorn.server import ServerState

from asgi_gateway.asgi import Receive, Scope, Send
from asgi_gateway.config import Server
from asgi_gateway.server.protocol import protocol
from asgi_gateway.server.websocket import GatewayWebSocket
from tests.properties.messages import Field, bodies, chunks, coding, fields, written
from tests.properties.pipes import Cut, Loop, Pieces, Pipe, arrive, cut, cuts, turns, whole
from tests.properties.profile import examples


@dataclass
class Seen:
    """A request as an app has it when all of it was read."""

    method: str
    raw_path: bytes
    query: bytes
    headers: tuple[Field, ...]
    body: bytes


@dataclass(frozen=True)
class Request:
    """A request as its bytes, and what they mean."""

    wire: bytes
    seen: Seen
    last: bool = False
    """Whether nothing is read behind it."""


class Echo:
    """Reads requests, and answers with how much it read."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.seen.append(
            Seen(scope["method"], scope["raw_path"], scope["query_string"], tuple(scope["headers"]), body)
        )
        answer = b"%d" % len(body)
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


paths = st.lists(
    st.sampled_from([b"/a", b"/%2F", b"/%zz", b"/..", b"/;x", b"/~b", b"/*", b"/:"]), min_size=1, max_size=3
).map(b"".join)
queries = st.sampled_from([b"", b"", b"a=b", b"?", b"a=%20+&a", b"/", b"x?y"])


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A valid request of any kind."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"M-SEARCH"]))
    path, query = draw(paths), draw(queries)
    old, absolute = draw(st.integers(0, 19)) == 0, draw(st.integers(0, 9)) == 0
    head = draw(fields(most=3)) + draw(written(b"Host", b"a.test"))
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    body, data = b"", b""
    if framing == "length" or (framing == "chunked" and old):
        data = body = draw(bodies)
        head += draw(written(b"Content-Length", b"%d" % len(body)))
    elif framing == "chunked":
        body = draw(bodies)
        head += draw(coding())
        data, _ = draw(chunks(body))
    option, last = draw(st.sampled_from([b"", b"", b"", b"", b"keep-alive", b"close", b"Upgrade"])), old
    if option:
        head += draw(written(b"Connection", option))
        last = last or option == b"close"
    if option == b"Upgrade" or draw(st.integers(0, 19)) == 0:
        head += draw(written(b"Upgrade", draw(st.sampled_from([b"h2c", b"TLS/1.0, websocket2"]))))
    if draw(st.integers(0, 9)) == 0:
        head += draw(written(b"Expect", b"100-Continue"))
    head += draw(fields(most=2))
    target = path + (b"?" + query if query else b"")
    if absolute:
        target = b"http://A.test" + target
    wire = b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, target, b"1.0" if old else b"1.1", head.wire, data)
    return Request(wire, Seen(method.decode(), path, query, head.meant, body), last)


def run(pieces: Pieces, *, leaves: bool = False) -> tuple[list[Seen], bytes, bool]:
    """What the app saw, what the caller got, and whether the connection is still there."""
    loop, app = Loop(), Echo()
    state = ServerState()

    async def talk() -> tuple[list[Seen], bytes, bool]:
        pipe = Pipe(loop, KIND(config=config(app), server_state=state, app_state={}, _loop=loop))
        await arrive(pipe, pieces)
        await turns(40)
        stays = not pipe.closing and isinstance(pipe.get_protocol(), KIND)
        pipe.reset()
        await turns()
        assert not state.connections
        assert not state.tasks
        return app.seen, bytes(pipe.written), stays

    try:
        return loop.run_until_complete(talk())
    finally:
        assert not loop.errors
        loop.close()


KIND = protocol(Server())


def config(app: Echo) -> Config:
    config = Config(app, lifespan="off", ws=GatewayWebSocket, interface="asgi3", log_config=None)
    config.proxy_headers = False
    config.load()
    return config


def answers_in(written: bytes) -> list[bytes]:
    """The status of each answer, interim ones left out."""
    return [status for status in re.findall(rb"HTTP/1.1 (\d+) ", written) if status != b"100"]


@examples(120)
@given(st.lists(requests(), min_size=1, max_size=4), cuts())
def test_valid_requests_mean_the_same_in_any_pieces(said: Sequence[Request], how: Cut) -> None:
    wire = b"".join(request.wire for request in said)
    seen, written, _ = run(cut(wire, how))
    until = next((index + 1 for index, request in enumerate(said) if request.last), len(said))
    assert seen == [request.seen for request in said[:until]]
    assert answers_in(written) == [b"200"] * until


# fmt: off
NASTY = [
    b"", b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b";", b"0", b"9", b"f", b"-1", b"\x7f",
    b"\xff", b"#", b"chunked", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.2",
    b"Transfer-Encoding: gzip\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"GET /evil HTTP/1.1\r\nHost: e\r\n\r\n", b"Expect: 100-continue\r\n", b"\r\n b\r\n", b"http://b",
]
# fmt: on


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Requests with something cut out, put in, or put behind them."""
    wire = b"".join(request.wire for request in draw(st.lists(requests(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 2))):
        place, length = draw(st.integers(0, len(wire))), draw(st.sampled_from([0, 0, 1, 2, 5]))
        wire = wire[:place] + draw(st.sampled_from(NASTY)) + wire[place + length :]
    return wire


@examples(180)
@given(damaged(), cuts())
def test_damaged_requests_are_read_and_refused_the_same_in_any_pieces(wire: bytes, how: Cut) -> None:
    seen, written, stays = run(whole(wire))
    seen_in_pieces, written_in_pieces, stays_in_pieces = run(cut(wire, how))
    assert seen_in_pieces == seen
    assert answers_in(written_in_pieces) == answers_in(written)
    assert stays_in_pieces == stays
    # Nothing follows a refusal.
    refusals = [status for status in answers_in(written) if status != b"200"]
    assert len(refusals) <= 1
    assert not (refusals and stays)
