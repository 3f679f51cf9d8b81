import asyncio
import hmac
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest

from asgi_gateway.asgi import Receive, Scope, Send
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway_plugins.nonces import Kept
from asgi_gateway_plugins.signature import Signed
from tests.plugins.issuer import NOW
from tests.plugins.kit import Hand, Upstreams, document, handshake, serving
from tests.redis_server import RedisServer

SECRET = "0123456789abcdef0123456789abcdef"
CONSUMERS = [
    {"name": "acme", "hmac": [{"id": "acme-1", "secret": SECRET}, {"id": "acme-2", "secret": SECRET[::-1]}]},
    {"name": "bold", "hmac": [{"id": "bold-1", "secret": "b" * 32}]},
]
HOST = ("host", "gateway.test")


def guarded(**options: Any) -> dict[str, Any]:
    return document({"signature": options}, consumers=CONSUMERS, route={"websocket": True})


def sign(
    method: str = "GET",
    path: str = "/",
    query: str = "",
    body: bytes = b"",
    *,
    headers: tuple[tuple[str, str], ...] = (HOST,),
    identity: str = "acme-1",
    secret: str = SECRET,
    time: int = NOW,
    nonce: str = "nonce-0001",
    digest: str | None = None,
    algorithm: str = "sha256",
) -> str:
    """The Authorization of a request, as the page describes it."""
    scheme = f"HMAC-{algorithm.upper()}"
    lines = [scheme, str(time), nonce, method, path, query, *(f"{name}:{value}" for name, value in headers)]
    lines.append(sha256(body).hexdigest() if digest is None else digest)
    mac = b64encode(hmac.digest(secret.encode(), "\n".join(lines).encode(), algorithm)).decode()
    names = " ".join(name for name, _ in headers)
    return f'{scheme} id="{identity}", time="{time}", nonce="{nonce}", headers="{names}", signature="{mac}"'


async def read_it(scope: Scope, receive: Receive, send: Send) -> None:
    """An upstream that says what body it got, and in how many pieces."""
    pieces = []
    while True:
        message = await receive()
        pieces.append(message["body"])
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"|".join(pieces)})


def reading(**options: Any) -> dict[str, Any]:
    declared = guarded(**options)
    declared["upstreams"]["main"] = {"asgi": f"{__name__}:read_it"}
    return declared


