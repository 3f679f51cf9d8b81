"""Small components and an endpoint for the tests of configuration; nothing in them runs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import pytest
from pydantic import Field, SecretStr, ValidationInfo, field_validator

from asgi_gateway.component import Component
from asgi_gateway.config import Pairs
from asgi_gateway.declaration import Declaration
from asgi_gateway.endpoint import Endpoint
from asgi_gateway.errors import ConfigError
from asgi_gateway.hookspecs import hookimpl
from asgi_gateway.loading import load
from asgi_gateway.stage import Stage
from asgi_gateway.units import Rate, Size, Time


class Hello(Component, name="hello", stage=Stage.TRANSFORM):
    """Says hello."""

    greeting: str = "hello"
    """What is said."""


class Tier(Declaration):
    """A limit of its own for some consumers."""

    limit: Rate
    """How many."""
    groups: tuple[str, ...] = ()
    """For whom."""


class Ration(Component, name="ration", stage=Stage.LIMIT, refuses=True):
    """Limits how often somebody may call."""

    limit: Rate
    """How many requests."""
    by: Literal["consumer", "address"] = "consumer"
    """Who is counted."""
    tiers: tuple[Tier, ...] = ()
    """Other limits for some."""
    window: Time = 1.0
    """How long is looked back."""
    body: Size = 1024
    """How much is read."""
    cost: int | list[int] = 1
    """What a request costs."""
    headers: Pairs = ()
    """What is added to a refusal."""


class Login(Component, name="login", stage=Stage.AUTH, refuses=True):
    """Knows a password."""

    password: SecretStr = Field(min_length=4)
    """The password."""
    realm: str = "gateway"
    """Where it is valid."""

    @field_validator("realm")
    @classmethod
    def one_word(cls, value: str, info: ValidationInfo) -> str:
        if value == "leak":
            raise ValueError(f"the password is {info.data['password'].get_secret_value()}")
        if " " in value:
            raise ValueError(f"the realm {value} is more than one word")
        return value

    @field_validator("password")
    @classmethod
    def not_the_usual_one(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() == "hunter2":
            raise ValueError(f"{value.get_secret_value()} is in every list")
        return value


class Broken(Component, name="broken", stage=Stage.TRANSFORM):
    """Cannot read its options."""

    word: str = ""
    """Any word breaks it."""

    @field_validator("word")
    @classmethod
    def look_up(cls, value: str) -> str:
        words: dict[str, str] = {}
        return words[value]


class Bus(Endpoint, name="bus"):
    """Answers over a message bus."""

    channel: str
    """Where to ask."""
    timeout: Time = 3.0
    """How long to wait."""


class Plugin:
    """Offers them."""

    @hookimpl
    def gateway_components(self) -> Iterable[type[Component]]:
        return [Hello, Ration, Login, Broken]

    @hookimpl
    def gateway_endpoints(self) -> Iterable[type[Endpoint]]:
        return [Bus]


class Offer:
    """Offers one component."""

    def __init__(self, component: type[Component]) -> None:
        self.component = component

    @hookimpl
    def gateway_components(self) -> Iterable[type[Component]]:
        return [self.component]


def write(folder: Path, name: str, text: str | bytes) -> Path:
    """A file with this text."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(path: Path, environ: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """What is said about a file, without its name."""
    with pytest.raises(ConfigError) as caught:
        load(path, [Plugin()], environ=environ)
    assert {problem.file for problem in caught.value.problems} == {str(path)}
    return [line.removeprefix(f"{path}:").lstrip() for line in str(caught.value).splitlines()]


def told(folder: Path, text: str, environ: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """What is said about this text as a YAML file."""
    return refused(write(folder, "gateway.yaml", text), environ)
