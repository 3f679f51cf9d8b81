"""The only place that opens the sockets on which a gateway listens."""

import errno
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress

from ..errors import ConfigError, Problem
from ..unsent import bound

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000
UNIX = "unix:"
EVERYBODY = 0o666
"""Who may connect to a unix socket is decided by its folder."""


def address(listen: str, host: str | None, port: int | None) -> str:
    """Where to listen: what the file says, and what the command line says instead."""
    if host is None and port is None:
        return listen
    unix = listen.startswith(UNIX)
    own_host, _, own_port = ("", "", "") if unix else listen.rpartition(":")
    if host is not None and ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{host or own_host or DEFAULT_HOST}:{own_port or DEFAULT_PORT if port is None else port}"


def open_sockets(listen: str, backlog: int) -> list[socket.socket]:
    """Listen on `host:port`, at all addresses of the host, or on `unix:/path`; ConfigError if that fails."""
    try:
        if listen.startswith(UNIX):
            return [open_unix(listen.removeprefix(UNIX), backlog)]
        host, _, port = listen.rpartition(":")
        return open_tcp(host.strip("[]"), int(port), backlog)
    except OSError as error:
        raise ConfigError(refused(listen, error)) from error


def refused(listen: str, error: OSError) -> Problem:
    if error.errno == errno.EADDRINUSE:
        return Problem(
            f"{listen} is in use already", "server.listen", "end the other server, or listen elsewhere"
        )
    if error.errno == errno.EACCES:
        return Problem(
            f"{listen} is not allowed to this user", "server.listen", "ports below 1024 often are not"
        )
    return Problem(f"{listen} cannot be listened on: {error.strerror or error}", "server.listen")


def open_tcp(host: str, port: int, backlog: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, place in dict.fromkeys(found):
        # One free port for all addresses of a name: the first one chooses it.
        chosen = port or (sockets[0].getsockname()[1] if sockets else 0)
        try:
            sockets.append(listening(family, kind, protocol, (place[0], chosen, *place[2:]), backlog))
        except OSError as error:
            # A name like localhost may have an address of a family that this machine has not.
            if error.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                continue
            close(sockets)
            raise
    if not sockets:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return sockets


def listening(
    family: int, kind: int, protocol: int, place: tuple[object, ...], backlog: int
) -> socket.socket:
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound(opened)
        opened.bind(place)
        opened.listen(backlog)
    except OSError:
        opened.close()
        raise
    return opened


def open_unix(path: str, backlog: int) -> socket.socket:
    remove_stale(path)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.bind(path)
        os.chmod(path, EVERYBODY)
        opened.listen(backlog)
    except OSError:
        opened.close()
        raise
    return opened


def remove_stale(path: str) -> None:
    """Remove a socket that a server left behind; OSError if somebody listens there, or if it is no socket."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file of this name that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def close(sockets: Iterable[socket.socket], listen: str = "") -> None:
    """Close, and remove the file of a unix socket if nobody else listens on it."""
    for opened in sockets:
        opened.close()
    if listen.startswith(UNIX):
        with suppress(OSError):
            remove_stale(listen.removeprefix(UNIX))


def places(sockets: Iterable[socket.socket], scheme: str) -> str:
    """Where somebody can reach these sockets, for people: `http://127.0.0.1:8000`, `unix:/path`."""
    return ", ".join(place(opened, scheme) for opened in sockets)


def place(opened: socket.socket, scheme: str) -> str:
    if opened.family == socket.AF_UNIX:
        return f"{UNIX}{opened.getsockname()}"
    host, port = opened.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
