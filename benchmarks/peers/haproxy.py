"""HAProxy as a peer."""

from collections.abc import Sequence

from .peer import Peer, Place

CONFIGURATION = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 2s
    timeout client 60s
    timeout server 30s
frontend callers
    bind 127.0.0.1:{port} backlog 4096
    default_backend origin
backend origin
    server origin 127.0.0.1:{upstream}
"""


class HAProxy(Peer):
    """A plain proxy: keep-alive to the upstream, one thread, no log."""

    name = "haproxy"
    install = "apt-get install haproxy"
    program = "haproxy"

    def command(self, program: str, place: Place) -> Sequence[str]:
        text = CONFIGURATION.format(port=place.port, upstream=place.upstream)
        return [program, "-db", "-f", place.write("haproxy.cfg", text)]
