"""The only place that reads the small values in declarations."""

import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from ..hops import HOP_BY_HOP
from ..mistake import mistake
from ..origin import Origin
from ..strictness import Strict

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token, RFC 9110 5.6.2
TRANSPORTS = ("http1", "http2", "httpx")
RESERVED = frozenset(
    {name.decode() for name in HOP_BY_HOP} | {"host", "content-length", "expect", "forwarded"}
)
IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Model(Strict):
    """A part of a configuration file."""


def read_pairs(value: Any) -> Any:
    """Pairs out of a mapping; a tuple of pairs is left to be checked."""
    if isinstance(value, Mapping):
        return tuple(value.items())
    if not isinstance(value, tuple):
        raise mistake("must be a mapping")
    return value


Pairs = Annotated[
    tuple[tuple[str, str], ...],
    BeforeValidator(read_pairs),
    PlainSerializer(dict),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]
"""A mapping of strings that is hashable: pairs in the order in which they were written."""


def read_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise mistake(
            f"{value!r} is not a name", "letters, digits, '.', '_' and '-'; at most 128 of them", value
        )
    return value


def read_method(value: str) -> str:
    if not METHOD.fullmatch(value):
        raise mistake(f"{value!r} is not a method", "as in [GET, POST]", value)
    return value.upper()


def read_field(value: str) -> str:
    name = value.lower()
    if name and not METHOD.fullmatch(name):
        raise mistake(f"{value!r} is not the name of a header field", "as in x-request-timeout-ms", value)
    if name in RESERVED or name.startswith("x-forwarded-"):
        raise mistake(f"{value!r} has another meaning", "choose a name of its own", value)
    return name


def read_import_path(value: str) -> str:
    if value and not IMPORT_PATH.fullmatch(value):
        raise mistake(f"{value!r} is not an import path", "write it as package.module:app", value)
    return value


def read_transport(value: str) -> str:
    if value in TRANSPORTS or IMPORT_PATH.fullmatch(value):
        return value
    hint = f"one of {', '.join(TRANSPORTS)}, or package.module:name of an httpx transport"
    raise mistake(f"{value!r} is not a transport", hint, value)


def read_url_path(value: str) -> str:
    if value and not re.fullmatch(r"/[!-~]*", value):
        raise mistake(f"{value!r} is not a path", "it begins with / and has no spaces", value)
    return value


def read_host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?", value):
        raise mistake(f"{value!r} is not a host", "a name or an address, with a port if it needs one", value)
    return value


def read_network(value: str) -> str:
    if value != "unix":
        try:
            ip_network(value, strict=False)
        except ValueError:
            raise mistake(f"{value!r} is not a network", "as in 10.0.0.0/8, ::1 or unix", value) from None
    return value


def read_url(value: str) -> str:
    """The URL of a target, see `Origin`. The text of its error begins with the value."""
    if not value:
        return value
    if "@" in value and not value.startswith("unix:"):
        raise mistake("a target holds no user and password", "set the header with a component")
    if any(character <= " " for character in value):
        raise mistake(f"{value!r} is not a target", "there is a space in it", value)
    try:
        Origin.read(value)
    except ValueError as error:
        # Not all texts of the standard library say what they are about.
        what = str(error) if repr(value) in str(error) else f"{value!r} is not a target"
        raise mistake(what, value=value) from None
    return value


def read_listen(value: str) -> str:
    if value.startswith("unix:"):
        if len(value) == len("unix:"):
            raise mistake("the path of the socket is missing", "as in unix:/run/gateway.sock")
        return value
    host, _, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if (
        not host
        or (":" in host and not bracketed)
        or not re.fullmatch("[0-9]{1,5}", port)
        or int(port) > 65535
    ):
        raise mistake(f"{value!r} is not an address", "write host:port, [::1]:port or unix:/path", value)
    return value


Name = Annotated[
    str, AfterValidator(read_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"})
]
Methods = tuple[Annotated[str, AfterValidator(read_method)], ...]
FieldName = Annotated[str, AfterValidator(read_field), Field(examples=["x-request-timeout-ms"])]
"""Empty, or the name of a header field that has no meaning of its own, in lower case."""
ImportPath = Annotated[str, AfterValidator(read_import_path), Field(examples=["package.module:app"])]
"""Empty, or where to import an object from."""
UrlPath = Annotated[str, AfterValidator(read_url_path)]
"""Empty, or the path of a URL."""
Url = Annotated[str, AfterValidator(read_url), Field(examples=["http://127.0.0.1:9001"])]
"""Empty, or where a target listens."""
Host = Annotated[str, AfterValidator(read_host)]
TransportName = Annotated[
    str,
    AfterValidator(read_transport),
    WithJsonSchema(
        {"anyOf": [{"enum": list(TRANSPORTS)}, {"type": "string", "pattern": f"^{IMPORT_PATH.pattern}$"}]}
    ),
]
Network = Annotated[str, AfterValidator(read_network), Field(examples=["10.0.0.0/8", "unix"])]
Listen = Annotated[
    str, AfterValidator(read_listen), Field(examples=["0.0.0.0:8000", "unix:/run/gateway.sock"])
]
