"""Fastify's proxy, over Node, as a peer."""

import sys
from collections.abc import Sequence
from pathlib import Path

from .peer import Peer, Place

MODULES = Path(sys.prefix, "fastify", "node_modules")
"""Where its packages are looked for."""
SCRIPT = """
const require = (await import('node:module')).createRequire('{modules}/')
const server = require('fastify')({{ logger: false }})
server.register(require('@fastify/http-proxy'), {{ upstream: 'http://127.0.0.1:{upstream}' }})
await server.listen({{ host: '127.0.0.1', port: {port} }})
"""


class Fastify(Peer):
    """@fastify/http-proxy as its page shows it: keep-alive to the upstream, one process, no log."""

    name = "fastify proxy"
    install = f"npm install --prefix {MODULES.parent} --ignore-scripts fastify @fastify/http-proxy"
    program = "node"

    def find(self) -> str | None:
        return super().find() if (MODULES / "@fastify" / "http-proxy").is_dir() else None

    def command(self, program: str, place: Place) -> Sequence[str]:
        text = SCRIPT.format(modules=MODULES, port=place.port, upstream=place.upstream)
        return [program, place.write("proxy.mjs", text)]
