"""The subjects of the comparison, one file each."""

from .aiohttp_proxy import AiohttpProxy
from .answer import Answer
from .caddy import Caddy
from .envoy import Envoy
from .fastapi_proxy import FastapiProxyLib
from .fastify import Fastify
from .gateway import CACHED, UPSTREAM, GatewayPeer
from .granian import GatewayUnderGranian, Granian
from .haproxy import HAProxy
from .nginx import Nginx, NginxAnswer
from .peer import Peer, Place
from .starlette_httpx import StarletteHttpx

__all__ = [
    "UPSTREAM",
    "Answer",
    "Caddy",
    "Envoy",
    "GatewayPeer",
    "HAProxy",
    "Nginx",
    "NginxAnswer",
    "Peer",
    "Place",
    "all_peers",
]


def all_peers() -> tuple[Peer, ...]:
    """In the order of the table: the gateway, as a cache too, its unit of measure; the same under another
    server; then the others.
    """
    return (
        GatewayPeer(),
        GatewayPeer("asgi-gateway, a cache hit", CACHED),
        Answer(),
        GatewayUnderGranian(),
        Granian(),
        Nginx(),
        HAProxy(),
        Envoy(),
        Caddy(),
        Fastify(),
        AiohttpProxy(),
        StarletteHttpx(),
        FastapiProxyLib(),
    )
