"""What stands behind the gateways of these tests: an app in their process."""

import asyncio
import os
import sys
import time

from asgi_gateway.asgi import Receive, Scope, Send, answer


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    match scope["path"]:
        case "/pid":
            await answer(scope, send, 200, b"%d" % os.getpid())
        case "/wait":
            print("waiting", file=sys.stderr, flush=True)
            try:
                await asyncio.Event().wait()
            finally:
                print("cancelled", file=sys.stderr, flush=True)
        case "/stubborn":
            print("waiting", file=sys.stderr, flush=True)
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    print("not me", file=sys.stderr, flush=True)
        case "/thread":
            asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)
            await answer(scope, send, 200, b"")
        case "/block":
            time.sleep(int(scope["query_string"] or b"3600") / 1000)
            await answer(scope, send, 200, b"")
        case "/break":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
            raise RuntimeError("broken")
        case _:
            print("reading", file=sys.stderr, flush=True)
            body = b""
            more = True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            await answer(scope, send, 200, scope["path"].encode() + b" " + body, content_type=b"text/plain")


async def other(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(scope, send, 200, b"other")
