"""The only place that says how much the system holds for a peer who reads slowly."""

import socket
from contextlib import suppress

MOST = 128 * 1024
"""Bytes that were written and not sent yet. What is on its way is not counted: a long line stays full."""
OPTION = getattr(socket, "TCP_NOTSENT_LOWAT", None)


def bound(connection: socket.socket) -> None:
    """Let no more than that wait. A listening socket hands this on to its connections.

    Without it systems take some MiB, so that who writes is far ahead of who reads.
    """
    if OPTION is not None and connection.family != socket.AF_UNIX:
        with suppress(OSError):  # some sandboxes know the name only
            connection.setsockopt(socket.IPPROTO_TCP, OPTION, MOST)
