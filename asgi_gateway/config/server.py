"""The only place that says how a gateway listens, and what it takes before any component looks."""

from typing import Annotated, Literal

from pydantic import Field

from ..units import Size, Span, Time
from .model import Listen, Model, UrlPath


class ServerTLS(Model):
    """How the gateway itself speaks TLS."""

    certificate: str
    """PEM file with the certificate chain."""
    key: str
    """PEM file with its private key."""
    client_ca: str = ""
    """PEM file with the authorities of client certificates; given, callers must show one."""


class Limits(Model):
    """Bounds on what a caller may send before any component looks at it, and on what is held in memory."""

    headers: Annotated[int, Field(ge=1)] = 200
    """Header fields of a request; 431 past it."""
    header_bytes: Annotated[Size, Field(ge=1)] = 64 * 1024
    """Size of all header fields of a request; 431 past it."""
    url_bytes: Annotated[Size, Field(ge=1)] = 16 * 1024
    """Size of path and query; 414 past it."""
    head: Span = 10.0
    """How long the head of a request may take, and the first one of a connection to begin; 408 past it."""
    body: Span = 30.0
    """How long a caller may send nothing of a body that is waited for; 408 past it."""
    send: Span = 30.0
    """How long an answer may wait for a caller who does not read; then it is cut."""
    rate: Annotated[int, Field(ge=0)] = 240
    """Bytes per second that a caller has to send, or to read; it may fall behind by `body` or `send`."""
    connections: Annotated[int, Field(ge=1)] | None = None
    """Connections of callers at one time, in one worker; 503 past it. Not given: as open files allow."""
    message_bytes: Annotated[Size, Field(ge=1)] = 16 * 1024 * 1024
    """The largest message of a caller's WebSocket; 1009 past it."""
    backlog: Annotated[int, Field(ge=1)] = 2048
    """Connections that the system holds before they are accepted."""
    spawned: Annotated[int, Field(ge=1)] = 1000
    """Background tasks of components at one time; more are dropped and counted."""
    stalled: Span = 30.0
    """How long the event loop of a worker may stand still until the worker is replaced."""
    retired: Span = 600.0
    """How long requests may go on with a configuration that a reload has replaced; then they are cut."""


class Server(Model):
    """How `asgi-gateway run` listens. A mounted gateway uses only the limits."""

    listen: Listen = "127.0.0.1:8000"
    """`host:port`, `[::1]:port` or `unix:/path`. Port 0 takes a free one."""
    tls: ServerTLS | None = None
    """Serve HTTPS."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that share the address."""
    limits: Limits = Limits()
    """Bounds on requests."""
    keep_alive: Time = 65.0
    """How long an idle connection of a caller stays open."""
    drain: Time = 5.0
    """How long, on SIGTERM, everything is still served while the readiness probe says 503 already."""
    ping: Span | None = 20.0
    """How often callers of WebSockets are pinged. One that is silent until the next ping is gone."""
    grace: Time = 30.0
    """How long requests may take to finish at shutdown, after `drain`."""
    half_close: bool = False
    """Whether callers who close their sending side wait for the answer; else they count as gone."""
    loop: Literal["auto", "uvloop", "asyncio"] = "auto"
    """The event loop; `auto`: uvloop where it is installed."""


class Paths(Model):
    """What is done with a path that servers read in different ways. The default refuses it with 400.

    NUL, CR, LF, other control characters and broken percent-encodings are always refused.
    """

    dot_segments: Literal["reject", "resolve"] = "reject"
    """`/a/../b`, also written `%2e%2e`."""
    double_slash: Literal["reject", "merge", "keep"] = "reject"
    """`/a//b`."""
    encoded_slash: Literal["reject", "keep", "decode"] = "reject"
    """`/a%2Fb`: kept inside its segment, or read as a slash."""
    backslash: Literal["reject", "keep"] = "reject"
    """`/a\\b` and `/a%5Cb`: kept as `%5C`."""
    semicolon: Literal["reject", "keep"] = "reject"
    """`/admin;x=1`: Java servers cut it off before they match."""


class Probes(Model):
    """The answers for load balancers and orchestrators. They pass no component."""

    live: UrlPath = "/-/live"
    """200 while the process runs. Empty: no such answer."""
    ready: UrlPath = "/-/ready"
    """200 while requests are welcome, 503 before and after. Empty: no such answer."""
