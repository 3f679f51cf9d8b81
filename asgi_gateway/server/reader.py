"""The only place that touches uvicorn's HTTP protocol: turns the bytes of a caller into requests."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..asgi import Header, Scope
from ..config import Limits
from .cycle import Cycle
from .head import Refused, framing, origin_form, size, too_large

SPACE = 0x20
CHUNK = 256 * 1024
"""The most that event loops read at once."""
METHODS = {name.encode(): name for name in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")}
NOTHING: Mapping[str, Any] = MappingProxyType({})
EXTENSIONS: Mapping[str, Any] = MappingProxyType({"asgi_gateway": NOTHING})
"""Tells the gateway that this server cancels the task of a caller who left."""
WITH_TRAILERS = MappingProxyType({"asgi_gateway": NOTHING, "http.response.trailers": NOTHING})


class Reader(HttpToolsProtocol):
    """What is read on one connection; what is done with it is up to `admit`, `refuse` and `switch`."""

    limits: ClassVar[Limits] = Limits()
    scope: dict[str, Any]  # type: ignore[assignment]
    reading: Cycle | None = None
    """The request that came last: its body may still be on its way."""
    draining = False
    """Whether the server goes away soon: its answers say so. One word for all its connections."""
    extensions: Mapping[str, Any] = EXTENSIONS
    """What every request of this connection says that it can do."""
    closing = False
    """Whether this connection ends with the answer that is due."""
    received = 0
    """Bytes since a head or a piece of a body was complete: no less than what the parser holds."""
    progressed = False
    resuming = False

    def admit(self, scope: Scope, keep_alive: bool, expects: bool) -> None:
        raise NotImplementedError

    def refuse(self, refused: Refused) -> None:
        raise NotImplementedError

    def switch(self) -> None:
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        rest: bytes | None = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self.refuse(Refused.of(error))
        # Not while the exception is handled: it would hide why the rest is refused.
        if rest is not None:
            if self._should_upgrade():
                self.switch()
            else:
                self.resume(rest)
        if self.progressed:
            self.progressed = False
            self.received = len(data)
        elif self.received > self.limits.header_bytes + self.limits.url_bytes + CHUNK:
            self.refuse(too_large())

    def resume(self, rest: bytes) -> None:
        """Read on after a head that asked for a protocol which is not spoken here, as if it had not asked."""
        # The parser has skipped the body: another one is told how that ends, and goes on from here.
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.resuming = True
        if self.reading is not None:
            self.reading.more_body = True
        self.data_received(b"POST / HTTP/1.1\r\n" + framing(self.headers) + b"\r\n" + rest)

    def _should_upgrade(self) -> bool:
        # RFC 9110 7.8: HTTP/1.0 has no upgrades.
        return self.scope["http_version"] == "1.1" and super()._should_upgrade()

    def in_head(self) -> bool:
        """Whether a request has begun to arrive, and its head is not complete."""
        return self.scope is not None and "method" not in self.scope

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        headers: list[Header] = []
        self.headers = headers
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": headers,
            "state": self.app_state.copy(),
            "extensions": self.extensions,
        }

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.limits.url_bytes:
            raise Refused(414, "url_too_long", "the URL is longer than this gateway allows")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if value and value[-1] <= SPACE:
            # The parser leaves blanks behind a value, which are no part of it (RFC 9112 5.1). But a tab
            # behind `chunked` is another coding to it.
            value = value.rstrip(b" " if name == b"transfer-encoding" else b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        elif name == b"te" and b"trailers" in value.lower():
            self.scope["extensions"] = {**self.extensions, **WITH_TRAILERS}
        self.headers.append((name, value))
        if len(self.headers) > self.limits.headers:
            raise Refused(431, "too_many_headers", "there are more header fields than this gateway allows")

    def on_headers_complete(self) -> None:
        self.progressed = True
        parser, scope = self.parser, self.scope
        method = parser.get_method()
        scope["method"] = METHODS.get(method) or method.decode("ascii")
        if self.resuming:
            self.resuming, self.headers = False, []
            return
        # The sum is asked for only when so much has come that the fields could be too large.
        if self.received > self.limits.header_bytes < size(self.headers):
            raise too_large()
        version = parser.get_http_version()
        if version != "1.1":
            if version != "1.0":
                raise Refused(505, "http_version", "this gateway speaks HTTP/1.1 and HTTP/1.0 here")
            scope["http_version"] = version
        if not parser.should_upgrade():
            # What comes after the body is a trailer: never part of the head that components have seen.
            self.headers = []
        elif self._should_upgrade():
            return
        self.locate(self.url)
        stays = not (self.closing or self.draining)
        keep_alive = version == "1.1" and parser.should_keep_alive() and stays
        self.admit(scope, keep_alive, version == "1.1" and self.expect_100_continue)

    def locate(self, url: bytes) -> None:
        """Put path and query into the scope."""
        if url[:1] != b"/":
            url = origin_form(url, self.scope["headers"])
        if b"#" in url:
            raise Refused.bad("the request target holds a fragment")
        raw_path, _, query = url.partition(b"?")
        path = raw_path.decode("ascii")
        scope = self.scope
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode() + raw_path if self.root_path else raw_path
        scope["query_string"] = query

    def on_body(self, body: bytes) -> None:
        self.progressed = True
        if self.reading is not None:
            self.reading.feed(body)

    def on_message_complete(self) -> None:
        cycle = self.reading
        if cycle is not None and cycle.more_body:
            cycle.more_body = False
            cycle.wake()
