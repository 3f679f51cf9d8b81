"""The only place that finds consumers in a store: one record under each of their credentials."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from ..consumers import Consumer, Kind
from ..recent import Recent
from .base import Store, StoreError

logger = logging.getLogger("asgi_gateway")


def name(kind: Kind, digest: str) -> str:
    """The key of a record, behind the prefix of the store."""
    return f"consumer/{kind}/{digest}"


def records_of(consumer: Consumer) -> dict[str, bytes]:
    """What has to be written so that a consumer is found; no record has a credential that it does not need.

    A key itself is in none of them: its record stands under its SHA-256.
    """
    told: dict[str, Any] = {"name": consumer.name, "groups": consumer.groups}

    def every() -> Iterator[tuple[Kind, str, dict[str, Any]]]:
        for key in consumer.keys:
            yield "key", key.get_secret_value(), {}
        for login in consumer.basic:
            shown = {"username": login.username, "password": login.password.get_secret_value()}
            yield "login", login.username, {"basic": [shown]}
        for signing in consumer.hmac:
            yield (
                "secret",
                signing.id,
                {"hmac": [{"id": signing.id, "secret": signing.secret.get_secret_value()}]},
            )

    return {
        name(kind, sha256(credential.encode()).hexdigest()): json.dumps({**told, **more}).encode()
        for kind, credential, more in every()
    }


@dataclass(slots=True)
class Remembered:
    """Whose a credential is, if anybody's."""

    consumer: Consumer | None
    fresh: float
    """Until when nobody asks again."""
    until: float
    """Until when it holds while the store is away."""
    weight: int = 1


class StoreRecords:
    """Asks a store, about the same credential once at a time, and remembers what it said for a while."""

    def __init__(
        self, store: Store, now: Callable[[], float], *, cache: float, stale: float, max_cached: int
    ) -> None:
        self._store = store
        self._now = now
        self._cache = cache
        self._stale = stale
        # Credentials that nobody has cannot push out the others.
        self._owned: Recent[Remembered] = Recent(max_cached)
        self._nobodys: Recent[Remembered] = Recent(max_cached)
        self._asking: dict[str, asyncio.Task[Consumer | StoreError | None]] = {}

    async def find(self, kind: Kind, digest: str) -> Consumer | None:
        key = name(kind, digest)
        known = self._owned.get(key) or self._nobodys.get(key)
        if known is not None and self._now() < known.fresh:
            return known.consumer
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.get_running_loop().create_task(self._ask(key))
        # In a task of its own: others wait for it, too.
        said = await asyncio.shield(task)
        if not isinstance(said, StoreError):
            return said
        if known is not None and self._now() < known.until:
            return known.consumer
        raise StoreError(str(said)) from said

    async def _ask(self, key: str) -> Consumer | StoreError | None:
        try:
            said = await self._store.get(key)
        except StoreError as error:
            return error
        finally:
            del self._asking[key]
        consumer = None if said is None else read(key, said)
        now = self._now()
        self._owned.forget(key)
        self._nobodys.forget(key)
        fresh = now + self._cache
        if consumer is not None:
            self._owned.add(key, Remembered(consumer, fresh, fresh + self._stale))
            self._owned.make_room(now)
        else:
            self._nobodys.add(key, Remembered(None, fresh, fresh))
            self._nobodys.make_room(now)
        return consumer

    async def aclose(self) -> None:
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def read(key: str, said: bytes) -> Consumer | None:
    try:
        return Consumer.model_validate_json(said)
    except ValidationError as error:
        # Only where: what stands there is a secret.
        places = ", ".join(".".join(map(str, fault["loc"])) or "it" for fault in error.errors())
        logger.error("the store has no consumer under %s: %s is wrong", key, places)
        return None
