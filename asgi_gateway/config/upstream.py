"""The only place that says what a service behind the gateway is, and what protects it."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from ..endpoint import Endpoint
from ..mistake import below, mistake
from ..units import Size, Span, Time
from .chain import Chain, find, make, offered, read_entry
from .model import Host, ImportPath, Model, TransportName, Url, UrlPath

HASH_BY = re.compile(r"ip|consumer|(?:header|cookie):[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")


def read_target(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class TargetConfig(Model):
    """One place where an upstream is served."""

    url: Url = ""
    """`http://host:port`, `https://host`, or `unix:/path` for HTTP over a unix socket."""
    asgi: ImportPath = ""
    """`package.module:app`: an ASGI app in this process instead of a URL."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """Its share of the requests; 0 gets none."""

    @model_validator(mode="after")
    def one_of_both(self) -> "TargetConfig":
        if bool(self.url) == bool(self.asgi):
            raise mistake("a target has either a url or an asgi app")
        return self


Target = Annotated[TargetConfig, BeforeValidator(read_target, json_schema_input_type=TargetConfig | str)]


class PoolConfig(Model):
    """Connections to each target of an upstream."""

    max_connections: Annotated[int, Field(ge=1)] = 200
    """Connections to one target at one time, in one worker."""
    max_waiting: Annotated[int, Field(ge=0)] = 1000
    """Requests that may wait for one of them; more get 503."""
    wait: Time = 1.0
    """How long a request may wait for one; then 503."""
    keep_alive: Time = 30.0
    """How long an idle connection is kept."""
    max_age: Span = 3600.0
    """How old a connection may get; a new one goes where the name of the target leads by then."""
    max_requests: Annotated[int, Field(ge=1)] | None = None
    """How many requests a connection may serve; not given: any number."""


class TimeoutConfig(Model):
    """How long the phases of a call may take."""

    connect: Span = 2.0
    """Until a new connection stands."""
    tls: Span = 5.0
    """Until a new connection has agreed on TLS."""
    write: Span = 30.0
    """While the target takes nothing of the request."""
    head: Span = 30.0
    """From the end of the request to the head of the answer."""
    idle: Span = 30.0
    """Between two pieces of the answer."""
    stream: Span = 300.0
    """The same for an event stream, which `total` does not cut once it has begun."""
    total: Span = 30.0
    """The whole call, all attempts."""


class WebSocketConfig(Model):
    """Bounds on WebSockets to the targets of an upstream."""

    max_open: Annotated[int, Field(ge=1)] = 1000
    """WebSockets to one target at one time, in one worker; 503 past it."""
    message_bytes: Annotated[Size, Field(ge=1)] = 16 * 1024 * 1024
    """The largest message of a target; past it both sides are closed with 1009. What callers send is bounded
    by `server.limits.message_bytes`."""
    idle: Span | None = 300.0
    """After so long without a message, either way, both sides are closed with 1001. Pings do not count."""
    life: Span | None = None
    """The longest life of a WebSocket; then both sides are closed with 1001."""
    ping: Span | None = 20.0
    """How often a target is pinged. One that is silent until the next ping has failed: callers get 1011."""


class HealthConfig(Model):
    """Active health checks of each target that has a URL, over a connection of their own."""

    kind: Literal["http", "tcp"] = "http"
    """`http`: a GET; `tcp`: a connection that stands, and agrees on TLS, is enough."""
    path: Annotated[UrlPath, Field(min_length=1)] = "/"
    """What is asked for."""
    interval: Span = 5.0
    """Between two checks of one target."""
    timeout: Span = 1.0
    """A check that takes longer failed."""
    statuses: tuple[Annotated[int, Field(ge=100, le=599)], ...] = (200, 204)
    """Answers that count as healthy."""
    healthy: Annotated[int, Field(ge=1)] = 2
    """Good answers in a row that bring a target back."""
    unhealthy: Annotated[int, Field(ge=1)] = 3
    """Bad answers in a row that take it out."""


class EjectionConfig(Model):
    """Passive health: a target whose calls fail is left out for a while."""

    failures: Annotated[int, Field(ge=1)] = 5
    """Failed calls in a row (no connection, reset, timeout, 502, 503, 504)."""
    duration: Span = 10.0
    """How long it is left out; twice as long the second time, and so on. Each such time that goes well takes
    one back."""
    max_duration: Span = 300.0
    """The longest time that it is left out; never less than `duration`."""
    max_percent: Annotated[int, Field(ge=0, le=100)] = 50
    """The largest part of the targets that may be out at one time. One may always be, the last one never; 0:
    none."""


def read_hash_by(by: str) -> str:
    if not HASH_BY.fullmatch(by):
        raise mistake(f"{by!r} is nothing to hash", "ip, consumer, header:<name> or cookie:<name>", by)
    return by


class HashConfig(Model):
    """What `balancer: consistent_hash` goes by."""

    by: Annotated[str, AfterValidator(read_hash_by)] = "ip"
    """What leads to the same target: `ip`, `consumer`, `header:<name>`, `cookie:<name>`. Who has none of it
    gets any target."""
    load: Annotated[float, Field(ge=1.05, le=100)] | None = 1.25
    """How many times its share of the calls in flight a target may have; then the next one in turn is asked.
    `null`: any number."""


class StickyConfig(Model):
    """A cookie that brings a caller back to the same target. It names no address: what it can lead to are the
    targets of this upstream."""

    cookie: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{0,128}$")] = ""
    """Its name. Empty: `sticky_` and the name of the upstream."""
    secret: SecretStr = SecretStr("")
    """What the value is made with. Empty: who guesses the address of a target can check that."""
    max_age: Time = 0.0
    """How long it lives. 0: until the browser is closed."""


class UpstreamTLS(Model):
    """How targets with `https` are spoken to."""

    verify: bool = True
    """Whether the certificate of the target is checked."""
    ca: str = ""
    """PEM file of authorities instead of the system's."""
    certificate: str = ""
    """PEM file with a client certificate."""
    key: str = ""
    """PEM file with its key."""
    server_name: str = ""
    """The name to ask for (SNI) and to check, instead of the target's host."""


