"""The only place that looks at a request before components do: cleans it, refuses what is ambiguous."""

import re
from collections.abc import Iterable

from .asgi import ASGIApp, Header, Scope, extension, header
from .component import Refusal
from .config import Limits
from .exchange import EXCHANGE, Exchange
from .forwarding import FORWARDING
from .hops import HOP_BY_HOP, named
from .live import Live, Serving
from .paths import Ambiguous, decode, plain, strip_root
from .routing import Entry

CLOSE = (b"connection", b"close")
HOST = re.compile(
    rb"(?:([A-Za-z0-9._~-]+)|(\[[0-9A-Fa-f:.]+\]))(?::([0-9]{0,5}))?"
)  # RFC 9110 7.2, without encodings

TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 5.6.2
METHOD = re.compile(TOKEN)
NAMES = re.compile(rf"(?:{TOKEN}\n)*".encode())
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
NO_QUERY = re.compile(rb"[\x00-\x20\x7f-\xff]")
LENGTH = re.compile(rb"[0-9]{1,600}")  # int() raises past a number of digits that is never below 640
OLD = ("1.0", "1")  # Granian says 1
VERSIONS = frozenset({*OLD, "1.1", "2", "3"})
FRAMED = frozenset({b"host", b"content-length", b"expect"})
CHUNKED = b"chunked"
MILLISECONDS = re.compile(rb"[0-9]{1,12}")
SECURE = {"ws": "http", "wss": "https"}


class Refused(Exception):
    """The request goes no further than the door."""

    def __init__(self, status: int, reason: str, detail: str, *headers: Header) -> None:
        super().__init__(reason)
        self.refusal = Refusal(status, reason, headers, detail)


