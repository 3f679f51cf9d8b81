"""An upstream that reads requests by the letter of RFC 9112, and notes what another one may misread."""

import asyncio
import re
from dataclasses import dataclass, field

from tests.wire.conftest import Line

REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ /[!-~]* HTTP/1\.1")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([^\x00-\x08\x0a-\x1f\x7f]*)")
CHUNK = re.compile(rb"[0-9a-f]{1,8}\r\n")


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]


@dataclass
class Strict:
    """A script: answers every request with its target, once its body is there. What breaks off is none."""

    requests: list[Request] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)

    async def __call__(self, line: Line) -> None:
        while True:
            request = self.read(await line.head())
            body = await self.body(request, line.reader)
            self.requests.append(Request(request.method, request.target, request.fields, body))
            line.say(b"HTTP/1.1 200 OK\r\nx-target: %b\r\ncontent-length: 0\r\n\r\n" % request.target)

    @property
    def targets(self) -> list[bytes]:
        return [request.target for request in self.requests]

    def expect(self, true: bool, what: str) -> None:
        if not true:
            self.breaches.append(what)

    def read(self, head: bytes) -> Request:
        first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        self.expect(bool(REQUEST_LINE.fullmatch(first)), f"request line {first!r}")
        fields: list[tuple[bytes, bytes]] = []
        for each in lines:
            found = FIELD.fullmatch(each)
            self.expect(found is not None, f"field {each!r}")
            if found is not None:
                fields.append((found[1].lower(), found[2]))
        request = Request(first.split(b" ")[0], first.split(b" ")[1], fields)
        hosts = request.all(b"host")
        self.expect(len(hosts) == 1 and bool(hosts[0]), f"Host {hosts!r} of {first!r}")
        lengths, codings = request.all(b"content-length"), request.all(b"transfer-encoding")
        self.expect(len(lengths) + len(codings) <= 1, f"framing {lengths!r} {codings!r} of {first!r}")
        self.expect(all(length.isdigit() for length in lengths), f"Content-Length {lengths!r} of {first!r}")
        self.expect(codings in ([], [b"chunked"]), f"Transfer-Encoding {codings!r} of {first!r}")
        return request

    async def body(self, request: Request, reader: asyncio.StreamReader) -> bytes:
        if lengths := request.all(b"content-length"):
            return await reader.readexactly(int(lengths[0]))
        body = b""
        while request.all(b"transfer-encoding"):
            size = await reader.readuntil(b"\r\n")
            self.expect(bool(CHUNK.fullmatch(size)), f"chunk size {size!r}")
            body += await reader.readexactly(int(size, 16))
            end = await reader.readexactly(2)
            self.expect(end == b"\r\n", f"end of a chunk {end!r}")
            if not int(size, 16):
                break
        return body
