"""What parts of a configuration ask of each other: variables of paths, and a caller who is known."""

from pathlib import Path
from typing import Any

import pytest

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from tests.processes import asgi_gateway, write

UP = {"up": {"targets": ["http://127.0.0.1:1"]}}
ITEM = {"name": "item", "path": "/items/{id}", "upstream": "up"}
LIST = {"name": "list", "path": "/items", "upstream": "up"}
FILES = {"name": "files", "path": "/files/*", "upstream": "up"}


def telling(value: str) -> dict[str, Any]:
    return {"headers": {"request": {"set": {"x-item": value}}}}


def refused(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Gateway.parse({"upstreams": UP, **document})
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("component", "name"),
    [
        (telling("{nothing}"), "headers"),
        ({"headers": {"response": {"add": {"x-item": "a {nothing} {client}"}}}}, "headers"),
        ({"headers": {"request": {"default": {"x-item": "{nothing}"}}}}, "headers"),
        ({"headers": {"request": {"append": {"x-item": "{nothing}"}}}}, "headers"),
        ({"rewrite": {"path": "/v2/{nothing}/{client}"}}, "rewrite"),
        ({"rewrite": {"query": {"set": {"item": "{nothing}"}}}}, "rewrite"),
        ({"redirect": {"to": "/v2/{nothing}?of={path}"}}, "redirect"),
        ({"respond": {"headers": {"x-item": "{nothing} {id}"}}}, "respond"),
        ({"rate_limit": {"limit": "1/second", "by": "path:nothing"}}, "rate_limit"),
        ({"quota": {"limit": 1, "by": "path:nothing"}}, "quota"),
        ({"concurrency": {"limit": 1, "by": "path:nothing"}}, "concurrency"),
    ],
)
def test_a_variable_that_the_path_has_not_is_refused(component: dict[str, Any], name: str) -> None:
    what = "{nothing} is no variable of '/items/{id}' (known: {id})"
    assert refused({"routes": [LIST, {**ITEM, "components": [component]}]}) == [
        f"routes[1].components[0].{name}: {what}"
    ]


def test_what_several_routes_share_has_to_mean_something_on_one_of_them() -> None:
    shared: dict[str, Any] = {
        "components": [telling("{id}")],
        "policies": {"items": [telling("{id} {*}")]},
        "upstreams": {"up": {**UP["up"], "components": [telling("{id}")]}},
        "routes": [{**ITEM, "policies": ["items"]}, LIST, {**FILES, "policies": ["items"]}],
    }
    Gateway.parse(shared)
    shared["routes"] = [{**LIST, "policies": ["items"]}, FILES, {**ITEM, "enabled": False}]
    known = "{id} is no variable of any of the 2 paths (known: {*})"
    assert refused(shared) == [
        "policies.items[0].headers: {id} is no variable of '/items' (known: none)",
        "policies.items[0].headers: {*} is no variable of '/items' (known: none)",
        f"upstreams.up.components[0].headers: {known}",
        f"components[0].headers: {known}",
    ]


def test_what_is_switched_off_or_passed_by_nobody_asks_for_nothing() -> None:
    off = {"headers": {**telling("{id}")["headers"], "enabled": False}}
    Gateway.parse({"upstreams": UP, "components": [telling("{id}")], "policies": {"p": [telling("{id}")]}})
    Gateway.parse({"upstreams": UP, "routes": [{**LIST, "components": [off]}]})


def test_a_path_that_is_none_is_told_alone() -> None:
    (problem,) = refused({"routes": [{**LIST, "path": "/{a}{b}", "components": [telling("{a}")]}]})
    assert "is not a variable" in problem


def warnings(*components: Any, **more: Any) -> list[str]:
    routes = [{**LIST, "components": list(components)}, {**ITEM, "components": list(components)}]
    return [str(each) for each in Gateway.parse({"upstreams": UP, "routes": routes, **more}).warnings]


@pytest.mark.parametrize(
    ("component", "told"),
    [
        ({"acl": {"groups": ["gold"], "not_consumers": ["acme"]}}, "acl: groups, not_consumers"),
        ({"rate_limit": {"limit": "1/second", "by": "consumer"}}, "rate_limit: by: consumer"),
        ({"rate_limit": {"limit": "1/second", "by": "claim:tenant"}}, "rate_limit: by: claim:tenant"),
        (
            {"rate_limit": {"limit": "1/second", "tiers": [{"groups": ["gold"], "limit": "9/second"}]}},
            "rate_limit: tiers",
        ),
        ({"quota": {"limit": 1}}, "quota: by: consumer"),
        ({"concurrency": {"limit": 1, "by": "group"}}, "concurrency: by: group"),
        ({"canary": {"upstream": "up"}}, "canary: by: consumer"),
        (
            {"rate_limit": {"limit": "1/second", "when": {"consumer": ["acme"]}}},
            "rate_limit: when.consumer",
        ),
    ],
)
def test_who_is_asked_for_where_nobody_finds_out_is_a_warning(component: Any, told: str) -> None:
    name, _, option = told.partition(": ")
    assert warnings(component) == [
        f"route list and 1 more: {name} asks who is calling ({option}), and no AUTH component finds out "
        "(put one on the route, as in key_auth)"
    ]
    assert warnings("key_auth", component) == []
    assert warnings(component, components=["key_auth"]) == []
    assert warnings({"key_auth": {"enabled": False}}, component) != []


@pytest.mark.parametrize("by", ["ip", "route", "cluster", "header:x-app", "query:app"])
def test_what_needs_no_caller_is_no_warning(by: str) -> None:
    assert warnings({"rate_limit": {"limit": "1/second", "by": by}}) == []


def test_what_only_trusted_proxies_may_say_needs_some() -> None:
    component = {"any_of": {"of": ["key_auth", {"mtls": {"header": "x-client-cert"}}]}}
    assert warnings(components=[component]) == [
        "components[0].any_of: only trusted proxies may send x-client-cert, and there are none "
        "(list them in trusted_proxies)"
    ]
    assert warnings(components=[component], trusted_proxies=["10.0.0.0/8"]) == []


async def test_check_says_it(tmp_path: Path) -> None:
    document = {"upstreams": UP, "routes": [{**LIST, "components": [{"acl": {"groups": ["gold"]}}]}]}
    ended = await asgi_gateway("check", str(write(tmp_path / "gateway.yaml", document)))
    assert ended.process.returncode == 0
    assert "warning: route list: acl asks who is calling (groups), and no AUTH component" in str(ended)
