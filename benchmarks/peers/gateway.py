"""The gateway itself, run as a user runs it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from .peer import Peer, Place

Document = Mapping[str, object]

UPSTREAM = "http://upstream.test/"
"""Stands in a document for the address of the upstream, where a component asks it too."""
PLAIN: Document = {"routes": [{"name": "all", "path": "/*", "upstream": "origin"}]}
"""One route, one upstream, no component."""

CACHED: Document = {
    "routes": [{"name": "all", "path": "/*", "upstream": "origin", "components": [{"cache": {"ttl": "1h"}}]}]
}
"""The same with a cache: every request but the first is a hit."""


class GatewayPeer(Peer):
    """One worker. A plain proxy if no document is given.

    The upstream is called `origin` and `canary`, and whatever the document calls an upstream without targets.
    """

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
        own = {"drain": "0s", "grace": "1s", **document.get("server", {})}  # type: ignore[dict-item]
        server = {**own, "listen": f"127.0.0.1:{self.place.port}"}
        target = {"targets": [f"http://127.0.0.1:{self.place.upstream}"]}
        declared: Mapping[str, Document] = {"origin": {}, "canary": {}, **document.get("upstreams", {})}  # type: ignore[dict-item]
        upstreams = {name: {**target, **options} for name, options in declared.items()}
        whole = {**document, "server": server, "upstreams": upstreams}
        text = json.dumps(whole).replace(UPSTREAM, f"http://127.0.0.1:{self.place.upstream}/")
        path = Path(self.place.write("gateway.json.new", text))
        return str(path.replace(self.place.folder / "gateway.json"))
