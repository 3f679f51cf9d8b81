"""The only place that reads the address of a target."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a target listens: a host and a port, or a unix socket."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    unix: str = ""

    @classmethod
    def read(cls, url: str) -> "Origin":
        """`http://host[:port]`, `https://host[:port]` or `unix:/path`; ValueError for anything else."""
        if url.startswith("unix:"):
            if not url.startswith("unix:/"):
                raise ValueError(f"{url!r}: write the whole path of the socket, as in unix:/run/orders.sock")
            return cls("http", "localhost", 0, url.removeprefix("unix:"))
        parts = urlsplit(url)
        if parts.scheme not in PORTS:
            raise ValueError(
                f"{url!r} is not a target: write http://host:port, https://host:port or unix:/path"
            )
        if not parts.hostname:
            raise ValueError(f"{url!r} names no host")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"{url!r}: a target has no path; say strip_prefix or rewrite on the route")
        if parts.username or parts.password:
            raise ValueError("a target holds no user and password; set the header with a component")
        try:
            port = parts.port
        except ValueError:
            raise ValueError(f"{url!r}: the port is not a number from 1 to 65535") from None
        if port == 0:
            raise ValueError(f"{url!r}: the port is not a number from 1 to 65535")
        return cls(
            "https" if parts.scheme == "https" else "http", parts.hostname, port or PORTS[parts.scheme]
        )

    @property
    def authority(self) -> str:
        """What stands in a Host header for it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.unix or self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.unix}" if self.unix else f"{self.scheme}://{self.authority}"
