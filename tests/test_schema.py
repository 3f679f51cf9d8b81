import copy
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from asgi_gateway.errors import ConfigError
from asgi_gateway.loading import parse
from asgi_gateway.loading.yaml12 import read_yaml
from asgi_gateway.plugins import Plugins
from asgi_gateway.schema import schema
from tests.sample import Offer, Plugin, Ration

EXAMPLE = """
server: {listen: 127.0.0.1:8000, workers: 1, grace: 30s, limits: {url_bytes: 16KiB}}
upstreams:
  orders:
    targets: [http://127.0.0.1:9001, {url: http://127.0.0.1:9002, weight: 2}]
    balancer: round_robin
    pool: {max_connections: 200, max_waiting: 1000, wait: 1s}
    timeout: {connect: 1s, idle: 10s, total: 3s}
    health: {path: /healthz, interval: 5s}
    ejection: null
    components: [hello]
  profile:
    asgi: examples.profile:app
  bus:
    endpoint: {bus: {channel: orders}}
components:
  - hello
  - ration: {limit: 100/minute, mode: report}
consumers:
  - {name: acme, keys: ["${ACME_KEY:-k}"], groups: [gold]}
policies:
  gold: [ration: {limit: 1000/minute, tiers: [{limit: 5/second}], headers: {x-tier: gold}}]
routes:
  - name: orders
    path: /orders/{id}
    methods: [GET, POST]
    headers: {x-beta: "1"}
    upstream: orders
    policies: [gold]
    timeout: ${TIMEOUT:-3s}
    enabled: ${ENABLED:-true}
    components:
      - hello: {greeting: hi, enabled: true, when: {method: [GET], consumer: [acme]}}
      - hello:
  - {name: profile, host: app.example.com, path: /profile/*, strip_prefix: /profile, upstream: profile}
"""


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return schema(Plugins([Plugin()]))


@pytest.fixture
def document() -> Any:
    return copy.deepcopy(read_yaml(EXAMPLE).data)


def test_the_schema_is_a_schema(whole: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(whole)
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"GatewayConfig", "Component", "Endpoint"}.isdisjoint(whole["$defs"])


def test_every_reference_leads_somewhere(whole: dict[str, Any]) -> None:
    references = set(found(whole, "$ref"))
    assert references <= {f"#/$defs/{name}" for name in whole["$defs"]}


