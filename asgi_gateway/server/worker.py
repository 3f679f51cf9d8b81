"""The only place that says what one of several processes does: `python -m asgi_gateway.server.worker`."""

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .holding import hold
from .watchdog import deadman
from .wire import Note, Wire, first

if TYPE_CHECKING:
    from .serving import GatewayServer

END = 10.0
"""Seconds that the interpreter has to end, when everything is closed."""


def main(path: str, control: int, listeners: list[int]) -> int:
    """Serve on inherited sockets until SIGTERM, or until nobody holds the other end of `control`.

    The content of the file at `path` comes over that wire, so that all workers serve the same.
    """
    hold()
    # They take a while.
    from ..gateway import Gateway
    from . import logs
    from .serving import serve

    logs.set_up(f"[{os.getpid()}]")
    for number in (control, *listeners):
        os.set_inheritable(number, False)
    end = socket.socket(fileno=control)
    note = first(end)
    if note is None:
        return 1
    try:
        gateway = Gateway.load(Path(path), content=note["load"].encode())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    end.setblocking(False)

    async def follow(server: "GatewayServer") -> None:
        """Do what the supervisor says; stop when it is gone, however it went."""
        wire = await Wire.over(end)
        wire.send({"ready": True})
        while (note := await wire.next()) is not None:
            if "drain" in note:
                server.drain()
            else:
                wire.send(await load(server, note))
        server.stop()

    code = serve(
        gateway,
        [socket.socket(fileno=number) for number in listeners],
        lambda: None,
        [follow],
        alone=False,
    )
    deadman(END, code)
    return code


async def load(server: "GatewayServer", note: Note) -> Note:
    error = await server.bring_in(note["load"].encode())
    return {"loaded": True} if error is None else {"refused": str(error)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), [int(number) for number in sys.argv[3:]]))
