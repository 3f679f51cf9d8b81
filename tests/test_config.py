from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from asgi_gateway import config
from asgi_gateway.config import GatewayConfig, Route, Upstream, Use
from asgi_gateway.consumers import Consumer
from asgi_gateway.declaration import descriptions
from asgi_gateway.loading import parse
from asgi_gateway.plugins import Plugins
from asgi_gateway.references import check_references
from tests.sample import Hello, Plugin, Ration


def models() -> Iterator[type[BaseModel]]:
    for name in config.__all__:
        kind = getattr(config, name)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind
    yield Consumer


@pytest.mark.parametrize("model", list(models()))
def test_every_field_of_every_model_is_described(model: type[BaseModel]) -> None:
    assert model.__doc__
    assert [name for name in model.model_fields if name not in descriptions(model)] == []
    assert model.model_config["frozen"]
    assert model.model_config["extra"] == "forbid"


def test_a_configuration_is_written_as_it_is_read() -> None:
    document: dict[str, Any] = {
        "server": {"grace": "1m", "limits": {"url_bytes": "8KiB"}},
        "upstreams": {
            "a": {"targets": ["http://a"], "ejection": None, "components": ["hello"]},
            "b": {"endpoint": {"bus": {"channel": "x", "timeout": "250ms"}}},
        },
        "policies": {"p": [{"ration": {"limit": "5/second", "mode": "report", "headers": {"a": "b"}}}]},
        "routes": [{"name": "r", "path": "/", "upstream": "a", "policies": ["p"], "timeout": "3s"}],
    }
    read, plugins = parse(document, [Plugin()])
    for dumped in (read.model_dump(mode="json"), read.model_dump(), read.model_dump(exclude_defaults=True)):
        assert parse(dumped, [Plugin()])[0] == read
    ration = read.model_dump(exclude_defaults=True)["policies"]["p"][0]
    assert ration == {"ration": {"limit": "5/second", "headers": {"a": "b"}, "mode": "report"}}
    assert read.upstreams["b"].model_dump(exclude_defaults=True)["endpoint"] == {
        "bus": {"channel": "x", "timeout": "250ms"}
    }
    assert isinstance(plugins, Plugins)


def test_names_have_no_meaning_without_plugins() -> None:
    with pytest.raises(ValidationError, match="a name has no meaning here: pass an object"):
        GatewayConfig(components=["hello"])


def test_a_report_of_what_never_refuses_is_refused_in_python_too() -> None:
    with pytest.raises(ValidationError, match="hello never refuses"):
        Use(component=Hello(), mode="report")
    assert Use(component=Ration(limit="1/second"), mode="report").mode == "report"


def test_references_are_checked_without_a_document() -> None:
    made = GatewayConfig(
        upstreams={"orders": Upstream(asgi="a:b")},
        routes=[Route(name="a", path="/", upstream="order", policies=["gold"])],
    )
    assert [str(problem) for problem in check_references(made)] == [
        "routes[0].upstream: no upstream is called 'order' (did you mean 'orders'?)",
        "routes[0].policies[0]: no policy is called 'gold'",
    ]


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:0", "[::1]:8000", "0.0.0.0:65535", "gateway.local:80", "unix:/run/g.sock"]
)
def test_addresses_to_listen_on(listen: str) -> None:
    assert GatewayConfig(server={"listen": listen}).server.listen == listen


@pytest.mark.parametrize(
    "listen", ["", ":8000", "::1:8000", "[::1]", "a:65536", "a:٣", "a:-1", "unix:", "a:"]
)
def test_addresses_that_are_none(listen: str) -> None:
    with pytest.raises(ValidationError):
        GatewayConfig(server={"listen": listen})
