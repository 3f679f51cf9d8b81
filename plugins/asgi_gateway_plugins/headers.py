"""Set, add and remove header fields, on the way upstream and on the way back."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from asgi_gateway.asgi import ASGIApp, Header, Message, Receive, Scope, Send
from asgi_gateway.component import Build, Component
from asgi_gateway.config import read_pairs
from asgi_gateway.exchange import CALL, EXCHANGE, Call, Exchange, OnStart
from asgi_gateway.stage import Stage

from .fields import HeaderName, spellings
from .template import Render, path_variables, render, variables

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

Edit = Callable[[Exchange, Iterable[Header]], list[Header]]


def read_template(text: str) -> str:
    variables(text)
    return text


Template = Annotated[str, AfterValidator(read_template)]
Values = Annotated[
    tuple[tuple[HeaderName, Template], ...],
    BeforeValidator(read_pairs),
    PlainSerializer(dict),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]


class Edits(BaseModel):
    """What happens to the fields of one message: first `remove`, then `set`, then `add`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    remove: tuple[HeaderName, ...] = ()
    """Fields to remove."""
    set: Values = ()
    """Fields that have this value, whatever was there."""
    add: Values = ()
    """Fields to add to those that are there."""

    @model_validator(mode="after")
    def leave_framing(self) -> "Edits":
        names = [*self.remove, *(name for name, _ in (*self.set, *self.add))]
        for name in names:
            if name in FRAMING:
                raise ValueError(
                    f"{name} says how a message is framed: only the gateway itself sets or removes it"
                )
        return self

    @property
    def variables(self) -> Iterator[str]:
        """Variables of the path in the values."""
        for _, template in (*self.set, *self.add):
            yield from path_variables(template)

    @property
    def names(self) -> tuple[str, ...]:
        """Fields of which nothing that came is left."""
        return (*self.remove, *(name for name, _ in self.set))


class RequestEdits(Edits):
    """Edits of what goes upstream."""

    @model_validator(mode="after")
    def leave_host(self) -> "RequestEdits":
        if "host" in (*self.names, *(name for name, _ in self.add)):
            raise ValueError("the Host that an upstream sees is said by `host` of the upstream")
        return self


class Headers(Component, name="headers", stage=Stage.TRANSFORM, serves=frozenset({"http", "websocket"})):
    """Sets, adds and removes header fields of requests and responses.

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
    gone = frozenset(name for edited in edits.names for name in spellings(edited))
    new = [(name.encode(), render(template)) for name, template in (*edits.set, *edits.add)]

    def edit(exchange: Exchange, fields: Iterable[Header]) -> list[Header]:
        kept = [field for field in fields if field[0] not in gone]
        kept += filled(new, exchange)
        return kept

    return edit


def filled(new: list[tuple[bytes, Render]], exchange: Exchange) -> list[Header]:
    """The new fields, without those whose value came out empty."""
    fields = [(name, rendered(exchange)) for name, rendered in new]
    return [field for field in fields if field[1]]
