"""granian answering by itself, and the gateway under it."""

from collections.abc import Sequence

from .gateway import GatewayPeer
from .peer import Peer, Place


def granian(program: str, place: Place, app: Sequence[str]) -> list[str]:
    """Serve an ASGI app with one worker and uvloop."""
    server = [
        program,
        "-m",
        "granian",
        "--interface",
        "asgi",
        "--host",
        "127.0.0.1",
        "--port",
        str(place.port),
    ]
    engine = ["--workers", "1", "--loop", "uvloop", "--http", "1", "--no-ws", "--log-level", "error"]
    return [*server, *engine, *app]


class Granian(Peer):
    """The app that uvicorn by itself has."""

    name = "granian by itself"
    install = "pip install granian uvloop"
    module = "granian"

    def command(self, program: str, place: Place) -> Sequence[str]:
        return granian(program, place, ["--factory", "benchmarks.peers.answer:create"])


class GatewayUnderGranian(GatewayPeer):
    """The gateway as an app of another server; it finds its file by a variable of the environment."""

    install = "pip install asgi-gateway granian uvloop"
    module = "granian"

    def __init__(self) -> None:
        super().__init__("asgi-gateway under granian")

    def command(self, program: str, place: Place) -> Sequence[str]:
        super().command(program, place)
        return granian(program, place, ["asgi_gateway.server:app"])
