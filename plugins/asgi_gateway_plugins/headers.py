"""Change header fields, on the way upstream and on the way back."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from asgi_gateway.asgi import ASGIApp, Header, Message, Receive, Scope, Send
from asgi_gateway.call import CALL, Call
from asgi_gateway.component import Build, Component
from asgi_gateway.config import read_pairs
from asgi_gateway.declaration import Declaration
from asgi_gateway.exchange import EXCHANGE, Exchange, OnStart
from asgi_gateway.stage import Stage

from .fields import HeaderName, is_framing, spellings
from .template import Render, path_variables, render, variables

Edit = Callable[[Exchange, Iterable[Header]], list[Header]]
Step = Callable[[Exchange, list[Header]], None]


def read_template(text: str) -> str:
    variables(text)
    return text


Template = Annotated[str, AfterValidator(read_template)]
MAPPING = (
    BeforeValidator(read_pairs),
    PlainSerializer(dict),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
)
Values = Annotated[tuple[tuple[HeaderName, Template], ...], *MAPPING]
Renames = Annotated[tuple[tuple[HeaderName, HeaderName], ...], *MAPPING]


class Edits(Declaration):
    """What happens to the fields of one message, in the order in which the options stand here."""

    remove: tuple[HeaderName, ...] = ()
    """Fields to remove."""
    rename: Renames = ()
    """Fields that get another name, `old: new`. What had the new name is gone if the old one is there."""
    set: Values = ()
    """Fields that have this value, whatever was there."""
    default: Values = ()
    """Fields that have this value if there is none of that name."""
    append: Values = ()
    """What is appended to the last field of that name, behind a comma; without one it is a new field."""
    add: Values = ()
    """Fields to add to those that are there."""

    @model_validator(mode="after")
    def leave_framing(self) -> "Edits":
        for name in self.names:
            if is_framing(name):
                raise ValueError(
                    f"{name} says how a message is framed: only the gateway itself sets or removes it"
                )
        if any(name == "set-cookie" for name, _ in self.append):
            raise ValueError("cookies do not stand behind a comma: `add` them")
        return self

    @property
    def variables(self) -> Iterator[str]:
        """Variables of the path in the values."""
        for _, template in (*self.set, *self.default, *self.append, *self.add):
            yield from path_variables(template)

    @property
    def names(self) -> tuple[str, ...]:
        """All fields that are touched."""
        given = (*self.set, *self.default, *self.append, *self.add)
        return (*self.remove, *(name for pair in self.rename for name in pair), *(name for name, _ in given))


class RequestEdits(Edits):
    """Edits of what goes upstream."""

    @model_validator(mode="after")
    def leave_host(self) -> "RequestEdits":
        if "host" in self.names:
            raise ValueError(
                "the Host that an upstream sees is said by `host` of the upstream, or by a `rewrite`"
            )
        return self


class Headers(Component, name="headers", stage=Stage.TRANSFORM, serves=frozenset({"http", "websocket"})):
    """Sets, adds, renames and removes header fields of requests and responses.

    Values hold variables of the path and `{consumer}`, `{request_id}`, `{client}`, `{host}`, `{route}`.
    """

    request: RequestEdits = RequestEdits()
    """What goes upstream."""
    response: Edits = Edits()
    """What goes back to the caller. On an upstream: its answers only."""

    def variables(self) -> Iterable[str]:
        return (*self.request.variables, *self.response.variables)

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        edit = editor(self.request)
        edit_answer = editor(self.response) if self.response != Edits() else None

        def on_start(exchange: Exchange, message: Message) -> None:
            assert edit_answer is not None
            message["headers"] = edit_answer(exchange, message.get("headers", ()))

        def headers(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            exchange: Exchange = scope[EXCHANGE]
            if edit_answer is not None:
                call: Call | None = scope.get(CALL)
                if call is None:
                    exchange.on_start(on_start)
                else:
                    # Several upstreams may be called within one exchange: each edits its own answer.
                    call.judge(partial(judge, on_start, exchange))
            return app({**scope, "headers": edit(exchange, scope["headers"])}, receive, send)

        return headers


def judge(on_start: OnStart, exchange: Exchange, call: Call, message: Message) -> None:
    on_start(exchange, message)


def editor(edits: Edits) -> Edit:
    """One function that does all of these edits."""
    steps = [make(pairs) for make, pairs in ((defaulting, edits.default), (appending, edits.append)) if pairs]
    removed, overwritten = every(edits.remove), every(name for name, _ in edits.set)
    new, added = made(edits.set), made(edits.add)
    if not steps and not edits.rename:
        gone = removed | overwritten
        new += added

        def edit(exchange: Exchange, fields: Iterable[Header]) -> list[Header]:
            kept = [field for field in fields if field[0] not in gone]
            kept += filled(new, exchange)
            return kept

        return edit
    rename = renaming(edits.rename)

    def edit_all(exchange: Exchange, fields: Iterable[Header]) -> list[Header]:
        kept = rename([field for field in fields if field[0] not in removed])
        kept = [field for field in kept if field[0] not in overwritten]
        kept += filled(new, exchange)
        for step in steps:
            step(exchange, kept)
        kept += filled(added, exchange)
        return kept

    return edit_all


def every(names: Iterable[str]) -> frozenset[bytes]:
    """All spellings of all names."""
    return frozenset(spelling for name in names for spelling in spellings(name))


def made(pairs: Iterable[tuple[str, str]]) -> list[tuple[bytes, Render]]:
    return [(name.encode(), render(template)) for name, template in pairs]


def filled(new: list[tuple[bytes, Render]], exchange: Exchange) -> list[Header]:
    """The new fields, without those whose value came out empty."""
    fields = [(name, rendered(exchange)) for name, rendered in new]
    return [field for field in fields if field[1]]


def renaming(pairs: Iterable[tuple[str, str]]) -> Callable[[list[Header]], list[Header]]:
    """The function that gives fields their new names; they keep their places."""
    renamed = {spelling: new.encode() for old, new in pairs for spelling in spellings(old)}
    taken = {new.encode(): spellings(new) for _, new in pairs}

    def rename(fields: list[Header]) -> list[Header]:
        found = {renamed[name] for name, _ in fields if name in renamed}
        gone = {spelling for name in found for spelling in taken[name]} - renamed.keys()
        return [(renamed.get(field[0], field[0]), field[1]) for field in fields if field[0] not in gone]

    return rename


def defaulting(pairs: Iterable[tuple[str, str]]) -> Step:
    new = [(spellings(name), name.encode(), render(template)) for name, template in pairs]

    def default(exchange: Exchange, fields: list[Header]) -> None:
        there = {name for name, _ in fields}
        missing = [(name, rendered) for every, name, rendered in new if there.isdisjoint(every)]
        fields += filled(missing, exchange)

    return default


def appending(pairs: Iterable[tuple[str, str]]) -> Step:
    new = made(pairs)

    def append(exchange: Exchange, fields: list[Header]) -> None:
        for name, more in filled(new, exchange):
            last = max((index for index, field in enumerate(fields) if field[0] == name), default=None)
            if last is None:
                fields.append((name, more))
            else:
                before = fields[last][1]
                fields[last] = (name, b"%b, %b" % (before, more) if before else more)

    return append