class Upstream(Model):
    """A service behind the gateway, and what protects it."""

    targets: tuple[Target, ...] = ()
    """Where it is served: URLs, or mappings with url or asgi, and weight."""
    asgi: ImportPath = ""
    """`package.module:app`: short for one target that is an ASGI app in this process."""
    endpoint: SerializeAsAny[Endpoint] | None = None
    """Another kind of upstream, from a plugin."""
    balancer: Literal["round_robin", "random", "least_requests", "p2c_ewma", "consistent_hash"] = (
        "round_robin"
    )
    """How a target is picked: in turn by weight; at random; the one with the fewest calls in flight; of two
    the one that has answered sooner, for its calls in flight; always the same one for a caller."""
    hash: HashConfig = HashConfig()
    """For `consistent_hash`."""
    sticky: StickyConfig | None = None
    """A cookie that brings callers back to their target; the balancer picks the first one."""
    slow_start: Time = 0.0
    """How long the share of a target grows that is new or back. Not for `consistent_hash`."""
    panic: Annotated[int, Field(ge=0, le=100)] = 0
    """All targets are asked, well or not, when less than so many percent of them are available; 0: when none
    is."""
    host: Host = "preserve"
    """The Host header sent: `preserve` the caller's, the `target`'s own, or a literal name."""
    forwarded: Literal["x_forwarded", "forwarded", "both", "none"] = "x_forwarded"
    """Which forwarding headers are sent: X-Forwarded-For, -Proto, -Host; Forwarded (RFC 7239); both; none."""
    transport: TransportName = "http1"
    """What carries the requests: the gateway's own HTTP/1.1; HTTP/2 by httpx (`http2`, an extra); HTTP/1.1 by
    httpx; or `package.module:name`, what makes an `httpx.AsyncBaseTransport` when it is called.
    """
    pool: PoolConfig = PoolConfig()
    """Connections to each target."""
    timeout: TimeoutConfig = TimeoutConfig()
    """How long a call may take."""
    websocket: WebSocketConfig = WebSocketConfig()
    """Bounds on WebSockets."""
    tls: UpstreamTLS = UpstreamTLS()
    """For `https` targets."""
    health: HealthConfig | None = None
    """Active health checks."""
    ejection: EjectionConfig | None = EjectionConfig()
    """Passive health; `null` switches it off."""
    components: Chain = ()
    """What stands around every call: TRANSFORM, RESCUE, RETRY, PROTECT."""

    @field_validator("endpoint", mode="before")
    @classmethod
    def read_endpoint(cls, value: Any, info: ValidationInfo) -> Any:
        """Accept `name`, `{name: options}` or an endpoint. The type of a name comes from `info.context`."""
        if value is None or isinstance(value, Endpoint):
            return value
        name, options = read_entry(value, "endpoint: {name: {option: value}}")
        kind = find(offered(info).endpoints, "endpoint", name)
        try:
            return make(kind, options, info)
        except ValidationError as error:
            raise ValidationError.from_exception_data(
                "Endpoint", below(name, error), hide_input=True
            ) from None

    @field_serializer("endpoint", mode="wrap", when_used="unless-none")
    def write_endpoint(self, value: Endpoint, handler: SerializerFunctionWrapHandler) -> Any:
        """The endpoint as a file has it."""
        return {value.name: handler(value)}

    @model_validator(mode="after")
    def one_kind(self) -> "Upstream":
        if bool(self.targets) + bool(self.asgi) + (self.endpoint is not None) != 1:
            raise mistake("an upstream has exactly one of: targets, asgi, endpoint")
        return self
