"""The only place that carries the messages of a WebSocket between a caller and a target."""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from ..asgi import Receive, Scope, Send, answer, extension
from ..call import CALL, Call
from ..clock import Clock
from ..config import Upstream
from ..errors import CallerLeft, UpstreamError
from ..exchange import EXCHANGE, Exchange
from .closing import CLOSE_SECONDS, End, sendable
from .handshake import Opening, Remote, fields_of
from .inside import within
from .watch import Bound, Watch

if TYPE_CHECKING:
    from ..proxy import Tunnel
    from ..upstream import Target

VANISHED = "the caller is gone"


def tunnel(options: Upstream, clock: Clock) -> "Tunnel":
    """An async function that carries one WebSocket to a target."""
    opening = Opening(options, clock)
    bound = Bound.of(options.websocket)

    async def tunnel(target: "Target", scope: Scope, receive: Receive, send: Send) -> None:
        if target.local is not None:
            await within(Watch(bound, clock), target.local.serve, scope, receive, send)
            return
        if (await receive())["type"] != "websocket.connect":
            raise CallerLeft
        carrying = Carrying(receive, send, Watch(bound, clock))
        try:
            remote = await carrying.open(opening.open(target, scope))
            await carrying.carry(remote, scope[CALL])
        except InvalidStatus as refused:
            await deny(scope, send, refused.response)
        finally:
            exchange: Exchange = scope[EXCHANGE]
            exchange.cause = exchange.cause or carrying.cause
            await carrying.stop()

    return tunnel


class Carrying:
    """One WebSocket: the request's task carries what the target says, another one what the caller says."""

    def __init__(self, receive: Receive, send: Send, watch: Watch) -> None:
        self._receive = receive
        self._send = send
        self._watch = watch
        self._remote: Remote | None = None
        self._task = asyncio.current_task()
        self._opened = asyncio.get_running_loop().create_future()
        self._left: End | None = None
        """How the caller ended it."""
        # It listens from the beginning, so that a caller that does not wait for the target is noticed.
        self._up = asyncio.create_task(self._upwards())

    @property
    def cause(self) -> str:
        """Why the gateway ended it, for machines; empty if it did not."""
        return self._watch.expired

    async def open(self, opening: Awaitable[Remote]) -> Remote:
        """Wait for the target. CallerLeft if the caller does not."""
        try:
            self._remote = remote = await opening
        except asyncio.CancelledError:
            if not self._up.done() or self._task is None or self._task.uncancel():
                raise
            self._up.result()
            raise CallerLeft from None
        return remote

    async def carry(self, remote: Remote, call: Call) -> None:
        """Accept it. Carry messages both ways until one side closes; then close the other one with the same
        code. CallerLeft, UpstreamError.
        """
        assert remote.response is not None
        try:
            accept = {"subprotocol": remote.protocol.subprotocol, "headers": fields_of(remote.response)}
            await self._send({"type": "websocket.accept", **accept})
            call.streaming = True
            self._opened.set_result(remote)
            self._watch.begin(self._expire)
            await self._downwards(remote)
        except asyncio.CancelledError:
            if not self._watch.expired or self._task is None or self._task.uncancel():
                raise
            await self._end_both(remote)
        except OSError as gone:
            # How the caller left is known to those who listen to it.
            await asyncio.wait((self._up,), timeout=CLOSE_SECONDS)
            remote.leave(1011, VANISHED)
            raise CallerLeft from gone

    async def stop(self) -> None:
        """Let go of everything."""
        self._watch.stop()
        if self._remote is not None and self._remote.open:
            self._remote.leave(1001, "the gateway is going away")
        await self._mute()

    async def _mute(self) -> None:
        """Listen to the caller no more."""
        self._up.cancel()
        await asyncio.gather(self._up, return_exceptions=True)

    # The caller's messages

    async def _upwards(self) -> None:
        try:
            self._left = left = await self._pass_on()
        except Exception:
            self._interrupt(1011, "the gateway failed")
            raise
        if left.code == 1006 and self._remote is not None:
            self._remote.leave(1011, VANISHED)
        else:
            self._interrupt(left.code, left.reason)

    def _interrupt(self, code: int, reason: str) -> None:
        """There will be no more from the caller: whoever waits for the target need not wait any longer."""
        if self._remote is not None:
            self._remote.close(code, reason)
        elif self._task is not None:
            self._task.cancel()

    async def _pass_on(self) -> End:
        """How the caller closed, after all that it said before was passed on."""
        receive, watch = self._receive, self._watch
        message = await receive()
        remote: Remote | None = None
        while message["type"] == "websocket.receive":
            if remote is None:
                remote = await self._opened
            text = message.get("text")
            remote.write(message["bytes"] if text is None else text)
            if remote.write_paused:
                await remote.drained()
            watch.stamp()
            message = await receive()
        return End(message.get("code", 1005), message.get("reason") or "")

    # The target's messages

    async def _downwards(self, remote: Remote) -> None:
        send, watch = self._send, self._watch
        while (message := await remote.next()) is not None:
            if isinstance(message, str):
                await send({"type": "websocket.send", "text": message})
            else:
                await send({"type": "websocket.send", "bytes": message})
            watch.stamp()
        watch.stop()
        if self._up.done() and self._left is None:
            self._up.result()
        if self._left is None:
            await self._ended(remote)
        elif self._left.code == 1006:
            raise CallerLeft
        else:
            await remote.gone()

    async def _ended(self, remote: Remote) -> None:
        """The target has ended it, or failed."""
        end = remote.end
        assert end is not None
        if end.failure is None:
            await self._say(sendable(end.code), end.reason)
            return
        if end.code == 1009:
            await self._say(1009, end.reason)
        raise UpstreamError(end.failure, "body", end.reason, sent=True)

    # The time is over

    def _expire(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _end_both(self, remote: Remote) -> None:
        remote.close(1001, self._watch.reason)
        try:
            # A caller that reads nothing would not let this end either.
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._say(1001, self._watch.reason)
        except OSError as gone:
            raise CallerLeft from gone
        await remote.gone()

    async def _say(self, code: int, reason: str) -> None:
        # granian never sends a close while somebody waits in `receive`.
        await self._mute()
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


async def deny(scope: Scope, send: Send, response: Response) -> None:
    """The target refused: its answer goes to the caller, or a close code where the server knows no denial."""
    status, body = response.status_code, response.body or b""
    if status < 200:
        raise UpstreamError("protocol_error", "head", f"the answer to a handshake is {status}", sent=True)
    if extension(scope, "websocket.http.response") is None:
        await answer(scope, send, status, b"")
        return
    headers: list[Any] = [*fields_of(response), (b"content-length", b"%d" % len(body))]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": bytes(body)})
