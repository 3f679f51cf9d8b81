"""Every way to authenticate over real sockets: what passes, what does not, and what reaches the upstream."""

import hmac
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from hashlib import sha1, sha256
from secrets import token_hex
from typing import Any

import pytest

from tests.plugins.issuer import Service, segment, service
from tests.wire.conftest import Behind, Front, Line

SECRET = "0123456789abcdef0123456789abcdef"
ACME = {
    "name": "acme",
    "keys": ["acme-key"],
    "basic": [{"username": "acme", "password": "hush"}],
    "hmac": [{"id": "acme-1", "secret": SECRET}],
    "subjects": ["u-17"],
    "certificates": ["ab" * 32],
}
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
UPGRADE += ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",)


def jwt() -> str:
    signed = f"{segment({'alg': 'HS256'})}.{segment({'sub': 'u-17', 'exp': int(time.time()) + 60})}"
    mac = hmac.digest(SECRET.encode(), signed.encode(), "sha256")
    return f"Authorization: Bearer {signed}.{segment(mac)}"


def signature(method: str = "POST", body: bytes = b"body") -> str:
    """The signature of a request to /a?b=1, with a nonce of its own."""
    now, nonce = f"{time.time():.0f}", token_hex(8)
    lines = ["HMAC-SHA256", now, nonce, method, "/a", "b=1", "host:gw.test", sha256(body).hexdigest()]
    mac = b64encode(hmac.digest(SECRET.encode(), "\n".join(lines).encode(), "sha256")).decode()
    said = f'id="acme-1", time="{now}", nonce="{nonce}", headers="host", signature="{mac}"'
    return f"Authorization: HMAC-SHA256 {said}"


def message_signature(method: str = "POST", body: bytes = b"body") -> list[str]:
    """The same by RFC 9421."""
    digest = f"sha-256=:{b64encode(sha256(body).digest()).decode()}:"
    parts = '"@method" "@authority" "@path" "@query" "content-digest"'
    said = f'({parts});created={time.time():.0f};keyid="acme-1";nonce="{token_hex(8)}"'
    lines = [f'"@method": {method}', '"@authority": gw.test', '"@path": /a', '"@query": ?b=1']
    lines += [f'"content-digest": {digest}', f'"@signature-params": {said}']
    mac = b64encode(hmac.digest(SECRET.encode(), "\n".join(lines).encode(), "sha256")).decode()
    return [f"Content-Digest: {digest}", f"Signature-Input: sig={said}", f"Signature: sig=:{mac}:"]


KEY, LOGIN = "X-API-Key: acme-key", "Authorization: Basic YWNtZTpodXNo"
OPAQUE = "Authorization: Bearer opaque"
CLIENT = {"client_id": "gateway", "client_secret": "hush"}
Way = tuple[Callable[[str], Any], Callable[..., list[str]], int]

WAYS: dict[str, Way] = {
    "key_auth": (lambda url: "key_auth", lambda *_: [KEY], 401),
    "basic_auth": (lambda url: "basic_auth", lambda *_: [LOGIN], 401),
    "jwt_auth": (
        lambda url: {"jwt_auth": {"keys": [{"algorithm": "HS256", "secret": SECRET}]}},
        lambda *_: [jwt()],
        401,
    ),
    "signature": (lambda url: "signature", lambda *said: [signature(*said)], 401),
    "http_signature": (lambda url: "http_signature", message_signature, 401),
    "oauth2_introspection": (
        lambda url: {"oauth2_introspection": {"url": f"{url}/introspect", **CLIENT}},
        lambda *_: [OPAQUE],
        401,
    ),
    "forward_auth": (
        lambda url: {"forward_auth": {"url": f"{url}/may", "consumer_from": "x-user"}},
        lambda *_: [OPAQUE],
        403,
    ),
    "mtls": (
        lambda url: {"mtls": {"header": "x-cert", "format": "fingerprint"}},
        lambda *_: ["X-Cert: " + "ab" * 32],
        403,
    ),
    "any_of": (
        lambda url: {"any_of": {"of": ["key_auth", "signature"]}},
        lambda *said: [signature(*said)],
        401,
    ),
    "all_of": (lambda url: {"all_of": {"of": ["key_auth", "basic_auth"]}}, lambda *_: [KEY, LOGIN], 401),
}


@pytest.fixture
async def beside() -> AsyncIterator[Service]:
    """The service that some of them ask. It knows one token."""
    async with service() as one:
        one.fields = ["X-User: acme"]
        one.denies = b"/may"
        one.answers["/introspect"] = lambda: {"active": one.bodies[-1].endswith(b"=opaque"), "sub": "u-17"}
        one.answers["/may"] = {}
        one.allows = b"Bearer opaque"
        yield one


def declared(name: str, beside: Service, **policy: Any) -> dict[str, Any]:
    made = WAYS[name][0](beside.url)
    entry = {made: {}} if isinstance(made, str) else made
    ((_, options),) = entry.items()
    behind = [] if policy else [{"acl": {"consumers": ["acme"]}}]
    return {
        "route": {"websocket": True, "components": [{name: {**options, **policy}}, *behind]},
        "config": {"consumers": [ACME], "trusted_proxies": ["127.0.0.1"]},
    }


