"""HTTP message signatures, made here by the letter of RFC 9421 and not by the library that checks them."""

import asyncio
import hashlib
import hmac
import random
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from asgi_gateway.consumers import Consumer
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.store import records_of
from tests.plugins.issuer import NOW
from tests.plugins.kit import Hand, Upstreams, document, handshake, serving
from tests.plugins.test_signature import SECRET, read_it
from tests.redis_server import RedisServer

READING = f"{read_it.__module__}:{read_it.__name__}"
CONSUMERS = [
    {"name": "acme", "hmac": [{"id": "shared", "secret": SECRET}]},
    {"name": "bold", "hmac": [{"id": "other", "secret": "b" * 32}]},
]
PARTS = ("@method", "@authority", "@path", "@query")
ALGORITHMS = ("ed25519", "ecdsa-p256-sha256", "ecdsa-p384-sha384", "rsa-pss-sha512", "rsa-v1_5-sha256")
Sign = Callable[[bytes], bytes]


def raw(key: ec.EllipticCurvePrivateKey, data: bytes, chosen: hashes.HashAlgorithm) -> bytes:
    """An ECDSA signature as RFC 9421 3.3.4 writes it."""
    size = (key.key_size + 7) // 8
    return b"".join(
        number.to_bytes(size, "big") for number in decode_dss_signature(key.sign(data, ec.ECDSA(chosen)))
    )


@cache
def pairs() -> dict[str, tuple[str, Sign]]:
    """A public key for each algorithm, and what signs with the other half."""
    ed, rsa_key = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)
    p256, p384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    pss = padding.PSS(padding.MGF1(hashes.SHA512()), 64)
    signing: dict[str, tuple[Any, Sign]] = {
        "ed25519": (ed, ed.sign),
        "ecdsa-p256-sha256": (p256, lambda data: raw(p256, data, hashes.SHA256())),
        "ecdsa-p384-sha384": (p384, lambda data: raw(p384, data, hashes.SHA384())),
        "rsa-pss-sha512": (rsa_key, lambda data: rsa_key.sign(data, pss, hashes.SHA512())),
        "rsa-v1_5-sha256": (rsa_key, lambda data: rsa_key.sign(data, padding.PKCS1v15(), hashes.SHA256())),
    }
    return {name: (pem(key.public_key()), sign) for name, (key, sign) in signing.items()}


def pem(key: Any) -> str:
    text: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def by_secret(data: bytes, secret: str = SECRET) -> bytes:
    return hmac.digest(secret.encode(), data, "sha256")


def guarded(**options: Any) -> dict[str, Any]:
    return document({"http_signature": options}, consumers=CONSUMERS, route={"websocket": True})


def keyed(*algorithms: str, **options: Any) -> dict[str, Any]:
    keys = [
        {"id": name, "algorithm": name, "public_key": pairs()[name][0], "consumer": "acme"}
        for name in algorithms
    ]
    return guarded(keys=keys, **options)


def digest_of(body: bytes, name: str = "sha-256") -> str:
    made = hashlib.new(name.replace("-", ""), body).digest()
    return f"{name}=:{b64encode(made).decode()}:"


def sign(
    method: str = "GET",
    path: str = "/",
    query: str = "",
    body: bytes | None = None,
    *,
    parts: tuple[str, ...] = PARTS,
    fields: tuple[tuple[str, str], ...] = (),
    key: str = "shared",
    made: Sign = by_secret,
    created: int | None = NOW,
    nonce: str | None = "n-1",
    more: str = "",
    label: str = "sig",
    authority: str = "gateway.test",
) -> dict[str, str]:
    """The fields of a signed request: RFC 9421 2.5."""
    values = {"@method": method, "@authority": authority, "@path": path, "@query": f"?{query}"}
    values |= {"@scheme": "http", "@target-uri": f"http://{authority}{path}{'?' if query else ''}{query}"}
    values |= dict(fields)
    headers = dict(fields)
    if body is not None:
        parts = (*parts, "content-digest")
        headers["content-digest"] = values["content-digest"] = digest_of(body)
    parts = (*parts, *(name for name, _ in fields if name not in parts))
    said = "(" + " ".join(f'"{part}"' for part in parts) + ")"
    said += "" if created is None else f";created={created}"
    said += f';keyid="{key}"' + ("" if nonce is None else f';nonce="{nonce}"') + more
    lines = [f'"{part}": {values[part]}' for part in parts] + [f'"@signature-params": {said}']
    signature = b64encode(made("\n".join(lines).encode())).decode()
    return {**headers, "signature-input": f"{label}={said}", "signature": f"{label}=:{signature}:"}


