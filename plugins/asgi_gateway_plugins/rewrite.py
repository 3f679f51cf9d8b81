"""Changes what is asked of the upstream: path, query, method and host."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated
from urllib.parse import quote_from_bytes

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from asgi_gateway.asgi import ASGIApp, Receive, Scope, Send
from asgi_gateway.component import Build, Component, Refusal
from asgi_gateway.config import read_pairs
from asgi_gateway.config.model import UrlPath, read_host, read_method
from asgi_gateway.declaration import Declaration
from asgi_gateway.exchange import EXCHANGE, HOST, Exchange
from asgi_gateway.mistake import mistake
from asgi_gateway.paths import Ambiguous, Template, decode, encode, strip_root
from asgi_gateway.stage import Stage

from .credentials import decoded, query_pairs
from .fields import value
from .headers import read_template
from .template import KNOWN, path_variables, render, variables

IMPOSSIBLE = Refusal(400, "cannot_rewrite", (), "This request lacks what its path is rewritten with.")
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
NO_METHODS = {
    "HEAD": "its answers have no body",
    "CONNECT": "this gateway makes no tunnels",
    "TRACE": "it would show what only the upstream may see",
}


def read_path_template(text: str) -> str:
    if text:
        Template(text)
    return text


def read_new_method(text: str) -> str:
    method = read_method(text) if text else ""
    if method in NO_METHODS:
        raise mistake(f"{method} cannot stand in for another method", NO_METHODS[method], text)
    return method


def read_new_host(text: str) -> str:
    return read_host(text) if text else ""


def read_parameter(name: str) -> str:
    if not name:
        raise mistake("a parameter has a name")
    return name


Parameter = Annotated[str, AfterValidator(read_parameter)]
MAPPING = (
    BeforeValidator(read_pairs),
    PlainSerializer(dict),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
)
Values = Annotated[tuple[tuple[Parameter, Annotated[str, AfterValidator(read_template)]], ...], *MAPPING]
Renames = Annotated[tuple[tuple[Parameter, Parameter], ...], *MAPPING]

Edit = Callable[[Exchange, bytes], bytes]
Write = Callable[[Exchange], bytes]


class QueryEdits(Declaration):
    """What happens to the parameters of the query, in the order in which the options stand here."""

    remove: tuple[Parameter, ...] = ()
    """Parameters to remove. `*`: all of them."""
    rename: Renames = ()
    """Parameters that get another name, `old: new`."""
    set: Values = ()
    """Parameters that have this value, whatever was there."""
    default: Values = ()
    """Parameters that have this value if there is none of that name."""
    add: Values = ()
    """Parameters to add to those that are there."""


class Rewrite(
    Component,
    name="rewrite",
    stage=Stage.TRANSFORM,
    rank=10,
    serves=frozenset({"http", "websocket"}),
    refuses=True,
):
    """Changes the path, the query, the method and the host that the upstream sees."""

    path: Annotated[str, AfterValidator(read_path_template)] = ""
    """The new path, `/v2/{id}/{*}`, with variables of the path, or `{consumer}`, `{client}` and so on."""
    strip_prefix: UrlPath = ""
    """What is taken away from the beginning of the path, at the border of a segment."""
    add_prefix: UrlPath = ""
    """What is put in front of the path, after that."""
    query: QueryEdits = QueryEdits()
    """The parameters of the query."""
    method: Annotated[str, AfterValidator(read_new_method)] = ""
    """The new method. Empty: the caller's."""
    host: Annotated[str, AfterValidator(read_new_host)] = ""
    """The Host that the upstream sees, whatever `host` of the upstream says. Empty: what that says."""

    @model_validator(mode="after")
    def is_possible(self) -> "Rewrite":
        if self.path and (self.strip_prefix or self.add_prefix):
            raise mistake("`path` says the whole path", "leave out strip_prefix and add_prefix")
        if not any(value for _, value in self if value != QueryEdits()):
            raise mistake("rewrites nothing", "as in `path: /v2/{id}`")
        for prefix in (self.strip_prefix, self.add_prefix):
            if prefix and ("{" in prefix or "?" in prefix or "#" in prefix or "//" in prefix):
                raise mistake(f"{prefix!r} is not a plain path", "as in /v1", prefix)
        return self

    def variables(self) -> Iterable[str]:
        yield from (name for name in Template(self.path or "/").variables if name not in KNOWN)
        for _, template in (*self.query.set, *self.query.default, *self.query.add):
            yield from path_variables(template)

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        refuse = build.refuse(app)
        path_of = self.paths()
        edit = query_editor(self.query) if self.query != QueryEdits() else None
        method, host = self.method, self.host.encode()

        def rewrite(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            inner = {**scope}
            if path_of is not None:
                path = path_of(scope, exchange)
                if path is None:
                    return refuse(scope, receive, send, IMPOSSIBLE)
                inner["root_path"], inner["path"], inner["raw_path"] = "", decode(path), path.encode("ascii")
            if edit is not None:
                inner["query_string"] = edit(exchange, scope["query_string"])
            if method and scope["type"] == "http":
                inner["method"] = method
                # Some servers take no POST that says nothing of a length (RFC 9110 8.6).
                if method in WITH_BODY and not exchange.has_body and scope["method"] not in WITH_BODY:
                    kept = [field for field in scope["headers"] if field[0] != b"content-length"]
                    inner["headers"] = [*kept, (b"content-length", b"0")]
            if host:
                others = [field for field in inner["headers"] if field[0] != b"host"]
                inner["headers"], inner[HOST] = [(b"host", host), *others], host
            return app(inner, receive, send)

        return rewrite

    def paths(self) -> Callable[[Scope, Exchange], str | None] | None:
        """The function that makes the new path; it says None if that is impossible."""
        if self.path:
            return filling(Template(self.path))
        if not self.strip_prefix and not self.add_prefix:
            return None
        stripped, added = decode(self.strip_prefix.rstrip("/")), literal(self.add_prefix)

        def path(scope: Scope, exchange: Exchange) -> str:
            raw: bytes = scope["raw_path"]
            found = strip_root(raw.decode("ascii"), scope.get("root_path") or "")
            found = strip_root(found, stripped)
            return added + found if added else found

        return path


def literal(prefix: str) -> str:
    """A prefix in canonical spelling."""
    return Template(prefix.rstrip("/")).fill({}) if prefix.rstrip("/") else ""


def filling(template: Template) -> Callable[[Scope, Exchange], str | None]:
    known = [(name, KNOWN[name]) for name in template.variables if name in KNOWN]
    if not known:
        return lambda scope, exchange: template.fill(exchange.raw_params)

    def fill(scope: Scope, exchange: Exchange) -> str | None:
        values: Mapping[str, str] = exchange.raw_params
        try:
            # A variable of the path may have the name of a known one, and comes first.
            found = {name: encode(look_up(exchange)) for name, look_up in known if name not in values}
        except Ambiguous:
            return None
        return template.fill({**found, **values})

    return fill


# The query


def query_editor(edits: QueryEdits) -> Edit:
    """One function that does all of these edits. What is not touched stays byte for byte."""
    gone = frozenset(name.encode() for name in edits.remove)
    everything = b"*" in gone
    renamed = {old.encode(): escape(new.encode()) for old, new in edits.rename}
    overwritten = frozenset(name.encode() for name, _ in edits.set)
    new, default, added = writers(edits.set), writers(edits.default), writers(edits.add)

    def edit(exchange: Exchange, query: bytes) -> bytes:
        kept = []
        for (name, _), piece in query_pairs(query) if not everything else ():
            if name in gone:
                continue
            if name in renamed:
                _, equals, text = piece.partition(b"=")
                piece = renamed[name] + equals + text
                name = decoded(piece)[0]
            if name not in overwritten:
                kept.append(piece)
        kept += [piece for _, write in new if (piece := write(exchange))]
        if default:
            there = {decoded(piece)[0] for piece in kept}
            missing = [write for name, write in default if name not in there]
            kept += [piece for write in missing if (piece := write(exchange))]
        kept += [piece for _, write in added if (piece := write(exchange))]
        return b"&".join(kept)

    return edit


def escape(text: bytes) -> bytes:
    return quote_from_bytes(text, "").encode("ascii")


def writers(pairs: Iterable[tuple[str, str]]) -> list[tuple[bytes, Write]]:
    """For each name what writes its parameter; empty where the value comes out empty."""
    return [(name.encode(), writer(escape(name.encode()) + b"=", template)) for name, template in pairs]


def writer(begin: bytes, template: str) -> Write:
    rendered = render(template)

    def write(exchange: Exchange) -> bytes:
        text = rendered(exchange)
        return begin + escape(text) if text else b""

    if variables(template):
        return write
    fixed = value(template.format())
    piece = begin + escape(fixed) if fixed else b""
    return lambda exchange: piece