def found(node: Any, key: str) -> Iterator[Any]:
    if isinstance(node, dict):
        if isinstance(node.get(key), str):
            yield node[key]
        for value in node.values():
            yield from found(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from found(value, key)


def test_what_the_schema_allows_is_read(whole: dict[str, Any], document: Any) -> None:
    Draft202012Validator(whole).validate(document)
    parse(document, [Plugin()], environ={})


MISTAKES: list[tuple[tuple[str | int, ...], Any]] = [
    (("sever",), {}),
    (("server", "listn"), "a:1"),
    (("server", "grace"), 30),
    (("server", "grace"), "30"),
    (("server", "limits", "url_bytes"), "16k"),
    (("server", "workers"), "one"),
    (("server", "workers"), 0),
    (("paths",), {"semicolon": "remove"}),
    (("upstreams", "my orders"), {"asgi": "a:b"}),
    (("upstreams", "orders", "target"), []),
    (("upstreams", "orders", "targets", 0), 7),
    (("upstreams", "orders", "targets", 1, "wieght"), 2),
    (("upstreams", "orders", "balancer"), "round-robin"),
    (("upstreams", "orders", "health", "statuses"), [20]),
    (("upstreams", "bus", "endpoint"), "bus"),
    (("upstreams", "bus", "endpoint"), {"buss": {"channel": "x"}}),
    (("upstreams", "bus", "endpoint", "bus", "chanel"), "x"),
    (("components", 0), "helo"),
    (("components", 0), "ration"),
    (("components", 0), 7),
    (("components", 0), {}),
    (("components", 0), {"hello": {}, "ration": {"limit": "1/second"}}),
    (("components", 0), {"hello": {"mode": "report"}}),
    (("components", 0), {"hello": {"greting": "x"}}),
    (("components", 0), {"hello": []}),
    (("components", 1, "ration", "limit"), 100),
    (("components", 1, "ration", "limit"), "100"),
    (("components", 1, "ration", "limt"), "100/minute"),
    (("components", 1, "ration", "mode"), "repot"),
    (("components", 1, "ration"), None),
    (("policies", "gold", 0, "ration", "tiers", 0, "limits"), "1/second"),
    (("policies", "gold", 0, "ration", "headers", "x-tier"), 7),
    (("consumers", 0, "keys", 0), 7),
    (("routes", 0, "upstrem"), "orders"),
    (("routes", 0, "methods"), "GET"),
    (("routes", 0, "headers"), ["x-beta"]),
    (("routes", 0, "timeout"), 3),
    (("routes", 0, "components", 0, "hello", "when", "paht"), "/x"),
    (("routes", 0, "name"), "a/b"),
]


@pytest.mark.parametrize(("place", "value"), MISTAKES, ids=lambda part: str(part))
def test_what_the_schema_refuses_is_refused_when_it_is_read(
    whole: dict[str, Any], document: Any, place: tuple[str | int, ...], value: Any
) -> None:
    node = document
    for part in place[:-1]:
        node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
    node[place[-1]] = value
    assert not Draft202012Validator(whole).is_valid(document)
    with pytest.raises(ConfigError):
        parse(document, [Plugin()], environ={})


def test_docstrings_are_shown_by_editors(whole: dict[str, Any]) -> None:
    definitions = whole["$defs"]
    assert definitions["Route"]["properties"]["upstream"]["description"] == "Which upstream answers."
    assert definitions["Ration"]["description"] == "Limits how often somebody may call."
    assert definitions["Ration"]["properties"]["limit"]["description"] == "How many requests."
    assert definitions["Ration"]["properties"]["mode"]["description"].startswith("`report` records")
    assert "mode" not in definitions["Hello"]["properties"]


def test_defaults_are_written_with_units(whole: dict[str, Any]) -> None:
    definitions = whole["$defs"]
    assert definitions["TimeoutConfig"]["properties"]["connect"]["default"] == "2s"
    assert definitions["Limits"]["properties"]["url_bytes"]["default"] == "16KiB"
    assert definitions["Ration"]["properties"]["window"]["default"] == "1s"
    assert definitions["Upstream"]["properties"]["timeout"]["default"]["idle"] == "30s"


def test_a_gateway_without_plugins_has_a_schema_too() -> None:
    alone = schema(Plugins())
    Draft202012Validator.check_schema(alone)
    checker = Draft202012Validator(alone)
    assert checker.is_valid({"routes": [], "upstreams": {"a": {"asgi": "a:b", "endpoint": None}}})
    assert not checker.is_valid({"components": ["hello"]})


def test_an_option_that_no_schema_can_describe_is_left_to_the_component() -> None:
    class Called(Ration, name="called"):
        """Has an option that only Python can write."""

        function: type[int] = int
        """What is called."""

    odd = schema(Plugins([Offer(Called)]))
    assert odd["$defs"]["Called"]["properties"]["function"] == {"description": "What is called."}


def test_two_components_may_have_classes_of_the_same_name() -> None:
    def make(number: int) -> type[Ration]:
        class Twin(Ration, name=f"twin{number}"):
            """One of two."""

        return Twin

    twins = schema(Plugins([Offer(make(1)), Offer(make(2))]))
    checker = Draft202012Validator(twins)
    assert checker.is_valid(
        {"components": [{"twin1": {"limit": "1/second"}}, {"twin2": {"limit": "1/second"}}]}
    )
    assert not checker.is_valid({"components": ["twin1"]})
