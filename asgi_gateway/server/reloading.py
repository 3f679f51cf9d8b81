"""The only place that brings a changed configuration file into a running gateway."""

import hashlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Server
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..gateway import Gateway

QUIET = 200
"""Milliseconds without a change, after which a file counts as written."""
LOOK = 1000
"""Milliseconds after which the file is looked at even if nothing was heard, as on network file systems."""

logger = logging.getLogger("asgi_gateway")


async def reload(gateway: "Gateway") -> None:
    """Read the file of a gateway again. What is wrong with it is logged, and changes nothing."""
    try:
        await gateway.reload()
    except ConfigError as error:
        refuse(error)
    else:
        logger.info("the configuration was read again: %s", size(gateway))


def refuse(error: ConfigError) -> None:
    logger.error("the new configuration is refused, the old one goes on:\n%s", error)


def size(gateway: "Gateway") -> str:
    """How much a configuration holds, for people."""
    return f"{count(len(gateway.plan), 'route')}, {count(len(gateway.config.upstreams), 'upstream')}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def warn_about(started: Server, now: Server) -> None:
    """Say which settings are not used before a restart, because they were read when the server started."""
    names = [name for name in Server.model_fields if getattr(started, name) != getattr(now, name)]
    if names:
        listed = ", ".join(f"server.{name}" for name in names)
        logger.warning("changed, and used after a restart only: %s", listed)


async def changes(path: Path, content: bytes | None) -> AsyncIterator[None]:
    """One item whenever the content of a file changed from `content`, its fingerprint before.

    A file that is gone is no change; that is said once.
    """
    from watchfiles import awatch

    while True:
        folders = folders_of(path)
        heard = awatch(
            *folders,
            watch_filter=None,
            recursive=False,
            step=QUIET,
            debounce=8 * QUIET,
            rust_timeout=LOOK,
            yield_on_timeout=True,
        )
        async for _ in heard:
            now = fingerprint(path)
            if now != content:
                content = now
                if now is None:
                    logger.warning("%s is gone; the configuration stays as it is", path)
                else:
                    yield
            if folders_of(path) != folders:
                break


def folders_of(path: Path) -> set[Path]:
    """Where a change of a file shows: beside its name, and beside what the name leads to if it is a link."""
    names = (path.absolute(), path.resolve())
    return {next(parent for parent in name.parents if parent.is_dir()) for name in names}


def fingerprint(path: Path) -> bytes | None:
    """What stands for the content of a file, or None without one."""
    try:
        return hashlib.blake2b(path.read_bytes()).digest()
    except OSError:
        return None