class Door:
    """The entrance of one Live. What can be decided before a request comes is decided here once."""

    def __init__(
        self, live: Live, limits: Limits, owned: Iterable[str], forwarded: Iterable[str] = ()
    ) -> None:
        self._live = live
        self._max_headers = limits.headers
        self._max_header_bytes = limits.header_bytes
        self._max_url = limits.url_bytes
        self._deadline_header = live.config.deadline_header.encode()
        lower = [name.lower() for name in (*owned, live.config.deadline_header) if name]
        owned_names = frozenset(name.encode() for own in lower for name in (own, own.replace("_", "-")))
        self._dropped = HOP_BY_HOP | FORWARDING | owned_names
        """Fields that never reach a component as the caller sent them."""
        self._forwarded = frozenset(name.lower().encode() for name in forwarded)
        """Fields that only trusted peers may send."""
        self._special = self._dropped | FRAMED | self._forwarded
        self._rare = self._special - {b"host"}
        self._hosts: dict[bytes, str] = {}
        self._plain = plain(live.config.paths)
        self._trusted = live.trusted or None

    def enter(self, scope: Scope, exchange: Exchange) -> tuple[ASGIApp, Scope]:
        """The chain that serves a request, and the scope that it gets: a clean copy of the server's."""
        inner = {**scope, EXCHANGE: exchange}
        try:
            inner["headers"] = self._clean(scope, exchange)
            self._place(scope, inner, exchange)
            return self._route(inner, exchange), inner
        except Refused as refused:
            exchange.refused = refused.refusal
            return self._live.unmatched, inner

    # What the request says

    def _clean(self, scope: Scope, exchange: Exchange) -> list[Header]:
        headers: list[Header] = scope["headers"]
        if exchange.foreign or scope["type"] != "http":
            # Our own server has done it while it read.
            self._measure(headers)
            look_closer(scope)
        # Most requests hold nothing to weigh, and are asked in few steps, however many fields they have.
        names, version = [name for name, _ in headers], scope.get("http_version", "1.1")
        if (
            self._rare.isdisjoint(names)
            and b"_" not in b"".join(names)
            and names.count(b"host") == 1
            and version == "1.1"
        ):
            self._address(exchange, [headers[names.index(b"host")][1]], version)
            self._trust(scope, exchange, [])
            return list(headers)
        special, dropped = self._special, self._dropped
        kept: list[Header] = []
        found: list[Header] = []
        for pair in headers:
            name = pair[0]
            if name in special:
                found.append(pair)
                if name not in dropped and name != b"expect":
                    kept.append(pair)
            elif b"_" not in name or name.replace(b"_", b"-") not in special:
                kept.append(pair)
        return self._weigh(scope, exchange, kept, found)

    def _measure(self, headers: list[Header]) -> None:
        size = sum([len(name) + len(value) for name, value in headers])
        if len(headers) > self._max_headers or size > self._max_header_bytes:
            raise Refused(431, "headers_too_large", "The header fields are too many or too large.")

    def _weigh(
        self, scope: Scope, exchange: Exchange, kept: list[Header], found: list[Header]
    ) -> list[Header]:
        """Look at the fields that frame the message, address it, or belong to the connection."""
        version = scope.get("http_version", "1.1")
        hosts, lengths, codings, connections, forwarded = [], [], [], [], []
        deadlines: list[bytes] = []
        for pair in found:
            name, value = pair
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                lengths.append(value)
            elif name == b"transfer-encoding":
                codings.append(value)
            elif name == b"connection":
                connections.append(value)
            elif name in FORWARDING:
                forwarded.append(pair)
            elif name == self._deadline_header:
                deadlines.append(value)
            elif name == b"te" and b"trailers" in value.lower():
                exchange.trailers = extension(scope, "http.response.trailers") is not None
        if version not in VERSIONS:
            raise Refused(505, "http_version", "This gateway speaks HTTP/1.0 to HTTP/3.", CLOSE)
        if codings or lengths:
            self._frame(exchange, lengths, codings, version)
        elif version != "1.1" and version not in OLD:
            exchange.has_body = scope["type"] == "http"
        self._address(exchange, hosts, version)
        self._trust(scope, exchange, forwarded)
        if deadlines and exchange.trusted:
            shorten(exchange, deadlines)
        if self._forwarded and not exchange.trusted:
            kept = [pair for pair in kept if pair[0] not in self._forwarded]
        if connections and (gone := named(connections)):
            kept = [pair for pair in kept if pair[0] not in gone]
        return kept

    def _frame(self, exchange: Exchange, lengths: list[bytes], codings: list[bytes], version: str) -> None:
        """RFC 9112 6.1 to 6.3: one length, or exactly `chunked`, never both."""
        if codings and (lengths or len(codings) > 1 or codings[0].lower() != CHUNKED or version in OLD):
            raise Refused(
                400, "bad_framing", "Transfer-Encoding is not exactly `chunked`, or not alone.", CLOSE
            )
        if lengths and (len(lengths) > 1 or not LENGTH.fullmatch(lengths[0])):
            raise Refused(400, "bad_framing", "Content-Length is not one number.", CLOSE)
        exchange.has_body = bool(codings) or int(lengths[0]) > 0

    def _address(self, exchange: Exchange, hosts: list[bytes], version: str) -> None:
        if len(hosts) != 1:
            if hosts or version == "1.1":
                raise Refused(400, "bad_host", "A request has exactly one Host.", CLOSE)
            return
        exchange.authority = authority = hosts[0]
        if (host := self._hosts.get(authority, "")) == "":
            found = HOST.fullmatch(authority)
            if found is None or int(found[3] or 0) > 65535:
                raise Refused(
                    400, "bad_host", "The Host is not a name or an address with an optional port.", CLOSE
                )
            host = bytes(found[1] or found[2]).decode().lower()
            if len(self._hosts) < 1024:
                self._hosts[authority] = host
        exchange.host = host

    def _trust(self, scope: Scope, exchange: Exchange, forwarded: list[Header]) -> None:
        """Forwarding headers count only from trusted peers; from all others they are gone."""
        client = scope.get("client")
        peer = client[0] if client else ""
        exchange.client = peer
        scheme: str = scope.get("scheme", "http")
        exchange.scheme = SECURE.get(scheme, scheme)
        trusted = self._trusted
        if trusted is not None and peer in trusted:
            exchange.trusted = True
            if forwarded:
                exchange.forwarded = forwarded
                exchange.client = trusted.client(peer, forwarded)
                if header(forwarded, b"x-forwarded-proto") in (b"http", b"https"):
                    exchange.scheme = (header(forwarded, b"x-forwarded-proto") or b"").decode()

    def _place(self, scope: Scope, inner: Scope, exchange: Exchange) -> None:
        """The one canonical path: matched, shown to components, and sent upstream."""
        raw = scope.get("raw_path")
        if raw is not None and self._plain(raw):
            if len(raw) + len(scope["query_string"]) > self._max_url:
                raise too_long()
            exchange.path = path = raw.decode("ascii")
        else:
            exchange.path = path = self._respelt(scope, raw)
            if raw is None or path != raw.decode("latin-1"):
                inner["raw_path"] = path.encode("ascii")
                inner["path"] = decode(path)
        if root := scope.get("root_path"):
            exchange.path = strip_root(path, root)

    def _respelt(self, scope: Scope, raw: bytes | None) -> str:
        if raw is None:
            raw = scope["path"].encode()
            raw = re.sub(rb"[%?#\x80-\xff]", lambda found: b"%%%02X" % ord(found[0]), raw)
        elif b"?" in raw:
            raw = raw.partition(b"?")[0]
        raw = raw or b"/"
        if len(raw) + len(scope["query_string"]) > self._max_url:
            raise too_long()
        try:
            return self._live.canonical(raw)
        except Ambiguous as error:
            # How the operator could allow it is no business of the caller.
            raise Refused(400, error.reason, error.detail.partition(";")[0]) from None

    # Where it goes

    def _route(self, inner: Scope, exchange: Exchange) -> ASGIApp:
        table, host, path = self._live.table, exchange.host, exchange.path
        kind = inner["type"]
        method = inner["method"] if kind == "http" else "GET"
        if method == "CONNECT":
            # Whoever answers it with 2xx speaks no HTTP on that connection any more (RFC 9110 9.3.6).
            raise Refused(400, "bad_method", "This gateway makes no tunnels.", CLOSE)
        found = table.match(method, host, path, inner)
        if found is None:
            found = self._preflight(method, inner, exchange)
        if found is None:
            if allowed := table.allowed(host, path, inner):
                allow = ", ".join(sorted(allowed)).encode()
                raise Refused(
                    405, "method_not_allowed", "No route here serves this method.", (b"allow", allow)
                )
            raise Refused(404, "no_route", "No route matches this request.")
        entry, exchange.raw_params = found
        serving = entry.payload
        exchange.route, exchange.upstream = entry.name, serving.upstream
        if serving.timeout is not None:
            exchange.deadline = min(exchange.deadline, exchange.started + serving.timeout)
        app = serving.http if kind == "http" else serving.websocket
        if app is None:
            raise Refused(404, "no_websocket", "This route serves no WebSocket.")
        return app

    def _preflight(
        self, method: str, inner: Scope, exchange: Exchange
    ) -> tuple[Entry[Serving], dict[str, str]] | None:
        """A CORS preflight belongs to the route that it asks for, if something there answers preflights."""
        asked = header(inner["headers"], b"access-control-request-method") if method == "OPTIONS" else None
        if asked is None:
            return None
        found = self._live.table.match(asked.decode("latin-1"), exchange.host, exchange.path, inner)
        return found if found is not None and found[0].payload.answers_preflight else None


def too_long() -> Refused:
    return Refused(414, "url_too_long", "The URL is too long.")


def shorten(exchange: Exchange, values: list[bytes]) -> None:
    """How long whoever asked a trusted proxy waits: nobody needs the answer after that."""
    if len(values) > 1 or not MILLISECONDS.fullmatch(values[0]):
        raise Refused(400, "bad_deadline", "The deadline is not one number of milliseconds.")
    exchange.deadline = exchange.started + int(values[0]) / 1000


def look_closer(scope: Scope) -> None:
    """Refuse what our own server lets nobody say, and others do: it would break out of its place upstream."""
    headers: list[Header] = scope["headers"]
    if not NAMES.fullmatch(b"".join([name + b"\n" for name, _ in headers])):
        raise Refused(400, "bad_header", "A header field has no proper name.", CLOSE)
    if CONTROL.search(b"".join([value for _, value in headers])):
        raise Refused(400, "bad_header", "A header field holds a control character.", CLOSE)
    if NO_QUERY.search(scope["query_string"]):
        raise Refused(400, "bad_query", "The query holds what has to be percent-encoded.", CLOSE)
    if not METHOD.fullmatch(scope.get("method", "GET")):
        raise Refused(400, "bad_method", "The method is no token.", CLOSE)
