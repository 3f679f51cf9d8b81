"""Fields and bodies go through a gateway as they are, but for a short list, over real sockets (P10, P13)."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn import Config
from uvicorn.server import ServerState

from asgi_gateway.config import Server
from asgi_gateway.gateway import Gateway
from asgi_gateway.server.protocol import protocol
from asgi_gateway.server.websocket import GatewayWebSocket
from tests.peers import peer
from tests.properties.messages import Field, Fields, bodies, chunks, names, values, written
from tests.properties.profile import examples

DATE = (b"date", b"Tue, 01 Sep 2026 10:00:00 GMT")

# What does not go through, as the docs say it.
OF_THE_CONNECTION = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer "
    b"transfer-encoding upgrade".split()
)
OF_STRANGERS = frozenset(
    b"forwarded x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-proto "
    b"x-forwarded-server x-real-ip".split()
)
NEVER_NAMED = frozenset(b"host content-length close keep-alive".split())
FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})


@dataclass
class Said:
    """One message: its first line, its fields, its body."""

    line: bytes
    fields: list[Field]
    body: bytes


async def hear(reader: asyncio.StreamReader, *, bodyless: bool = False) -> Said:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *rest = head[:-4].split(b"\r\n")
    pairs = [field.partition(b":") for field in rest]
    found = [(name, value.strip(b" \t")) for name, _, value in pairs]
    known = {name.lower(): value for name, value in found}
    body = b""
    if bodyless:
        pass
    elif known.get(b"transfer-encoding", b"").lower() == b"chunked":
        while size := int((await reader.readline()).partition(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        while await reader.readline() != b"\r\n":
            pass
    elif b"content-length" in known:
        body = await reader.readexactly(int(known[b"content-length"]))
    elif line.startswith(b"HTTP/"):
        body = await reader.read()
    return Said(line, found, body)


class Wire:
    """A gateway between a raw caller and a raw upstream, for many examples."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.came: list[Said] = []
        self.reply = b""
        self.runner.run(self._start())

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        target = f"http://127.0.0.1:{await self.stack.enter_async_context(peer(self._serve))}"
        gateway = Gateway.parse(
            {
                "upstreams": {"up": {"targets": [target], "forwarded": "none"}},
                "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
            }
        )
        await self.stack.enter_async_context(gateway.lifespan())
        config = Config(gateway, lifespan="off", ws=GatewayWebSocket, interface="asgi3", log_config=None)
        config.proxy_headers = False
        self.state = ServerState()
        self.state.default_headers = [DATE]
        kind = protocol(Server())
        front = await loop.create_server(
            lambda: kind(config=config, server_state=self.state, app_state={}, _loop=loop), "127.0.0.1", 0
        )
        await self.stack.enter_async_context(front)
        self.port = front.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.came.append(await hear(reader))
            writer.write(self.reply)
            if b"\r\nconnection: close\r\n" in self.reply.lower():
                break

    def ask(self, request: bytes, reply: bytes, *, bodyless: bool = False) -> tuple[Said, Said]:
        """What the upstream got, and what the caller got."""

        async def talk() -> Said:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                async with asyncio.timeout(5):
                    writer.write(request)
                    return await hear(reader, bodyless=bodyless)
            finally:
                writer.close()
                await writer.wait_closed()

        self.came.clear()
        self.reply = reply
        answer = self.runner.run(talk())
        (came,) = self.came
        return came, answer

    def close(self) -> None:
        async def end() -> None:
            while self.state.connections or self.state.tasks:
                await asyncio.sleep(0.001)
            await self.stack.aclose()

        self.runner.run(end())
        self.runner.close()


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


forgeries = [b"X_Forwarded-For", b"x-REAL_ip", b"keep_alive"]
hops = sorted(OF_THE_CONNECTION - {b"connection", b"transfer-encoding"})
special = st.sampled_from([*hops, *sorted(OF_STRANGERS), *forgeries]).map(
    lambda name: name.title() if name[0] % 2 else name
)
plain = names | st.sampled_from([b"Date", b"Server", b"X-Powered-By", b"X-Forwarded-Ssl"])


@st.composite
def heads(draw: st.DrawFn) -> Fields:
    """Fields of any kind; some of them are named by Connection fields."""
    made = draw(st.lists(st.tuples(plain | special, values), max_size=8))
    named = [name for name, _ in made] + [
        b"close",
        b"Keep-Alive",
        b"Host",
        b"Content-Length",
        b"X-Absent",
        b"",
    ]
    made = [(name, b"h2c" if name.lower() == b"upgrade" else value) for name, value in made]
    for tokens in draw(st.lists(st.lists(st.sampled_from(named), max_size=3), max_size=2)):
        made.insert(draw(st.integers(0, len(made))), (b"cOnnection", b", ".join(tokens)))
    found = Fields()
    for name, value in made:
        found += draw(written(name, value))
    return found


