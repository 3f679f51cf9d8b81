"""The subjects of the comparison, one file each."""

from .answer import Answer
from .caddy import Caddy
from .envoy import Envoy
from .fastapi_proxy import FastapiProxyLib
from .gateway import CACHED, UPSTREAM, GatewayPeer
from .haproxy import HAProxy
from .nginx import Nginx, NginxAnswer
from .peer import Peer, Place
from .starlette_httpx import StarletteHttpx

__all__ = ["UPSTREAM", "Answer", "GatewayPeer", "NginxAnswer", "Peer", "Place", "all_peers"]


def all_peers() -> tuple[Peer, ...]:
    """In the order of the table: the gateway, as a cache too, its unit of measure, then the others."""
    return (
        GatewayPeer(),
        GatewayPeer("asgi-gateway, a cache hit", CACHED),
        Answer(),
        Nginx(),
        HAProxy(),
        Envoy(),
        Caddy(),
        StarletteHttpx(),
        FastapiProxyLib(),
    )
