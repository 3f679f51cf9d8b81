"""Names and values of HTTP fields: what a component may set, and how a forged copy of it is found."""

import re
from itertools import product
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from asgi_gateway.asgi import Scope
from asgi_gateway.mistake import mistake

TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}"
"""RFC 9110 5.6.2."""
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
SEPARATORS = 10
"""Dashes and underscores in one name; `spellings` doubles with each."""


FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def is_framing(name: str) -> bool:
    """Whether this field says how a message is framed, in the spelling of CGI, too."""
    return name.lower().replace("_", "-") in FRAMING


def read_name(name: str) -> str:
    if not re.fullmatch(TOKEN, name):
        raise mistake(f"{name!r} is not the name of a field", "as in x-request-id", name)
    if len(re.findall("[-_]", name)) > SEPARATORS:
        raise ValueError(f"{name!r} has more than {SEPARATORS} dashes and underscores")
    return name.lower()


HeaderName = Annotated[
    str, AfterValidator(read_name), WithJsonSchema({"type": "string", "pattern": f"^{TOKEN}$"})
]
"""The name of a field, in lower case."""

NoHeader = Annotated[
    str,
    AfterValidator(lambda name: read_name(name) if name else name),
    WithJsonSchema({"type": "string", "pattern": f"^({TOKEN})?$"}),
]
"""The same, or empty for none."""


def read_written(name: str) -> str:
    if is_framing(name) or name == "host":
        raise mistake(f"{name!r} says how a message is sent", "take another name, as in x-caller", name)
    return name


WrittenName = Annotated[HeaderName, AfterValidator(read_written)]
"""The name of a field that a component writes by itself: none of those that frame or address a message."""

WrittenHeader = Annotated[NoHeader, AfterValidator(read_written)]
"""The same, or empty for none."""


def spellings(name: str) -> frozenset[bytes]:
    """A name with each of its dashes as dash or underscore: CGI and WSGI read both as one."""
    parts = re.split("[-_]", name)
    separators = product(b"-_", repeat=len(parts) - 1)
    return frozenset(weave(parts, chosen) for chosen in separators)


def weave(parts: list[str], separators: tuple[int, ...]) -> bytes:
    woven = parts[0].encode()
    for separator, part in zip(separators, parts[1:], strict=True):
        woven += bytes((separator,)) + part.encode()
    return woven


def value(text: str) -> bytes:
    """A text as the value of a field. Control characters are percent-encoded: they cannot end the field."""
    return CONTROL.sub(lambda found: f"%{ord(found[0]):02X}", text).strip().encode(errors="replace")


def values(scope: Scope, name: bytes) -> bytes:
    """All values of a field of a request, joined as RFC 9110 5.3 does it; empty if there is none."""
    return b", ".join([found for key, found in scope["headers"] if key == name])
