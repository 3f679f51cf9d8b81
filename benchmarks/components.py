"""`python -m benchmarks components`: what each component adds to a request, by itself, without a socket."""

import argparse
import asyncio
import gc
import hmac
import json
import math
import random
import statistics
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from asgi_gateway.asgi import Message, Receive, Scope, Send
from asgi_gateway.gateway import Gateway

from .chain import CONSUMER, HEADERS, NEEDS, SECRET, STANDARD, headers_of
from .goals import Goal
from .measure import Effort
from .table import number, render

BATCH = 250
"""Requests between two looks at the clock."""
LIVE = 100_000
"""Callers that a limiter knows while it is measured."""
COLUMNS = ("component", "added us", "+- us", "CPU us/request")
HEAD: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
BODY: Message = {"type": "http.response.body", "body": b""}


async def instant(scope: Scope, receive: Receive, send: Send) -> None:
    """The upstream. Of a WebSocket it hears every message, and says nothing."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            pass
        return
    await send(dict(HEAD))
    await send(dict(BODY))


SERVICE = "http://service.test/"
"""Stands in options for a service that answers with what it knows about a token."""
KNOWN = b'{"active": true, "sub": "benchmark"}'
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


def configuration(case: Case, *, measured: bool) -> dict[str, Any]:
    entries: list[object] = [{name: STANDARD[name]} for name in case.beside]
    if measured:
        entries.append(case.entry)
    return {
        "upstreams": {"origin": {"asgi": f"{__name__}:instant"}},
        "routes": [
            {
                "name": "all",
                "path": "/*",
                "upstream": "origin",
                "components": entries,
                "websocket": case.talks,
            }
        ],
        "consumers": [CONSUMER],
        **(case.more or {}),
    }


def scopes(case: Case, count: int) -> list[Scope]:
    """Requests as a server gives them to an app."""
    return [
        {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [
                (b"host", b"gateway.test"),
                (b"user-agent", b"benchmark"),
                (b"accept", b"*/*"),
                *((name.encode(), text.encode()) for name, text in case.fields(number).items()),
            ],
            "client": (case.address(number), 50_000),
            "server": ("127.0.0.1", 80),
        }
        for number in range(count)
    ]


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


class Asked:
    """Sends requests to a gateway, and is sent the answers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.refused = 0

    async def send(self, message: Message) -> None:
        if message.get("status", 200) >= 400:
            self.refused += 1

    async def ask(self, wanted: Iterable[Scope]) -> float:
        """CPU microseconds of one request."""
        gateway, send, count = self._gateway, self.send, 0
        begin = time.process_time_ns()
        for scope in wanted:
            await gateway(scope, receive, send)
            count += 1
        return (time.process_time_ns() - begin) / 1e3 / count


class Talked(Asked):
    """Sends messages over one WebSocket through a gateway."""

    async def ask(self, wanted: Iterable[Scope]) -> float:
        """CPU microseconds of one message."""
        scope, *others = wanted
        said: list[Message] = [{"type": "websocket.receive", "text": "hello"}] * len(others)
        said += [{"type": "websocket.connect"}]

        async def receive() -> Message:
            return said.pop() if said else {"type": "websocket.disconnect", "code": 1000}

        begin = time.process_time_ns()
        await self._gateway({**scope, "type": "websocket", "scheme": "ws"}, receive, self.send)
        return (time.process_time_ns() - begin) / 1e3 / len(others)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a case comes to, in microseconds."""

    case: Case
    added: float
    spread: float
    whole: float
    refused: int

    @property
    def row(self) -> list[str]:
        if self.refused:
            return [self.case.name, f"refused {self.refused} requests"]
        return [self.case.name, number(self.added, 2), number(self.spread, 2), number(self.whole, 1)]

    @property
    def goal(self) -> Goal:
        value = math.nan if self.refused else self.added
        return Goal(f"CPU that {self.case.name} adds", value, self.case.bound, unit="us")


async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request to the service."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(KNOWN), KNOWN)
    )
    writer.close()


@asynccontextmanager
async def running(case: Case, *, measured: bool) -> AsyncIterator[Asked]:
    async with await asyncio.start_server(tell, "127.0.0.1", 0) as service:
        port = service.sockets[0].getsockname()[1]
        text = json.dumps(configuration(case, measured=measured))
        declared = json.loads(text.replace(SERVICE, f"http://127.0.0.1:{port}/"))
        gateway = Gateway.parse(declared)
        async with gateway.lifespan():
            yield Talked(gateway) if case.talks else Asked(gateway)


async def measure(case: Case, batches: int, batch: int = BATCH) -> Cost:
    """The same requests with and without the component, batch by batch in turns."""
    dice = random.Random(1)
    made = scopes(case, case.warm + batches * batch if case.once else case.different)
    async with running(case, measured=False) as plain, running(case, measured=True) as asked:
        first = made[: case.warm] if case.once else [made[index % len(made)] for index in range(case.warm)]
        await plain.ask(first[:batch])
        await asked.ask(first)
        without, added = [], []
        gc.collect()
        gc.disable()
        try:
            for turn in range(batches):
                at = case.warm + turn * batch
                wanted = made[at : at + batch] if case.once else dice.choices(made, k=batch)
                without.append(await plain.ask(wanted))
                added.append(await asked.ask(wanted) - without[-1])
        finally:
            gc.enable()
    low, middle, high = statistics.quantiles(added, n=4)
    return Cost(case, middle, (high - low) / 2, statistics.median(without) + middle, asked.refused)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="a part of a name is enough")
    parser.add_argument("--batches", type=int, default=60, help=f"of {BATCH} requests each (default: 60)")


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the table. A goal for each component that has a bound, and whether everything ran."""
    wanted = options.only.split(",")
    chosen = [case for case in cases() if any(part in case.name for part in wanted)]
    costs = [asyncio.run(measure(case, options.batches)) for case in chosen]
    print(render(COLUMNS, [cost.row for cost in costs]))
    goals = [cost.goal for cost in costs if not math.isnan(cost.case.bound)]
    return goals, not any(cost.refused for cost in costs)
