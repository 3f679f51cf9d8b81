"""The only place that serves a gateway by itself; `app` is one for any server, see ASGI_GATEWAY_CONFIG."""

import os
import sys
from typing import TYPE_CHECKING

from ..errors import ConfigError, Problem

if TYPE_CHECKING:
    from ..gateway import Gateway

    app: Gateway

CONFIG = "ASGI_GATEWAY_CONFIG"
STARTUP_FAILURE = 3
"""The exit code after which servers do not start their worker again."""


def __getattr__(name: str) -> "Gateway":
    """Make `app` when a server asks for it; importing this package does nothing."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        gateway = globals()["app"] = load(os.environ.get(CONFIG, ""))
    except ConfigError as error:
        print(error, file=sys.stderr, flush=True)
        # A server would show an exception with its traceback.
        raise SystemExit(STARTUP_FAILURE) from None
    return gateway


def load(path: str) -> "Gateway":
    from ..gateway import Gateway

    if not path:
        hint = f"as in {CONFIG}=gateway.yaml uvicorn asgi_gateway.server:app"
        raise ConfigError(Problem(f"the variable {CONFIG} names no configuration file", "", hint))
    return Gateway.load(path)
