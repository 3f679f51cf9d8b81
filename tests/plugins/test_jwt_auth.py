import asyncio
import hmac
import time
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from tests.plugins.issuer import NOW, claims, public, segment, service, sign
from tests.plugins.kit import Hand, Upstreams, document, handshake, serving

SECRET = "0123456789abcdef0123456789abcdef"
SHARED = OctKey.import_key(SECRET)
RSA, OTHER = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
EC, ED = ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519")
PEM = RSA.as_pem(private=False).decode()
KEYS = [
    {"id": "h", "algorithm": "HS256", "secret": SECRET},
    {"id": "r", "algorithm": "RS256", "public_key": PEM},
    {"id": "e", "algorithm": "ES256", "public_key": EC.as_pem(private=False).decode()},
    {"id": "o", "algorithm": "EdDSA", "public_key": ED.as_pem(private=False).decode()},
]
CONSUMERS = [{"name": "acme", "subjects": ["u-17"], "groups": ["gold"]}, {"name": "bold"}]
GOOD = sign(SHARED, {"alg": "HS256", "kid": "h"}, claims())


def guarded(**options: Any) -> dict[str, Any]:
    options = {"keys": KEYS, "issuer": "https://issuer.test", "audience": ["orders"], **options}
    return document({"jwt_auth": options}, consumers=CONSUMERS, route={"websocket": True})


def token(**more: Any) -> str:
    return sign(SHARED, {"alg": "HS256", "kid": "h"}, claims(**more))


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


@pytest.mark.parametrize(
    ("key", "header"),
    [
        (SHARED, {"alg": "HS256", "kid": "h"}),
        (RSA, {"alg": "RS256", "kid": "r"}),
        (EC, {"alg": "ES256", "kid": "e"}),
        (ED, {"alg": "EdDSA", "kid": "o", "typ": "at+jwt"}),
        (RSA, {"alg": "RS256", "typ": "JWT"}),
    ],
    ids=["HS256", "RS256", "ES256", "EdDSA", "RS256 without a key id"],
)
async def test_a_signed_token_identifies_its_subject(
    upstreams: Upstreams, clock: Hand, key: Any, header: dict[str, str]
) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        for _ in range(2):
            answer = await http.get(
                "/", headers={**bearer(sign(key, header, claims())), "x-consumer": "root"}
            )
            assert answer.status_code == 200
            assert upstreams.headers("x-consumer") == ["acme"]