async def test_a_signed_request_identifies_its_consumer(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        headers = {"authorization": sign(path="/a%20b", query="x=1&y=2"), "x-consumer": "root"}
        assert (await http.get("/a%20b?x=1&y=2", headers=headers)).status_code == 200
    assert upstreams.headers("x-consumer") == ["acme"]
    assert upstreams.headers("authorization") == []


async def test_sha512_and_further_fields(upstreams: Upstreams, clock: Hand) -> None:
    fields = (("x-b", "2"), HOST, ("x-a", "1"))
    async with serving(upstreams, guarded(algorithm="sha512", headers=["Host", "X-A"]), clock) as http:
        signed = sign(headers=fields, algorithm="sha512")
        headers = {"authorization": signed, "x-a": " 1 ", "x-b": "2"}
        assert (await http.get("/", headers=headers)).status_code == 200
        weaker = sign(headers=fields, algorithm="sha256")
        assert (await http.get("/", headers={**headers, "authorization": weaker})).status_code == 401


async def test_a_replay_is_refused_also_a_hundred_at_once(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        headers = {"authorization": sign()}
        answers = await asyncio.gather(*(http.get("/", headers=headers) for _ in range(100)))
        assert sorted(answer.status_code for answer in answers) == [200, *[401] * 99]
        assert {answer.json()["reason"] for answer in answers if answer.status_code == 401} == {"replayed"}
        for later in (299, 300, 301, 599, 601, 700):
            clock.seconds = 1000 + later
            assert (await http.get("/", headers=headers)).status_code == 401
    assert len(upstreams.seen) == 1


async def test_a_replay_on_another_route_is_refused(upstreams: Upstreams, clock: Hand) -> None:
    declared = guarded()
    signature = declared["routes"][0]["components"]
    declared["routes"].append(
        {
            "name": "other",
            "path": "/",
            "headers": {"x-to": "other"},
            "upstream": "next",
            "components": signature,
        }
    )
    async with serving(upstreams, declared, clock) as http:
        headers = {"authorization": sign()}
        assert (await http.get("/", headers=headers)).status_code == 200
        assert (await http.get("/", headers={**headers, "x-to": "other"})).json()["reason"] == "replayed"


async def test_a_wrong_signature_uses_up_no_nonce(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        assert (await http.get("/", headers={"authorization": sign(secret="x" * 32)})).status_code == 401
        assert (await http.get("/", headers={"authorization": sign()})).status_code == 200


ALTERED: dict[str, tuple[str, str, bytes, dict[str, str]]] = {
    "method": ("PUT", "/orders?a=1&b=2", b"body", {}),
    "path": ("POST", "/order?a=1&b=2", b"body", {}),
    "path in capitals": ("POST", "/Orders?a=1&b=2", b"body", {}),
    "order of the query": ("POST", "/orders?b=2&a=1", b"body", {}),
    "query spelled otherwise": ("POST", "/orders?a=%31&b=2", b"body", {}),
    "more query": ("POST", "/orders?a=1&b=2&c=3", b"body", {}),
    "no query": ("POST", "/orders", b"body", {}),
    "a body": ("POST", "/orders?a=1&b=2", b"b0dy", {}),
    "a longer body": ("POST", "/orders?a=1&b=2", b"body ", {}),
    "no body": ("POST", "/orders?a=1&b=2", b"", {}),
    "a field": ("POST", "/orders?a=1&b=2", b"body", {"x-a": "2"}),
    "host": ("POST", "/orders?a=1&b=2", b"body", {"host": "other.test"}),
}


@pytest.mark.parametrize("what", ALTERED)
async def test_what_was_altered_is_refused(upstreams: Upstreams, clock: Hand, what: str) -> None:
    signed = sign("POST", "/orders", "a=1&b=2", b"body", headers=(HOST, ("x-a", "1")))
    method, url, body, fields = ALTERED[what]
    async with serving(upstreams, guarded(), clock) as http:
        headers = {"authorization": signed, "x-a": "1", **fields}
        answer = await http.request(method, url, headers=headers, content=body)
        assert (answer.status_code, answer.json()["reason"]) == (401, "wrong_signature")
        assert answer.headers["www-authenticate"] == 'HMAC-SHA256 realm="gateway", headers="host"'
        assert upstreams.seen == []
        good = await http.post(
            "/orders?a=1&b=2", headers={"authorization": signed, "x-a": "1"}, content=b"body"
        )
        assert good.status_code == 200


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "no_signature"),
        ([("authorization", "Bearer x")], "no_signature"),
        ([("authorization", sign()), ("authorization", sign())], "several_signatures"),
        ([("authorization", sign()), ("authorization", "Basic YTpi")], "several_signatures"),
        ([("authorization", "HMAC-SHA256")], "malformed_signature"),
        ([("authorization", sign() + ', id="bold-1"')], "malformed_signature"),
        ([("authorization", sign().replace(', nonce="nonce-0001"', ""))], "malformed_signature"),
        ([("authorization", sign(nonce="short"))], "malformed_signature"),
        ([("authorization", sign(nonce="n" * 129))], "malformed_signature"),
        ([("authorization", sign().replace('signature="', 'signature="!'))], "malformed_signature"),
        ([("authorization", "HMAC-SHA256 " + 'id="a",' * 5000)], "malformed_signature"),
        ([("authorization", sign(time=-1))], "malformed_signature"),
        ([("authorization", sign(time=10**13))], "malformed_signature"),
        ([("authorization", sign(identity="nobody"))], "unknown_id"),
        ([("authorization", sign(identity="bold-1"))], "wrong_signature"),
        ([("authorization", sign(identity="acme-2"))], "wrong_signature"),
        ([("authorization", sign(time=NOW - 301))], "clock_skew"),
        ([("authorization", sign(time=NOW + 301))], "clock_skew"),
        ([("authorization", sign(time=0))], "clock_skew"),
        ([("authorization", sign(headers=()))], "unsigned_header"),
        ([("authorization", sign(headers=(HOST, HOST)))], "unsigned_header"),
        ([("authorization", sign(headers=(HOST, ("x-a", "1"))))], "unsigned_header"),
        (
            [("authorization", sign(headers=(HOST, ("x-a", "1")))), ("x-a", "1"), ("x-a", "2")],
            "unsigned_header",
        ),
        (
            [("authorization", sign(headers=(HOST, ("x-consumer", "acme")))), ("x-consumer", "acme")],
            "unsigned_header",
        ),
        ([("authorization", sign(digest=""))], "wrong_signature"),
    ],
)
async def test_a_signature_that_is_none_is_refused(
    upstreams: Upstreams, clock: Hand, headers: list[tuple[str, str]], reason: str
) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        answer = await http.get("/", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (401, reason)
    assert SECRET not in answer.text
    assert upstreams.seen == []


@pytest.mark.parametrize("offset", [-300, 300])
async def test_a_clock_may_be_off_a_little(upstreams: Upstreams, clock: Hand, offset: int) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        assert (await http.get("/", headers={"authorization": sign(time=NOW + offset)})).status_code == 200


async def test_the_body_that_was_signed_is_the_body_that_is_forwarded(
    upstreams: Upstreams, clock: Hand
) -> None:
    pieces = [b'{"a":1,', b'"a":2}', b"\x00 \r\n"]

    async def chunked() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async with serving(upstreams, reading(), clock) as http:
        signed = sign("POST", body=b"".join(pieces))
        answer = await http.post("/", headers={"authorization": signed}, content=chunked())
        assert (answer.status_code, answer.content.replace(b"|", b"")) == (200, b"".join(pieces))
        nothing = sign("POST", nonce="nonce-0002")
        assert (await http.post("/", headers={"authorization": nothing})).content in (b"", b"|")


async def test_a_body_that_is_too_large_is_refused_before_all_of_it_is_read(
    upstreams: Upstreams, clock: Hand
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b"x" * 1024

    async with serving(upstreams, reading(max_body="4KiB"), clock) as http:
        good = sign("POST", body=b"x" * 4096)
        answer = await http.post("/", headers={"authorization": good}, content=b"x" * 4096)
        assert answer.status_code == 200
        headers = {"authorization": sign("POST", nonce="nonce-0002")}
        answer = await http.post("/", headers=headers, content=endless())
        assert (answer.status_code, answer.json()["reason"]) == (413, "body_too_large")
        # Who has no secret has no body read.
        sent = 0
        headers = {"authorization": sign("POST", identity="nobody")}
        assert (await http.post("/", headers=headers, content=endless())).status_code == 401


async def test_a_body_need_not_be_signed(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, reading(body=False, max_body="1KiB"), clock) as http:
        answer = await http.post(
            "/", headers={"authorization": sign("POST", digest="-")}, content=b"x" * 4096
        )
        assert (answer.status_code, answer.content.replace(b"|", b"")) == (200, b"x" * 4096)


def short(signed: Signed) -> bytes:
    return b"%b %b %b" % (signed.method, signed.time, signed.nonce)


async def test_the_text_that_is_signed_can_be_ones_own(upstreams: Upstreams, clock: Hand) -> None:
    mac = b64encode(hmac.digest(SECRET.encode(), f"GET {NOW} nonce-0001".encode(), "sha256")).decode()
    signed = f'HMAC-SHA256 id="acme-1",time="{NOW}",nonce="nonce-0001",headers="host",signature="{mac}"'
    async with serving(upstreams, guarded(canonical=f"{__name__}:short"), clock) as http:
        assert (await http.get("/", headers={"authorization": sign()})).status_code == 401
        assert (await http.get("/", headers={"authorization": signed})).status_code == 200
    with pytest.raises(ConfigError, match="cannot be imported"):
        Gateway.parse(guarded(canonical="no.such:thing"), plugins=[upstreams])


async def test_where_nonces_have_no_room_requests_are_refused(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(max_nonces=2, skew="10s"), clock) as http:
        answers = [
            await http.get("/", headers={"authorization": sign(nonce=f"nonce-{number:04}")})
            for number in range(3)
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 503]
        assert answers[2].json()["reason"] == "too_many_nonces"
        # Another caller has room of its own.
        other = sign(identity="bold-1", secret="b" * 32)
        assert (await http.get("/", headers={"authorization": other})).status_code == 200
        clock.seconds += 21
        later = sign(nonce="nonce-0009", time=NOW + 21)
        assert (await http.get("/", headers={"authorization": later})).status_code == 200


def test_a_nonce_is_remembered_until_its_time() -> None:
    now = 0.0
    nonces = Kept(lambda: now)
    nonces.last(10)
    nonces.last(5)
    assert nonces.add("a", b"1", 10)
    assert nonces.add("b", b"1", 10)
    now = 9.9
    assert nonces.add("a", b"1", 10) is False
    now = 10
    assert nonces.add("a", b"1", 10)


async def test_a_nonce_is_kept_as_long_as_the_most_patient_route_would_take_it(
    upstreams: Upstreams, clock: Hand
) -> None:
    declared = guarded(skew="10s", max_nonces=7)
    other = {"headers": {"x-to": "other"}, "components": [{"signature": {"skew": "300s"}}]}
    declared["routes"].append({**declared["routes"][0], "name": "other", **other})
    async with serving(upstreams, declared, clock) as http:
        headers = {"authorization": sign()}
        assert (await http.get("/", headers=headers)).status_code == 200
        clock.seconds += 100
        assert (await http.get("/", headers={**headers, "x-to": "other"})).json()["reason"] == "replayed"


def shared(url: str, **options: Any) -> dict[str, Any]:
    patient = options.pop("timeout", "2s")
    return {**guarded(**options), "store": {"url": url, "timeout": patient}}


async def test_workers_with_a_store_refuse_what_another_one_saw(
    upstreams: Upstreams, clock: Hand, redis: RedisServer
) -> None:
    declared = shared(redis.url)
    async with serving(upstreams, declared, clock) as one, serving(upstreams, declared, clock) as two:
        headers = {"authorization": sign()}
        answers = await asyncio.gather(*(http.get("/", headers=headers) for http in (one, two) * 50))
        assert sorted(answer.status_code for answer in answers) == [200, *[401] * 99]
        assert {answer.json()["reason"] for answer in answers if answer.status_code == 401} == {"replayed"}
        # Another secret of the same nonce is another signature.
        other = {"authorization": sign(identity="acme-2", secret=SECRET[::-1])}
        assert (await two.get("/", headers=other)).status_code == 200
    assert len(upstreams.seen) == 2
    keys = [word for word in redis.talk("KEYS", "*").decode().split("\r\n") if "nonce" in word]
    assert len(keys) == 2
    assert all(b":595000" < redis.talk("PTTL", key) <= b":601000" for key in keys)


@pytest.mark.parametrize(("on_error", "statuses"), [("closed", [503, 503]), ("local", [200, 401])])
async def test_while_the_store_is_away_signatures_are_refused_or_judged_alone(
    upstreams: Upstreams, clock: Hand, redis: RedisServer, on_error: str, statuses: list[int]
) -> None:
    async with serving(upstreams, shared(redis.url, on_error=on_error, timeout="50ms"), clock) as http:
        redis.kill()
        headers = {"authorization": sign()}
        answers = [await http.get("/", headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == statuses
        if on_error == "closed":
            assert answers[0].json()["reason"] == "store_away"
            assert answers[0].headers["retry-after"] == "1"
            # What is wrong is told all the same.
            assert (await http.get("/", headers={"authorization": sign(secret="x" * 32)})).status_code == 401


async def test_nonces_outlive_a_reload(upstreams: Upstreams, clock: Hand) -> None:
    gateway = Gateway.parse(guarded(), plugins=[upstreams], clock=clock)
    async with gateway.lifespan():
        signed = [(b"authorization", sign().encode())]
        assert (await handshake(gateway, headers=signed))[0]["type"] == "websocket.accept"
        await gateway.reload(gateway.config)
        assert (await handshake(gateway, headers=signed))[0]["status"] == 401


async def test_reporting_lets_pass_with_the_whole_body(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, reading(mode="report", max_body="1KiB"), clock) as http:
        for body in (b"x" * 100, b"x" * 5000):
            answer = await http.post("/", headers={"authorization": sign("POST")}, content=body)
            assert (answer.status_code, answer.content.replace(b"|", b"")) == (200, body)


async def test_a_websocket_is_signed_too(upstreams: Upstreams, clock: Hand) -> None:
    gateway = Gateway.parse(guarded(), plugins=[upstreams], clock=clock)
    refused = await handshake(gateway)
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)
    accepted = await handshake(gateway, headers=[(b"authorization", sign().encode())])
    assert accepted[0]["type"] == "websocket.accept"
    assert upstreams.headers("x-consumer") == ["acme"]
