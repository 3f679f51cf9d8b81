"""An issuer of tokens, and the services that go with one, on a real socket."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from tests.wire.conftest import Line, raw

NOW = 1_700_001_000
"""What the clock that is turned by hand says at first."""
Key = RSAKey | ECKey | OKPKey


def segment(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(text).rstrip(b"=").decode()


def sign(key: Any, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """A token with any header: a library would refuse to make some of them."""
    signed = f"{segment(header)}.{segment(claims)}"
    return f"{signed}.{segment(JWSRegistry.algorithms[header['alg']].sign(signed.encode(), key))}"


def claims(**more: Any) -> dict[str, Any]:
    """Claims of a token that is good for a minute; None takes one away."""
    made = {"iss": "https://issuer.test", "sub": "u-17", "aud": "orders", "exp": NOW + 60, **more}
    return {name: value for name, value in made.items() if value is not None}


def public(key: Key, **members: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **members}


class Service:
    """Answers by path with JSON, and remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.answers: dict[str, Any] = {}
        self.frozen = False
        self.allows = b""
        """What is answered as usual all the same."""
        self.fields: list[str] = []
        self.status = 200
        self.denies = b"no such thing"
        """What in a request is answered with 403."""
        self.go = asyncio.Event()
        self.go.set()

    def denied(self, head: bytes) -> bool:
        return self.denies in head and not (self.allows and self.allows in head)

    async def script(self, line: Line) -> None:
        while True:
            head = await line.reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            fields = dict(each.lower().split(b": ", 1) for each in head.split(b"\r\n")[1:] if b": " in each)
            self.bodies.append(await line.reader.readexactly(int(fields.get(b"content-length", 0))))
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            if self.frozen:
                await line.gone()
                return
            await self.go.wait()
            found = self.answers.get(path.partition("?")[0])
            answer: Any = found() if callable(found) else found
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            status = 404 if answer is None else 403 if self.denied(head) else self.status
            more = "".join(f"{field}\r\n" for field in self.fields)
            line.say(f"HTTP/1.1 {status} X\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body)


@asynccontextmanager
async def service(answers: Mapping[str, Any | Callable[[], Any]] = {}) -> AsyncIterator[Service]:
    one = Service()
    one.answers.update(answers)
    async with raw(one.script) as upstream:
        one.url = upstream.url
        yield one