def attacks() -> dict[str, str]:
    none = f"{segment({'alg': 'none'})}.{segment(claims())}."
    head, body, signature = GOOD.split(".")
    pem = RSA.as_pem(private=False)
    own = {"alg": "RS256", "kid": "r"}
    return {
        "none": none,
        "none with a signature": none + signature,
        "none in other letters": f"{segment({'alg': 'nOnE', 'kid': 'h'})}.{body}.{signature}",
        "HMAC with a public key": by_hand(claims(), {"alg": "HS256", "kid": "r"}, pem),
        "HMAC with a public key, no kid": by_hand(claims(), {"alg": "HS256"}, pem),
        "another key": sign(OTHER, own, claims()),
        "a foreign kid": sign(RSA, {"alg": "RS256", "kid": "x"}, claims()),
        "a kid like a path": sign(RSA, {"alg": "RS256", "kid": "../../dev/null"}, claims()),
        "the key in the token": sign(OTHER, {**own, "jwk": public(OTHER)}, claims()),
        "jku": sign(OTHER, {**own, "jku": "http://127.0.0.1:1/keys"}, claims()),
        "x5u": sign(OTHER, {**own, "x5u": "http://127.0.0.1:1/keys"}, claims()),
        "crit": sign(RSA, {**own, "crit": ["exp"], "exp": 1}, claims()),
        "another algorithm of the same key": sign(RSA, {"alg": "PS256", "kid": "r"}, claims()),
        "another kind of token": sign(RSA, {**own, "typ": "logout+jwt"}, claims()),
        "kid a number": f"{segment({'alg': 'HS256', 'kid': 1})}.{body}.{signature}",
        "alg a list": f"{segment({'alg': ['HS256'], 'kid': 'h'})}.{body}.{signature}",
        "header a list": f"{segment(['HS256'])}.{body}.{signature}",
        "altered claims": f"{head}.{segment(claims(sub='root'))}.{signature}",
        "altered signature": GOOD[:-2] + ("AA" if GOOD[-2:] != "AA" else "BB"),
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "four parts": f"{GOOD}.{signature}",
        "five parts": f"{GOOD}.{signature}.{signature}",
        "padding": GOOD + "=",
        "no base64": f"{head}.{body}.!!!",
        "claims a list": by_hand([1, 2]),
        "claims no JSON": by_hand(b"{"),
        "deep claims": by_hand(b"[" * 3000),
        "a number out of range": by_hand(b'{"exp":1e999}'),
        "NaN": by_hand(b'{"exp":NaN}'),
        "expired": token(exp=NOW - 5),
        "expired long ago": token(exp=0),
        "without an end": token(exp=None),
        "not yet": token(nbf=NOW + 6),
        "made tomorrow": token(iat=NOW + 86400),
        "exp a text": token(exp=str(NOW + 60)),
        "exp a switch": token(exp=True),
        "exp beyond all times": token(exp=10**30),
        "nbf a text": token(nbf="0"),
        "wrong audience": token(aud="others"),
        "wrong audiences": token(aud=["others", "order"]),
        "no audience": token(aud=None),
        "audience a number": token(aud=1),
        "audience an object": token(aud={"orders": True}),
        "wrong issuer": token(iss="https://issuer.test.evil"),
        "issuers": token(iss=["https://issuer.test"]),
        "no issuer": token(iss=None),
        "no subject": token(sub=None),
        "an empty subject": token(sub=""),
        "subject a number": token(sub=17),
        "subject an object": token(sub={"sub": "u-17"}),
    }


def by_hand(payload: Any, header: Any = None, secret: bytes = SECRET.encode()) -> str:
    """A token that no library would make."""
    signed = f"{segment(header or {'alg': 'HS256', 'kid': 'h'})}.{segment(payload)}"
    return f"{signed}.{segment(hmac.digest(secret, signed.encode(), 'sha256'))}"


@pytest.mark.parametrize("attack", attacks())
async def test_no_invalid_token_is_accepted(upstreams: Upstreams, clock: Hand, attack: str) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        began = time.perf_counter()
        answer = await http.get("/", headers=bearer(attacks()[attack]))
        assert time.perf_counter() - began < 0.5
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="gateway", error="invalid_token"'
    assert answer.headers["content-type"] == "application/problem+json"
    assert upstreams.seen == []


