"""The only place that says what a component is and what it may use while its chain is built."""

import random
from collections.abc import Callable, Coroutine, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from .asgi import ASGIApp, Headers, Receive, Scope, Send
from .clock import Clock
from .consumers import Consumers
from .stage import Stage
from .store import Store
from .strictness import Strict

T = TypeVar("T")


class Component(Strict):
    """The options of one step in a chain, and `wrap`, which makes that step.

        class Hello(Component, name="hello", stage=Stage.TRANSFORM): ...

    Options are frozen, hashable and described: a component says what it does, and keeps nothing. State
    belongs into the
    closure that `wrap` returns, or into `build.keep` if it shall survive a reload.
    """

    name: ClassVar[str]
    stage: ClassVar[Stage]
    rank: ClassVar[int] = 0
    """Orders components inside one stage, where that matters: lower stands further out."""
    serves: ClassVar[frozenset[str]] = frozenset({"http"})
    """The scope types that it handles: http, websocket."""
    refuses: ClassVar[bool] = False
    """Whether it may refuse a request; only then `mode: report` means something."""
    answers_preflight: ClassVar[bool] = False
    """Whether it answers CORS preflights: its route is found by Access-Control-Request-Method then."""

    def __init_subclass__(
        cls,
        name: str | None = None,
        stage: Stage | None = None,
        rank: int | None = None,
        serves: frozenset[str] | None = None,
        refuses: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        given = {"name": name, "stage": stage, "rank": rank, "serves": serves, "refuses": refuses}
        for key, value in given.items():
            if value is not None:
                setattr(cls, key, value)

    def owns(self) -> Iterable[str]:
        """Header fields of the request that only this component sets: a caller's own are dropped on every
        route.
        """
        return ()

    def forwarded(self) -> Iterable[str]:
        """Header fields that only a trusted proxy may send: anybody else's are dropped on every route."""
        return ()

    def variables(self) -> Iterable[str]:
        """Variables of the path that it reads, `*` for the rest of a wildcard: a path without them is
        refused.
        """
        return ()

    def needs_caller(self) -> str:
        """The option that means nothing where nobody finds out who is calling, as in `by: consumer`; empty:
        none.
        """
        return ""

    def leads_to(self) -> Iterable[tuple[str, str]]:
        """Upstreams beside that of the route which requests may reach, and which requests: for `check`."""
        return ()

    def wrap(self, app: ASGIApp, build: "Build") -> ASGIApp:
        """Return an ASGI app around `app`. Does all the work that can be done once; synchronous; may raise
        ConfigError.
        """
        raise NotImplementedError(f"component {self.name!r} has no wrap(self, app, build)")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a component does not let a request pass, and how the caller is told."""

    status: int
    reason: str
    """For machines: one short word in snake_case, the same for every request that is refused so."""
    headers: Headers = ()
    detail: str = ""
    component: str = ""
    missing: bool = False
    """Whether the request only lacks what the component asks for; what is there but wrong is not missing."""
    members: tuple[tuple[str, Any], ...] = ()
    """More members of the problem (RFC 9457 3.2), with values that JSON can say."""


class Refuse(Protocol):
    """Answers with a problem, or, under `mode: report`, records the refusal and goes on."""

    reporting: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What a control call was answered."""

    status: int
    headers: Headers
    """Names in lower case."""
    body: bytes


class Control(Protocol):
    """The client for calls that the gateway itself makes: key servers, introspection, authorisation."""

    async def call(
        self,
        method: str,
        url: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        timeout: float,  # noqa: ASYNC109
        max_size: int = 1 << 20,
    ) -> Reply:
        """One call, no redirects. It goes on when its caller leaves. Raises ControlError; at once, if the
        service failed often.
        """
        ...


class Dial(Protocol):
    """One live setting that can be turned while requests run."""

    name: str
    value: Any

    def set(self, value: Any) -> None:
        """Turn it; ValueError outside its bounds."""
        ...


class Build(Protocol):
    """What a component may use while its chain is built."""

    owner: str
    """`route orders` or `upstream orders`: for messages."""
    place: str
    """`rate_limit/route orders/0`: component, owner and position; the same in every process that reads this
    file.
    """
    mode: Literal["enforce", "report"]
    consumers: Consumers
    clock: Clock
    dice: random.Random
    control: Control

    @property
    def end(self) -> ASGIApp:
        """The end of the chain: on a route what calls the upstream that the exchange names, under the path
        that the route rewrites.
        """
        ...

    @property
    def shares(self) -> bool:
        """Whether there is a store that processes share: for what makes sense only then."""
        ...

    @property
    def store(self) -> Store:
        """State that the processes of a gateway share, if `store.shared`; behind a deadline and a breaker."""
        ...

    def upstream(self, name: str) -> ASGIApp:
        """The compiled chain of an upstream; ConfigError if there is none of that name, or if they form a
        circle.
        """
        ...

    def up(self, name: str) -> Callable[[], bool]:
        """What tells whether an upstream has a target that is available."""
        ...

    def keep(
        self,
        key: Hashable,
        make: Callable[[], T],
        *,
        run: Callable[[T], Coroutine[Any, Any, None]] | None = None,
        close: Callable[[T], Coroutine[Any, Any, None]] | None = None,
        shared: bool = False,
    ) -> T:
        """Made once; the same object again after a reload that asks for it under an equal key.

        The key is namespaced by component, owner and position unless `shared`, and names only what the
        state depends on (the rule of a limiter, not its message). `run` is a supervised coroutine, started
        with it; `close` is awaited when the last configuration that asked for it is gone.
        """
        ...

    def refuse(self, app: ASGIApp) -> Refuse:
        """What to call in order to refuse; `app` is where a request goes on that is only reported."""
        ...

    def inside(self, component: str, place: Hashable, refuse: Callable[[ASGIApp], Refuse]) -> "Build":
        """The Build of a component that stands inside of this one, and refuses through `refuse`."""
        ...

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Run something beside the requests: bounded, ended at shutdown. False if there are too many."""
        ...

    def dial(self, name: str, default: T, *, ge: Any = None, le: Any = None) -> "Dial":
        """A live setting, for example a percentage; it keeps its value over reloads while its default stays
        the same.
        """
        ...

    def operation(self, name: str, function: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        """Offer something that an operator can have done while requests run, such as a purge."""
        ...

    def on_live(self, function: Callable[[], None]) -> None:
        """Call `function` after the swap. `wrap` itself changes nothing that it kept: the build may still be
        refused.
        """
        ...
