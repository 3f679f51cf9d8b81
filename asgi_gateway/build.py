"""The only place that hands a component what it may use while its chain is built."""

import random
from collections.abc import Callable, Coroutine, Hashable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from .asgi import ASGIApp
from .clock import Clock
from .component import Control, Refuse
from .consumers import Consumers
from .errors import ConfigError, Problem
from .refusing import Refusing
from .store import Store

if TYPE_CHECKING:
    from .compiler import Compiler

T = TypeVar("T")


class Dial(Generic[T]):
    """One live setting that can be turned while requests run."""

    __slots__ = ("_ge", "_le", "name", "value")

    def __init__(self, name: str, value: T, ge: Any = None, le: Any = None) -> None:
        self.name = name
        self._ge = ge
        self._le = le
        self.set(value)

    def set(self, value: T) -> None:
        bound = cast("Any", value)
        if (self._ge is not None and bound < self._ge) or (self._le is not None and bound > self._le):
            raise ValueError(f"{self.name} goes from {self._ge} to {self._le}, not to {value}")
        self.value = value

    def __repr__(self) -> str:
        return f"<Dial {self.name} {self.value}>"


class ChainBuild:
    """The Build of one component in one chain."""

    def __init__(
        self,
        compiler: "Compiler",
        owner: str,
        component: str,
        position: int,
        mode: Literal["enforce", "report"],
        *,
        end: ASGIApp | None = None,
        inside: tuple[Hashable, ...] = (),
        refuse: Callable[[ASGIApp], Refuse] | None = None,
    ) -> None:
        self._compiler = compiler
        self._component = component
        self._position = position
        self._inside = inside
        self._refuse = refuse
        self._end = end
        self.owner = owner
        self.place = f"{component}/{owner}/{position}"
        self.mode: Literal["enforce", "report"] = mode
        self.consumers: Consumers = compiler.consumers
        self.clock: Clock = compiler.kernel.clock
        self.dice: random.Random = compiler.kernel.dice
        self.control: Control = compiler.kernel.control

    @property
    def shares(self) -> bool:
        return self._compiler.stored.shared

    @property
    def store(self) -> Store:
        return self._compiler.stored.store_for(self._component)

    @property
    def end(self) -> ASGIApp:
        if self._end is None:
            raise ConfigError(Problem("an endpoint is the end of its chain", self.owner))
        return self._end

    def upstream(self, name: str) -> ASGIApp:
        return self._compiler.upstream(name, self.owner)

    def up(self, name: str) -> Callable[[], bool]:
        self._compiler.upstream(name, self.owner)
        return self._compiler.up(name)

    def keep(
        self,
        key: Hashable,
        make: Callable[[], T],
        *,
        run: Callable[[T], Coroutine[Any, Any, None]] | None = None,
        close: Callable[[T], Coroutine[Any, Any, None]] | None = None,
        shared: bool = False,
    ) -> T:
        place = () if shared else (self.owner, *self._inside, self._position)
        return self._compiler.lease.keep((self._component, *place, key), make, run, close)

    def refuse(self, app: ASGIApp) -> Refuse:
        if self._refuse is not None:
            return self._refuse(app)
        raising = self.owner.startswith("upstream ")
        return Refusing(app, self._component, reporting=self.mode == "report", raising=raising)

    def inside(self, component: str, place: Hashable, refuse: Callable[[ASGIApp], Refuse]) -> "ChainBuild":
        within = (*self._inside, self._component, self._position, place)
        return ChainBuild(
            self._compiler, self.owner, component, 0, self.mode, end=self._end, inside=within, refuse=refuse
        )

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        return self._compiler.kernel.spawn(coroutine)

    def dial(self, name: str, default: T, *, ge: Any = None, le: Any = None) -> Dial[T]:
        full = self._full(name)
        dial = self._compiler.lease.keep(("dial", full, default, ge, le), lambda: Dial(full, default, ge, le))
        self._compiler.dials[full] = cast("Dial[object]", dial)
        return dial

    def operation(self, name: str, function: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._compiler.operations[self._full(name)] = function

    def _full(self, name: str) -> str:
        """How operators call something of this component."""
        full = f"{self.owner.replace(' ', '/')}/{self._component}/{name}"
        for part in self._inside:
            full = f"{full}/{part}"
        return f"{full}/{self._position + 1}" if self._position else full

    def on_live(self, function: Callable[[], None]) -> None:
        self._compiler.on_live.append(function)
