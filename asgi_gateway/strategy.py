"""The only place that says what a strategy of a canary is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from .asgi import Scope
from .component import Build
from .strictness import Strict

if TYPE_CHECKING:
    from .exchange import Exchange

Choose = Callable[[Scope, "Exchange"], str]
"""The variant of one request: its name, `stable`, or nothing where the rules and the percentage decide."""


class Strategy(Strict):
    """The options of a way to choose the variant of a request, and `open`, which makes the function for it.

        class Employees(Strategy, name="employees"): ...

    Written in a file as `canary: {upstream: next, strategy: {employees: {...}}}`.
    """

    name: ClassVar[str]

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name

    def open(self, build: Build) -> Choose:
        """Return the function that chooses. It is called once per request, and waits for nothing."""
        raise NotImplementedError(f"strategy {self.name!r} has no open(self, build)")
