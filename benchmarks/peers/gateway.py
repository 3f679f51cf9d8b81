"""The gateway itself, run as a user runs it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from .peer import Peer, Place

Document = Mapping[str, object]

PLAIN: Document = {"routes": [{"name": "all", "path": "/*", "upstream": "origin"}]}
"""One route, one upstream, no component."""

CACHED: Document = {
    "routes": [{"name": "all", "path": "/*", "upstream": "origin", "components": [{"cache": {"ttl": "1h"}}]}]
}
"""The same with a cache: every request but the first is a hit."""


class GatewayPeer(Peer):
    """One worker; the upstream is called `origin` and `canary`. A plain proxy if no document is given."""

    install = "pip install asgi-gateway"
    module = "asgi_gateway"

    def __init__(self, name: str = "asgi-gateway", document: Document = PLAIN) -> None:
        self.name = name
        self.document = document

    def command(self, program: str, place: Place) -> Sequence[str]:
        self.place = place
        return [program, "-m", "asgi_gateway", "run", self.write(self.document)]

    def write(self, document: Document) -> str:
        """Put the configuration file there in one step, with the addresses of this run; its path."""
        server = {"listen": f"127.0.0.1:{self.place.port}"}
        target = {"targets": [f"http://127.0.0.1:{self.place.upstream}"]}
        whole = {"server": server, "upstreams": {"origin": target, "canary": target}, **document}
        path = Path(self.place.write("gateway.json.new", json.dumps(whole)))
        return str(path.replace(self.place.folder / "gateway.json"))
