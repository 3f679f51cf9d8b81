"""The only place that says what stands at the end of an upstream's chain."""

from typing import Any, ClassVar

from .asgi import ASGIApp
from .component import Build
from .declaration import Declaration


class Endpoint(Declaration):
    """The options of a kind of upstream, and `open`, which makes the ASGI app that answers for it.

        class Bus(Endpoint, name="redis_bus"): ...

    Written in a file as `upstreams: {bus: {endpoint: {redis_bus: {...}}}}`.
    """

    name: ClassVar[str]

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name

    def open(self, build: Build) -> ASGIApp:
        """Return the app that answers. It runs inside the boundary: it may raise UpstreamError before its
        head.
        """
        raise NotImplementedError(f"endpoint {self.name!r} has no open(self, build)")