async def test_a_request_without_a_token_is_told_no_error(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded()) as http:
        for headers in ({}, {"authorization": "Basic YTpi"}, {"authorization": "Bearer "}):
            answer = await http.get("/", headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (401, "no_token")
            assert answer.headers["www-authenticate"] == 'Bearer realm="gateway"'


async def test_two_tokens_are_refused_even_if_one_is_good(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(query=["jwt"], cookies=["jwt"]), clock) as http:
        pairs = [("authorization", f"Bearer {GOOD}"), ("authorization", "Bearer bogus")]
        for headers in (pairs, pairs[::-1], [pairs[0], pairs[0]]):
            answer = await http.get("/", headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (401, "several_tokens")
            assert answer.headers["www-authenticate"] == 'Bearer realm="gateway", error="invalid_request"'
        other = await http.get("/?jwt=bogus", headers=bearer(GOOD))
        assert (other.status_code, other.json()["reason"]) == (401, "several_tokens")
        other = await http.get("/", headers={**bearer(GOOD), "cookie": "jwt=bogus"})
        assert (other.status_code, other.json()["reason"]) == (401, "several_tokens")
    assert upstreams.seen == []


async def test_tokens_come_by_query_and_cookie_where_that_is_said(upstreams: Upstreams, clock: Hand) -> None:
    declared = guarded(query=["jwt"], cookies=["jwt"], hide=True)
    async with serving(upstreams, declared, clock) as http:
        assert (await http.get(f"/?a=1&jwt={GOOD}&b=2")).status_code == 200
        assert upstreams.seen[-1]["query_string"] == b"a=1&b=2"
        assert (await http.get("/", headers={"cookie": f"a=1; jwt={GOOD}"})).status_code == 200
        assert upstreams.headers("cookie") == ["a=1"]
        assert (await http.get("/", headers=bearer(GOOD))).status_code == 200
        assert upstreams.headers("authorization") == []
    async with serving(upstreams, guarded(), clock) as http:
        assert (await http.get(f"/?jwt={GOOD}", headers={"cookie": f"jwt={GOOD}"})).status_code == 401
        await http.get("/", headers=bearer(GOOD))
        assert upstreams.headers("authorization") == [f"Bearer {GOOD}"]


@pytest.mark.parametrize("size", [8193, 60_000, 1_000_000])
async def test_a_token_that_is_too_long_is_not_looked_at(
    upstreams: Upstreams, clock: Hand, size: int
) -> None:
    roomy = {"server": {"limits": {"header_bytes": "2MiB"}}}
    async with serving(upstreams, {**guarded(), **roomy}, clock) as http:
        for text in ("x" * size, "a." * size, GOOD + "A" * size):
            began = time.perf_counter()
            answer = await http.get("/", headers=bearer(text))
            assert (answer.status_code, answer.json()["reason"]) == (401, "token_too_long")
            assert time.perf_counter() - began < 0.2


async def test_query_and_cookie_of_the_maximum_size_are_judged(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(query=["jwt"], cookies=["jwt"]), clock) as http:
        query = "jwt=" + "a" * 16_000
        assert (await http.get("/?" + query)).json()["reason"] == "token_too_long"
        assert (await http.get("/?" + "jwt=&" * 3000)).status_code == 401
        cookie = "; ".join(f"c{number}=v" for number in range(5000))
        answer = await http.get("/", headers={"cookie": cookie, **bearer(GOOD)})
        assert answer.status_code == 200


async def test_a_token_ends_when_it_says_though_it_was_good_before(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(leeway="5s"), clock) as http:
        assert (await http.get("/", headers=bearer(GOOD))).status_code == 200
        clock.seconds += 64
        assert (await http.get("/", headers=bearer(GOOD))).status_code == 200
        clock.seconds += 1
        answer = await http.get("/", headers=bearer(GOOD))
        assert (answer.status_code, answer.json()["reason"]) == (401, "token_expired")


async def test_the_clock_of_the_issuer_may_be_off_a_little(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        for good in (token(exp=NOW - 4), token(nbf=NOW + 5), token(iat=NOW + 5), token(exp=NOW + 0.5)):
            assert (await http.get("/", headers=bearer(good))).status_code == 200


async def test_a_token_that_lives_too_long_is_refused(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(max_lifetime="1h"), clock) as http:
        assert (await http.get("/", headers=bearer(token(iat=NOW, exp=NOW + 3600)))).status_code == 200
        for long in (token(iat=NOW, exp=NOW + 3601), token()):
            assert (await http.get("/", headers=bearer(long))).status_code == 401


@pytest.mark.parametrize(
    ("match", "held", "status"),
    [
        ("all", {"scope": "read write admin"}, 200),
        ("all", {"scp": ["write", "read"]}, 200),
        ("all", {"scope": "read"}, 403),
        ("all", {"scope": "readwrite"}, 403),
        ("all", {}, 403),
        ("any", {"scope": "write"}, 200),
        ("any", {"scope": "admin"}, 403),
        ("any", {"scope": {"read": 1}}, 403),
        ("any", {"scope": [["read"]]}, 403),
    ],
)
async def test_scopes(
    upstreams: Upstreams, clock: Hand, match: str, held: dict[str, Any], status: int
) -> None:
    async with serving(upstreams, guarded(scopes=["read", "write"], match=match), clock) as http:
        answer = await http.get("/", headers=bearer(token(**held)))
    assert answer.status_code == status
    if status == 403:
        wanted = 'Bearer realm="gateway", error="insufficient_scope", scope="read write"'
        assert answer.headers["www-authenticate"] == wanted
        assert answer.json()["reason"] == "insufficient_scope"


async def test_claims_become_fields_and_forged_ones_are_gone(upstreams: Upstreams, clock: Hand) -> None:
    fields = {"X-Email": "email", "x-roles": "realm.roles", "x-org": "org", "x-none": "none"}
    made = token(email="a@b.c\r\nx-evil: 1", realm={"roles": ["a", "b"]}, org={"id": 1})
    async with serving(upstreams, guarded(claim_headers=fields), clock) as http:
        forged = {"x-email": "root", "x_email": "root", "x-none": "root", "X-Org": "9"}
        assert (await http.get("/", headers={**bearer(made), **forged})).status_code == 200
    assert upstreams.headers("x-email") == ["a@b.c%0D%0Ax-evil: 1"]
    assert upstreams.headers("x-roles") == ["a,b"]
    assert upstreams.headers("x-org") == ['{"id":1}']
    assert upstreams.headers("x-none") == upstreams.headers("x_email") == []


async def test_identity_is_removed_where_nobody_authenticates(upstreams: Upstreams) -> None:
    declared = guarded(claim_headers={"x-email": "email"})
    declared["routes"].append({"name": "open", "path": "/open", "upstream": "main"})
    async with serving(upstreams, declared) as http:
        forged = {"x-email": "root", "X_Consumer": "root", "x-consumer": "root"}
        assert (await http.get("/open", headers=forged)).status_code == 200
    assert not {b"x-email", b"x_consumer", b"x-consumer"} & {name for name, _ in upstreams.seen[0]["headers"]}


async def test_who_may_come_is_decided_by_subject(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(), clock) as http:
        assert (await http.get("/", headers=bearer(token(sub="stranger")))).status_code == 200
        assert upstreams.headers("x-consumer") == ["stranger"]
        # An issuer does not make its users consumers of this gateway.
        answer = await http.get("/", headers=bearer(token(sub="bold")))
        assert (answer.status_code, answer.json()["reason"]) == (403, "unknown_caller")
    async with serving(upstreams, guarded(only_consumers=True), clock) as http:
        assert (await http.get("/", headers=bearer(token()))).status_code == 200
        assert (await http.get("/", headers=bearer(token(sub="stranger")))).status_code == 403


async def test_groups_of_consumer_and_token_count(upstreams: Upstreams, clock: Hand) -> None:
    declared = guarded(groups_claim="realm.roles")
    declared["routes"][0]["components"].append({"acl": {"groups": ["ops"]}})
    async with serving(upstreams, declared, clock) as http:
        assert (await http.get("/", headers=bearer(token(realm={"roles": ["ops"]})))).status_code == 200
        assert (await http.get("/", headers=bearer(token(realm={"roles": "ops"})))).status_code == 200
        for roles in ({"roles": [["ops"]]}, {}, ["ops"], None):
            assert (await http.get("/", headers=bearer(token(realm=roles)))).status_code == 403


async def test_reporting_lets_pass_without_an_identity(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, guarded(mode="report"), clock) as http:
        answer = await http.get("/", headers={**bearer(token(exp=1)), "x-consumer": "root"})
    assert answer.status_code == 200
    assert upstreams.headers("x-consumer") == []


async def test_a_websocket_needs_a_token_too(upstreams: Upstreams, clock: Hand) -> None:
    gateway = Gateway.parse(guarded(), plugins=[upstreams], clock=clock)
    refused = await handshake(gateway, headers=[(b"authorization", b"Bearer bogus")])
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)
    accepted = await handshake(gateway, headers=[(b"authorization", f"Bearer {GOOD}".encode())])
    assert accepted[0]["type"] == "websocket.accept"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"keys": [], "issuer": ""}, "say where the keys are"),
        ({"keys": [], "issuer": "name"}, "an issuer that shall tell its keys is a URL"),
        ({"keys": [{"algorithm": "HS256", "secret": "short"}]}, "at least 32 bytes"),
        ({"keys": [{"algorithm": "HS256", "secret": PEM}]}, "a public key is no secret"),
        ({"keys": [{"algorithm": "HS256", "public_key": PEM}]}, "has a secret"),
        ({"keys": [{"algorithm": "ES256", "public_key": PEM}]}, "no public key for ES256"),
        ({"keys": [{"algorithm": "none", "secret": SECRET}]}, "keys"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"claim_headers": {"not a name": "x"}}, "is not the name of a field"),
    ],
)
def test_what_cannot_be_right_is_a_mistake(upstreams: Upstreams, options: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as error:
        Gateway.parse(guarded(**options), plugins=[upstreams])
    assert SECRET not in str(error.value)


# Keys of an issuer


def keyed(url: str, **options: Any) -> dict[str, Any]:
    return guarded(keys=[], **{"jwks": f"{url}/keys", **options})


def by(key: Any, kid: str | None, algorithm: str = "RS256", **more: Any) -> dict[str, str]:
    header = {"alg": algorithm, **({"kid": kid} if kid else {})}
    return bearer(sign(key, header, claims(**more)))


async def test_keys_come_from_the_issuer(upstreams: Upstreams, clock: Hand) -> None:
    keys = {"keys": [public(RSA, kid="r"), public(EC, kid="e", alg="ES256", use="sig"), public(ED, kid="o")]}
    async with service({"/keys": keys}) as issuer, serving(upstreams, keyed(issuer.url), clock) as http:
        for headers in (by(RSA, "r"), by(EC, "e", "ES256"), by(ED, "o", "EdDSA"), by(RSA, None)):
            assert (await http.get("/", headers=headers)).status_code == 200
        assert issuer.asked == ["/keys"]


async def test_keys_that_are_not_for_this_are_not_used(upstreams: Upstreams, clock: Hand) -> None:
    weak = RSAKey.import_key(RSAKey.generate_key(2048).as_dict())
    small = {**public(weak), "n": "AQAB", "kid": "small"}
    keys = [
        public(RSA, kid="enc", use="enc"),
        public(RSA, kid="ops", key_ops=["encrypt"]),
        public(RSA, kid="ps", alg="PS256"),
        {**SHARED.as_dict(), "kid": "oct", "alg": "HS256"},
        small,
        {"kty": "RSA", "kid": "broken"},
        "nonsense",
        public(OTHER, kid="good"),
    ]
    async with (
        service({"/keys": {"keys": keys}}) as issuer,
        serving(upstreams, keyed(issuer.url), clock) as http,
    ):
        for kid in ("enc", "ops", "ps", "broken"):
            assert (await http.get("/", headers=by(RSA, kid))).status_code == 401
        assert (await http.get("/", headers=by(SHARED, "oct", "HS256"))).status_code == 401
        assert (await http.get("/", headers=by(OTHER, "good"))).status_code == 200


async def test_discovery_finds_the_keys_of_this_very_issuer(upstreams: Upstreams, clock: Hand) -> None:
    async with service({"/keys": {"keys": [public(RSA, kid="r")]}}) as issuer:
        place = "/.well-known/openid-configuration"
        found = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
        issuer.answers[place] = found
        async with serving(upstreams, keyed("", jwks="", issuer=issuer.url), clock) as http:
            assert (await http.get("/", headers=by(RSA, "r", iss=issuer.url))).status_code == 200
            assert (await http.get("/", headers=by(RSA, "r", iss="other"))).status_code == 401
        assert issuer.asked[:2] == [place, "/keys"]
        for wrong in ({"issuer": "https://other.test"}, {"jwks_uri": "file:///etc/passwd"}):
            issuer.answers[place] = {**found, **wrong}
            async with serving(upstreams, keyed("", jwks="", issuer=issuer.url), clock) as http:
                answer = await http.get("/", headers=by(RSA, "r", iss=issuer.url))
                assert (answer.status_code, answer.json()["reason"]) == (503, "keys_unavailable")
                assert answer.headers["retry-after"] == "1"


async def test_a_new_key_is_found_and_unknown_ones_ask_at_most_once_in_ten_seconds(
    upstreams: Upstreams, clock: Hand
) -> None:
    keys = [public(RSA, kid="old")]
    async with (
        service({"/keys": lambda: {"keys": keys}}) as issuer,
        serving(upstreams, keyed(issuer.url), clock) as http,
    ):
        assert (await http.get("/", headers=by(RSA, "old"))).status_code == 200
        assert len(issuer.asked) == 1
        keys.append(public(OTHER, kid="new"))
        answers = await asyncio.gather(*(http.get("/", headers=by(OTHER, "new")) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert len(issuer.asked) == 2
        for number in range(300):
            answer = await http.get("/", headers=by(OTHER, f"random-{number}"))
            assert (answer.status_code, answer.json()["reason"]) == (401, "unknown_key")
        assert len(issuer.asked) == 2
        clock.seconds += 10
        for number in range(20):
            await http.get("/", headers=by(OTHER, f"more-{number}"))
        assert len(issuer.asked) == 3


async def test_a_key_that_is_gone_ends_tokens_that_were_good(upstreams: Upstreams, clock: Hand) -> None:
    keys = [public(RSA, kid="old"), public(OTHER, kid="new")]
    async with (
        service({"/keys": lambda: {"keys": keys}}) as issuer,
        serving(upstreams, keyed(issuer.url), clock) as http,
    ):
        old = by(RSA, "old")
        assert (await http.get("/", headers=old)).status_code == 200
        del keys[0]
        clock.seconds += 10
        assert (await http.get("/", headers=by(RSA, "unknown"))).status_code == 401
        assert (await http.get("/", headers=old)).status_code == 401
        assert (await http.get("/", headers=by(OTHER, "new"))).status_code == 200


async def test_a_refresh_blocks_nobody_and_an_issuer_that_is_away_neither(
    upstreams: Upstreams, clock: Hand
) -> None:
    async with (
        service({"/keys": {"keys": [public(RSA, kid="r")]}}) as issuer,
        serving(upstreams, keyed(issuer.url, timeout="200ms"), clock) as http,
    ):
        assert (await http.get("/", headers=by(RSA, "r"))).status_code == 200
        issuer.frozen = True
        waits = asyncio.ensure_future(http.get("/", headers=by(OTHER, "new")))
        while len(issuer.asked) < 2:
            await asyncio.sleep(0.001)
        for number in range(5):
            assert (await http.get("/", headers=by(RSA, "r", jti=number))).status_code == 200
        assert not waits.done()
        assert (await waits).status_code == 401
        assert (await http.get("/", headers=by(RSA, "r", jti="later"))).status_code == 200


async def test_without_keys_nobody_comes_and_is_told_to_come_again(upstreams: Upstreams, clock: Hand) -> None:
    async with serving(upstreams, keyed("http://127.0.0.1:1"), clock) as http:
        answer = await http.get("/", headers=by(RSA, "r"))
    assert (answer.status_code, answer.json()["reason"]) == (503, "keys_unavailable")
    assert upstreams.seen == []


async def test_keys_outlive_a_reload(upstreams: Upstreams) -> None:
    async with service({"/keys": {"keys": [public(RSA, kid="r")]}}) as issuer:
        gateway = Gateway.parse(keyed(issuer.url), plugins=[upstreams])
        async with gateway.lifespan():
            while not issuer.asked:
                await asyncio.sleep(0.001)
            await gateway.reload(gateway.config)
            await asyncio.sleep(0.01)
        assert len(issuer.asked) == 1
