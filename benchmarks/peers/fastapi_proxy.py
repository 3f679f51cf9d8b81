"""fastapi-proxy-lib as a peer."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .peer import Peer, Place, uvicorn

if TYPE_CHECKING:
    from fastapi import FastAPI


def create() -> "FastAPI":
    """Its ready-made application."""
    from fastapi_proxy_lib.fastapi.app import reverse_http_app

    return reverse_http_app(base_url=os.environ["BENCHMARK_UPSTREAM"] + "/")


class FastapiProxyLib(Peer):
    """On uvicorn with uvloop and httptools, one process."""

    name = "fastapi-proxy-lib"
    install = "pip install fastapi-proxy-lib"
    module = "fastapi_proxy_lib"

    def command(self, program: str, place: Place) -> Sequence[str]:
        return uvicorn("benchmarks.peers.fastapi_proxy:create", place)
