"""What `components` measures: each component with its options, and the requests that it gets."""

import hmac
import math
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from .chain import HEADERS, NEEDS, SECRET, STANDARD, headers_of

BATCH = 250
"""Requests between two looks at the clock."""
LIVE = 100_000
"""Callers that a limiter knows while it is measured."""
SERVICE = "http://service.test/"
"""Stands in options for a service that answers with what it knows about a token."""
QUIET: Mapping[str, Mapping[str, object]] = {"access_log": {"file": "/dev/null"}}
ELSEWHERE = ("canary", "forward_auth", "http_signature", "mirror")
"""What needs another upstream, asks a service each time, or has a row of its own here."""

Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """One row: a component with its options, and the requests that it gets."""

    name: str
    entry: Mapping[str, object]
    fields: Callable[[int], Fields] = lambda number: {}
    """The fields of the request of a number."""
    address: Callable[[int], str] = lambda number: "127.0.0.1"
    beside: Sequence[str] = ()
    """What stands in front of it, and is not measured."""
    bound: float = math.nan
    """Microseconds that it may add."""
    different: int = 1
    """Requests that differ; each is made before it is measured."""
    warm: int = BATCH
    """Requests before the first that is measured."""
    once: bool = False
    """Whether a request is good only once."""
    more: Mapping[str, object] | None = None
    """What the file says beside."""
    talks: bool = False
    """Whether messages of one WebSocket are measured, and not requests."""


def always(fields: Fields) -> Callable[[int], Fields]:
    return lambda number: fields


def numbered(name: str) -> Callable[[int], Fields]:
    return lambda number: {name: f"caller-{number}"}


def signed(number: int) -> Fields:
    """A request that `signature` takes once."""
    now, nonce = f"{time.time():.0f}", f"nonce-{number:08}"
    lines = ["HMAC-SHA256", now, nonce, "GET", "/", "", "host:gateway.test", sha256().hexdigest()]
    mac = b64encode(hmac.digest(SECRET.encode(), "\n".join(lines).encode(), "sha256")).decode()
    said = f'id="benchmark", time="{now}", nonce="{nonce}", headers="host", signature="{mac}"'
    return {"authorization": f"HMAC-SHA256 {said}"}


def signed_message(number: int) -> Fields:
    """A request that `http_signature` takes once."""
    about = f'created={time.time():.0f};keyid="benchmark";nonce="{number}"'
    said = f'("@method" "@authority" "@path" "@query");{about}'
    lines = ['"@method": GET', '"@authority": gateway.test', '"@path": /', '"@query": ?']
    lines.append(f'"@signature-params": {said}')
    mac = b64encode(hmac.digest(SECRET.encode(), "\n".join(lines).encode(), "sha256")).decode()
    return {"signature-input": f"sig={said}", "signature": f"sig=:{mac}:"}


def with_rsa() -> tuple[Mapping[str, object], Fields]:
    """A key for RS256, and a token that was signed with its other half."""
    from joserfc import jwt
    from joserfc.jwk import RSAKey

    key = RSAKey.generate_key(2048)
    claims = {"sub": "benchmark", "aud": "orders", "exp": 4102444800, "scope": "read write"}
    token = jwt.encode({"alg": "RS256"}, claims, key, algorithms=["RS256"])
    public = {"algorithm": "RS256", "public_key": key.as_pem(private=False).decode()}
    return public, {"authorization": f"Bearer {token}"}


def cases() -> list[Case]:
    """All that are measured, each component with the options that it has in the table of chains."""
    bounds = {"key_auth": 2.0, "acl": 2.0, "ip_filter": 2.0, "cors": 2.0, "jwt_auth": 3.0, "rate_limit": 5.0}
    usual = [
        Case(
            name,
            {name: {**options, **QUIET.get(name, {})}},
            always(headers_of(name)),
            beside=NEEDS.get(name, ()),
            bound=bounds.get(name, math.nan),
        )
        for name, options in STANDARD.items()
        if name not in ELSEWHERE
    ]
    rsa, by_rsa = with_rsa()
    hs256 = {"keys": [{"algorithm": "HS256", "secret": SECRET}], "audience": ["orders"], "max_remembered": 0}
    token = always(HEADERS["jwt_auth"])
    live: list[Case] = [
        Case(
            f"rate_limit {window}, {LIVE:,} live keys",
            {"rate_limit": {"limit": "1000/hour", "by": "header:x-caller", "window": window}},
            numbered("x-caller"),
            bound=5.0,
            different=LIVE,
            warm=LIVE,
        )
        for window in ("fixed", "sliding", "moving", "bucket")
    ]
    page = {"cors": {"origins": ["https://app.example.com"], "credentials": True}}
    return [
        *usual,
        Case("cors, for a page", page, always({"origin": "https://app.example.com"}), bound=2.0),
        Case(
            "ip_filter, 5,000 networks, any address",
            {"ip_filter": {**STANDARD["ip_filter"], "allow": []}},
            address=lambda number: f"192.{number % 250}.{number // 250 % 250}.{number % 7}",
            bound=2.0,
            different=50_000,
        ),
        Case("jwt_auth, HS256 verified", {"jwt_auth": hs256}, token, bound=25.0),
        Case(
            "jwt_auth, RS256 verified",
            {"jwt_auth": {"keys": [rsa], "audience": ["orders"], "max_remembered": 0}},
            always(by_rsa),
            bound=60.0,
        ),
        *live,
        Case(
            "oauth2_introspection, remembered",
            {"oauth2_introspection": {"url": SERVICE, "client_id": "gateway", "client_secret": "hush"}},
            always({"authorization": "Bearer opaque"}),
        ),
        Case("websocket_limit, a message", {"websocket_limit": {"messages": 10**9}}, talks=True),
        Case("signature", {"signature": {}}, signed, once=True),
        Case("http_signature", {"http_signature": {}}, signed_message, once=True),
        Case(
            "mtls",
            {"mtls": {"header": "x-cert", "format": "fingerprint"}},
            always({"x-cert": "ab" * 32}),
            more={"trusted_proxies": ["127.0.0.1"]},
        ),
    ]
