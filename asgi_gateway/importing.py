"""The only place that imports what a declaration names as `package.module:name`."""

import importlib
from typing import Any

from .errors import ConfigError, Problem


def find(path: str, what: str) -> Any:
    """The object behind a path, to be called. ConfigError with `what` it shall be, as in `an ASGI app`."""
    module, colon, attribute = path.partition(":")
    if not colon or not module or not attribute:
        raise ConfigError(Problem(f"{path!r} is not an import path", hint="write package.module:name"))
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    # A module that exits at import must not take the gateway with it.
    except (Exception, SystemExit) as error:
        raise ConfigError(Problem(f"{path!r} cannot be imported: {type(error).__name__}: {error}")) from error
    if not callable(found):
        raise ConfigError(Problem(f"{path!r} is not {what} but of type {type(found).__name__}"))
    return found