async def echo(line: Line) -> None:
    """Answers with the bytes of the request."""
    while True:
        head = await line.head()
        body = b""
        if b"content-length: 4" in head.lower():
            body = await line.reader.readexactly(4)
        line.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(head + body) + head + body)


@pytest.mark.parametrize("name", WAYS)
async def test_who_is_known_passes_and_nobody_else(
    front: Front, upstream: Behind, beside: Service, name: str
) -> None:
    up = await upstream(echo)
    serving = await front(up, **declared(name, beside))
    fields, refused = WAYS[name][1], WAYS[name][2]
    caller = await serving.caller()
    forged = ("X-Consumer: root", "X_Consumer: root")
    for _ in range(2):
        answer = await caller.ask("/a?b=1", *fields(), *forged, method="POST", body=b"body")
        assert answer.status == 200, answer
        assert answer.body.endswith(b"\r\n\r\nbody")
        assert [line for line in answer.body.split(b"\r\n") if b"consumer" in line.lower()] == [
            b"x-consumer: acme"
        ]
    reached = len(up.heads)
    wrong = ["X-API-Key: wrong", "Authorization: Bearer bogus", "X-Cert: " + "cd" * 32]
    for shown in ([], wrong, [*wrong, "Authorization: Basic YWNtZTpodXNo"]):
        other = await serving.caller()
        answer = await other.ask("/a?b=1", *shown, method="POST", body=b"body")
        assert answer.status == (403 if (name, shown) == ("forward_auth", wrong) else refused), answer
        assert bool(answer.all(b"www-authenticate")) == (answer.status == 401)
    assert len(up.heads) == reached


@pytest.mark.parametrize("name", WAYS)
async def test_a_handshake_is_held_to_it_before_it_is_accepted(
    front: Front, upstream: Behind, beside: Service, name: str
) -> None:
    async def accepting(line: Line) -> None:
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", await line.head())
        assert key is not None
        accept = b64encode(sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        line.say(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: %b\r\n\r\n" % accept
        )

    up = await upstream(accepting)
    serving = await front(up, **declared(name, beside))
    refused = await (await serving.caller()).ask("/a?b=1", *UPGRADE)
    assert refused.status == WAYS[name][2]
    assert up.connections == 0
    caller = await serving.caller()
    caller.say("/a?b=1", *UPGRADE, *WAYS[name][1]("GET", b""))
    head = await caller.head()
    assert head.status == 101, head
    # A close frame (RFC 6455 5.5.1), masked as all from callers are.
    caller.writer.write(b"\x88\x80\x00\x00\x00\x00")
    await caller.reader.read()


@pytest.mark.parametrize("name", WAYS)
async def test_reporting_lets_everybody_pass(
    front: Front, upstream: Behind, beside: Service, name: str
) -> None:
    up = await upstream(echo)
    serving = await front(up, **declared(name, beside, mode="report"))
    caller = await serving.caller()
    answer = await caller.ask("/a?b=1", "X-Consumer: root", method="POST", body=b"body")
    assert (answer.status, b"consumer" in answer.body) == (200, False)
    assert answer.body.endswith(b"\r\n\r\nbody")


LONG = 60_000
FILLERS = [
    "a" * LONG,
    ";" * LONG,
    "=" * LONG,
    '"\\' * (LONG // 2),
    'id="a",' * (LONG // 7),
    "." * LONG,
    "a=b;" * 15_000,
]
FIELDS = [
    "Authorization: Bearer ",
    "Authorization: Basic ",
    "Authorization: HMAC-SHA256 ",
    "Cookie: ",
    "X-API-Key: ",
]


@pytest.mark.parametrize("name", WAYS)
async def test_credentials_of_the_maximum_size_are_refused_and_hold_nobody_up(
    front: Front, upstream: Behind, beside: Service, name: str
) -> None:
    up = await upstream(echo)
    serving = await front(up, **declared(name, beside))
    reached, began = len(up.heads), time.monotonic()
    for field in [*FIELDS, "X-Cert: ", "X-Forwarded-For: "]:
        for filler in FILLERS:
            answer = await (await serving.caller()).ask("/a?b=1", field + filler)
            assert answer.status in (401, 403), (field, filler[:4], answer)
    for query in ("a=b&" * 4000, "%41" * 5000, "=" * 16_000):
        assert (await (await serving.caller()).ask(f"/a?{query}")).status in (401, 403)
    # None of some sixty may take a tenth of a second; a busy machine may.
    assert time.monotonic() - began < 15
    assert len(up.heads) == reached


@pytest.mark.parametrize("name", ["jwt_auth", "oauth2_introspection", "signature"])
async def test_a_token_of_a_megabyte_is_not_even_read(
    front: Front, upstream: Behind, beside: Service, name: str
) -> None:
    up = await upstream(echo)
    serving = await front(up, **declared(name, beside))
    caller = await serving.caller()
    caller.say("/a?b=1", f"Authorization: Bearer {'a' * 1_000_000}")
    assert (await caller.answer()).status == 431
    assert (up.heads, beside.heads) == ([], [])
