"""Origins of web pages, as browsers write them (RFC 6454 6.2): `https://app.example.com:8443`."""

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from asgi_gateway.asgi import Scope
from asgi_gateway.mistake import mistake
from asgi_gateway.origin import PORTS

from .fields import values

ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]{0,31})://([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?"
)


def read_origin(text: str) -> str:
    """The origin as a browser writes it: in lower case, without a port that its scheme has anyway."""
    if text == "null":
        raise mistake("'null' is no origin", "every page in a sandbox has it, whoever made it")
    found = ORIGIN.fullmatch(text)
    if found is None:
        hint = "scheme://host[:port] without a path, as in https://app.example.com"
        raise mistake(f"{text!r} is not an origin", hint, text)
    scheme, host, port = found.groups()
    if port is None or int(port) == PORTS.get(scheme):
        return f"{scheme}://{host.lower()}"
    return f"{scheme}://{host.lower()}:{int(port)}"


OriginName = Annotated[
    str, AfterValidator(read_origin), WithJsonSchema({"type": "string", "pattern": f"^{ORIGIN.pattern}$"})
]


def origin_of(scope: Scope) -> bytes:
    """The Origin of a request: empty if there is none; several together are none of anybody."""
    return values(scope, b"origin")


def is_own(origin: bytes, authority: bytes) -> bool:
    """Whether a page of this origin was served under the Host that the request asks for.

    Schemes are not compared: who terminates TLS before the gateway may not say so.
    """
    scheme, separator, place = origin.lower().partition(b"://")
    host = authority.lower()
    if scheme in (b"http", b"https"):
        host = host.removesuffix(b":%d" % PORTS[scheme.decode()])
    return bool(separator and place) and place == host
