"""The keys of an issuer: fetched beside the requests, and kept fresh."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from asgi_gateway.clock import Clock
from asgi_gateway.component import Control
from asgi_gateway.errors import ControlError

from .keys import Keys, usable

MOST = 100
"""Keys of one issuer."""
LARGEST = 512 * 1024
"""Bytes of what an issuer answers."""
BACKOFF = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds until keys that could not be had are asked for again."""
WELL_KNOWN = "/.well-known/openid-configuration"

logger = logging.getLogger("asgi_gateway")


@dataclass(frozen=True, slots=True)
class Place:
    """Where keys are to be had, and how often."""

    jwks: str
    issuer: str
    """Given with an empty `jwks`: its discovery document says where they are."""
    algorithms: tuple[str, ...]
    refresh: float
    max_stale: float
    cooldown: float
    timeout: float


class KeySource:
    """The current keys of an issuer. One fetch at a time, whoever asks for it."""

    def __init__(self, place: Place, control: Control, clock: Clock) -> None:
        self._place = place
        self._control = control
        self._monotonic = clock.monotonic
        self.keys = Keys()
        self.version = 0
        """Changes whenever the keys do."""
        self.known = False
        """Whether the keys could be had, and are not too old."""
        self._fetched = self._asked = float("-inf")
        self._running: asyncio.Task[None] | None = None
        self._failures = 0

    async def run(self) -> None:
        """Fetch them again and again, ahead of the need."""
        while True:
            await self._fetch_once()
            failures = min(self._failures, len(BACKOFF))
            await asyncio.sleep(BACKOFF[failures - 1] if failures else self._place.refresh)

    async def ask(self) -> bool:
        """Look for a key that nobody knows yet: at most once in `cooldown`. False: that was not long ago."""
        if self._running is None:
            now = self._monotonic()
            if now - self._asked < self._place.cooldown:
                return False
            self._asked = now
        await self._fetch_once()
        return True

    async def _fetch_once(self) -> None:
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._fetch())
        # In a task of its own: the caller who asked may leave.
        await asyncio.shield(self._running)

    async def _fetch(self) -> None:
        try:
            keys = await self._load()
        except (ControlError, ValueError, msgspec.MsgspecError) as error:
            self._fail(error)
        else:
            if self._failures:
                logger.info("the keys of %s are there again", self._place.jwks or self._place.issuer)
            self._failures, self._fetched, self.known = 0, self._monotonic(), True
            if keys.marks() != self.keys.marks():
                self.keys = keys
                self.version += 1
        finally:
            self._running = None

    def _fail(self, error: Exception) -> None:
        self._failures += 1
        where = self._place.jwks or self._place.issuer
        if self._failures == 1:
            logger.warning("the keys of %s cannot be had: %s", where, error)
        if self.known and self._monotonic() - self._fetched > self._place.max_stale:
            logger.error("the keys of %s are too old to be used any more", where)
            self.keys, self.known = Keys(), False
            self.version += 1

    async def _load(self) -> Keys:
        document = await self._get(self._place.jwks or await self._discover())
        listed = document.get("keys")
        if not isinstance(listed, list):
            raise ValueError("no list of keys")
        found = [usable(jwk, self._place.algorithms) for jwk in listed[:MOST]]
        keys = Keys(key for key in found if key is not None)
        if not keys.every:
            raise ValueError("no key that could be used")
        return keys

    async def _discover(self) -> str:
        """OpenID Connect Discovery 1.0, 4: the document has to be that of this very issuer."""
        issuer = self._place.issuer
        document = await self._get(issuer.rstrip("/") + WELL_KNOWN)
        if document.get("issuer") != issuer:
            raise ValueError("the discovery document is of another issuer")
        place = document.get("jwks_uri")
        schemes = ("https://",) if urlsplit(issuer).scheme == "https" else ("http://", "https://")
        if not isinstance(place, str) or not place.startswith(schemes):
            raise ValueError("the discovery document has no proper jwks_uri")
        return place

    async def _get(self, url: str) -> Mapping[str, Any]:
        accept = [(b"accept", b"application/json")]
        reply = await self._control.call("GET", url, accept, timeout=self._place.timeout, max_size=LARGEST)
        if reply.status != 200:
            raise ValueError(f"{url} answered {reply.status}")
        document = msgspec.json.decode(reply.body)
        if not isinstance(document, dict):
            raise ValueError(f"{url} is no JSON object")
        return document

    async def aclose(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
