"""Valid parts of HTTP/1 messages: fields as they are written and as they are meant, bodies in any framing."""

import itertools
import string
from dataclasses import dataclass

from hypothesis import strategies as st

Field = tuple[bytes, bytes]

TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
SPECIAL = frozenset(
    b"connection content-length expect host keep-alive proxy-connection proxy-authenticate te trailer "
    b"proxy-authorization transfer-encoding upgrade date server".split()
)
"""What these strategies never make up: fields that mean something to whoever passes them on."""
KNOWN = ["Accept", "ACCEPT", "Cookie", "Set-Cookie", "sEt-cOoKiE", "Vary", "ETag", "X-A", "x-a", "X_A", "Via"]

texts = st.binary(max_size=12).map(
    lambda raw: bytes(byte if byte in b" \t" or (byte > 32 and byte != 127) else 0x80 | byte for byte in raw)
)
"""What may stand in a field's value (RFC 9110 5.5), bytes beyond ASCII included."""
values = texts.map(lambda value: value.strip(b" \t")) | st.sampled_from(
    [b"", b"a, b", b'W/"x"', b"a\tb;q=0.1"]
)
names = (
    (st.sampled_from(KNOWN) | st.text(TOKEN, min_size=1, max_size=8))
    .filter(lambda name: name.lower().encode() not in SPECIAL)
    .map(str.encode)
)
spaces = st.sampled_from([b" ", b" ", b" ", b"", b"\t", b"  "])


@dataclass(frozen=True)
class Fields:
    """Header or trailer fields."""

    wire: bytes = b""
    meant: tuple[Field, ...] = ()
    """Names in lower case, values without the spaces around them."""

    def __add__(self, other: "Fields") -> "Fields":
        return Fields(self.wire + other.wire, self.meant + other.meant)


@st.composite
def written(draw: st.DrawFn, name: bytes, value: bytes) -> Fields:
    before, after = draw(spaces), draw(st.sampled_from([b"", b"", b"", b" ", b"\t "]))
    return Fields(b"%b:%b%b%b\r\n" % (name, before, value, after), ((name.lower(), value),))


@st.composite
def fields(draw: st.DrawFn, most: int = 5) -> Fields:
    found = Fields()
    for name, value in draw(st.lists(st.tuples(names, values), max_size=most)):
        found += draw(written(name, value))
    return found


bodies = st.binary(max_size=40) | st.sampled_from(
    [b"\r\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"0123456789" * 1000]
)
extensions = st.sampled_from([b"", b"", b"", b";a", b";a=b", b';a="b c";d', b";a=b;c=d"])


@st.composite
def chunks(draw: st.DrawFn, body: bytes) -> tuple[bytes, Fields]:
    """A body in chunks, and the trailer fields behind it."""
    places = draw(st.lists(st.integers(0, len(body)), max_size=3))
    marks = sorted({0, len(body), *places})
    wire = b""
    for begin, end in itertools.pairwise(marks):
        size = draw(st.sampled_from([b"%x", b"%X", b"00%x"])) % (end - begin)
        wire += b"%b%b\r\n%b\r\n" % (size, draw(extensions), body[begin:end])
    trailers = draw(fields(most=2))
    last = draw(st.sampled_from([b"0", b"000"])) + draw(extensions)
    return wire + b"%b\r\n%b\r\n" % (last, trailers.wire), trailers


@dataclass(frozen=True)
class Message:
    """An answer as its bytes, and what they mean."""

    method: str
    """Of the request that it answers."""
    wire: bytes
    status: int
    headers: tuple[Field, ...]
    body: bytes
    trailers: tuple[Field, ...]
    ends: bool
    """Whether only the end of the connection ends it."""
    reusable: bool
    """Whether the connection may serve another request."""


reasons = st.sampled_from([b" OK", b" ", b"", b" Not Found", b" \xe9t\xe9", b" a:b  c"])


@st.composite
def interim(draw: st.DrawFn) -> bytes:
    status = draw(st.sampled_from([100, 102, 103]))
    return b"HTTP/1.1 %d%b\r\n%b\r\n" % (status, draw(reasons), draw(fields(most=2)).wire)


@st.composite
def coding(draw: st.DrawFn) -> Fields:
    """The parser takes no tab behind it."""
    value = draw(st.sampled_from([b"chunked", b"Chunked", b"CHUNKED"]))
    wire = b"transfer-Encoding:%b%b%b\r\n" % (draw(spaces), value, draw(st.sampled_from([b"", b"", b" "])))
    return Fields(wire, ((b"transfer-encoding", value),))


@st.composite
def answers(draw: st.DrawFn) -> Message:
    """A valid answer of any kind."""
    method = draw(st.sampled_from(["GET", "GET", "POST", "HEAD"]))
    before = b"".join(draw(st.lists(interim(), max_size=2)))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    status = draw(st.sampled_from([200, 200, 200, 201, 206, 301, 404, 500, 599, 204, 304]))
    options = ["length", "chunked", "close"] if version == b"1.1" else ["length", "close"]
    framing = draw(st.sampled_from(options))
    body, head, trailers, data = draw(bodies), draw(fields()), Fields(), b""
    bodyless = method == "HEAD" or status in (204, 304)
    if framing == "length" and not (status == 204 and draw(st.booleans())):
        head += draw(written(b"Content-Length", b"%d" % len(body)))
        data = body
    elif framing == "chunked":
        head += draw(coding())
        data, trailers = draw(chunks(body))
    elif framing == "close":
        data = body
    keep_alive = version == b"1.1"
    if (option := draw(st.sampled_from([b"", b"", b"close", b"keep-alive", b"Keep-Alive, X-A"]))) != b"":
        head += draw(written(b"Connection", option))
        keep_alive = option != b"close"
    head += draw(fields(most=2))
    if bodyless:
        body, data, trailers = b"", b"", Fields()
    # The parser cannot be told that a head belongs to a HEAD, and takes it for one that the end delimits.
    unsaid = framing == "close" and status not in (204, 304)
    start = b"HTTP/%b %d%b\r\n" % (version, status, draw(reasons))
    return Message(
        method=method,
        wire=before + start + head.wire + b"\r\n" + data,
        status=status,
        headers=head.meant,
        body=body,
        trailers=trailers.meant,
        ends=unsaid and not bodyless,
        reusable=keep_alive and not unsaid,
    )
