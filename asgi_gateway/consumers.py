"""The only place that knows the callers who have credentials."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from .errors import ConfigError, Problem


class Consumer(BaseModel):
    """A caller that has credentials."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )

    name: Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]
    """How the caller is called in logs, limits and headers."""
    keys: tuple[Annotated[SecretStr, Field(min_length=1)], ...] = ()
    """API keys; any of them identifies the consumer."""
    groups: tuple[str, ...] = ()
    """Groups that it belongs to, for access lists and tiers."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, as the AUTH stage found out."""

    consumer: str
    method: str
    """The component that found out: key_auth, jwt_auth, ..."""
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)


class Consumers:
    """The consumers of one configuration. Keys are held as SHA-256, so that a dump shows none."""

    __slots__ = ("_by_digest", "_by_name")

    def __init__(self, consumers: Iterable[Consumer] = ()) -> None:
        self._by_name: dict[str, Consumer] = {}
        self._by_digest: dict[bytes, Consumer] = {}
        problems = []
        for consumer in consumers:
            if consumer.name in self._by_name:
                problems.append(Problem(f"two consumers are called {consumer.name!r}", "consumers"))
            self._by_name[consumer.name] = consumer
            for key in consumer.keys:
                digest = sha256(key.get_secret_value().encode()).digest()
                other = self._by_digest.setdefault(digest, consumer)
                if other is not consumer:
                    problems.append(
                        Problem(f"{other.name!r} and {consumer.name!r} have the same key", "consumers")
                    )
        if problems:
            raise ConfigError(problems)

    def __len__(self) -> int:
        return len(self._by_name)

    def __getitem__(self, name: str) -> Consumer:
        return self._by_name[name]

    def with_key(self, key: bytes) -> Consumer | None:
        """The owner of an API key. Looked up by digest: how long it takes tells nothing about the keys."""
        return self._by_digest.get(sha256(key).digest())
