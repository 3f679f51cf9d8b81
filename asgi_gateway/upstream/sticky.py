"""The only place that brings a caller back to a target by a cookie."""

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b

from ..asgi import Message, Scope, cookie
from ..call import CALL, Call
from ..config import StickyConfig
from ..exchange import EXCHANGE, Exchange
from .target import Target


class Sticky:
    """The cookies of one pool. A value is the hash of a target's name: it is looked up among those of this
    pool, so that no caller can name anything else.
    """

    def __init__(self, upstream: str, options: StickyConfig, targets: Sequence[Target]) -> None:
        secret = options.secret.get_secret_value() or upstream
        key = blake2b(secret.encode()).digest()
        self._values = {
            target: blake2b(target.name.encode(), key=key, digest_size=16).hexdigest().encode()
            for target in targets
        }
        self._targets = {value: target for target, value in self._values.items()}
        self._name = (options.cookie or f"sticky_{upstream}").encode()
        age = b"; Max-Age=%d" % options.max_age if options.max_age else b""
        self._attributes = b"; Path=/" + age + b"; HttpOnly; SameSite=Lax"

    def find(self, scope: Scope, there: Callable[[Target], bool]) -> Target | None:
        """The target of the caller, if it is there. Whoever ends somewhere else is told so."""
        call: Call = scope[CALL]
        value = cookie(scope["headers"], self._name)
        target = self._targets.get(value)
        if not call.attempts:
            exchange: Exchange = scope[EXCHANGE]
            exchange.on_start(partial(self._tell, call, value))
        return target if target is not None and there(target) else None

    def _tell(self, call: Call, value: bytes, exchange: Exchange, message: Message) -> None:
        # Another call may have answered in the end, or none.
        if not call.status or not call.attempts:
            return
        now = self._values[call.attempts[-1]]
        if now != value:
            secure = b"; Secure" if exchange.scheme == "https" else b""
            line = self._name + b"=" + now + self._attributes + secure
            message["headers"].append((b"set-cookie", line))
