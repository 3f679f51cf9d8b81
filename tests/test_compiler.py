"""What cannot be built is refused as a whole, with sentences; what can be built is built once."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from asgi_gateway.asgi import ASGIApp
from asgi_gateway.component import Build, Component
from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.hookspecs import hookimpl
from asgi_gateway.stage import Stage

made: list[str] = []
closed: list[str] = []


class Quiet(Component, name="quiet", stage=Stage.GUARD):
    """Keeps something, and serves no WebSocket."""

    key: str = "k"
    """What it is kept under."""
    breaks: bool = False
    """Whether it cannot be built."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        def make() -> str:
            made.append(self.key)
            return self.key

        async def close(value: str) -> None:
            closed.append(value)

        build.keep(self.key, make, close=close)
        if self.breaks:
            raise RuntimeError("no")
        return app


class Calls(Component, name="calls", stage=Stage.RESCUE):
    """Calls another upstream."""

    upstream: str
    """Which one."""

    def wrap(self, app: ASGIApp, build: Build) -> ASGIApp:
        build.upstream(self.upstream)
        return app


class Plugin:
    @hookimpl
    def gateway_components(self) -> Iterable[type[Component]]:
        return [Quiet, Calls]


@pytest.fixture(autouse=True)
def forget() -> None:
    made.clear()
    closed.clear()


def document(*components: Any, **route: Any) -> dict[str, Any]:
    routes = [{"name": "a", "path": "/a", "upstream": "up", "components": list(components), **route}]
    return {"upstreams": {"up": {"targets": ["http://127.0.0.1:1"]}}, "routes": routes}


def gateway(document: dict[str, Any]) -> Gateway:
    return Gateway.parse(document, plugins=[Plugin()])


