"""The moment between what an app says and the turn of the loop in which it is written."""

import asyncio
from collections.abc import Callable

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from asgi_gateway.asgi import ASGIApp
from asgi_gateway.config import Server
from asgi_gateway.server.protocol import GatewayProtocol, protocol
from asgi_gateway.turn import SMALL

from .test_answers import answering

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Wire(asyncio.Transport):
    """What is written, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing
        self.pieces.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


Connect = Callable[[ASGIApp], tuple[GatewayProtocol, Wire]]


@pytest.fixture
def connect() -> Connect:
    """A connection without a socket, to look into the moment before the loop turns."""

    def connected(app: ASGIApp) -> tuple[GatewayProtocol, Wire]:
        config = Config(app, lifespan="off", interface="asgi3", log_config=None, proxy_headers=False)
        kind = protocol(Server())
        connection = kind(config=config, server_state=ServerState(), app_state={})
        wire = Wire()
        connection.connection_made(wire)
        connection.turn.crowded = True
        return connection, wire

    return connected


async def test_what_is_said_in_one_turn_goes_out_in_one_piece(connect: Connect) -> None:
    connection, wire = connect(answering([(b"content-length", b"6")], b"one", b"two"))
    connection.data_received(REQUEST)
    await asyncio.sleep(0)
    assert (connection.current, wire.pieces) == (None, [])
    await asyncio.sleep(0)
    [piece] = wire.pieces
    assert piece.endswith(b"content-length: 6\r\n\r\nonetwo")
    connection.connection_lost(None)


async def test_where_few_are_served_nothing_waits(connect: Connect) -> None:
    connection, wire = connect(answering([(b"content-length", b"3")], b"one"))
    connection.turn.crowded = False
    connection.data_received(REQUEST)
    await asyncio.sleep(0)
    [piece] = wire.pieces
    assert piece.endswith(b"content-length: 3\r\n\r\none")
    await asyncio.sleep(0)
    assert wire.pieces == [piece]
    connection.connection_lost(None)


async def test_large_pieces_are_not_held(connect: Connect) -> None:
    large = b"x" * SMALL
    connection, wire = connect(answering([(b"content-length", b"%d" % (2 * SMALL))], large, large))
    connection.data_received(REQUEST)
    await asyncio.sleep(0)
    head, *rest = wire.pieces
    assert head.endswith(b"\r\n\r\n")
    assert rest[0] == large
    await asyncio.sleep(0)
    assert b"".join(wire.pieces[1:]) == 2 * large
    connection.connection_lost(None)


@pytest.mark.parametrize("end", ["eof", "garbage", "close", "shutdown"])
async def test_an_answer_that_is_held_goes_out_before_its_connection_ends(connect: Connect, end: str) -> None:
    connection, wire = connect(answering([(b"content-length", b"3")], b"one"))
    connection.data_received(REQUEST)
    await asyncio.sleep(0)
    assert (connection.current, wire.pieces) == (None, [])
    if end == "eof":
        assert not connection.eof_received()
    elif end == "garbage":
        connection.data_received(b"GARBAGE\r\n\r\n")
    elif end == "close":
        connection.close()
    else:
        connection.shutdown()
    await asyncio.sleep(0)
    written = b"".join(wire.pieces)
    first, _, rest = written.partition(b"\r\n\r\none")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert rest.startswith(b"HTTP/1.1 400 ") if end == "garbage" else not rest
    connection.connection_lost(None)


async def test_nothing_is_written_to_a_connection_that_is_gone(connect: Connect) -> None:
    connection, wire = connect(answering([(b"content-length", b"3")], b"one"))
    connection.data_received(REQUEST)
    await asyncio.sleep(0)
    connection.connection_lost(None)
    await asyncio.sleep(0)
    assert wire.pieces == []
