"""Options of `breaker`, `bulkhead`, `fallback` and `fault` that say nothing, or too much."""

from typing import Any

import pytest
from pydantic import ValidationError

from asgi_gateway.component import Component
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway_plugins.breaker import Breaker
from asgi_gateway_plugins.bulkhead import Bulkhead
from asgi_gateway_plugins.fallback import Fallback
from asgi_gateway_plugins.fault import Fault

WRONG: list[tuple[type[Component], dict[str, Any]]] = [
    (Breaker, {"failure_rate": None}),
    (Breaker, {"failure_rate": 0}),
    (Breaker, {"failure_rate": 1.1}),
    (Breaker, {"trials": 0}),
    (Breaker, {"statuses": [200]}),
    (Breaker, {"by": "caller"}),
    (Breaker, {"open_for": "0s"}),
    (Bulkhead, {}),
    (Bulkhead, {"in_flight": 0}),
    (Bulkhead, {"in_flight": 1, "queue": -1}),
    (Fallback, {}),
    (Fallback, {"answer": {"status": 101}}),
    (Fallback, {"answer": {"headers": {"content-length": "3"}}}),
    (Fallback, {"answer": {"headers": {"Transfer_Encoding": "x"}}}),
    (Fallback, {"answer": {"headers": {"upgrade": "x"}}}),
    (Fallback, {"answer": {"headers": {"a b": "3"}}}),
    (Fallback, {"answer": {"content_type": "a\nb"}}),
    (Fallback, {"stale": True, "on": ["luck"]}),
    (Fallback, {"stale": True, "mark": "a b"}),
    (Fault, {}),
    (Fault, {"abort": 200}),
    (Fault, {"abort": "anything"}),
    (Fault, {"abort": 503, "abort_percent": 101}),
]


@pytest.mark.parametrize(("kind", "options"), WRONG, ids=[f"{kind.name} {said}" for kind, said in WRONG])
def test_wrong_options_are_refused(kind: type[Component], options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(options)


@pytest.mark.parametrize(("other", "says"), [("spara", "spare"), ("up", "circle")], ids=["unknown", "itself"])
def test_another_upstream_has_to_be_there(other: str, says: str) -> None:
    up = {"targets": ["http://127.0.0.1:1"], "components": [{"fallback": {"upstream": other}}]}
    with pytest.raises(ConfigError, match=says):
        Gateway.parse(
            {
                "upstreams": {"up": up, "spare": {"targets": ["http://127.0.0.1:2"]}},
                "routes": [{"name": "all", "path": "/*", "upstream": "up"}],
            }
        )


@pytest.mark.parametrize("name", ["retry", "breaker", "bulkhead", "fallback", "fault"])
def test_they_stand_on_upstreams(name: str) -> None:
    options: Any = {"bulkhead": {"in_flight": 1}, "fallback": {"stale": True}, "fault": {"abort": 503}}
    with pytest.raises(ConfigError, match="belongs on an upstream"):
        Gateway.parse(
            {
                "upstreams": {"up": {"targets": ["http://127.0.0.1:1"]}},
                "routes": [
                    {
                        "name": "a",
                        "path": "/",
                        "upstream": "up",
                        "components": [{name: options.get(name, {})}],
                    }
                ],
            }
        )
