"""The only place that says what `asgi-gateway run` does, from the file to the exit code."""

import asyncio
import logging
import os
import resource
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..stored import counted_apart
from . import logs
from .listening import address, close, open_sockets, places
from .reloading import ConfigFile, count, size
from .serving import GatewayServer, serve
from .supervisor import Supervisor
from .tls import server_context

if TYPE_CHECKING:
    from ..gateway import Gateway

logger = logging.getLogger("asgi_gateway")


def run(
    path: str | os.PathLike[str],
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    reload: bool = False,
    last_good: str | os.PathLike[str] | None = None,
) -> int:
    """Serve a configuration file until a signal ends it; the exit code: 1 if it cannot be served.

    `host`, `port` and `workers` are used instead of what the file says; `reload` watches the file;
    `last_good` is a file that keeps what could last be used, for a start with a file that cannot.
    """
    logs.set_up()
    raise_files()
    file = ConfigFile(Path(path), Path(last_good) if last_good else None)
    sockets: list[socket.socket] = []
    listen = ""
    try:
        gateway = file.begin()
        server = gateway.config.server
        if server.tls:
            server_context(server.tls)
        listen = address(server.listen, host, port)
        sockets = open_sockets(listen, server.limits.backlog)
        many = workers or server.workers
        if many > 1 and gateway.apart:
            logger.warning("%s", counted_apart(gateway.apart, many))
        ready = partial(announce, gateway, sockets, many)
        if many > 1:
            return asyncio.run(Supervisor(file, sockets, many, server).run(ready, watch=reload))
        return serve(gateway, sockets, ready, [partial(follow, file)] if reload else [], file)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        close(sockets, listen)


def raise_files() -> None:
    """As many open files as the system allows: the usual limit is for programs that use select()."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def announce(gateway: "Gateway", sockets: list[socket.socket], workers: int) -> None:
    where = places(sockets, "https" if gateway.config.server.tls else "http")
    logger.info("asgi-gateway listens on %s: %s, %s", where, count(workers, "worker"), size(gateway))


async def follow(file: ConfigFile, server: GatewayServer) -> None:
    async for content in file.changes():
        await server.reload(content)
