"""The only place that says what one of several processes does: `python -m asgi_gateway.server.worker`."""

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from .serving import GatewayServer

READY = b"r"
"""What a worker sends when it serves."""


def main(path: str, control: int, listeners: list[int]) -> int:
    """Serve a file on inherited sockets until SIGTERM, or until nobody holds the other end of `control`."""
    from ..gateway import Gateway
    from . import logs
    from .serving import serve

    logs.set_up(f"[{os.getpid()}]")
    for number in (control, *listeners):
        os.set_inheritable(number, False)
    try:
        gateway = Gateway.load(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    leash = socket.socket(fileno=control)
    leash.setblocking(False)

    async def follow(server: "GatewayServer") -> None:
        """Stop when the supervisor is gone, however it went."""
        await asyncio.get_running_loop().sock_recv(leash, 1)
        server.stop()

    def ready() -> None:
        leash.send(READY)

    return serve(
        gateway, [socket.socket(fileno=number) for number in listeners], ready, [follow], alone=False
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), [int(number) for number in sys.argv[3:]]))
