from collections.abc import Iterable
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from asgi_gateway.consumers import Consumer, Consumers
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.hookspecs import hookimpl

FINGERPRINT = "AB:" * 31 + "AB"


def consumer(name: str, **credentials: Any) -> Consumer:
    return Consumer.model_validate({"name": name, **credentials})


ACME = {
    "keys": ["k-1"],
    "basic": [{"username": "acme", "password": "hush"}],
    "hmac": [{"id": "acme-1", "secret": "0123456789abcdef"}],
    "certificates": [FINGERPRINT, "CN=acme,O=Acme"],
    "subjects": ["u-17"],
}


def test_each_credential_finds_its_consumer() -> None:
    acme = consumer("acme", **ACME)
    known = Consumers([acme, consumer("other")])
    password, secret = known.password("acme"), known.secret("acme-1")
    assert password is not None
    assert (password.owner, password.equals(b"hush"), password.equals(b"hus")) == (acme, True, False)
    assert secret == (acme, b"0123456789abcdef")
    assert known.with_certificate("ab" * 32) is known.with_certificate("CN=acme,O=Acme") is acme
    assert known.with_subject("u-17") is known.with_key(b"k-1") is acme
    assert known.get("nobody") is known.password("x") is known.secret("x") is known.with_subject("x") is None


@pytest.mark.parametrize("kind", ACME)
def test_two_consumers_never_share_a_credential(kind: str) -> None:
    with pytest.raises(ConfigError, match="'a' and 'b' have the same") as error:
        Consumers([consumer("a", **{kind: ACME[kind]}), consumer("b", **{kind: ACME[kind]})])
    assert "hush" not in str(error.value)
    assert "0123456789" not in str(error.value)


def test_one_name_has_one_password() -> None:
    twice = [{"username": "u", "password": "one"}, {"username": "u", "password": "two"}]
    with pytest.raises(ConfigError, match="'a' has the user name 'u' twice"):
        Consumers([consumer("a", basic=twice)])


def test_no_secret_is_shown() -> None:
    known = Consumers([consumer("acme", **ACME)])
    told = repr(known.password("acme")) + repr(known["acme"]) + known["acme"].model_dump_json()
    assert "hush" not in told
    assert "0123456789abcdef" not in told


@pytest.mark.parametrize(
    "wrong", [{"basic": [{"username": "a:b", "password": "x"}]}, {"hmac": [{"id": "a", "secret": "short"}]}]
)
def test_what_cannot_be_a_credential_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        consumer("acme", **wrong)


class Directory:
    """A plugin that knows callers."""

    def __init__(self, *known: Any) -> None:
        self.known: Iterable[Any] = known

    @hookimpl
    def gateway_consumers(self) -> Iterable[Consumer]:
        return self.known


DOCUMENT: dict[str, Any] = {"consumers": [{"name": "acme", "keys": ["k-1"]}]}


async def test_consumers_come_from_plugins_too_and_are_asked_for_at_every_reload() -> None:
    directory = Directory(Consumer(name="bold", keys=(SecretStr("k-2"),)))
    gateway = Gateway.parse(DOCUMENT, plugins=[directory])
    assert [each.name for each in gateway._live.consumers] == ["acme", "bold"]
    directory.known = ()
    await gateway.reload(gateway.config)
    assert [each.name for each in gateway._live.consumers] == ["acme"]


def test_what_a_plugin_says_wrongly_is_an_error() -> None:
    with pytest.raises(ConfigError, match="two consumers are called 'acme'"):
        Gateway.parse(DOCUMENT, plugins=[Directory(Consumer(name="acme"))])
    with pytest.raises(ConfigError, match="gave a str, not a Consumer"):
        Gateway.parse(DOCUMENT, plugins=[Directory("acme")])
