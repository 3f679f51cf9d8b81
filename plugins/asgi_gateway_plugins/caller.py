"""By what callers are told apart: address, consumer, group, claim, and what the request itself says."""

import re
from collections.abc import Callable
from hashlib import blake2b
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from pydantic import AfterValidator

from asgi_gateway.asgi import Scope, cookie, header
from asgi_gateway.exchange import Exchange

from .credentials import query_pairs
from .fields import TOKEN

Tell = Callable[[Scope, Exchange], str]
"""Who is calling; empty if the request does not say."""

LONGEST = 64
NAMES = {"claim": r"\S{1,256}", "query": r"[^&=#\s]{1,128}"}
"""What names are made of, where not of what names of fields are made of."""
MAPPED = bytes(10) + b"\xff\xff"


def one_of(*kinds: str) -> AfterValidator:
    """A check that an option is one of these: `ip`, `header:<name>`, ..."""
    pattern = re.compile("|".join(kind.replace("<name>", NAMES.get(kind[:5], TOKEN)) for kind in kinds))

    def read(by: str) -> str:
        if not pattern.fullmatch(by):
            raise ValueError(f"{by!r} is none of {', '.join(kinds)}")
        return by

    return AfterValidator(read)


def tell_by(by: str, *, ipv6_prefix: int = 64) -> Tell:
    """The function behind `ip`, `consumer`, `group`, `route`, `cluster`, `header:<name>`, `path:<name>` and
    so on.
    """
    kind, _, name = by.partition(":")
    if kind == "ip":
        return by_address(ipv6_prefix)
    if kind == "header":
        return by_header(name.lower().encode())
    if kind == "cookie":
        return by_cookie(name.encode())
    if kind == "query":
        return by_query(name.encode())
    if kind == "path":
        return lambda scope, exchange: short(exchange.raw_params.get(name, "").encode())
    if kind == "claim":
        return by_claim(name)
    return {"consumer": by_consumer, "group": by_group, "route": by_route, "cluster": by_nothing}[kind]


def path_variable(by: str) -> tuple[str, ...]:
    """The variable of the path that it is, if it is one."""
    kind, _, name = by.partition(":")
    return (name,) if kind == "path" else ()


def known_caller(by: str) -> str:
    """The option, if it means nothing where nobody finds out who is calling."""
    return f"by: {by}" if by.partition(":")[0] in ("consumer", "group", "claim") else ""


def by_address(ipv6_prefix: int) -> Tell:
    """IPv4 as it is, IPv6 by its prefix: one household has a whole /64 of addresses."""
    shift = 128 - ipv6_prefix

    def address(scope: Scope, exchange: Exchange) -> str:
        client = exchange.client
        if ":" not in client:
            return client
        try:
            packed = inet_pton(AF_INET6, client.partition("%")[0])
        except OSError:
            return client[:LONGEST]
        if packed.startswith(MAPPED):
            return inet_ntop(AF_INET, packed[12:])
        return f"{int.from_bytes(packed) >> shift:x}::/{ipv6_prefix}"

    return address


def by_consumer(scope: Scope, exchange: Exchange) -> str:
    principal = exchange.principal
    return principal.consumer if principal is not None else ""


def by_group(scope: Scope, exchange: Exchange) -> str:
    """The first of the caller's groups."""
    principal = exchange.principal
    return principal.groups[0] if principal is not None and principal.groups else ""


def by_claim(name: str) -> Tell:
    def claim(scope: Scope, exchange: Exchange) -> str:
        principal = exchange.principal
        said = principal.claims.get(name) if principal is not None else None
        return short(str(said).encode()) if isinstance(said, str | int) else ""

    return claim


def by_query(name: bytes) -> Tell:
    def parameter(scope: Scope, exchange: Exchange) -> str:
        query = scope["query_string"]
        found = [text for (key, text), _ in query_pairs(query) if key == name] if query else []
        # With two values, a caller would choose which of them counts here and which one there.
        return short(found[0]) if len(found) == 1 else ""

    return parameter


def by_nothing(scope: Scope, exchange: Exchange) -> str:
    return "all"


def by_route(scope: Scope, exchange: Exchange) -> str:
    return exchange.route


def by_header(name: bytes) -> Tell:
    def field(scope: Scope, exchange: Exchange) -> str:
        return short(header(scope["headers"], name) or b"")

    return field


def by_cookie(name: bytes) -> Tell:
    def crumb(scope: Scope, exchange: Exchange) -> str:
        return short(cookie(scope["headers"], name))

    return crumb


def short(text: bytes) -> str:
    """What a caller wrote, in bounded length: a long one by its digest."""
    if len(text) > LONGEST:
        text = blake2b(text, digest_size=16).hexdigest().encode()
    return text.decode("latin-1")
