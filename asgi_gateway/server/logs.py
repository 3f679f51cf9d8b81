"""The only place that sets up logging, for a process that is a gateway and nothing else."""

import logging


def set_up(name: str = "") -> None:
    """The gateway's messages and everybody's warnings, to standard error; `name` tells processes apart."""
    fields = ["%(asctime)s", "%(levelname)-7s", *([name] if name else []), "%(message)s"]
    logging.basicConfig(format=" ".join(fields), level=logging.WARNING)
    logging.getLogger("asgi_gateway").setLevel(logging.INFO)
