"""Offers what is kept to whoever answers instead of an upstream that fails (`fallback` with `stale`)."""

from asgi_gateway.asgi import Header, Scope, Send

from .policy import NOT_KEPT, NOTHING, WITH_304, Asked, has_not_changed
from .shelf import Entry


class Offer:
    """One answer that is kept, for one request: whether it was taken, and how it was marked."""

    __slots__ = ("_asked", "_entry", "_given", "taken")

    def __init__(self, entry: Entry, asked: Asked = NOTHING) -> None:
        self._entry = entry
        self._asked = asked
        """The caller's conditions, where they are not looked at later."""
        self._given: list[Header] = []
        self.taken = False

    async def give(self, scope: Scope, send: Send) -> None:
        """Send it on its way out. The cache that it comes by adds its age, and does not take it for new."""
        self.taken = True
        entry = self._entry
        status, headers, body = entry.status, entry.headers, entry.body
        if has_not_changed(status, headers, self._asked):
            status, body = 304, b""
            headers = [pair for pair in headers if pair[0] in WITH_304]
        elif scope["method"] == "HEAD":
            body = b""
        self._given = headers
        await send({"type": "http.response.start", "status": status, "headers": [*headers]})
        await send({"type": "http.response.body", "body": body})

    def marked(self, headers: list[Header]) -> list[Header]:
        """Its fields with the marks that it got on its way. What the components of the upstream add to each
        answer, it has already.
        """
        kept = self._given
        told = [pair for pair in headers if pair not in kept and pair[0] not in NOT_KEPT]
        names = {name for name, _ in told}
        return [pair for pair in kept if pair[0] not in names] + told
