"""Parts that need more than the gateway itself: each file or folder stands for one extra.

Nothing of an extra is imported before a file asks for it.
"""

from collections.abc import Iterable

from asgi_gateway.component import Component
from asgi_gateway.hookspecs import hookimpl
from asgi_gateway.store import Store

from .http_signature import HttpSignature
from .redis import RedisStore
from .validate import Validate


@hookimpl
def gateway_components() -> Iterable[type[Component]]:
    return (HttpSignature, Validate)


@hookimpl
def gateway_stores() -> Iterable[type[Store]]:
    return (RedisStore,)