def passed_on(meant: tuple[Field, ...], dropped: frozenset[bytes]) -> list[Field]:
    """The fields that go through, written down again from the promises."""
    named = set()
    for name, value in meant:
        if name == b"connection":
            named |= {token.strip() for token in value.lower().split(b",")} - NEVER_NAMED
    return [
        (name, value)
        for name, value in meant
        if name not in named
        and name not in dropped
        and name not in OF_THE_CONNECTION
        # A server behind may read `_` as `-`.
        and name.replace(b"_", b"-") not in dropped | (OF_THE_CONNECTION if dropped else frozenset())
    ]


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@st.composite
def framed(draw: st.DrawFn, kinds: list[str]) -> tuple[Fields, bytes, bytes]:
    """The field that frames a body, its bytes on the wire, and the body."""
    kind, body = draw(st.sampled_from(kinds)), draw(bodies)
    if kind == "length":
        return draw(written(b"Content-Length", b"%d" % len(body))), body, body
    if kind == "chunked":
        return Fields(b"Transfer-Encoding: chunked\r\n", ()), draw(chunks(body))[0], body
    return Fields(), body if kind == "close" else b"", body if kind == "close" else b""


@examples(130)
@given(heads(), heads(), framed(["none", "length", "chunked"]), st.sampled_from([b"GET", b"POST", b"PATCH"]))
def test_a_request_goes_through_as_it_is(
    wire: Wire, before: Fields, after: Fields, framing: tuple[Fields, bytes, bytes], method: bytes
) -> None:
    frame, data, body = framing
    head = before + Fields(b"Host: gw.test\r\n", ((b"host", b"gw.test"),)) + frame + after
    came, _ = wire.ask(b"%b /a?b HTTP/1.1\r\n%b\r\n%b" % (method, head.wire, data), OK)
    assert came.line == b"%b /a?b HTTP/1.1" % method
    expected = passed_on(head.meant, OF_STRANGERS | {b"expect"})
    # How the body is framed is up to each connection: of chunks it may make a length, in one place.
    if frame.wire.startswith(b"Transfer"):
        came.fields = [field for field in came.fields if field[0] not in FRAMING]
    assert came.fields == expected
    assert came.body == body


@examples(130)
@given(
    heads(),
    heads(),
    framed(["length", "chunked", "close"]),
    st.sampled_from([200, 201, 206, 404, 500, 503, 204, 304]),
    st.sampled_from([b"GET", b"HEAD"]),
)
def test_an_answer_comes_back_as_it_is(
    wire: Wire,
    before: Fields,
    after: Fields,
    framing: tuple[Fields, bytes, bytes],
    status: int,
    method: bytes,
) -> None:
    frame, data, body = framing
    head = before + frame + after
    if frame == Fields():
        head += Fields(b"connection: close\r\n", ((b"connection", b"close"),))
    bodyless = method == b"HEAD" or status in (204, 304)
    reply = b"HTTP/1.1 %d OK\r\n%b\r\n%b" % (status, head.wire, b"" if bodyless else data)
    _, got = wire.ask(b"%b / HTTP/1.1\r\nhost: gw.test\r\n\r\n" % method, reply, bodyless=bodyless)
    assert int(got.line.split()[1]) == status
    expected = [field for field in passed_on(head.meant, frozenset()) if field[0] not in FRAMING]
    if not any(name == b"date" for name, _ in expected):
        expected.append(DATE)
    assert [field for field in got.fields if field[0] not in FRAMING] == expected
    assert got.body == (b"" if bodyless else body)


def test_spaces_behind_a_length_do_no_harm(wire: Wire) -> None:
    request = b"POST / HTTP/1.1\r\nHost: gw.test \t\r\nContent-Length: 2 \r\nX: a\t\r\n\r\nhi"
    came, got = wire.ask(request, b"HTTP/1.1 200 OK\r\nContent-Length: 2\t \r\nX: b \r\n\r\nok")
    assert came.fields == [(b"host", b"gw.test"), (b"content-length", b"2"), (b"x", b"a")]
    assert (came.body, got.body) == (b"hi", b"ok")
    assert got.fields == [(b"content-length", b"2"), (b"x", b"b"), DATE]
