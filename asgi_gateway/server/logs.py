"""The only place that sets up logging, for a process that is a gateway and nothing else; its last words."""

import logging

logger = logging.getLogger("asgi_gateway")


def set_up(name: str = "") -> None:
    """The gateway's messages and everybody's warnings, to standard error; `name` tells processes apart."""
    fields = ["%(asctime)s", "%(levelname)-7s", *([name] if name else []), "%(message)s"]
    logging.basicConfig(format=" ".join(fields), level=logging.WARNING)
    logging.getLogger("asgi_gateway").setLevel(logging.INFO)


def ends(drain: float, grace: float) -> None:
    """It was told to end."""
    served = f"everything is served for {drain:g} s more, then " if drain else ""
    logger.info("the gateway ends: %srequests in flight have %g s", served, grace)


def ends_at_once() -> None:
    """It was told twice."""
    logger.info("the gateway ends at once")


def has_ended() -> None:
    logger.info("the gateway has ended")
