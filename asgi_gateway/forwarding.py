"""The only place that believes or discards, reads and writes forwarding headers (X-Forwarded-*, RFC 7239)."""

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

from .asgi import Header, header
from .errors import ConfigError, Problem
from .exchange import Exchange

FORWARDING = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
    }
)

LONGEST = 100
"""Characters of a hop that are looked at; an address with zone and port has fewer."""
WITH_PORT = re.compile(r"\[([^\]]*:[^\]]*)\](?::[0-9]*)?|([^:\[]+):[0-9]*")

Style = Literal["x_forwarded", "forwarded", "both", "none"]


class Trusted:
    """Networks whose forwarding headers are believed. Built once; an answer is remembered per address."""

    def __init__(self, networks: Iterable[str], hops: int | None = None) -> None:
        """`hops`: how many addresses of X-Forwarded-For are walked at most."""
        self._hops = hops
        self._networks: list[IPv4Network | IPv6Network] = []
        self._known: dict[str, bool] = {}
        self.unix = False
        problems = []
        for text in networks:
            if text == "unix":
                self.unix = True
                continue
            try:
                self._networks.append(ip_network(text, strict=False))
            except ValueError:
                problems.append(
                    Problem(f"{text!r} is not a network", "trusted_proxies", "as in 10.0.0.0/8, ::1 or unix")
                )
        if problems:
            raise ConfigError(problems)

    def __bool__(self) -> bool:
        return self.unix or bool(self._networks)

    def __contains__(self, address: str) -> bool:
        """Whether the peer with this address (empty for a unix socket) is trusted."""
        if not address:
            return self.unix
        known = self._known.get(address)
        if known is None:
            if len(self._known) > 4096:
                self._known.clear()
            known = self._known[address] = self._look(address)
        return known

    def _look(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._networks)

    def client(self, peer: str, forwarded: list[Header]) -> str:
        """Walk X-Forwarded-For from right to left, through trusted proxies, to the first address that is not
        one, or as far as hops are counted.
        """
        hops = b",".join(value for name, value in forwarded if name == b"x-forwarded-for")
        client = peer
        for count, hop in enumerate(reversed(hops.split(b",")), 1):
            text = bare(hop.strip().decode("latin-1"))
            try:
                client = str(ip_address(text))
            except ValueError:
                # Nobody vouches for what stands behind an address that is none.
                return client
            if client not in self or count == self._hops:
                return client
        return client


def bare(hop: str) -> str:
    """An address without the port that some proxies append."""
    found = WITH_PORT.fullmatch(hop) if len(hop) <= LONGEST else None
    return (found[1] or found[2]) if found else hop


def writer(style: Style) -> Callable[[Exchange, bytes], list[Header]]:
    """A function that gives the forwarding headers of a request, from what is known of its caller and its
    Host.
    """
    return {"x_forwarded": x_forwarded, "forwarded": rfc7239, "both": both, "none": nothing}[style]


PROTO = {scheme: (b"x-forwarded-proto", scheme.encode()) for scheme in ("http", "https")}


def x_forwarded(exchange: Exchange, host: bytes) -> list[Header]:
    client = exchange.scope.get("client")
    peer = client[0].encode() if client else b""
    if not exchange.forwarded:
        proto = PROTO.get(exchange.scheme) or (b"x-forwarded-proto", exchange.scheme.encode())
        fields = [(b"x-forwarded-for", peer or b"unknown"), proto]
        if host:
            fields.append((b"x-forwarded-host", host))
        return fields
    hops = [value for name, value in exchange.forwarded if name == b"x-forwarded-for"]
    kept = [pair for pair in exchange.forwarded if pair[0] != b"x-forwarded-for" and pair[0] != b"forwarded"]
    kept.insert(0, (b"x-forwarded-for", b", ".join([*hops, peer] if peer else hops) or b"unknown"))
    names = [name for name, _ in kept]
    if b"x-forwarded-proto" not in names:
        kept.append((b"x-forwarded-proto", exchange.scheme.encode()))
    if host and b"x-forwarded-host" not in names:
        kept.append((b"x-forwarded-host", host))
    return kept


def rfc7239(exchange: Exchange, host: bytes) -> list[Header]:
    client = exchange.scope.get("client")
    peer = client[0].encode() if client else b"unknown"
    peer = b'"[%b]"' % peer if b":" in peer else peer
    element = b"for=%b;proto=%b" % (peer, exchange.scheme.encode())
    if host:
        element += b';host="%b"' % host
    before = header(exchange.forwarded, b"forwarded")
    return [(b"forwarded", b"%b, %b" % (before, element) if before else element)]


def both(exchange: Exchange, host: bytes) -> list[Header]:
    return rfc7239(exchange, host) + x_forwarded(exchange, host)


def nothing(exchange: Exchange, host: bytes) -> list[Header]:
    return []
