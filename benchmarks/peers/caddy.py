"""Caddy as a peer."""

from collections.abc import Sequence

from .peer import Peer, Place

CONFIGURATION = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{upstream} {{
        transport http {{
            keepalive_idle_conns_per_host 1024
            compression off
        }}
    }}
}}
"""


class Caddy(Peer):
    """A plain proxy: keep-alive to the upstream, no log. GOMAXPROCS=1 keeps its own code on one thread."""

    name = "caddy"
    install = "apt-get install caddy"
    program = "caddy"

    def command(self, program: str, place: Place) -> Sequence[str]:
        text = CONFIGURATION.format(port=place.port, upstream=place.upstream)
        return [program, "run", "--adapter", "caddyfile", "--config", place.write("Caddyfile", text)]
