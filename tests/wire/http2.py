"""Requests over HTTP/2 that would be something else in HTTP/1.1, and a client that sends them unchecked."""

import asyncio
from collections.abc import Iterator

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamReset

Fields = list[tuple[bytes, bytes]]


def request(name: str, *more: tuple[bytes, bytes], **said: bytes | None) -> Fields:
    """`said`: other pseudo-fields, None for one that is left out."""
    path = b"/x-" + name.encode()
    fields: dict[str, bytes | None] = {
        "method": b"POST",
        "scheme": b"http",
        "authority": b"gw.test",
        "path": path,
    }
    fields |= {each: value and value.replace(b"/x", path, 1) for each, value in said.items()}
    return [*((b":" + each.encode(), value) for each, value in fields.items() if value is not None), *more]


FIELDS: dict[str, Fields] = {
    "value_with_line": [(b"x", b"a\r\nTransfer-Encoding: chunked")],
    "value_with_lf": [(b"x", b"a\nX: y")],
    "value_with_nul": [(b"x", b"a\0b")],
    "value_with_control": [(b"x", b"a\x08b")],
    "name_with_line": [(b"x: y\r\nz", b"a")],
    "name_with_space": [(b"x y", b"a")],
    "name_with_colon": [(b"x:y", b"a")],
    "name_in_upper_case": [(b"X-Up", b"a")],
    "name_empty": [(b"", b"a")],
    "coding": [(b"transfer-encoding", b"chunked")],
    "coding_and_length": [(b"transfer-encoding", b"chunked"), (b"content-length", b"5")],
    "length_too_short": [(b"content-length", b"3")],
    "length_too_long": [(b"content-length", b"50")],
    "length_twice": [(b"content-length", b"5"), (b"content-length", b"5")],
    "length_with_plus": [(b"content-length", b"+5")],
    "connection": [(b"connection", b"x-forwarded-for")],
    "host_beside_authority": [(b"host", b"other.test")],
    "cookies": [(b"cookie", b"a=1"), (b"cookie", b"b=2")],
}
PSEUDO: dict[str, dict[str, bytes | None]] = {
    "plain": {},
    "authority_empty": {"authority": b""},
    "authority_missing": {"authority": None},
    "authority_with_line": {"authority": b"a\r\nX: y"},
    "authority_with_user": {"authority": b"me@gw.test"},
    "path_with_request": {"path": b"/x HTTP/1.1\r\nX: y\r\n\r\n"},
    "path_with_space": {"path": b"/x y"},
    "path_with_dots": {"path": b"/x/../y"},
    "path_relative": {"path": b"x"},
    "path_empty": {"path": b""},
    "path_absolute": {"path": b"http://other.test/x"},
    "path_with_fragment": {"path": b"/x#y"},
    "query_with_line": {"path": b"/x?a\r\nX: y"},
    "query_with_version": {"path": b"/x?a HTTP/1.1"},
    "query_not_ascii": {"path": b"/x?a\xe9"},
    "method_with_path": {"method": b"GET /smuggled"},
    "method_with_request": {"method": b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nGET"},
    "method_in_lower_case": {"method": b"post"},
    "tunnel": {"method": b"CONNECT"},
    "tunnel_without_path": {"method": b"CONNECT", "path": None, "scheme": None},
}


def cases() -> Iterator[tuple[str, Fields]]:
    for name, more in FIELDS.items():
        yield name, request(name, *more)
    for name, said in PSEUDO.items():
        yield name, request(name, **said)


async def ask(port: int, fields: Fields) -> int:
    """The status of the answer; 0 for a stream or a connection that was reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    unchecked = H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, validate_inbound_headers=False
    )
    connection = H2Connection(unchecked)
    connection.initiate_connection()
    connection.send_headers(1, fields)
    connection.send_data(1, b"hello", end_stream=True)
    writer.write(connection.data_to_send())
    try:
        async with asyncio.timeout(5):
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, ResponseReceived):
                        return int(dict(event.headers)[b":status"])
                    if isinstance(event, (StreamReset, ConnectionTerminated)):
                        return 0
                writer.write(connection.data_to_send())
    except ConnectionError:
        pass
    finally:
        writer.close()
    return 0
