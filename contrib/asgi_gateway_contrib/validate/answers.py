"""Checks answers while they pass: what is wrong is recorded, and nothing is changed."""

from collections.abc import Awaitable, Mapping

from asgi_gateway.asgi import Message, Send, header
from asgi_gateway.component import Refusal
from asgi_gateway.exchange import Exchange

from .body import Media, look
from .schemas import Checker


class Answers:
    """What the answers of one operation have to be, by their status."""

    def __init__(self, by_code: Mapping[str, Media]) -> None:
        """The keys are `200`, `4XX` and `default`."""
        self._by_code = dict(by_code)

    def find(self, status: int) -> Media | None:
        """What is said of this status; None if nothing is."""
        for code in (str(status), f"{status // 100}XX", "DEFAULT"):
            if code in self._by_code:
                return self._by_code[code]
        return None


class Watching:
    """The `send` of one request: passes everything on at once, and keeps a copy of what is to be checked."""

    __slots__ = ("_answers", "_checker", "_errors", "_exchange", "_kept", "_left", "_most", "_send")

    def __init__(self, exchange: Exchange, send: Send, answers: Answers, most: int, errors: int) -> None:
        self._exchange = exchange
        self._send = send
        self._answers = answers
        self._most = self._left = most
        self._errors = errors
        self._checker: Checker | None = None
        self._kept: list[bytes] = []

    def send(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.start":
            self._begin(message)
        elif kind == "http.response.body" and self._checker is not None:
            body = message.get("body", b"")
            self._left -= len(body)
            if self._left < 0:
                # Too large to be checked.
                self._checker, self._kept = None, []
            else:
                self._kept.append(body)
                if not message.get("more_body", False):
                    return self._end(message, self._checker)
        return self._send(message)

    def _begin(self, message: Message) -> None:
        # Every attempt has a head of its own.
        self._checker, self._kept, self._left = None, [], self._most
        exchange = self._exchange
        if exchange.refused is not None or exchange.outcome != "answered":
            return
        status, headers = message["status"], message.get("headers", ())
        media = self._answers.find(status)
        if media is None:
            self._record("unknown_answer", f"status {status} is not described")
            return
        if header(headers, b"content-encoding") is not None or status in (204, 304):
            return
        kind = (header(headers, b"content-type") or b"").decode("latin-1")
        is_known, self._checker = media.find(kind)
        if not is_known and kind:
            self._record("unknown_answer", f"status {status} is not described with the type {kind}")

    async def _end(self, message: Message, checker: Checker) -> None:
        """The caller has all of it before it is looked at."""
        await self._send(message)
        faults = await look(b"".join(self._kept), checker, self._errors)
        self._checker, self._kept = None, []
        if faults:
            detail = "; ".join(f"{fault.get('pointer', '')} {fault['detail']}".strip() for fault in faults)
            self._record("invalid_answer", detail)

    def _record(self, reason: str, detail: str) -> None:
        exchange = self._exchange
        if exchange.reported is None:
            exchange.reported = []
        exchange.reported.append(Refusal(502, reason, (), detail, "validate"))
