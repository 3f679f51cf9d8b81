"""The only place that chooses a store by its URL."""

from collections.abc import Callable, Mapping

from ..errors import ConfigError, Problem
from .base import Store
from .guarded import Guarded
from .memory import MemoryStore

WHERE = "store"
EXTRAS = {"redis": "redis", "rediss": "redis"}
"""Schemes that come with an extra of this distribution."""


def open_store(
    url: str,
    kinds: Mapping[str, type[Store]],
    *,
    timeout: float,
    prefix: str,
    now: Callable[[], float],
) -> Store:
    """The store behind a URL; whatever is not memory, guarded. ConfigError, which shows nothing of the URL
    but its scheme.
    """
    scheme = url.partition("://")[0]
    if scheme in MemoryStore.schemes:
        return MemoryStore.open(url, timeout=timeout, now=now)
    if scheme not in kinds:
        known = ", ".join(f"{each}://" for each in sorted({*MemoryStore.schemes, *kinds}))
        hint = f'pip install "asgi-gateway[{EXTRAS[scheme]}]"' if scheme in EXTRAS else f"known: {known}"
        raise ConfigError(Problem(f"no store has the scheme {scheme!r}", WHERE, hint))
    store = kinds[scheme].open(url, timeout=timeout, now=now)
    return Guarded(store, timeout=timeout, prefix=prefix, now=now)
