"""The only place that says where state lives which several processes share."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SecretStr

from ..mistake import mistake
from ..units import Span, Time
from .model import Model

URL = re.compile(r"[a-z][a-z0-9+.-]*://\S*")


def read_url(value: SecretStr) -> SecretStr:
    if not URL.fullmatch(value.get_secret_value()):
        raise mistake("is not the URL of a store", "as in memory:// or redis://127.0.0.1:6379/0")
    return value


def show_url(value: SecretStr) -> str:
    """The URL, unless there may be a password in it."""
    url = value.get_secret_value()
    return f"{url.partition('://')[0]}://**********" if "@" in url or "?" in url else url


Url = Annotated[
    SecretStr, AfterValidator(read_url), PlainSerializer(show_url, return_type=str, when_used="json")
]


class StoredConsumers(Model):
    """How callers are found whose credentials lie in the store."""

    cache: Span = 10.0
    """How long what was found, or not found, is not asked for again."""
    stale: Time = 60.0
    """How long after that a caller who was found is still let in while the store is away; others get 503."""
    max_cached: Annotated[int, Field(ge=1)] = 10_000
    """Callers that each process remembers, and as many credentials that nobody has."""


def read_consumers(value: Any) -> Any:
    return {True: StoredConsumers(), False: None}[value] if isinstance(value, bool) else value


class StoreConfig(Model):
    """Where counters, slots and other state of components live, see [Store](store.md)."""

    url: Url = SecretStr("memory://")
    """`memory://`: each process for itself; `redis://user:password@host:6379/0`, `rediss://` with TLS."""
    timeout: Span = 0.05
    """How long one answer may take; after three failures in a row it is not asked for a second."""
    prefix: str = "asgi_gateway"
    """What all keys begin with: gateways with the same one share their state."""
    consumers: Annotated[
        StoredConsumers | None,
        BeforeValidator(read_consumers, json_schema_input_type=StoredConsumers | bool | None),
    ] = None
    """Whether callers are looked for there whom the file does not know: `true`, or a mapping."""


def read_store(value: Any) -> Any:
    return value if isinstance(value, Mapping | StoreConfig) else {"url": value}


Store = Annotated[StoreConfig, BeforeValidator(read_store, json_schema_input_type=StoreConfig | str)]
