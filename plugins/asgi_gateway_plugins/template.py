"""Texts with variables of the request in them: `/v2/{id}`, `{consumer}`."""

from collections.abc import Callable
from string import Formatter

from asgi_gateway.exchange import Exchange

from .fields import value

Render = Callable[[Exchange], bytes]

KNOWN: dict[str, Callable[[Exchange], str]] = {
    "consumer": lambda exchange: exchange.principal.consumer if exchange.principal else "",
    "request_id": lambda exchange: exchange.id,
    "client": lambda exchange: exchange.client,
    "host": lambda exchange: exchange.host,
    "route": lambda exchange: exchange.route,
}
"""Variables that every request has. All others are variables of the path."""


def variables(text: str) -> list[str]:
    """The names between braces; ValueError if the text is not a template."""
    names = []
    for _, name, specification, conversion in Formatter().parse(text):
        if name is None:
            continue
        if specification or conversion or not (name.isidentifier() or name == "*"):
            raise ValueError(f"{text!r}: write a variable as {{name}}, and a brace as {{{{ or }}}}")
        names.append(name)
    return names


def path_variables(text: str) -> list[str]:
    """Those that only the path of a route can have."""
    return [name for name in variables(text) if name not in KNOWN]


def render(text: str) -> Render:
    """The function that makes the value of a field out of a template and an exchange."""
    if not variables(text):
        fixed = value(text.format())
        return lambda exchange: fixed
    parts = [(literal, name) for literal, name, _, _ in Formatter().parse(text)]

    def rendered(exchange: Exchange) -> bytes:
        return value("".join(literal + (look_up(name, exchange) if name else "") for literal, name in parts))

    return rendered


def look_up(name: str, exchange: Exchange) -> str:
    known = KNOWN.get(name)
    return known(exchange) if known else exchange.params.get(name, "")
