"""The only place that checks whether a component keeps the rules that the gateway relies on."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from copy import deepcopy
from typing import Any

from pydantic import BaseModel

from ..asgi import header
from ..component import Component
from ..config import Use
from ..declaration import descriptions
from ..errors import Aborted
from ..stage import Stage
from .harness import Client, gateway_around
from .messages import Request, Response
from .upstreams import Upstream

PATIENCE = 5.0
"""Seconds after which something that should happen at once counts as not happening."""


async def check_component(
    component: Component,
    *,
    request: Request | None = None,
    refused_by: Request | Sequence[Request] = (),
    **around: Any,
) -> None:
    """Raise AssertionError with every rule that the component breaks.

    `request` is one that passes (default: GET /); `refused_by` one that is refused, or several of which the
    last is; `around` what `gateway_around` takes besides, for example `consumers`.
    Requests are sent more than once: their bodies are bytes.
    """
    faults = [*check_declaration(component)]
    if not faults:
        refusing = (refused_by,) if isinstance(refused_by, Request) else tuple(refused_by)
        faults = await Check(component, request or Request(), refusing, around).run()
    if faults:
        raise AssertionError(
            f"{type(component).__qualname__}:\n" + "\n".join(f"- {fault}" for fault in faults)
        )


def check_declaration(component: Component) -> Iterator[str]:
    """What is wrong with the class and its options."""
    if not isinstance(getattr(component, "name", None), str):
        yield "it has no name: class ...(Component, name=...)"
    if not isinstance(getattr(component, "stage", None), Stage):
        yield "it has no stage: class ...(Component, stage=Stage...)"
    if not type(component).__dict__.get("__doc__"):
        yield "it has no docstring that says what it does"
    if not type(component).model_config.get("frozen"):
        yield "its options are not frozen"
    yield from (f"option {name} has no description" for name in undescribed(component))
    if deepcopy(component) != component:
        yield "a copy of it is not equal to it: a reload would take it for another one"
    try:
        hash(component)
    except TypeError as error:
        yield f"its options are not hashable: {error}"


def undescribed(model: BaseModel, place: str = "") -> Iterator[str]:
    """The options without a docstring, also those of models inside it."""
    described = descriptions(type(model))
    for name in type(model).model_fields:
        if name not in described:
            yield place + name
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from undescribed(value, f"{place}{name}.")


class Check:
    """The checks of one component in running gateways; each rule has gateways of its own."""

    def __init__(
        self, component: Component, request: Request, refused_by: tuple[Request, ...], around: dict[str, Any]
    ) -> None:
        self._component = component
        self._request = request
        self._refused_by = refused_by
        self._around = around

    async def run(self) -> list[str]:
        """What is broken. Without a request that passes, nothing else can be said."""
        before = state(self._component)
        faults = [fault async for fault in within(self.passes)]
        if not faults:
            rules: list[Callable[[], AsyncIterator[str]]] = [
                self.cancels,
                self.streams,
                self.cuts,
                self.refuses,
            ]
            faults = [fault for rule in rules async for fault in within(rule)]
        if state(self._component) != before:
            faults.append("wrap or a request changed the component itself: state belongs into wrap's closure")
        return faults

    def gateway(
        self, upstream: Upstream, use: Component | Use | None = None
    ) -> AbstractAsyncContextManager[Client]:
        return gateway_around(use or self._component, upstream=upstream, **self._around)

    async def passes(self) -> AsyncIterator[str]:
        """The request reaches the upstream, and its answer reaches the caller."""
        upstream = Upstream()
        async with self.gateway(upstream) as client:
            response = await client.ask(self._request)
        if not upstream.seen:
            yield f"the request that should pass was answered with {response.status}: {response.body!r}"
        elif response.status != 200:
            yield f"the upstream answered 200, the caller got {response.status}"

    async def cancels(self) -> AsyncIterator[str]:
        """Who leaves before the head or in the middle of the body is gone from the upstream, too."""
        for moment in ("head", "chunk"):
            upstream = Upstream(b"first", b"second", waits="head" if moment == "head" else "chunk")
            async with self.gateway(upstream) as client, client.open(self._request) as stream:
                await upstream.reached.wait()
                if moment == "chunk":
                    await stream.chunk()
                passed_on = await stream.leave()
            if not passed_on:
                yield f"the caller left before a {moment}: CancelledError did not come out, is it caught?"
            if not upstream.seen[-1].left:
                yield f"the caller left before a {moment}: the upstream was not cancelled"

    async def streams(self) -> AsyncIterator[str]:
        """The first piece of an answer is there before the second is made."""
        upstream = Upstream(b"first", b"second", waits="chunk")
        async with self.gateway(upstream) as client, client.open(self._request) as stream:
            if not await in_time(stream.chunk()):
                yield "the first piece of an answer is held back until there is more: it does not stream"
                return
            upstream.proceed()
            await stream.read()

    async def cuts(self) -> AsyncIterator[str]:
        """An answer that breaks in the middle is cut: the caller must not take it for whole."""
        async with self.gateway(Upstream(fails="chunk")) as client:
            try:
                await client.ask(self._request)
            except Aborted:
                return
        yield "an answer that broke in the middle was ended as if it were whole"

    async def refuses(self) -> AsyncIterator[str]:
        """Refusals are problems; they count for one gateway only; `mode: report` lets pass."""
        if bool(self._refused_by) != self._component.refuses:
            says = "may refuse" if self._component.refuses else "never refuses"
            yield f"it says that it {says} (class variable `refuses`): refused_by must fit that"
            return
        if not self._refused_by:
            return
        upstream = Upstream()
        async with self.gateway(upstream) as client, self.gateway(Upstream()) as other:
            *_, refused = [await client.ask(request) for request in self._refused_by]
            beside = await other.ask(self._request)
        for fault in not_a_problem(refused, self._component.name):
            yield f"the request of refused_by: {fault}"
        if len(upstream.seen) >= len(self._refused_by):
            yield "a request that is refused reached the upstream all the same"
        if beside.status != 200:
            yield "what one gateway refused is refused by another one, too: they share state"
        async for fault in self.reports():
            yield fault

    async def reports(self) -> AsyncIterator[str]:
        upstream = Upstream()
        async with self.gateway(upstream, Use(component=self._component, mode="report")) as client:
            for request in self._refused_by:
                await client.ask(request)
        if len(upstream.seen) != len(self._refused_by):
            yield "`mode: report` refused a request: call build.refuse, and return after it"


def not_a_problem(response: Response, component: str) -> Iterator[str]:
    """Why an answer is not a refusal as RFC 9457 and the gateway want it."""
    if not 400 <= response.status < 600:
        yield f"it was answered with {response.status}"
        return
    if header(response.headers, b"content-type") != b"application/problem+json":
        yield "its answer is not application/problem+json: call build.refuse"
        return
    members = json.loads(response.body)
    missing = [name for name in ("type", "title", "status", "reason", "request_id") if name not in members]
    if missing:
        yield f"its problem has no {', '.join(missing)}"
    elif members["status"] != response.status:
        yield f"its problem says {members['status']}, its status is {response.status}"
    if members.get("component") != component:
        yield f"it was refused by {members.get('component')!r}, not by {component!r}"


def state(component: Component) -> tuple[Any, Any]:
    """Everything that an object of it holds."""
    return deepcopy(component.__dict__), deepcopy(component.__pydantic_private__)


async def in_time(wanted: Awaitable[bytes]) -> bytes:
    """What is wanted; empty when it does not come."""
    try:
        return await asyncio.wait_for(wanted, PATIENCE)
    except TimeoutError:
        return b""


async def within(rule: Callable[[], AsyncIterator[str]]) -> AsyncIterator[str]:
    """What a rule says; one that hangs is broken."""
    try:
        async with asyncio.timeout(2 * PATIENCE):
            faults = [fault async for fault in rule()]
    except TimeoutError:
        faults = [f"{rule.__name__}: a request never came to its end"]
    for fault in faults:
        yield fault