def problems(document: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as refused:
        gateway(document)
    return str(refused.value)


def test_a_component_that_raises_in_wrap_is_a_problem_with_its_place() -> None:
    told = problems(document({"quiet": {"breaks": True}}))
    assert told == "route a: quiet: building quiet failed: RuntimeError: no"
    assert closed == ["k"]


def test_a_component_on_the_wrong_side_is_told_where_it_belongs() -> None:
    told = problems(document({"calls": {"upstream": "up"}}))
    assert told == "route a: calls (RESCUE) belongs on an upstream, not on a route"


def test_upstreams_that_call_each_other_in_a_circle_are_refused() -> None:
    wanted = document()
    wanted["upstreams"]["up"]["components"] = [{"calls": {"upstream": "other"}}]
    wanted["upstreams"]["other"] = {
        "targets": ["http://127.0.0.1:2"],
        "components": [{"calls": {"upstream": "up"}}],
    }
    assert "in a circle: up -> other -> up" in problems(wanted)


def test_a_websocket_cannot_get_around_a_guard() -> None:
    assert "quiet does not serve WebSocket" in problems(document("quiet", websocket=True))


def test_two_routes_with_one_meaning_are_both_named() -> None:
    wanted = document()
    wanted["routes"].append({"name": "b", "path": "/a", "upstream": "up"})
    told = problems(wanted)
    assert "'a'" in told
    assert "'b'" in told


async def test_what_a_new_configuration_asks_for_again_is_the_same_object() -> None:
    before = gateway(document({"quiet": {"key": "one"}}))
    async with before.lifespan():
        await before.reload(gateway(document({"quiet": {"key": "one"}}, priority=1)).config)
        assert made == ["one", "one"]  # once for each of the two gateways
        assert closed == []
        await before.reload(gateway(document({"quiet": {"key": "two"}})).config)
        await before._kernel.resources.settle()
        assert closed == ["one"]


async def test_a_refused_configuration_changes_nothing() -> None:
    running = gateway(document({"quiet": {"key": "one"}}))
    plan, held = running.plan, len(running._kernel.resources)
    broken = document({"quiet": {"key": "two"}})
    other = gateway(broken).config
    bad = other.model_copy(
        update={"routes": (*other.routes, other.routes[0].model_copy(update={"name": "twin"}))}
    )
    with pytest.raises(ConfigError):
        await running.reload(bad)
    await running._kernel.resources.settle()
    assert running.plan == plan
    assert len(running._kernel.resources) == held


def test_two_gateways_in_one_process_share_nothing() -> None:
    one, two = gateway(document({"quiet": {"key": "k"}})), gateway(document({"quiet": {"key": "k"}}))
    assert made == ["k", "k"]
    assert one._kernel is not two._kernel


def test_what_is_wrong_with_an_upstream_is_said_once() -> None:
    document = {
        "upstreams": {"a": {"asgi": "no_such_module:app"}},
        "routes": [{"name": f"r{number}", "path": f"/{number}", "upstream": "a"} for number in range(3)],
    }
    with pytest.raises(ConfigError) as refused:
        Gateway.parse(document)
    assert len(refused.value.problems) == 1


def test_tls_files_of_an_upstream_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    tls = {"ca": "/nowhere/ca.pem", "certificate": str(tmp_path / "no.pem")}
    document = {
        "upstreams": {"a": {"targets": ["https://a.test"], "tls": tls}},
        "routes": [{"name": "r", "path": "/", "upstream": "a"}],
    }
    with pytest.raises(ConfigError) as refused:
        Gateway.parse(document)
    told = str(refused.value).splitlines()
    assert told[0].startswith("upstream a: tls.ca /nowhere/ca.pem cannot be read: No such file")
    assert "upstream a: tls.certificate" in told[1]
    assert "files in PEM are needed" in told[1]
    os.mkfifo(tmp_path / "pipe.pem")
    tls = {"ca": str(tmp_path / "pipe.pem")}
    document["upstreams"] = {"a": {"targets": ["https://a.test"], "tls": tls}}
    with pytest.raises(ConfigError, match="cannot be read: it is a pipe or a device, not a file"):
        Gateway.parse(document)


def test_conditions_on_consumers_that_nobody_declares_are_refused() -> None:
    document = {
        "upstreams": {"a": {"asgi": "tests.server.apps:app"}},
        "consumers": [{"name": "alice", "keys": ["k"]}],
        "components": [{"headers": {"request": {"set": {"x-a": "b"}}, "when": {"consumer": ["alic"]}}}],
        "routes": [{"name": "r", "path": "/", "upstream": "a"}],
    }
    with pytest.raises(ConfigError) as refused:
        Gateway.parse(document)
    assert str(refused.value) == (
        "components[0].headers.when.consumer: no consumer is called 'alic' (did you mean 'alice'?)"
    )


def test_policies_that_nobody_uses_are_a_warning() -> None:
    document = {
        "upstreams": {"a": {"asgi": "tests.server.apps:app"}},
        "policies": {"used": ["request_id"], "gold": ["request_id"]},
        "routes": [{"name": "r", "path": "/", "upstream": "a", "policies": ["used"]}],
    }
    assert [str(warning) for warning in Gateway.parse(document).warnings] == [
        "policies.gold: no route uses this policy"
    ]


def test_what_is_wrong_with_a_shared_component_is_told_once() -> None:
    document = {
        "upstreams": {"a": {"targets": ["http://a.test"]}},
        "policies": {"inner": [{"ip_filter": {"deny_files": ["/nowhere/two"]}}]},
        "components": [{"ip_filter": {"deny_files": ["/nowhere/one"]}}],
        "routes": [
            {"name": f"r{n}", "path": f"/{n}", "upstream": "a", "policies": ["inner"]} for n in range(20)
        ],
    }
    with pytest.raises(ConfigError) as refused:
        Gateway.parse(document)
    assert [problem.what for problem in refused.value.problems] == [
        "/nowhere/two cannot be read: No such file or directory",
        "/nowhere/one cannot be read: No such file or directory",
    ]
