"""The only place that brings a changed configuration file into a running gateway."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Server
from ..errors import ConfigError
from ..loading import content_of

if TYPE_CHECKING:
    from ..gateway import Gateway

QUIET = 200
"""Milliseconds without a change, after which a file counts as written."""
LOOK = 1000
"""Milliseconds after which the file is looked at even if nothing was heard, as on network file systems."""

logger = logging.getLogger("asgi_gateway")


class ConfigFile:
    """A configuration file: what it said when it was looked at last, and what of that is served."""

    def __init__(self, path: Path, last_good: Path | None = None) -> None:
        """`last_good`: where to keep what could be used, for a start with a file that cannot."""
        self.path = path
        self.content = b""
        """What is served."""
        self._seen: bytes | None = None
        self._last_good = last_good

    def begin(self) -> "Gateway":
        """The gateway that the file describes, or the last good one. ConfigError if there is neither."""
        try:
            return self.gateway(self.read())
        except ConfigError as error:
            if self._last_good is None or not self._last_good.exists():
                raise
            gateway = self.gateway(content_of(self._last_good))
            logger.error("the configuration is refused, the last good one is served:\n%s", error)
            return gateway

    def gateway(self, content: bytes) -> "Gateway":
        """What some content describes, all of it built: accepted as good. Blocks; ConfigError."""
        from ..gateway import Gateway

        gateway = Gateway.load(self.path, content=content)
        self.accept(content)
        return gateway

    def read(self) -> bytes:
        """What the file says now; ConfigError if it cannot be read."""
        self._seen = None
        self._seen = content_of(self.path)
        return self._seen

    def accept(self, content: bytes) -> None:
        """This can be used: keep it for the next start."""
        self.content = content
        if self._last_good is not None:
            try:
                write(self._last_good, content)
            except OSError as error:
                logger.warning("%s cannot be written: %s", self._last_good, error.strerror)

    async def changes(self) -> AsyncIterator[bytes]:
        """What the file says, when it has changed. A file that is gone is no change; that is said once."""
        from watchfiles import awatch

        while True:
            folders = folders_of(self.path)
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
                before, now = self._seen, None
                with suppress(ConfigError):
                    now = self.read()
                if now is not None and now != before:
                    yield now
                elif now is None and before is not None:
                    logger.warning("%s is gone; the configuration stays as it is", self.path)
                if folders_of(self.path) != folders:
                    break


def write(path: Path, content: bytes) -> None:
    """Replace a file at once, readable by its owner only: it may hold secrets."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


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


def folders_of(path: Path) -> set[Path]:
    """Where a change of a file shows: beside its name, and beside what the name leads to if it is a link."""
    names = (path.absolute(), path.resolve())
    return {next(parent for parent in name.parents if parent.is_dir()) for name in names}