async def test_a_signed_request_identifies_its_consumer(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        headers = {**sign(path="/a%20b", query="x=1&y=[2]"), "x-consumer": "root"}
        assert (await http.get("/a%20b?x=1&y=[2]", headers=headers)).status_code == 200
    assert upstreams.headers("x-consumer") == ["acme"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_algorithm_with_its_key_and_no_other(
    upstreams: Upstreams, clock: Hand, algorithm: str
) -> None:
    made = pairs()[algorithm][1]
    async with serving(upstreams, keyed(*pairs()), clock) as http:
        assert (await http.get("/", headers=sign(key=algorithm, made=made))).status_code == 200
        named = sign(key=algorithm, made=made, nonce="n-2", more=f';alg="{algorithm}"')
        assert (await http.get("/", headers=named)).status_code == 200
        # What a signature says of its algorithm changes nothing, and the key of one is none of another.
        other = sign(key=algorithm, made=made, nonce="n-3", more=';alg="hmac-sha256"')
        assert (await http.get("/", headers=other)).json()["reason"] == "wrong_signature"
        for name in {*pairs(), "shared"} - {algorithm}:
            answer = await http.get("/", headers=sign(key=name, made=made, nonce="n-4"))
            assert answer.json()["reason"] == "wrong_signature"
        # The text of a public key is no secret.
        public = pairs()[algorithm][0]
        forged = sign(key=algorithm, made=lambda data: by_secret(data, public), nonce="n-5")
        assert (await http.get("/", headers=forged)).json()["reason"] == "wrong_signature"


async def test_the_example_of_the_rfc(upstreams: Upstreams) -> None:
    """RFC 9421 B.2.6. It signs no digest: the signature is right, and the body is not taken for signed."""
    encoded = "MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="
    public = f"-----BEGIN PUBLIC KEY-----\n{encoded}\n-----END PUBLIC KEY-----\n"
    key = {"id": "test-key-ed25519", "algorithm": "ed25519", "public_key": public, "consumer": "acme"}
    covered = '("date" "@method" "@path" "@authority" "content-type" "content-length")'
    signature = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    headers = {
        "host": "example.com",
        "date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "content-type": "application/json",
        "content-length": "18",
        "signature-input": f'sig-b26={covered};created=1618884473;keyid="test-key-ed25519"',
        "signature": f"sig-b26=:{signature}:",
    }
    clock = Hand()
    clock.seconds = 1618884473 - 1_700_000_000
    declared = guarded(keys=[key], components=["@method", "@path", "@authority"], nonce=False)
    async with serving(upstreams, declared, clock) as http:
        url = "/foo?param=Value&Pet=dog"
        answer = await http.post(url, headers=headers, content=b'{"hello": "world"}')
        assert answer.json()["reason"] == "unsigned_body"
        answer = await http.post("/fo", headers=headers, content=b'{"hello": "world"}')
        assert answer.json()["reason"] == "wrong_signature"
        answer = await http.post(url, headers={**headers, "date": "Tue, 20 Apr 2021 02:07:56 GMT"})
        assert answer.json()["reason"] == "wrong_signature"


ALTERED: dict[str, tuple[str, str, bytes, dict[str, str], str]] = {
    "method": ("PUT", "/orders?a=1&b=2", b"body", {}, "wrong_signature"),
    "path": ("POST", "/order?a=1&b=2", b"body", {}, "wrong_signature"),
    "order of the query": ("POST", "/orders?b=2&a=1", b"body", {}, "wrong_signature"),
    "query spelled otherwise": ("POST", "/orders?a=%31&b=2", b"body", {}, "wrong_signature"),
    "no query": ("POST", "/orders", b"body", {}, "wrong_signature"),
    "host": ("POST", "/orders?a=1&b=2", b"body", {"host": "other.test"}, "wrong_signature"),
    "a field": ("POST", "/orders?a=1&b=2", b"body", {"x-a": "2"}, "wrong_signature"),
    "no field": ("POST", "/orders?a=1&b=2", b"body", {"x-a": ""}, "wrong_signature"),
    "a body": ("POST", "/orders?a=1&b=2", b"b0dy", {}, "wrong_digest"),
    "a longer body": ("POST", "/orders?a=1&b=2", b"body ", {}, "wrong_digest"),
    "no body": ("POST", "/orders?a=1&b=2", b"", {}, "wrong_digest"),
    "body and digest": (
        "POST",
        "/orders?a=1&b=2",
        b"b0dy",
        {"content-digest": digest_of(b"b0dy")},
        "wrong_signature",
    ),
}


@pytest.mark.parametrize("what", ALTERED)
async def test_what_was_altered_is_refused(upstreams: Upstreams, clock: Hand, what: str) -> None:
    signed = sign("POST", "/orders", "a=1&b=2", b"body", fields=(("x-a", "1"),))
    method, url, body, fields, reason = ALTERED[what]
    async with serving(upstreams, guarded(), clock) as http:
        answer = await http.request(method, url, headers={**signed, **fields}, content=body)
        assert (answer.status_code, answer.json()["reason"]) == (401, reason)
        assert answer.headers["www-authenticate"] == "Signature"
        wanted = '("@method" "@authority" "@path" "@query")'
        assert answer.headers["accept-signature"] == f"sig={wanted};created"
        assert upstreams.seen == []
        assert (await http.post("/orders?a=1&b=2", headers=signed, content=b"body")).status_code == 200


def pair(**more: str) -> list[tuple[str, str]]:
    return list({**sign(), **more}.items())


MANY = tuple((f"x-{number}", "1") for number in range(61))
TWO = sign(label="two", nonce="n-2")
REFUSED: dict[str, tuple[list[tuple[str, str]], str]] = {
    "none": ([], "no_signature"),
    "a bearer token": ([("authorization", "Bearer x")], "no_signature"),
    "only what was signed": ([("signature-input", sign()["signature-input"])], "wrong_signature"),
    "only a signature": ([("signature", sign()["signature"])], "no_signature"),
    "another label": (pair(signature=TWO["signature"]), "wrong_signature"),
    "two signatures": ([*sign().items(), *TWO.items()], "several_signatures"),
    "two in one field": (
        [(name, f"{value}, {TWO[name]}") for name, value in sign().items()],
        "several_signatures",
    ),
    "the same label twice": ([*sign().items(), *sign().items()], "wrong_signature"),
    "two of one label": ([*sign().items(), ("signature", sign(nonce="x")["signature"])], "wrong_signature"),
    "a signature too many": ([*sign().items(), ("signature", TWO["signature"])], "wrong_signature"),
    "no structured field": (
        [("signature-input", "sig=("), ("signature", "sig=:AA==:")],
        "malformed_signature",
    ),
    "an item": (
        [("signature-input", 'sig="a";keyid="shared"'), ("signature", "sig=1")],
        "malformed_signature",
    ),
    "no key": (pair(**{"signature-input": "sig=();created=1"}), "malformed_signature"),
    "a key that is no text": (pair(**{"signature-input": "sig=();keyid=1"}), "malformed_signature"),
    "not ascii": (pair(**{"signature-input": 'sig=("é")'}), "malformed_signature"),
    "too long": (pair(**{"signature-input": f'sig=("{"a" * 2048}")'}), "malformed_signature"),
    "a signature too long": (pair(signature=f"sig=:{'A' * 2048}:"), "malformed_signature"),
    "too many parts": (list(sign(fields=MANY).items()), "malformed_signature"),
    "unknown key": (list(sign(key="nobody").items()), "unknown_key"),
    "the key of another": (list(sign(key="other").items()), "wrong_signature"),
    "old": (list(sign(created=NOW - 306).items()), "stale_signature"),
    "of tomorrow": (list(sign(created=NOW + 6).items()), "stale_signature"),
    "never": (list(sign(created=None).items()), "stale_signature"),
    "very late": (list(sign(created=10**14).items()), "stale_signature"),
    "expired": (list(sign(more=f";expires={NOW - 6}").items()), "stale_signature"),
    "expires as text": (list(sign(more=';expires="9999999999"').items()), "wrong_signature"),
    "unknown parameter": (list(sign(more=";x=1").items()), "wrong_signature"),
    "nothing signed": (list(sign(parts=()).items()), "unsigned_component"),
    "no query signed": (list(sign(parts=("@method", "@authority", "@path")).items()), "unsigned_component"),
    "no nonce": (list(sign(nonce=None).items()), "no_nonce"),
    "an empty nonce": (list(sign(nonce="").items()), "no_nonce"),
    "a long nonce": (list(sign(nonce="n" * 129).items()), "no_nonce"),
    "a field that is not there": (
        [each for each in sign(fields=(("x-a", "1"),)).items() if each[0] != "x-a"],
        "wrong_signature",
    ),
    "an identity": (list(sign(fields=(("x-consumer", "acme"),)).items()), "wrong_signature"),
    "another authority": (list(sign(authority="other.test").items()), "wrong_signature"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_signature_that_is_none_is_refused(upstreams: Upstreams, clock: Hand, what: str) -> None:
    headers, reason = REFUSED[what]
    raw_headers = [(name.encode(), value.encode()) for name, value in headers]
    async with serving(upstreams, guarded(), clock) as http:
        answer = await http.get("/", headers=raw_headers)
    assert (answer.status_code, answer.json()["reason"]) == (401, reason)
    assert SECRET not in answer.text
    assert upstreams.seen == []


async def test_whatever_the_fields_say_no_request_fails(upstreams: Upstreams, clock: Hand) -> None:
    dice = random.Random(9421)
    good = sign("POST", body=b"body")
    characters = '()";:,=?@*%+-. \t0123456789abz\x7f{}'
    async with serving(upstreams, guarded(), clock) as http:
        for _ in range(600):
            headers = dict(good)
            for name in dice.sample(sorted(good), dice.randint(1, 2)):
                text = list(headers[name])
                for _ in range(dice.randint(1, 4)):
                    at = dice.randrange(len(text) + 1)
                    text[at : at + dice.choice([0, 0, 1, 5])] = dice.choices(characters, k=dice.randint(0, 3))
                headers[name] = "".join(text).strip().replace("\x7f", "")
            answer = await http.post("/", headers=headers, content=b"body")
            # A space more, for example, changes nothing: then it is a good one, or a copy.
            assert answer.status_code in (200, 401), headers
            clock.seconds += 0.1


async def test_a_copy_is_refused_also_a_hundred_at_once(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        answers = await asyncio.gather(*(http.get("/", headers=sign()) for _ in range(100)))
        assert sorted(answer.status_code for answer in answers) == [200, *[401] * 99]
        assert {answer.json()["reason"] for answer in answers if answer.status_code == 401} == {"replayed"}
        for later in (305, 310, 315):
            clock.seconds = 1000 + later
            assert (await http.get("/", headers=sign())).status_code == 401
        clock.seconds = 1000
        assert (
            await http.get("/", headers=sign(key="other", made=lambda data: by_secret(data, "b" * 32)))
        ).is_success
    assert len(upstreams.seen) == 2


async def test_workers_with_a_store_refuse_what_another_one_saw(
    upstreams: Upstreams, clock: Hand, redis: RedisServer
) -> None:
    declared = {**guarded(), "store": {"url": redis.url, "timeout": "2s"}}
    async with serving(upstreams, declared, clock) as one, serving(upstreams, declared, clock) as two:
        answers = await asyncio.gather(*(http.get("/", headers=sign()) for http in (one, two) * 20))
        assert sorted(answer.status_code for answer in answers) == [200, *[401] * 39]
        redis.kill()
        answer = await one.get("/", headers=sign(nonce="n-2"))
        assert (answer.status_code, answer.json()["reason"]) == (503, "store_away")


async def test_a_secret_may_be_in_the_store(upstreams: Upstreams, clock: Hand, redis: RedisServer) -> None:
    stored = {"name": "stored", "hmac": [{"id": "stored-1", "secret": "s" * 32}]}
    for key, value in records_of(Consumer.model_validate(stored)).items():
        redis.talk("SET", f"asgi_gateway:{key}", value.decode())
    store = {"url": redis.url, "timeout": "2s", "consumers": True}
    signed = sign(key="stored-1", made=lambda data: by_secret(data, "s" * 32))
    async with serving(upstreams, {**guarded(), "store": store}, clock) as http:
        assert (await http.get("/", headers=sign(key="stored-1"))).json()["reason"] == "wrong_signature"
        assert (await http.get("/", headers=sign(key="nobody"))).json()["reason"] == "unknown_key"
        assert (await http.get("/", headers=signed)).status_code == 200
        assert upstreams.headers("x-consumer") == ["stored"]
        redis.kill()
        assert (await http.get("/", headers=sign(key="away"))).status_code == 503


async def test_where_no_nonce_is_asked_for_one_that_is_there_still_counts(
    upstreams: Upstreams, clock: Hand
) -> None:
    async with serving(upstreams, guarded(nonce=False), clock) as http:
        assert [(await http.get("/", headers=sign(nonce=None))).status_code for _ in range(2)] == [200, 200]
        assert [(await http.get("/", headers=sign())).status_code for _ in range(2)] == [200, 401]


async def test_where_nonces_have_no_room_requests_are_refused(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(max_nonces=2), clock) as http:
        answers = [await http.get("/", headers=sign(nonce=f"n-{number}")) for number in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 503]


async def test_of_several_signatures_the_one_with_the_tag_counts(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(tag="gw"), clock) as http:
        ours, other = sign(more=';tag="gw"'), sign(label="proxy", key="theirs", nonce="n-2")
        headers = [*other.items(), *ours.items()]
        assert (await http.get("/", headers=headers)).status_code == 200
        assert (await http.get("/", headers=other)).json()["reason"] == "no_signature"
        third = sign(label="third", nonce="n-3", more=';tag="gw"')
        answer = await http.get("/", headers=[*headers, *third.items()])
        assert answer.json()["reason"] == "several_signatures"
        assert answer.headers["accept-signature"].endswith(';created;tag="gw"')


async def test_other_parts_may_have_to_be_signed(upstreams: Upstreams, clock: Hand) -> None:
    parts = ["@method", "@target-uri", "@scheme", "X-A"]
    async with serving(upstreams, guarded(components=parts), clock) as http:
        signed = sign(query="a=1", parts=("@method", "@scheme", "@target-uri"), fields=(("x-a", "1"),))
        assert (await http.get("/?a=1", headers=signed)).status_code == 200
        twice = [*sign(query="a=1", parts=("@method", "@scheme", "@target-uri"), nonce="n-2").items()]
        assert (await http.get("/?a=1", headers=twice)).json()["reason"] == "unsigned_component"


@pytest.mark.parametrize("name", ["sha-256", "sha-512"])
async def test_the_body_that_was_signed_is_the_body_that_is_forwarded(
    upstreams: Upstreams, clock: Hand, name: str
) -> None:
    pieces = [b'{"a":1,', b'"a":2}', b"\x00 \r\n"]

    async def chunked() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    declared = guarded()
    declared["upstreams"]["main"] = {"asgi": READING}
    value = f"{digest_of(b''.join(pieces), name)}, md5=:AAAA:"
    async with serving(upstreams, declared, clock) as http:
        signed = sign("POST", fields=(("content-digest", value),))
        answer = await http.post("/", headers=signed, content=chunked())
    assert (answer.status_code, answer.content.replace(b"|", b"")) == (200, b"".join(pieces))


@pytest.mark.parametrize(
    "value",
    ["md5=:AAAA:", "sha-256=abc", "sha-256", "", "sha-256=(:AAAA:)"],
    ids=["md5", "token", "flag", "empty", "list"],
)
async def test_a_digest_that_cannot_be_checked_signs_no_body(
    upstreams: Upstreams, clock: Hand, value: str
) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        signed = sign("POST", fields=(("content-digest", value),))
        answer = await http.post("/", headers=signed, content=b"body")
        assert (answer.status_code, answer.json()["reason"]) == (401, "unsigned_body")


async def test_a_body_without_a_signed_digest_is_refused_and_not_read(
    upstreams: Upstreams, clock: Hand
) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b"x" * 1024

    async with serving(upstreams, guarded(max_body="4KiB"), clock) as http:
        # A digest that is there and not signed says nothing.
        fields = {"content-digest": digest_of(b"body")}
        answer = await http.post("/", headers={**sign("POST"), **fields}, content=b"body")
        assert (answer.status_code, answer.json()["reason"]) == (401, "unsigned_body")
        answer = await http.post("/", headers=sign("POST"), content=endless())
        assert (answer.status_code, answer.json()["reason"]) == (401, "unsigned_body")
        answer = await http.post("/", headers=sign("POST", body=b"x" * 5000), content=b"x" * 5000)
        assert (answer.status_code, answer.json()["reason"]) == (413, "body_too_large")
    assert upstreams.seen == []


async def test_reporting_lets_pass_with_the_whole_body(upstreams: Upstreams, clock: Hand) -> None:
    declared = guarded(mode="report", max_body="1KiB")
    declared["upstreams"]["main"] = {"asgi": READING}
    async with serving(upstreams, declared, clock) as http:
        for body, signed in ((b"x" * 100, sign("POST")), (b"x" * 5000, sign("POST", body=b"x" * 5000))):
            answer = await http.post("/", headers=signed, content=body)
            assert (answer.status_code, answer.content.replace(b"|", b"")) == (200, body)


async def test_a_websocket_is_signed_too(upstreams: Upstreams, clock: Hand) -> None:
    gateway = Gateway.parse(guarded(), plugins=[upstreams], clock=clock)
    refused = await handshake(gateway)
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)
    signed = [(name.encode(), value.encode()) for name, value in sign().items()]
    assert (await handshake(gateway, headers=signed))[0]["type"] == "websocket.accept"
    assert upstreams.headers("x-consumer") == ["acme"]
    await gateway.reload(gateway.config)
    assert (await handshake(gateway, headers=signed))[0]["status"] == 401


def test_keys_and_parts_that_cannot_be_are_told_at_start(upstreams: Upstreams) -> None:
    public = pairs()["ed25519"][0]
    good = {"id": "a", "algorithm": "ed25519", "public_key": public, "consumer": "acme"}
    short = pem(rsa.generate_private_key(65537, 1024).public_key())
    for keys, said in (
        ([good, good], "two keys have the same id"),
        ([{**good, "consumer": "nobody"}], r"keys\[0\].consumer: no consumer is called 'nobody'"),
        ([{**good, "id": "shared"}], r"keys\[0\].id: a secret has the id 'shared', too"),
        ([{**good, "algorithm": "ecdsa-p256-sha256"}], r"keys\[0\].public_key: no public key for ecdsa"),
        ([{**good, "public_key": "x"}], "no public key for ed25519"),
        ([{**good, "algorithm": "rsa-pss-sha512", "public_key": short}], "an RSA key has 2048 to 8192 bits"),
        ([{**good, "algorithm": "none"}], "algorithm"),
    ):
        with pytest.raises(ConfigError, match=said):
            Gateway.parse(guarded(keys=keys), plugins=[upstreams])
    for parts in (["@status"], ["@query-param"], ["a b"], []):
        with pytest.raises(ConfigError, match="components"):
            Gateway.parse(guarded(components=parts), plugins=[upstreams])


def test_a_signature_of_the_longest_kind_fits() -> None:
    assert len(b64decode(b64encode(bytes(8192 // 8)))) * 4 / 3 < 2048
