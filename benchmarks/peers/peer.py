"""What a peer is: a program that answers, or a proxy that stands in front of one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from os import environ, pathsep
from pathlib import Path
from shutil import which


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer runs: its folder for files, its port, the port of its upstream, the size of the answer."""

    folder: Path
    port: int
    upstream: int
    body_bytes: int

    def write(self, name: str, text: str) -> str:
        """Write a configuration file into the folder; its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def environment(self) -> dict[str, str]:
        """What the ASGI apps among the peers read; Caddy and others keep their files in the folder too."""
        modules = filter(None, [str(Path(__file__).parents[2]), environ.get("PYTHONPATH")])
        return {
            "BENCHMARK_UPSTREAM": f"http://127.0.0.1:{self.upstream}",
            "BENCHMARK_BODY_BYTES": str(self.body_bytes),
            "ASGI_GATEWAY_CONFIG": str(self.folder / "gateway.json"),
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder),
            "GOMAXPROCS": "1",
            "PYTHONPATH": pathsep.join(modules),
        }


class Peer:
    """One subject of the comparison. It listens on 127.0.0.1, on one thread where that can be chosen."""

    name: str
    install: str
    """The command that installs it."""
    program: str = sys.executable
    """The program that has to be there."""
    module: str = ""
    """The Python module that has to be there."""

    def find(self) -> str | None:
        """The path of the program, or None if this peer is not installed."""
        places = pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", ""), "/usr/sbin"])
        if self.module and find_spec(self.module) is None:
            return None
        return which(self.program, path=places)

    def command(self, program: str, place: Place) -> Sequence[str]:
        """What to start, after the configuration is written."""
        raise NotImplementedError


def uvicorn(app: str, place: Place, websocket: str = "none") -> list[str]:
    """Serve the app that a factory makes, in the fastest way uvicorn has."""
    server = [sys.executable, "-m", "uvicorn", "--factory", app, "--port", str(place.port)]
    engine = ["--loop", "uvloop", "--http", "httptools", "--ws", websocket]
    return [*server, *engine, "--no-access-log", "--log-level", "warning"]
