"""The only place that reads bodies. What two readers of JSON could understand in two ways is refused."""

import asyncio
import json
from collections.abc import Mapping
from math import isinf
from typing import Any

from asgi_gateway.asgi import Receive, Scope
from asgi_gateway.component import Refusal
from asgi_gateway.exchange import Exchange
from asgi_gateway.replay import Replay
from asgi_gateway_plugins.fields import value, values

from .schemas import Checker, Fault, pointer

LARGE = 64 * 1024
"""Bytes of a body for which other requests should not wait: it takes a few milliseconds."""
MISSING: Fault = {"in": "body", "detail": "is missing"}
CODED = Refusal(
    415, "coded_body", ((b"accept-encoding", b"identity"),), "A body that is checked cannot be compressed."
)
PLAIN = (b"", b"identity")


class Malformed(ValueError):
    """Not JSON, or not the same JSON for everybody."""


def parse(body: bytes) -> Any:
    """The value of a text (RFC 8259, with the rules of I-JSON, RFC 7493); Malformed with what is wrong."""
    try:
        return json.loads(body.decode(), object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)
    except UnicodeDecodeError:
        raise Malformed("is not UTF-8") from None
    except Malformed:
        raise
    except json.JSONDecodeError as error:
        raise Malformed(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise Malformed("is nested too deep") from None
    except ValueError:
        raise Malformed("holds a number that is too long") from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("has an object with the same name twice")
    return found


def refuse(constant: str) -> Any:
    raise Malformed(f"is not JSON: {constant} is no number")


def finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise Malformed("holds a number that is too large")
    return number


class Media:
    """What bodies are checked with, by their media types."""

    def __init__(self, types: Mapping[str, Checker | None]) -> None:
        """None: bodies of this type pass unchecked."""
        self._types = {name.partition(";")[0].strip().lower(): checker for name, checker in types.items()}

    def find(self, content_type: str) -> tuple[bool, Checker | None]:
        """Whether the type is known, and what checks it."""
        kind = content_type.partition(";")[0].strip().lower()
        main, _, sub = kind.partition("/")
        for name in (kind, f"{main}/*+json" if sub.endswith("+json") else "", f"{main}/*", "*/*"):
            if name in self._types:
                return True, self._types[name] if is_json(kind) else None
        return False, None

    def __str__(self) -> str:
        return ", ".join(self._types)


def is_json(kind: str) -> bool:
    """Whether a media type is JSON (RFC 6839 3.1)."""
    return kind.endswith(("/json", "+json"))


def is_utf8(content_type: bytes) -> bool:
    """Whether nothing is said of a charset, or what JSON is in any case (RFC 8259 8.1)."""
    parameters = content_type.lower().split(b";")[1:]
    pairs = [parameter.strip().partition(b"=") for parameter in parameters if b"charset" in parameter]
    return all(text.strip(b' "') in (b"utf-8", b"utf8", b"us-ascii") for _, _, text in pairs)


class Body:
    """The body of a request: which types it may have, and what it has to be."""

    def __init__(self, media: Media, *, required: bool) -> None:
        self._media = media
        self._required = required
        accept = ((b"accept", value(str(media))),)
        self._unsupported = Refusal(
            415, "unsupported_media_type", accept, "A body of this type, or in this charset, is not taken."
        )

    async def check(
        self, scope: Scope, receive: Receive, exchange: Exchange, limits: "Limits"
    ) -> tuple[Refusal | None, list[Fault], Receive]:
        """A refusal, or the mistakes; and what gives the body to whoever comes next."""
        if not exchange.has_body:
            return None, [MISSING] if self._required else [], receive
        headers = scope["headers"]
        types = [text for name, text in headers if name == b"content-type"] or [b""]
        is_known, checker = self._media.find(types[0].decode("latin-1"))
        # Of two types nobody knows which one the upstream believes.
        if not is_known or len(types) > 1:
            return self._unsupported, [], receive
        if checker is None:
            return None, [], receive
        if values(scope, b"content-encoding").lower() not in PLAIN:
            return CODED, [], receive
        # Who goes by the charset reads other JSON in the same bytes, where a character ends in a backslash.
        if not is_utf8(types[0]):
            return self._unsupported, [], receive
        replay = Replay.of(exchange, receive)
        whole = await replay.read(limits.body)
        receive = replay.reader()
        if not whole:
            return limits.too_large, [], receive
        if not replay.size:
            return None, [MISSING] if self._required else [], receive
        return None, await look(b"".join(replay.chunks), checker, limits.errors), receive


class Limits:
    """How much is read, and how much is told."""

    __slots__ = ("body", "errors", "status", "too_large")

    def __init__(self, errors: int, body: int, status: int) -> None:
        self.errors = errors
        self.body = body
        self.status = status
        self.too_large = Refusal(
            413, "body_too_large", (), f"A body of more than {body} bytes is not checked."
        )


async def look(body: bytes, checker: Checker, most: int) -> list[Fault]:
    """The first mistakes in a body; a large one is looked at beside the event loop."""
    if len(body) > LARGE:
        return await asyncio.to_thread(faults_in, body, checker, most)
    return faults_in(body, checker, most)


def faults_in(body: bytes, checker: Checker, most: int) -> list[Fault]:
    """The first mistakes in a body."""
    try:
        found = parse(body)
        if checker.accepts(found):
            return []
        return [
            {"in": "body", "pointer": pointer(path), "detail": detail}
            for path, detail in checker.faults(found, most)
        ]
    except Malformed as malformed:
        return [{"in": "body", "detail": str(malformed)}]
    except (ValueError, RecursionError):
        # What JSON can say and Unicode cannot, half of a pair of surrogates, or what is nested too deep.
        return [{"in": "body", "detail": "holds what cannot be read"}]
