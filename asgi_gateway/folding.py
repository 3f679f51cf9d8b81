"""The only place where chains are folded: components around an app, in order, each where it may stand."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .asgi import ASGIApp, Receive, Scope, Send
from .build import ChainBuild
from .conditions import conditional
from .config import Chain, Use
from .errors import ConfigError, Problem
from .stage import Stage

if TYPE_CHECKING:
    from .compiler import Compiler

logger = logging.getLogger("asgi_gateway")

MUST_SERVE = (Stage.GUARD, Stage.AUTH, Stage.LIMIT)
"""Stages that a WebSocket must not get around."""


class Folding:
    """Folds the chains of one configuration, and remembers what it has said of them."""

    def __init__(self, compiler: "Compiler") -> None:
        self._compiler = compiler
        self.warnings: list[Problem] = []
        self._told: set[tuple[int, str, str]] = set()
        """What is wrong with which entry."""

    def fold(self, uses: Sequence[Use], app: ASGIApp, owner: str, kind: str = "http") -> ASGIApp:
        """Wrap `app` into the components that serve this kind of scope, the innermost first."""
        seen: dict[str, int] = {}
        builds = []
        for use in in_order(uses):
            name = use.component.name
            position = seen.get(name, 0)
            seen[name] = position + 1
            self._check_side(use, owner)
            if kind in use.component.serves:
                builds.append((use, ChainBuild(self._compiler, owner, name, position, use.mode, end=app)))
            elif kind == "websocket" and use.component.stage in MUST_SERVE:
                raise ConfigError(
                    Problem(
                        f"{name} does not serve WebSocket, so that a handshake would get around it",
                        owner,
                        "take `websocket: true` or the component away",
                    )
                )
        for use, build in reversed(builds):
            inner = self._wrap(use, app, build)
            app = conditional(inner, app, use.when) if use.when is not None else inner
        return app

    def _wrap(self, use: Use, app: ASGIApp, build: ChainBuild) -> ASGIApp:
        name, where = use.component.name, f"{build.owner}: {use.component.name}"
        try:
            inner = use.component.wrap(app, build)
        except ConfigError as error:
            raise ConfigError(
                replace(problem, where=f"{where}: {problem.where}" if problem.where else where)
                for problem in error.problems
                if self._is_new(use, problem)
            ) from error
        except Exception as error:
            logger.debug("%s could not be built", where, exc_info=True)
            problem = Problem(f"building {name} failed: {type(error).__name__}: {error}")
            found = [replace(problem, where=where)] if self._is_new(use, problem) else []
            raise ConfigError(found) from error
        if not callable(inner):
            raise ConfigError(Problem(f"{name}.wrap returned {inner!r}, not an ASGI app", where))
        return inner

    def _is_new(self, use: Use, problem: Problem) -> bool:
        """Whether nobody was told yet: what many routes share is wrong on all of them in the same way."""
        told = (id(use), problem.where, problem.what)
        is_new = told not in self._told
        self._told.add(told)
        return is_new

    def _check_side(self, use: Use, owner: str) -> None:
        """A component stands where its stage belongs, and is asked only what it can know there."""
        name, stage = use.component.name, use.component.stage
        on_upstream = owner.startswith("upstream ")
        if on_upstream and not stage.on_upstreams:
            raise ConfigError(Problem(f"{name} ({stage.name}) belongs on a route, not on an upstream", owner))
        if not on_upstream and not stage.on_routes:
            raise ConfigError(Problem(f"{name} ({stage.name}) belongs on an upstream, not on a route", owner))
        if use.when is not None and stage <= Stage.AUTH and use.when.consumer:
            raise ConfigError(
                Problem(
                    f"{name} ({stage.name}) comes before the caller is known: when.consumer is never true",
                    owner,
                )
            )
        if (
            use.when is not None
            and stage in (Stage.GUARD, Stage.AUTH)
            and (use.when.headers or use.when.query)
        ):
            warning = Problem(f"{name} depends on headers or query, which the caller chooses", owner)
            if warning not in self.warnings:
                self.warnings.append(warning)


def in_order(uses: Chain | Sequence[Use]) -> list[Use]:
    """The enabled entries as they stand in a chain, outermost first: by stage, then rank, then as listed."""
    there = [use for use in uses if use.enabled]
    return sorted(there, key=lambda use: (use.component.stage, use.component.rank))


def names(uses: Sequence[Use], kind: str) -> tuple[str, ...]:
    """What `check` prints of a chain."""
    return tuple(
        use.component.name
        + (" [report]" if use.mode == "report" else "")
        + (" [when]" if use.when is not None else "")
        for use in in_order(uses)
        if kind in use.component.serves
    )


def by_kind(http: ASGIApp, websocket: ASGIApp) -> ASGIApp:
    """An upstream whose components do not all serve both."""

    def upstream(scope: Scope, receive: Receive, send: Send) -> object:
        return (http if scope["type"] == "http" else websocket)(scope, receive, send)

    return upstream  # type: ignore[return-value]
