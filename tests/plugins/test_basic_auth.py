import asyncio
import time
from base64 import b64encode
from typing import Any

import pytest
from argon2 import PasswordHasher

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway_plugins.hashing import Hashing
from tests.plugins.kit import Hand, Upstreams, document, handshake, serving

HASH = PasswordHasher(time_cost=1, memory_cost=1024).hash("hashed:pässword")
CONSUMERS = [
    {
        "name": "acme",
        "basic": [
            {"username": "acme", "password": "acme-password"},
            {"username": "hashed", "password": HASH},
        ],
    },
]


def basic(username: str, password: str) -> str:
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


RIGHT, HASHED = basic("acme", "acme-password"), basic("hashed", "hashed:pässword")


def guarded(**options: Any) -> dict[str, Any]:
    return document({"basic_auth": options}, consumers=CONSUMERS, route={"websocket": True})


@pytest.mark.parametrize("credentials", [RIGHT, HASHED, RIGHT.replace("Basic", "bAsIc")])
async def test_a_password_identifies_its_consumer(upstreams: Upstreams, credentials: str) -> None:
    async with serving(upstreams, guarded()) as http:
        answer = await http.get("/", headers={"authorization": credentials, "x-consumer": "root"})
    assert answer.status_code == 200
    assert upstreams.headers("x-consumer") == ["acme"]
    assert upstreams.headers("authorization") == []


@pytest.mark.parametrize(
    "credentials",
    [
        basic("acme", "acme-passwor"),
        basic("acme", "acme-password "),
        basic("acme", ""),
        basic("acme", "hashed:pässword"),
        basic("hashed", HASH),
        basic("hashed", "hashed"),
        basic("nobody", "acme-password"),
        basic("ACME", "acme-password"),
        basic("a" * 5000, "b"),
        "Basic !!!",
        "Basic " + b64encode(b"no colon").decode(),
        "Basic " + b64encode(b"\xff\xfe:acme-password").decode(),
        "Basic ",
        RIGHT + " x",
    ],
)
async def test_anything_else_is_refused(upstreams: Upstreams, credentials: str) -> None:
    async with serving(upstreams, guarded(realm="orders")) as http:
        answer = await http.get("/", headers={"authorization": credentials})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="orders", charset="UTF-8"'
    assert answer.json()["reason"] in ("wrong_credentials", "no_credentials")
    assert upstreams.seen == []


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer x"}, {"authorization": "Basicx"}])
async def test_a_request_without_a_password_is_refused(upstreams: Upstreams, headers: dict[str, str]) -> None:
    async with serving(upstreams, guarded()) as http:
        answer = await http.get("/", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (401, "no_credentials")


async def test_two_credentials_are_refused_even_if_one_is_right(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded()) as http:
        for other in (RIGHT, "Bearer bogus", basic("acme", "wrong")):
            for pair in ([RIGHT, other], [other, RIGHT]):
                answer = await http.get("/", headers=[("authorization", each) for each in pair])
                assert (answer.status_code, answer.json()["reason"]) == (401, "several_credentials")


async def test_the_loop_goes_on_while_a_password_is_hashed(upstreams: Upstreams) -> None:
    slow = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=1).hash("slow")
    consumers = [{"name": "slow", "basic": [{"username": "slow", "password": slow}]}]
    # CPU of the loop's thread: what a busy machine takes away from it is not its own.
    longest = 0.0
    async with serving(upstreams, document("basic_auth", consumers=consumers)) as http:
        asked = asyncio.ensure_future(http.get("/", headers={"authorization": basic("slow", "slow")}))
        while not asked.done():
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)
        assert (await asked).status_code == 200
    assert longest < 0.05


async def test_what_is_wrong_takes_as_long_for_every_user(
    upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def verify(self: Hashing, text: str, password: bytes) -> bool:
        compared.append(text)
        return False

    monkeypatch.setattr(Hashing, "_verify", verify)
    async with serving(upstreams, guarded()) as http:
        for user in ("acme", "hashed", "nobody"):
            answer = await http.get("/", headers={"authorization": basic(user, "wrong")})
            assert answer.status_code == 401
    assert len(compared) == 3


async def test_a_password_that_fitted_is_remembered_for_a_while(upstreams: Upstreams, clock: Hand) -> None:
    compared: list[bytes] = []
    verify = Hashing._verify

    def counting(self: Hashing, text: str, password: bytes) -> bool:
        compared.append(password)
        return verify(self, text, password)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hashing, "_verify", counting)
        async with serving(upstreams, guarded(remember="10s"), clock) as http:
            await asyncio.gather(*(http.get("/", headers={"authorization": HASHED}) for _ in range(5)))
            assert len(compared) == 1
            clock.seconds += 11
            assert (await http.get("/", headers={"authorization": HASHED})).status_code == 200
            assert len(compared) == 2
            for _ in range(2):
                answer = await http.get("/", headers={"authorization": basic("hashed", "wrong")})
                assert answer.status_code == 401
            assert len(compared) == 4
            # A stranger costs as much as a user.
            await http.get("/", headers={"authorization": basic("stranger", "wrong")})
            assert len(compared) == 5


async def test_too_many_that_wait_are_refused(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded(threads=1, max_waiting=1)) as http:
        wrong = [basic("hashed", f"wrong-{number}") for number in range(8)]
        answers = await asyncio.gather(*(http.get("/", headers={"authorization": each}) for each in wrong))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(401) >= 2
    assert set(statuses) == {401, 503}


async def test_a_hash_that_is_none_is_a_mistake(upstreams: Upstreams) -> None:
    consumers = [{"name": "a", "basic": [{"username": "a", "password": "$argon2id$nonsense"}]}]
    with pytest.raises(ConfigError, match="a password of 'a' is no argon2 hash"):
        Gateway.parse(document("basic_auth", consumers=consumers), plugins=[upstreams])


async def test_reporting_lets_pass_without_an_identity(upstreams: Upstreams) -> None:
    async with serving(upstreams, guarded(mode="report")) as http:
        answer = await http.get("/", headers={"authorization": basic("acme", "wrong"), "x-consumer": "root"})
    assert answer.status_code == 200
    assert upstreams.headers("x-consumer") == []


async def test_a_websocket_needs_a_password_too(upstreams: Upstreams) -> None:
    gateway = Gateway.parse(guarded(), plugins=[upstreams])
    refused = await handshake(gateway)
    assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)
    accepted = await handshake(gateway, headers=[(b"authorization", RIGHT.encode())])
    assert accepted[0]["type"] == "websocket.accept"
    assert upstreams.headers("x-consumer") == ["acme"]
