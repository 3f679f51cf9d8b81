"""The only place that says what a whole configuration is: routes, and everything that they name."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from ..consumers import Consumer
from ..mistake import Loc, mistake, mistakes
from ..units import Span
from .chain import Chain
from .model import FieldName, Methods, Model, Name, Network, Pairs
from .server import Paths, Probes, Server
from .store import Store, StoreConfig
from .upstream import Upstream


def read_hosts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Hosts = Annotated[tuple[str, ...], BeforeValidator(read_hosts, json_schema_input_type=str | tuple[str, ...])]


class Route(Model):
    """Which requests, to which upstream, through which components."""

    name: Name
    """How it is called in logs and messages."""
    path: str
    """`/orders/{id}`: exact, `{id}` stands for one segment, a last `/*` for any rest (none included)."""
    methods: Methods = ()
    """Methods; none given: all."""
    host: Hosts = ()
    """Hosts: exact, or `*.example.com` for any name below; none given: all."""
    headers: Pairs = ()
    """Headers that must be there with this value; `*` for any value."""
    query: Pairs = ()
    """Query parameters that must be there with this value; `*` for any value."""
    priority: int = 0
    """Among routes of the same path: higher goes first."""
    upstream: str
    """Which upstream answers."""
    strip_prefix: str = ""
    """Cut off the front of the path before it goes upstream."""
    rewrite: str = ""
    """The path that goes upstream, with variables of `path`: `/v2/{id}`; `{*}` is the rest of a wildcard."""
    websocket: bool = False
    """Whether WebSocket handshakes are served too."""
    timeout: Span | None = None
    """Deadline of the whole request, over all calls."""
    policies: tuple[str, ...] = ()
    """Named lists of components, see `policies` of the file."""
    components: Chain = ()
    """What stands in the chain, in any order: each component knows its stage."""
    enabled: bool = True
    """`false` takes the route out."""


class PluginsConfig(Model):
    """Which installed plugins take part."""

    disable: tuple[str, ...] = ()
    """Plugins (names of entry points) that are switched off."""
    allow: tuple[str, ...] | None = None
    """If given: the only third-party plugins that are imported."""


def read_consumers(consumers: tuple[Consumer, ...]) -> tuple[Consumer, ...]:
    """Refuse two consumers of one name, or with one key: nobody could tell who is calling."""
    names: dict[str, int] = {}
    owners: dict[str, int] = {}
    wrong: list[tuple[Loc, PydanticCustomError]] = []
    for index, consumer in enumerate(consumers):
        if (first := names.setdefault(consumer.name, index)) != index:
            wrong.append(((index, "name"), mistake(f"the same name as consumers[{first}]")))
        for place, key in enumerate(consumer.keys):
            if (first := owners.setdefault(key.get_secret_value(), index)) != index:
                wrong.append(((index, "keys", place), mistake(f"the same key as consumers[{first}]")))
    if wrong:
        raise mistakes(wrong)
    return consumers


def read_routes(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """Refuse two routes of one name: what is kept for a route, and said of it, goes by its name."""
    names: dict[str, int] = {}
    wrong: list[tuple[Loc, PydanticCustomError]] = [
        ((index, "name"), mistake(f"the same name as routes[{first}]"))
        for index, route in enumerate(routes)
        if (first := names.setdefault(route.name, index)) != index
    ]
    if wrong:
        raise mistakes(wrong)
    return routes


class GatewayConfig(Model):
    """Everything that a configuration file can say."""

    server: Server = Server()
    """How the gateway listens."""
    plugins: PluginsConfig = PluginsConfig()
    """Which plugins take part."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks (`10.0.0.0/8`, `::1`, `unix`) whose forwarding headers are believed."""
    trusted_hops: Annotated[int, Field(ge=1, le=100)] | None = None
    """How many proxies stand between a caller and the gateway at most: so many addresses of X-Forwarded-For
    are walked from the right, and the last of them is the caller. Not given: all that are trusted."""
    deadline_header: FieldName = ""
    """The field in which trusted proxies say how many milliseconds are left for a request, and in which
    targets are told; it only shortens what the file allows. That of anybody else is dropped. Empty: none."""
    paths: Paths = Paths()
    """What is done with ambiguous paths."""
    probes: Probes = Probes()
    """Answers for load balancers."""
    store: Store = StoreConfig()
    """Where state lives that processes share: a URL, or a mapping."""
    consumers: Annotated[tuple[Consumer, ...], AfterValidator(read_consumers)] = ()
    """Callers with credentials."""
    upstreams: dict[Name, Upstream] = {}
    """Services behind the gateway, by name."""
    components: Chain = ()
    """What stands on every route."""
    policies: dict[Name, Chain] = {}
    """Lists of components that routes share by name."""
    routes: Annotated[tuple[Route, ...], AfterValidator(read_routes)] = ()
    """Which requests go where."""

    def chains(self) -> Iterator[tuple[str, Chain]]:
        """Every list of components, with the place where it is written."""
        yield "components", self.components
        for name, chain in self.policies.items():
            yield f"policies.{name}", chain
        for name, upstream in self.upstreams.items():
            yield f"upstreams.{name}.components", upstream.components
        for index, route in enumerate(self.routes):
            yield f"routes[{index}].components", route.components
